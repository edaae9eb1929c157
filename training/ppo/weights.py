# SPDX-License-Identifier: Apache-2.0
"""A hash of a policy's weights: whether two are the same."""

from __future__ import annotations

import hashlib
from pathlib import Path


def weights_of(policy: Path) -> str:
    """Return a hash of a policy's weights.

    Raises:
        FileNotFoundError: there are none.
    """
    path = policy / "model.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"policy '{policy}' has no model.safetensors; where has it gone?")
    return hashlib.sha256(path.read_bytes()).hexdigest()
