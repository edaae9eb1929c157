# SPDX-License-Identifier: Apache-2.0
"""Finished journals of one bright or dark frame a step, for the tests of judging and of data sets."""

from pathlib import Path

import numpy as np

from lrm_ros.config import CameraSpec, RobotContract
from lrm_ros.record.writer import JournalWriter
from lrm_ros.types import Frame

CONTRACT = RobotContract(cameras=(CameraSpec("front", 16, 8),))


def journal(
    path: Path,
    lights: list[int | None],
    outcome: bool | None,
    task: str = "put the toy in the bowl",
    contract: RobotContract = CONTRACT,
) -> Path:
    """A finished journal whose frames have the given brightness; ``None``: that frame was lost."""
    writer = JournalWriter(path, task, contract, "policy", "png")
    for step, light in enumerate(lights, start=1):
        ns = step * 100_000_000
        writer.state(ns, [0.0] * 6)
        if light is not None:
            writer.frame(Frame(ns - 10_000_000, "front", np.full((8, 16, 3), light, np.uint8)))
        writer.sent(ns, np.zeros(6, np.float32))
    return writer.finish(outcome=outcome)
