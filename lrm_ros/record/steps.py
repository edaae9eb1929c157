# SPDX-License-Identifier: Apache-2.0
"""Whether an episode has what its steps need: joint states and frames close enough to every sent command."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any


class Steps:
    """The stamps of an episode as it is recorded."""

    def __init__(self, cameras: Sequence[str], oldest_s: float, frames_oldest_s: float | None) -> None:
        """Begin without a stamp.

        Args:
            cameras: names of the cameras.
            oldest_s: a step needs a joint state that is not older than this [s].
            frames_oldest_s: and a frame of each camera not older than this [s]; ``None``: not every step has one.
        """
        self._states: list[int] = []
        self._sent: list[int] = []
        self._frames: dict[str, list[int]] = {camera: [] for camera in cameras}
        self._oldest_s, self._frames_oldest_s = oldest_s, frames_oldest_s

    def add(self, kind: str, *values: Any) -> None:
        """Note a message, given as the journal's writer gets it; of other kinds than these nothing is noted.

        Args:
            kind: ``"state"`` or ``"joints"``, ``"sent"`` (a step), ``"frame"`` or ``"file"``.
            values: the stamp [ns] and more, or the frame.
        """
        if kind in ("state", "joints"):
            self._states.append(values[0])
        elif kind == "sent":
            self._sent.append(values[0])
        elif kind in ("frame", "file"):
            self._frames[values[0].camera].append(values[0].stamp_ns)

    def has_frame(self, camera: str, stamp_ns: int) -> bool:
        """Return whether a camera has a frame of a stamp [ns]."""
        return stamp_ns in self._frames.get(camera, ())

    def last_frames(self) -> dict[str, int]:
        """Return the stamp of each camera's last frame [ns]; a camera without one is left out."""
        return {camera: max(stamps) for camera, stamps in self._frames.items() if stamps}

    def gaps(self, dt_s: float) -> dict[str, int]:
        """Return for each topic how many steps have nothing of the control period before them, where some have not."""
        topics = {"joint_states": self._states}
        if self._frames_oldest_s is not None:
            topics |= {f"{camera}/image_raw": stamps for camera, stamps in self._frames.items()}
        counts = {topic: _without(self._sent, stamps, round(1.5e9 * dt_s)) for topic, stamps in topics.items()}
        return {topic: count for topic, count in counts.items() if count}

    def faults(self) -> dict[str, str]:
        """Return what the episode lacks, one line for each topic; empty if it is whole."""
        found: dict[str, str] = {}
        inputs: list[tuple[str, str, list[int], float | None]] = [
            ("joint_states", "joint state", self._states, self._oldest_s)
        ]
        for camera, frames in self._frames.items():
            inputs.append((f"{camera}/image_raw", "frame", frames, self._frames_oldest_s))
        for topic, what, stamps, oldest_s in inputs:
            if not stamps:
                found[topic] = f"'{topic}': not one {what} in the episode"
            elif oldest_s is not None and (without := _without(self._sent, stamps, round(oldest_s * 1e9))):
                found[topic] = (
                    f"'{topic}': {without} of {len(self._sent)} steps have no {what} of the {oldest_s:.2g} s before; "
                    "messages were lost, or came too seldom"
                )
        if not self._sent:
            found["joint_command_sent"] = (
                "'joint_command_sent': not one command was sent in the episode, so it has no step: was the arm "
                "commanded, and does its node publish what it sends?"
            )
        return found


def _without(sent: Sequence[int], stamps: Sequence[int], oldest_ns: int) -> int:
    """Return how many commands, after the first one, have no stamp that is at most so much older."""
    stamps = sorted(stamps)
    without = 0
    for ns in sent:
        index = bisect_right(stamps, ns) - 1
        # One that was sent before the first message came is no step.
        without += index >= 0 and ns - stamps[index] > oldest_ns
    return without
