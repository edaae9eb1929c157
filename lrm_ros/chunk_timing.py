# SPDX-License-Identifier: Apache-2.0
"""When the next action chunk is predicted in real time, and how many of its actions are sent, from how long it takes.

A chunk answers an observation: its action k is for the control step k periods after it. While it is predicted the arm
goes on with the chunk before, so the next prediction begins that much before the executed part ends, and a chunk is
sent with enough actions to last until the result of the one after it. The actions whose time has passed when a chunk
arrives are skipped by the arm's server.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

# Before the end of the executed part, beyond what a prediction takes: the state of the last step, and its jitter.
MARGIN_STEPS = 1.5
# Images come a little earlier or later than their period says.
JITTER = 1.2


class ChunkTiming:
    """Plans by the slowest of the last predictions."""

    def __init__(self, dt_s: float, execute_steps: int) -> None:
        """Plan for a control period [s] and a number of actions executed of a chunk."""
        self._dt_s = dt_s
        self.execute_steps = execute_steps
        self._taken_s: deque[float] = deque(maxlen=10)

    def took(self, seconds: float) -> None:
        """Note how long it was from an observation to its chunk [s]."""
        self._taken_s.append(seconds)

    @property
    def latency_s(self) -> float:
        """The slowest of the last predictions [s]; 0 before the first."""
        return max(self._taken_s, default=0.0)

    @property
    def delay_steps(self) -> int:
        """Control steps that pass while a chunk is predicted."""
        return math.ceil(self.latency_s / self._dt_s - 1e-6)

    def due_ns(self, chunk_ns: int) -> int:
        """Return the stamp from which on an observation is to be answered [ns].

        Args:
            chunk_ns: stamp of the observation which the running chunk answers [ns].
        """
        lead_s = self.latency_s + MARGIN_STEPS * self._dt_s
        return chunk_ns + round(1e9 * (self.execute_steps * self._dt_s - lead_s))

    def steps(self, predicted: int) -> int:
        """Return how many of the predicted actions are sent: the executed ones, and what a late next chunk needs."""
        return min(predicted, max(self.execute_steps, self.needed_steps))

    @property
    def needed_steps(self) -> int:
        """Actions from an observation until the chunk after the next one can be here."""
        return math.ceil(2 * self.latency_s / self._dt_s + MARGIN_STEPS - 1e-6)

    def shortage(self, predicted: int) -> str:
        """Return why the arm will pause between two chunks, empty if it will not.

        Args:
            predicted: length of the predicted chunk.
        """
        if self.needed_steps <= max(predicted, self.execute_steps):
            return ""
        return (
            f"a prediction takes {self.latency_s:.2f} s and a chunk of {predicted} steps lasts "
            f"{predicted * self._dt_s:.2f} s: the arm waits between chunks; it needs {self.needed_steps} steps, "
            "a faster device or a smaller policy"
        )


class ImageTimes:
    """Whether the newest images of all cameras are so young that a better moment will not come.

    Younger than half a control period: an image follows its joint state. Cameras that are triggered each by itself are
    seldom all that young: at the best moment the oldest of n images of one rate is up to (n - 1) / n of a period old.
    """

    def __init__(self, cameras: Sequence[str], dt_s: float) -> None:
        """Know no image of these cameras yet; ``dt_s``: control period [s]."""
        self._dt_s = dt_s
        self._came_s: dict[str, deque[float]] = {camera: deque(maxlen=3) for camera in cameras}

    def came(self, camera: str, now_s: float) -> None:
        """Note that an image has come; ``now_s``: steady time [s]."""
        self._came_s[camera].append(now_s)

    def young(self, now_s: float) -> bool:
        """Return whether every camera has an image that is young enough; ``now_s``: steady time [s]."""
        if not all(self._came_s.values()):
            return False
        share = 1 - 1 / len(self._came_s) if self._came_s else 0.0
        limit_s = max(self._dt_s / 2, JITTER * share * max(map(_period_s, self._came_s.values()), default=0.0))
        return all(now_s - came_s[-1] < limit_s for came_s in self._came_s.values())


def _period_s(came_s: Sequence[float]) -> float:
    """Return the shorter of the last two intervals [s], so that one pause makes no slow camera; 0: not known."""
    return min((after - before for before, after in zip(list(came_s), list(came_s)[1:], strict=False)), default=0.0)
