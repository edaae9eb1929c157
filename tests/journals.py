# SPDX-License-Identifier: Apache-2.0
"""Finished journals of one bright or dark frame a step, for the tests of judging and of data sets."""

from pathlib import Path

import numpy as np

from lrm_ros.config import CameraSpec, RobotContract
from lrm_ros.record.writer import JournalWriter
from lrm_ros.types import Frame

CONTRACT = RobotContract(cameras=(CameraSpec("front", 16, 8),))


def journal(path: Path, lights: list[int], outcome: bool | None) -> Path:
    """A finished journal whose frames have the given brightness."""
    writer = JournalWriter(path, "put the toy in the bowl", CONTRACT, "policy", "png")
    for step, light in enumerate(lights, start=1):
        ns = step * 100_000_000
        writer.state(ns, [0.0] * 6)
        writer.frame(Frame(ns, "front", np.full((8, 16, 3), light, np.uint8)))
        writer.sent(ns, np.zeros(6, np.float32))
    return writer.finish(outcome=outcome)
