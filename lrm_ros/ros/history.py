# SPDX-License-Identifier: Apache-2.0
"""The states and frames of the last control steps, for a policy that looks back."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lrm_ros.types import Frame, Observation

T = TypeVar("T")

_SPARE_STEPS = 3  # kept beyond what is looked back: a frame may be so much older than the joint state


class History:
    """Keeps what came for as long as it can be asked for; keeps nothing for a policy that sees the present alone."""

    def __init__(self, cameras: Sequence[str], dt_ns: int) -> None:
        """Keep nothing yet.

        Args:
            cameras: names.
            dt_ns: control period [ns].
        """
        self._dt_ns, self._steps = dt_ns, 1
        self._states: deque[tuple[int, NDArray[np.float32]]] = deque()
        self._frames: dict[str, deque[tuple[int, Frame]]] = {camera: deque() for camera in cameras}

    def look_back(self, steps: int) -> None:
        """Set how many control steps the policy looks at, the present one included; forgets what came."""
        self._steps = steps
        self.clear()

    def clear(self) -> None:
        """Forget what came."""
        self._states.clear()
        for frames in self._frames.values():
            frames.clear()

    def add_state(self, stamp_ns: int, state: NDArray[np.float32]) -> None:
        """Keep a joint state (D,) [rad]."""
        self._add(self._states, stamp_ns, state)

    def add_frame(self, frame: Frame) -> None:
        """Keep a frame."""
        self._add(self._frames[frame.camera], frame.stamp_ns, frame)

    def _add(self, kept: deque[tuple[int, T]], stamp_ns: int, item: T) -> None:
        if self._steps == 1:
            return
        kept.append((stamp_ns, item))
        while kept[0][0] < stamp_ns - (self._steps + _SPARE_STEPS) * self._dt_ns:
            kept.popleft()

    def complete(self, observation: Observation, begin_ns: int, every_step: bool) -> Observation:
        """Return an observation with those of the control steps before it.

        The state and each frame of k steps before are the nearest to those of the observation less k periods, and no
        more than half a step younger: of a slow camera one frame may serve for two steps. Steps before the
        episode's first observation, or of which nothing came, are left out: a policy then looks at the oldest that it
        has, as LeRobot does at the beginning of an episode.

        Args:
            observation: what is seen now.
            begin_ns: stamp of the episode's first observation [ns].
            every_step: in lock-step: all of every step must be here, with its stamp.

        Raises:
            ValueError: with ``every_step``, something of a step is not here; says what.
        """
        before: list[Observation] = []
        for back in range((self._steps - 1) * self._dt_ns, 0, -self._dt_ns):
            if observation.stamp_ns - back < begin_ns - self._dt_ns // 2:
                continue
            state = self._nearest(self._states, observation.stamp_ns - back, every_step)
            frames = {
                name: self._nearest(self._frames[name], frame.stamp_ns - back, every_step)
                for name, frame in observation.frames.items()
            }
            missing = [name for name, frame in frames.items() if frame is None] + ["joint state"] * (state is None)
            if missing and every_step:
                raise ValueError(
                    f"the policy looks at {self._steps} control steps, and there is no {missing[0]} of {back / 1e9:g} s"
                    " before the newest; let the twin show every step (frame_every 1)"
                )
            if state is not None and not missing:
                seen = {name: frame for name, frame in frames.items() if frame is not None}
                before.append(Observation(observation.stamp_ns - back, seen, state, observation.task))
        return dataclasses.replace(observation, before=tuple(before))

    def _nearest(self, kept: deque[tuple[int, T]], stamp_ns: int, exact: bool) -> T | None:
        """Return the item nearest to a stamp of those at most half a step younger; if ``exact`` nor older than that."""
        half = self._dt_ns // 2
        near = min(
            (one for one in kept if one[0] <= stamp_ns + half), key=lambda one: abs(one[0] - stamp_ns), default=None
        )
        return near[1] if near is not None and (not exact or near[0] >= stamp_ns - half) else None
