# SPDX-License-Identifier: Apache-2.0
"""Decoded messages of a journal as functions of time: which point, which answer, which leader is due at a stamp."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.types import Reward, Unscored


def stamp(message: Any) -> int:
    """Return the stamp of a decoded message [ns]."""
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


def led_by_person(leaders: Sequence[Any], ns: int) -> bool:
    """Return whether the newest message up to a stamp [ns] says that a person leads."""
    index = bisect_right(leaders, ns, key=stamp) - 1
    return index >= 0 and any(status.message == "person" for status in leaders[index].status)


def reorder(values: Sequence[float], names: Sequence[str], joints: Sequence[str]) -> NDArray[np.float32]:
    """Return joint values (D,) float32 in the contract's order."""
    if tuple(names) != tuple(joints):
        values = [values[list(names).index(joint)] for joint in joints]
    return np.asarray(values, np.float32)


class Points:
    """Trajectories as a function of time: which point is due at a stamp."""

    def __init__(self, messages: list[Any], joints: Sequence[str], dt_s: float) -> None:
        self._messages, self._joints, self._dt_ns = messages, joints, dt_s * 1e9
        self._stamps = [stamp(message) for message in messages]

    def at(self, ns: int) -> NDArray[np.float32] | None:
        """Return the point of the newest trajectory that covers ``ns``, (D,) [rad]; None if none does."""
        index = bisect_right(self._stamps, ns) - 1
        if index < 0:
            return None
        message = self._messages[index]
        k = round((ns - self._stamps[index]) / self._dt_ns)
        if k >= len(message.points):
            return None
        return reorder(message.points[k].positions, message.joint_names, self._joints)


class Answers:
    """Rewards as a function of time: the newest answer of each head about a frame up to a stamp."""

    def __init__(self, messages: list[Any]) -> None:
        self._by_head: dict[str, list[Reward | Unscored]] = {}
        for message in messages:
            ns = stamp(message)
            for status in message.status:
                values = {pair.key: pair.value for pair in status.values}
                answer: Reward | Unscored = Unscored(ns, status.name, status.message)
                if "value" in values:
                    known = {key: float(values[key]) for key in ("latency_s", "mass") if key in values}
                    answer = Reward(ns, status.name, float(values["value"]), values.get("model", ""), **known)
                self._by_head.setdefault(status.name, []).append(answer)
        for answers in self._by_head.values():
            answers.sort(key=lambda answer: answer.stamp_ns)  # they arrive as they are ready, not as they were asked

    def at(self, ns: int) -> dict[str, Reward | Unscored]:
        """Return the newest answer of each head."""
        found = {}
        for head, answers in self._by_head.items():
            index = bisect_right(answers, ns, key=lambda answer: answer.stamp_ns) - 1
            if index >= 0:
                found[head] = answers[index]
        return found
