# SPDX-License-Identifier: Apache-2.0
"""TensorBoard events of a refinement: the numbers of every iteration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Events:
    """Writes into a run folder from the first iteration on; before that nothing is there."""

    def __init__(self, run: str) -> None:
        """Find TensorBoard.

        Raises:
            RuntimeError: it is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise RuntimeError(
                "tensorboard is true, but the package is not installed: pip install 'lrm_ros[train]', or leave it false"
            ) from error
        self._run, self._type = run, SummaryWriter
        self._writer: Any = None

    def add(self, line: Mapping[str, Any]) -> None:
        """Write the numbers of a line of the history."""
        self._writer = self._writer or self._type(self._run)
        for name, value in line.items():
            if isinstance(value, float):
                self._writer.add_scalar(name, value, line["iteration"])

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
