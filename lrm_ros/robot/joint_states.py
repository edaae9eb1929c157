# SPDX-License-Identifier: Apache-2.0
"""Joint states as drivers publish them -> the state of all joints of the contract, also from several messages.

An arm's driver and a gripper's, or two joint_state_broadcasters, each publish a part; others add joints that no
contract names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract
from lrm_ros.robot.limits import Plausibility

# The positions of all joints must be of this time to make up a state [ns].
TOGETHER_NS = 500_000_000
_FORMS = 64  # so many lists of names are remembered


class JointStates:
    """Keeps the newest position of every joint; a joint that stops makes the state incomplete.

    Attributes:
        anew: in the state that was returned last every joint has come again since the last one of which this holds.
            So many states there really are: messages in parts each give one, with old positions of the other joints.
        slowest: joints that came last to make it so; empty: all came at once.
    """

    def __init__(self, contract: RobotContract) -> None:
        """Know no position yet."""
        self._joints = contract.joints
        self._plausibility = Plausibility(contract)
        self._forms: dict[tuple[str, ...], list[int | None]] = {}
        self._positions = [0.0] * len(self._joints)
        self._stamps: list[int | None] = [None] * len(self._joints)
        self._incomplete_ns: int | None = None
        self.anew, self.slowest = False, ""
        self._came: set[int] = set()  # joints since the last state of new positions

    def add(
        self, stamp_ns: int, names: Sequence[str], positions: Sequence[float], now_s: float
    ) -> NDArray[np.float32] | None:
        """Take one message and return the state.

        Args:
            stamp_ns: its stamp [ns].
            names: joint names in any order, also of joints that are not in the contract.
            positions: of these joints [rad].
            now_s: when it came, of a clock that does not go back [s].

        Returns:
            (D,) float32 positions in the contract's order [rad]; ``None`` after a message of other joints only, and
            while joints are missing that may still come.

        Raises:
            ValueError: a joint has no position or two, or one that is not finite or cannot be in radians, or has been
                missing for too long; names the joint and the cure.
        """
        form = tuple(names)
        columns = self._forms.get(form)
        if columns is None:
            if len(self._forms) >= _FORMS:
                self._forms.clear()
            if twice := [joint for joint in self._joints if form.count(joint) > 1]:
                raise ValueError(
                    f"joint_states has joint {', '.join(twice)} more than once in a message; its driver must name each "
                    "joint once"
                )
            columns = [form.index(joint) if joint in form else None for joint in self._joints]
            self._forms[form] = columns
        ours = not form or any(column is not None for column in columns)
        if len(positions) != len(form) and ours:  # a joint that is not the contract's may have no position
            raise ValueError(
                f"joint_states has {len(positions)} positions for {len(form)} names; its driver must publish the "
                "position of each joint that it names"
            )
        values = [None if column is None else positions[column] for column in columns]
        bad = [
            f"{joint} = {value}"
            for joint, value in zip(self._joints, values, strict=True)
            if value is not None and not math.isfinite(value)
        ]
        if bad:
            raise ValueError(f"joint_states has {', '.join(bad)}; check the arm's encoders or driver")
        self._plausibility.check(values, now_s)
        for index, value in enumerate(values):
            if value is not None:
                self._positions[index], self._stamps[index] = value, stamp_ns
                self._came.add(index)
        if not (missing := self._missing(stamp_ns)):
            self._incomplete_ns = None
            if all(value is None for value in values):
                return None  # of other joints only: nothing new
            self.anew = len(self._came) == len(self._joints)
            if self.anew:
                here = [joint for joint, value in zip(self._joints, values, strict=True) if value is not None]
                self.slowest = ", ".join(here) if len(here) < len(self._joints) else ""
                self._came.clear()
            return np.array(self._positions, np.float32)
        if self._incomplete_ns is None or stamp_ns < self._incomplete_ns:
            self._incomplete_ns = stamp_ns
        if stamp_ns - self._incomplete_ns > TOGETHER_NS:
            raise ValueError(self._lacking(missing))
        return None

    def lacking(self) -> str:
        """Say which joints have never come; empty if none is missing."""
        missing = [joint for joint, stamp in zip(self._joints, self._stamps, strict=True) if stamp is None]
        return self._lacking(missing) if missing and self._forms else ""

    def _missing(self, stamp_ns: int) -> list[str]:
        """Return the joints without a position of about this time."""
        return [
            joint
            for joint, stamp in zip(self._joints, self._stamps, strict=True)
            if stamp is None or abs(stamp_ns - stamp) > TOGETHER_NS
        ]

    def _lacking(self, missing: Sequence[str]) -> str:
        seen = sorted({name for form in self._forms for name in form})
        return (
            f"joint_states lacks joint {', '.join(missing)}; it has {', '.join(seen) or 'no names'}: start the driver "
            "of the missing joints, or make the robot contract's joint names match"
        )
