# SPDX-License-Identifier: Apache-2.0
"""Finished journals of one bright or dark frame a step, for the tests of judging and of data sets."""

from pathlib import Path
from typing import Any

import numpy as np

from lrm_ros.config import CameraSpec, RobotContract
from lrm_ros.record.writer import JournalWriter
from lrm_ros.types import Frame, Reward

CONTRACT = RobotContract(cameras=(CameraSpec("front", 16, 8),))
ARM = RobotContract(
    joints=("a", "b"), lower=(-1.0, -1.0), upper=(1.0, 1.0), max_step=(1.0, 1.0), cameras=(CameraSpec("front", 16, 8),)
)
DT = 100_000_000


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


def three_steps(path: Path, image_format: str = "png", **arguments: Any) -> JournalWriter:
    """Three steps of a robot with a wheel that is not the contract's."""
    writer = JournalWriter(path, "put the toy in the bowl", ARM, "policy", image_format, **arguments)
    for k in range(1, 4):
        ns = k * DT
        writer.joints(ns, ["wheel", "b", "a"], [9.0, 0.5, k / 100], [0.1, 0.2, 0.3], [1.0, 2.0, 3.0])
        writer.frame(Frame(ns, "front", np.full((8, 16, 3), k, np.uint8)))
        writer.sent(ns, np.array([k / 100, 0.1], np.float32))
        writer.rewards([Reward(ns, "progress", k / 10)], "front")
    return writer
