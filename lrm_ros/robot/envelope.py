# SPDX-License-Identifier: Apache-2.0
"""The envelope of a real arm: of any wishes, at any rate, it makes targets that stay inside every limit.

Targets are samples of one motion: each joint has a position and a velocity, its velocity changes by at most
``max_acceleration`` a second, and at every moment the arm could brake to a stand without leaving its joint limits or
its box. What a period brings is checked with the braking that would follow it; if that leaves the box, less of it is
taken, at last none: the arm brakes on the way that was checked before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract
from lrm_ros.config_arm import KEPT_M, EnvelopeSettings
from lrm_ros.robot.limits import checked
from lrm_ros.robot.profile import Floats, approach, brake
from lrm_ros.robot.urdf import LinkPoints, Urdf

SLOW = 0.2  # an arm found outside comes back with this share of its velocity
# When a motion is looked at against the box, as shares of the period and of the braking after it.
_EARLY, _LATE = np.linspace(0, 1, 7)[:, None], np.linspace(0, 1, 11)[1:, None]
_ROUNDING_M = 1e-6  # what float32 joint positions move a point by, and more
_SAME_M = 1e-12  # a point that stands is found so near where it was
_SHARES = (1.0, 0.4)  # of a joint's wish, tried in turn where all of all wishes would leave the box
_PERIODS = 2.0  # after a pause of more control periods than this the arm has braked meanwhile


class Envelope:
    """The limiter of a real arm; of several at once for measurements, each with a state of its own (rows).

    Attributes:
        position: (N, D) last targets [rad].
        velocity: (N, D) of the motion at the last targets [rad/s].
        blocked: (N,) whether the box held the last wish back.
        lower: (D,) lowest targets [rad]: the contract's limits, rounded inwards to float32.
        upper: (D,) highest targets [rad].
        highest: (D,) velocities [rad/s]: of the settings, or the contract's ``max_step`` a control period if lower.
        acceleration: (D,) [rad/s^2].
    """

    def __init__(
        self, contract: RobotContract, settings: EnvelopeSettings, urdf: Urdf | None = None, arms: int = 1
    ) -> None:
        """Know the limits; :meth:`start` comes before the first step.

        Args:
            contract: joints, their limits, ``max_step`` and the control period that it is for.
            settings: the other limits.
            urdf: of the arm, with the contract's joint names; needed for a box.
            arms: N, how many are moved at once.

        Raises:
            ValueError: limits for another number of joints, a box without a URDF, or links or joints that the URDF
                does not have.
        """
        self._contract = contract
        for name in ("max_velocity", "max_acceleration"):
            if len(values := getattr(settings, name)) != len(contract.joints):
                raise ValueError(
                    f"envelope of '{contract.name}': {name} has {len(values)} values, there are "
                    f"{len(contract.joints)} joints: {', '.join(contract.joints)}"
                )
        self.lower, self.upper = _inwards(contract.lower, np.inf), _inwards(contract.upper, -np.inf)
        self.highest = np.minimum(settings.max_velocity, np.divide(contract.max_step, contract.dt_s))
        self.acceleration: Floats = np.array(settings.max_acceleration, dtype=np.float64)
        self._longest_s = _PERIODS * contract.dt_s
        self._points: LinkPoints | None = None
        if settings.box_lower:
            if urdf is None:
                raise ValueError(f"envelope of '{contract.name}': a box needs the arm's URDF; name it or leave the box")
            self._points = LinkPoints(urdf, contract.joints, settings.points)
            self._box = np.array([settings.box_lower, settings.box_upper])
            self._inner = self._box + np.array([[KEPT_M], [-KEPT_M]])
        self.position: Floats = np.full((arms, len(contract.joints)), np.nan)
        self.velocity: Floats = np.zeros_like(self.position)
        self.blocked = np.zeros(arms, dtype=bool)

    # -- one arm -----------------------------------------------------------------------------------------------------

    def start(self, position: NDArray) -> None:
        """Begin at rest where the arm is, inside its limits or not.

        Args:
            position: (D,) measured [rad]; (N, D) for several arms.

        Raises:
            ValueError: a wrong shape or a value that is not finite, naming the joint.
        """
        rows = [checked(row, "joint position", self._contract) for row in np.atleast_2d(position)]
        self.position = np.array(np.broadcast_to(rows, self.position.shape))
        self.velocity = np.zeros_like(self.position)
        self.blocked[:] = False

    def step(self, wish: NDArray, dt: float, speed: float = np.inf) -> Floats:
        """Return the next target (D,) [rad] of one arm, on the way to a wish.

        Args:
            wish: (D,) absolute joint positions [rad].
            dt: time since the last target [s].
            speed: highest velocity of this step beside the limits, above 0 and not below that of the motion [rad/s].

        Raises:
            ValueError: see ``lrm_ros.robot.limits.checked``; or a period that is not above 0. The state is as before.
        """
        return self.advance(
            checked(wish, "joint target", self._contract)[None], self._period(dt), np.zeros(1, dtype=bool), speed
        )[0]

    def hold(self, dt: float) -> Floats:
        """Return the next target (D,) [rad] of one arm that brakes, and stays once it stands.

        Args:
            dt: time since the last target [s].

        Raises:
            ValueError: a period that is not above 0.
        """
        return self.advance(self.position, self._period(dt), np.ones(1, dtype=bool))[0]

    def outside(self, position: NDArray) -> str:
        """Say which of the points are outside of the box at (D,) joint positions [rad]; empty if none is."""
        if self._points is None:
            return ""
        points = self._points(checked(position, "joint position", self._contract))
        bad = ((points < self._inner[0]) | (points > self._inner[1])).any(axis=-1)
        found = [
            f"'{name}' would be at {', '.join(f'{value:.3f}' for value in point)} m"
            for name, point, out in zip(self._points.links, points, bad, strict=True)
            if out
        ]
        return f"{' and '.join(found)}, outside of the box" if found else ""

    @property
    def target(self) -> Floats:
        """The last target (D,) of one arm [rad]."""
        return self.position[0]

    @property
    def standing(self) -> bool:
        """Whether the motion has come to a stand."""
        return not self.velocity.any()

    @staticmethod
    def _period(dt: float) -> Floats:
        if not 0 < dt < np.inf:
            raise ValueError(f"the period is {dt} s; give the time since the last target, above 0")
        return np.array([dt])

    # -- all arms ----------------------------------------------------------------------------------------------------

    def advance(self, wishes: Floats, dt: Floats, hold: NDArray[np.bool_], speed: float = np.inf) -> Floats:
        """Return the next targets (N, D) [rad].

        Args:
            wishes: (N, D) finite.
            dt: (N,) time since the last target, above 0 [s].
            hold: (N,) brake instead.
            speed: highest velocity, see :meth:`step`.
        """
        if not np.isfinite(self.position).all():
            raise RuntimeError("the envelope does not know where the arm is; call start first")
        # A pause: it has braked meanwhile, on the way that was checked.
        pause = np.maximum(dt - self._longest_s, 0.0)[:, None]
        position, velocity = brake(self.position, self.velocity, self.acceleration, pause)
        time = np.minimum(dt, self._longest_s)[:, None]
        low, high = np.minimum(self.lower, position), np.maximum(self.upper, position)
        outside = (position < self.lower) | (position > self.upper)
        share = np.ones_like(position)
        points = None
        if self._points is not None:
            points = self._points(position)
            outside |= ((points < self._box[0]) | (points > self._box[1])).any(axis=(1, 2))[:, None]
        motion = _Motion(
            position,
            velocity,
            np.clip(wishes, self.lower, self.upper),
            np.minimum(np.where(outside, SLOW * self.highest, self.highest), speed),
            np.broadcast_to(self.acceleration, position.shape),
            time,
        )
        share[hold] = 0.0
        self.blocked[:] = False
        if points is not None:
            rows = np.flatnonzero(~hold & ~self._far(motion, points))
            share[rows] = self._allowed(motion.rows(rows), points[rows])
            self.blocked[rows] = (share[rows] < 1).any(axis=1)
        position, self.velocity = motion.at(share, time)
        self.position = np.clip(position, low, high)
        return self.position.copy()

    # -- the box -----------------------------------------------------------------------------------------------------

    def _far(self, motion: _Motion, points: Floats) -> NDArray[np.bool_]:
        """Return (N,) whether no point can reach the box within a period and the braking after it."""
        assert self._points is not None
        _, after = motion.at(np.ones_like(motion.position), motion.time)
        speed = np.maximum(np.abs(motion.velocity), np.abs(after)) + self.acceleration * motion.time / 2
        way = np.minimum(speed, self.highest) * motion.time + after**2 / (2 * self.acceleration)
        reach = (way @ self._points.reach.T)[..., None]
        return ((points - reach >= self._inner[0]) & (points + reach <= self._inner[1])).all(axis=(1, 2))

    def _allowed(self, motion: _Motion, points: Floats) -> Floats:
        """Return (N, D) how much of each joint's motion may be taken: all, or what fits joint by joint."""
        assert self._points is not None
        share = np.ones_like(motion.position)
        rest = np.flatnonzero(~self._inside(motion, points, share))
        if not len(rest):
            return share
        share[rest] = 0.0
        for joint in range(share.shape[1]):
            if not self._points.reach[:, joint].any():
                share[rest, joint] = 1.0
                continue
            twice = np.concatenate([rest] * len(_SHARES))
            tried = share[twice]
            tried[:, joint] = np.repeat(_SHARES, len(rest))
            good = self._inside(motion.rows(twice), points[twice], tried).reshape(len(_SHARES), -1)
            share[rest, joint] = (good * np.array(_SHARES)[:, None]).max(axis=0)
        return share

    def _inside(self, motion: _Motion, now: Floats, share: Floats) -> NDArray[np.bool_]:
        """Return (N,) whether all points stay in the box in a period and in the braking after it.

        Sampled; between two samples a point goes no further than its reach of what the joints move. A point that is
        outside of a side of the box goes no further away from one sample to the next.
        """
        assert self._points is not None
        acceleration = motion.acceleration[:, None]
        end, after = motion.at(share, motion.time)
        until = motion.time[..., None]  # (N, 1, 1)
        braking = (np.abs(after) / motion.acceleration).max(axis=1)[:, None, None]
        time = np.concatenate([until * _EARLY, until + braking * _LATE], axis=1)  # (N, S, 1)
        step = np.diff(time, axis=1)
        early, speed = motion.spread().at(share[:, None], np.minimum(time, until))
        late, slowing = brake(end[:, None], after[:, None], acceleration, np.maximum(time - until, 0.0))
        joints, speed = np.where(time <= until, early, late), np.abs(np.where(time <= until, speed, slowing))
        # How far each joint moves between two samples at most (N, S - 1, D); nothing if it stands all the time.
        way = (np.maximum(speed[:, 1:], speed[:, :-1]) + acceleration * step / 2) * step
        way = np.where(((speed > 0).any(axis=1) | (end != motion.position))[:, None], way, 0.0)
        beyond = (way @ self._points.reach.T)[..., None] / 2 + _ROUNDING_M
        points = self._points(joints)
        low, high = np.minimum(points[:, 1:], points[:, :-1]), np.maximum(points[:, 1:], points[:, :-1])
        low_side, high_side = now < self._box[0], now > self._box[1]
        good = points[:, 1:] >= np.minimum(self._inner[0], points[:, :-1]) - _SAME_M
        good &= points[:, 1:] <= np.maximum(self._inner[1], points[:, :-1]) + _SAME_M
        between = (low - beyond >= self._box[0]) | low_side[:, None]
        between &= (high + beyond <= self._box[1]) | high_side[:, None]
        return good.all(axis=(1, 2, 3)) & between.all(axis=(1, 2, 3))


@dataclass(frozen=True)
class _Motion:
    """What the joints would do in a period: approach their goals; all (N, D), time (N, 1)."""

    position: Floats
    velocity: Floats
    goal: Floats
    highest: Floats
    acceleration: Floats
    time: Floats

    def at(self, share: Floats, time: Floats) -> tuple[Floats, Floats]:
        """Return (position, velocity) after a time, of a share of the approach and the rest of braking.

        Limits of position, velocity, acceleration and stop point are convex: what holds for both holds between them.
        """
        there, fast = approach(self.position, self.velocity, self.goal, self.highest, self.acceleration, time)
        here, slow = brake(self.position, self.velocity, self.acceleration, time)
        return here + share * (there - here), slow + share * (fast - slow)

    def rows(self, rows: NDArray[np.intp]) -> _Motion:
        """Return some arms' motions."""
        return _Motion(*(values[rows] for values in vars(self).values()))

    def spread(self) -> _Motion:
        """Return the motion with an axis for several times."""
        return _Motion(*(values[:, None] for values in vars(self).values()))


def _inwards(limits: Sequence[float], way: float) -> Floats:
    """Return limits that float32 holds exactly, not beyond those given; ``way``: infinity that lies inside."""
    exact, rounded = np.array(limits, dtype=np.float64), np.array(limits, dtype=np.float32)
    over = (rounded < exact) if way > 0 else (rounded > exact)
    return np.where(over, np.nextafter(rounded, np.float32(way)), rounded).astype(np.float64)
