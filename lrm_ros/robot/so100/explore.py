# SPDX-License-Identifier: Apache-2.0
"""Exploration noise in Cartesian space: the gripper is offset from the policy's target early on, then returns.

A policy that knows a task from few demonstrations mostly fails by reaching beside the object. One offset in the plane
of the table, the same from the start of the episode until after the grasp, sometimes corrects that; what was executed
is then a label for where the policy should have gone. Noise on single joints hardly ever does: it lifts the hand or
hits the table. Without an offset a success teaches nothing new: its labels are what the policy says anyway.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lrm_ros.robot.so100.kinematics import shift
from lrm_ros.types import ActionChunk


def draw_offset(std_m: float, seed: int, episode: int) -> NDArray[np.float64]:
    """Return the (3,) offset [m] of an episode: Gaussian in x and y of ``base_link``, zero in z.

    Args:
        std_m: standard deviation [m]; 0: no exploration.
        seed: seed of the exploration.
        episode: number of the episode since the seed was set.
    """
    if std_m <= 0:
        return np.zeros(3)
    return np.append(np.random.default_rng((seed, episode)).normal(0.0, std_m, 2), 0.0)


def explored(chunk: ActionChunk, offset: NDArray, begin_ns: int, hold_s: float, fade_s: float) -> ActionChunk:
    """Return a chunk whose targets are moved by an offset early in the episode.

    Args:
        chunk: what the policy wants.
        offset: (3,) movement of the gripper in ``base_link`` [m].
        begin_ns: stamp of the episode's first observation [ns].
        hold_s: the offset is whole for this long [s],
        fade_s: then goes to zero in this time [s].
    """
    if not offset.any():
        return chunk
    since_s = (chunk.stamp_ns - begin_ns) / 1e9 + chunk.dt_s * np.arange(len(chunk.actions))
    share = np.clip(1 - (since_s - hold_s) / fade_s, 0, 1)
    moved = [shift(a, offset * s) if s > 0 else a for a, s in zip(chunk.actions, share, strict=True)]
    return ActionChunk(chunk.stamp_ns, np.stack(moved), chunk.dt_s)
