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

from lrm_ros.config import PolicyConfig, RobotContract
from lrm_ros.robot.so100.kinematics import require_so100, shift
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


class Exploration:
    """The offsets of a policy's episodes: the n-th draw since a seed was set.

    Attributes:
        offset: (3,) of this episode [m].
        episode_seed: of whatever a policy draws in this episode.
    """

    def __init__(self) -> None:
        """Draw nothing yet."""
        self.offset: NDArray[np.float64] = np.zeros(3)
        self.episode_seed = 0
        self._episodes = 0
        self._drawn_with: int | None = None  # seed of the last offset
        self._begin_ns: int | None = None  # stamp of the episode's first chunk

    def begin(self, config: PolicyConfig, contract: RobotContract) -> None:
        """Begin an episode: draw its offset.

        Raises:
            ValueError: exploration is on, and the arm is another one.
        """
        if config.explore_std > 0:
            require_so100(contract, "exploration", "set the policy's explore_std to 0")
        self._episodes = 0 if config.seed != self._drawn_with else self._episodes + 1
        self._drawn_with, self._begin_ns = config.seed, None
        self.episode_seed = int(np.random.SeedSequence((config.seed, self._episodes)).generate_state(1)[0])
        self.offset = draw_offset(config.explore_std, config.seed, self._episodes)

    def moved(self, chunk: ActionChunk, config: PolicyConfig) -> ActionChunk:
        """Return a chunk of this episode with its targets moved."""
        if self._begin_ns is None:
            self._begin_ns = chunk.stamp_ns
        return explored(chunk, self.offset, self._begin_ns, config.explore_hold_s, config.explore_fade_s)
