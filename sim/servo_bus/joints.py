# SPDX-License-Identifier: Apache-2.0
"""What moves behind the bus: the interface that any physics can take, and a simple arm that needs none.

The servos' firmware asks of the joints no more than :class:`Joints`: a simulator stands behind the bus by doing the
same (target -> drive target, gain -> stiffness, limit -> force limit).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

NO_LOAD_SPEED = 4.7  # rad/s at full duty: 0.222 s for 60 degrees, Feetech's data sheet of the STS3215


@dataclass(frozen=True)
class Drive:
    """What a servo's motor is told for one step.

    Attributes:
        target: angle in rad that it is to be at.
        gain: duty for a rad of error; 1 is full duty.
        limit: highest duty, 0 to 1, as a share of the stall torque; 0 is limp.
    """

    target: float
    gain: float
    limit: float


@dataclass(frozen=True)
class JointState:
    """Angle in rad, velocity in rad/s, and the motor's effort, -1 to 1, as a share of its stall torque."""

    position: float
    velocity: float = 0.0
    effort: float = 0.0


class Joints(Protocol):
    """The joints of one arm, in the order of its servos."""

    def step(self, dt: float, drives: Sequence[Drive]) -> None:
        """Let ``dt`` seconds pass with the motors driven so."""

    def states(self) -> Sequence[JointState]:
        """Return each joint's state now."""


@dataclass(frozen=True)
class Joint:
    """A joint of the simple arm.

    Attributes:
        name: as in LeRobot's drivers.
        low: lower mechanical stop, rad.
        high: upper mechanical stop, rad.
        rest: angle to which gravity pulls it, rad.
        weight: most that gravity asks of the motor, as a share of its stall torque.
    """

    name: str
    low: float
    high: float
    rest: float = 0.0
    weight: float = 0.0


# The published URDF of the SO-101, TheRobotStudio/SO-ARM100: Simulation/SO101/so101_new_calib.urdf at commit
# 385e8d7c68e24945df6c60d9bd68837a4b7411ae: each joint's limits are its mechanical stops here. Its zeros are the middle
# of each joint's range (README.md beside it), but the gripper's, and wrist_roll's is 0.049 rad below it. Names and
# order are those of LeRobot's driver. Rest and weight are assumed: folded up, and what gravity asks of a motor there.
SO101 = (
    Joint("shoulder_pan", -1.91986, 1.91986),
    Joint("shoulder_lift", -1.74533, 1.74533, -1.7, 0.25),
    Joint("elbow_flex", -1.69, 1.69, 1.6, 0.2),
    Joint("wrist_flex", -1.65806, 1.65806, 0.9, 0.05),
    Joint("wrist_roll", -2.74385, 2.84121),
    Joint("gripper", -0.174533, 1.74533),
)


class SimpleJoints:
    """Geared DC motors without inertia: the speed is what the duty leaves after gravity, of the no-load speed.

    A motor so driven reaches its target as a first-order system, stands off it under gravity (there is no integral
    part), falls slowly where it is limp, and stalls with its full duty at a stop or at what it holds.
    """

    def __init__(self, joints: Sequence[Joint] = SO101) -> None:
        """Start in the rest pose."""
        self.joints = tuple(joints)
        self._index = {joint.name: i for i, joint in enumerate(self.joints)}
        self._stops = [(joint.low, joint.high) for joint in self.joints]
        self._states = [JointState(joint.rest) for joint in self.joints]

    def step(self, dt: float, drives: Sequence[Drive]) -> None:
        """Let ``dt`` seconds pass, at most a few milliseconds, with one drive a joint."""
        for i, (joint, drive, state) in enumerate(zip(self.joints, drives, self._states, strict=True)):
            effort = max(-drive.limit, min(drive.limit, drive.gain * (drive.target - state.position)))
            pull = joint.weight * math.tanh((joint.rest - state.position) / 0.2)
            low, high = self._stops[i]
            position = max(low, min(high, state.position + NO_LOAD_SPEED * (effort + pull) * dt))
            self._states[i] = JointState(position, (position - state.position) / dt, effort)

    def states(self) -> Sequence[JointState]:
        """Return each joint's state now."""
        return tuple(self._states)

    def place(self, name: str, angle: float) -> None:
        """Put a joint to an angle in rad, as by hand; a stop is where it ends.

        Raises:
            ValueError: no such joint.
        """
        i = self._of(name)
        low, high = self._stops[i]
        self._states[i] = JointState(max(low, min(high, angle)))

    def carry(self) -> None:
        """Let a hand bear its weight, as a person does with a leader: gravity pulls at no joint any more."""
        self.joints = tuple(replace(joint, weight=0.0) for joint in self.joints)

    def block(self, name: str, low: float | None = None, high: float | None = None) -> None:
        """Put something in a joint's way, e.g. an object between the jaws: it passes neither angle (rad).

        None is the joint's own stop, so that both take away what was there.

        Raises:
            ValueError: no such joint, or no room between the two.
        """
        i = self._of(name)
        joint = self.joints[i]
        stops = (joint.low if low is None else low, joint.high if high is None else high)
        if stops[0] >= stops[1]:
            raise ValueError(f"'{name}' cannot stay between {stops[0]} and {stops[1]} rad; give the lower one first")
        self._stops[i] = stops

    def _of(self, name: str) -> int:
        if name not in self._index:
            raise ValueError(f"no joint '{name}'; there are {', '.join(self._index)}")
        return self._index[name]
