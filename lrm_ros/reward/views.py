# SPDX-License-Identifier: Apache-2.0
"""Several cameras that judge one scene: which frames are of one time, and the mean of the answers about them.

Where frames of several cameras stand in one list, each view is the first camera's frame and, behind it, what the others
showed at that time. The reward node puts its views together as frames come (``lrm_ros.ros.views``).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from lrm_ros.config import RobotContract, camera_names
from lrm_ros.types import Frame, Reward, Unscored

TOGETHER_NS = 500_000_000  # frames of one time are at most so far apart in real time [ns]


def judge_cameras(names: str, contract: RobotContract) -> tuple[str, ...]:
    """Return the cameras that judge.

    Args:
        names: one or several, separated by commas; empty: the contract's first.
        contract: what cameras there are.

    Raises:
        ValueError: one is not there, or is named twice.
    """
    there = [camera.name for camera in contract.cameras]
    if not names.strip():
        return tuple(there[:1])
    found = camera_names(names)
    if strange := [name for name in found if name not in there]:
        raise ValueError(
            f"judge_camera '{names}': contract '{contract.name}' has no camera '{strange[0]}', only: {', '.join(there)}"
        )
    if len(set(found)) < len(found):
        raise ValueError(f"judge_camera '{names}' names a camera twice; give different ones, separated by commas")
    return found


def side_by_side(frames: Mapping[str, Sequence[Frame]]) -> list[Frame]:
    """Return the frames of several cameras view by view.

    Args:
        frames: camera -> its frames, oldest first; the first camera's are the times of the views, and of each other
            camera a view has the frame that is nearest in time, if that is near enough.
    """
    first, *others = frames.values()
    stamps = [[frame.stamp_ns for frame in other] for other in others]
    found: list[Frame] = []
    for frame in first:
        found.append(frame)
        for other, times in zip(others, stamps, strict=True):
            at = bisect_left(times, frame.stamp_ns)
            near = min(other[max(0, at - 1) : at + 1], key=lambda o: abs(o.stamp_ns - frame.stamp_ns), default=None)
            if near is not None and abs(near.stamp_ns - frame.stamp_ns) <= TOGETHER_NS:
                found.append(near)
    return found


def views_of(frames: Sequence[Frame], cameras: Sequence[str]) -> list[list[Frame]]:
    """Return the views in a list of frames; with one camera, or none named, each frame is one."""
    views: list[list[Frame]] = []
    for frame in frames:
        if len(cameras) < 2 or frame.camera == cameras[0] or not views:
            views.append([])
        views[-1].append(frame)
    return views


def every(frames: Sequence[Frame], cameras: Sequence[str], step: int) -> list[Frame]:
    """Return every ``step``-th view in a list of frames, from the first on."""
    return list(chain.from_iterable(views_of(frames, cameras)[::step]))


def newest(frames: Sequence[Frame], cameras: Sequence[str], count: int) -> list[Frame]:
    """Return the last ``count`` views in a list of frames."""
    return list(chain.from_iterable(views_of(frames, cameras)[-count:]))


def joined(
    frames: Sequence[Frame], answers: Sequence[Reward | Unscored], cameras: Sequence[str]
) -> list[Reward | Unscored]:
    """Return one answer a view, in order, with the stamp of its first frame.

    Args:
        frames: view by view.
        answers: to each of the frames.
        cameras: who judges; with one, or none named, the answers are returned as they are.
    """
    if len(cameras) < 2:
        return list(answers)
    left = iter(answers)
    found = []
    for view in views_of(frames, cameras):
        given = {frame.camera: next(left) for frame in view}
        first = next(iter(given.values()))
        found.append(mean(given, cameras, first.head, view[0].stamp_ns))
    return found


def mean(
    answers: Mapping[str, Reward | Unscored], cameras: Sequence[str], head: str, stamp_ns: int
) -> Reward | Unscored:
    """Return the mean of the cameras' answers about one time; one that lacks or is unscored makes it unscored.

    Args:
        answers: camera -> its answer.
        cameras: who judges.
        head: that was asked.
        stamp_ns: of the view [ns].
    """
    found: list[Reward] = []
    for camera in cameras:
        if camera not in answers:
            return Unscored(stamp_ns, head, f"camera '{camera}' has no frame of that time")
        answer = answers[camera]
        if isinstance(answer, Unscored):
            return Unscored(stamp_ns, head, f"camera '{camera}': {answer.reason}")
        found.append(answer)
    masses = [answer.mass for answer in found if answer.mass is not None]
    value = float(np.mean([answer.value for answer in found]))
    latency_s = max(answer.latency_s for answer in found)
    return Reward(stamp_ns, head, value, found[0].model, latency_s, min(masses, default=None))
