# SPDX-License-Identifier: Apache-2.0
"""Controls of a reward model that reads and looks: the same training without the text, or without the pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLIND = ("text", "pictures")
BLIND_TASK = "do the task"  # what a model without text reads, whatever it is asked
GREY = 128  # what a model without pictures sees


def blind_task(task: str, blind: str = "") -> str:
    """Return the text that a model reads; ``blind`` is one of ``BLIND`` or empty."""
    return BLIND_TASK if blind == "text" else task


def blind_images(images: NDArray[np.uint8], blind: str = "") -> NDArray[np.uint8]:
    """Return the images (..., H, W, 3) that a model sees; ``blind`` is one of ``BLIND`` or empty."""
    return np.full_like(images, GREY) if blind == "pictures" else images
