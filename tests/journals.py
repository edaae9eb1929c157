# SPDX-License-Identifier: Apache-2.0
"""Finished journals of one bright or dark frame a step, and what a reader must make of a damaged one."""

from pathlib import Path
from typing import Any

import numpy as np

from lrm_ros.config import CameraSpec, RobotContract
from lrm_ros.record.journal import JournalError, iter_frames, last_frames, read_info, read_journal, recover
from lrm_ros.record.writer import JournalWriter
from lrm_ros.types import Episode, Frame, Reward

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


def fields_of(episode: Episode) -> list[Any]:
    """Everything an episode says, as plain values."""
    about: list[Any] = [episode.task, episode.fps, episode.outcome, episode.source]
    for step in episode.steps:
        frames = [(name, frame.stamp_ns, frame.image.tobytes()) for name, frame in step.observation.frames.items()]
        seen = (step.observation.stamp_ns, step.observation.state.tolist(), frames)
        about.append((seen, step.action.tolist(), step.wish.tolist(), dict(step.rewards)))
    return about


def check_journal(good: Path, whole: Episode, content: bytes, folder: Path) -> None:
    """Read and recover damaged content in an empty folder."""
    path = folder / "e.mcap"
    path.write_bytes(content)
    wanted = {
        read_journal: lambda found: fields_of(found) == fields_of(whole),
        read_info: lambda found: found == read_info(good),
        lambda path: last_frames(path, "front", 2): lambda found: [f.stamp_ns for f in found] == [2 * DT, 3 * DT],
        lambda path: list(iter_frames(path, "front")): lambda found: len(found) == 3,
    }
    for read, right in wanted.items():
        try:
            found = read(path)
        except JournalError as error:
            assert str(path) in str(error)
        else:
            assert right(found), read
    try:
        recovered = recover(path)
    except ValueError as error:
        assert str(path) in str(error) and "holds nothing readable" in str(error)
        assert sorted(p.name for p in folder.iterdir()) == ["e.mcap"]
        return
    assert sorted(p.name for p in folder.iterdir()) == ["e.mcap", "e_recovered.mcap"]
    try:
        part = read_journal(recovered)
    except JournalError as error:
        assert str(recovered) in str(error)
    else:
        assert read_info(recovered).recovered and part.task == whole.task
        steps = {step.observation.stamp_ns: step.action.tolist() for step in whole.steps}
        assert all(steps[step.observation.stamp_ns] == step.action.tolist() for step in part.steps)
