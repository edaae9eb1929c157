# SPDX-License-Identifier: Apache-2.0
"""One training of the improver's loop, as the words of the program that does it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lrm_ros.config import FinetuneConfig
from lrm_ros.config_files import option_words


@dataclass(frozen=True)
class Training:
    """A training of the loop.

    Attributes:
        out: where its checkpoint goes.
        datasets: folders of its data sets.
        settings: how it is trained.
        contract_file: by which data sets are read that do not tell limits and units; empty: none is such.
    """

    out: Path
    datasets: tuple[Path, ...]
    settings: FinetuneConfig
    contract_file: str = ""

    @property
    def words(self) -> list[str]:
        """Options of ``lrm_ros.training.policy.finetune``."""
        folders = [f"--out={self.out}", *(f"--dataset={folder}" for folder in self.datasets)]
        folders += [f"--contract={self.contract_file}"] if self.contract_file else []
        return folders + option_words(self.settings)

    @property
    def done(self) -> bool:
        """Whether the checkpoint is complete."""
        return (self.out / "finetune.json").exists()
