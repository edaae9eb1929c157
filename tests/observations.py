# SPDX-License-Identifier: Apache-2.0
"""What a policy sees, made up: one grey camera image and an arm at rest."""

from __future__ import annotations

import numpy as np

from lrm_ros.types import Frame, Observation

TASK = "put the red toy pig in the bowl"


def observation(light: int = 100, stamp: int = 0, pan: float = 0.0) -> Observation:
    frame = Frame(stamp, "front", np.full((96, 96, 3), light, np.uint8))
    return Observation(stamp, {"front": frame}, np.array([pan, -1.2, 1.1, 1.2, 0, 0.2], np.float32), TASK)
