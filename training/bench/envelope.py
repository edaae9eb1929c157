# SPDX-License-Identifier: Apache-2.0
"""``lrm bench envelope``: random and adversarial wishes through the envelope of an SO-101 and its emulated servos.

In simulated time, with the code that an arm's node runs. What is sent is looked at with other formulas than those that
made it: differences of the targets, and the points of the URDF. A positive excess is a limit that was passed; the
servos' joints follow as the emulated ones do: they sag under gravity and stand between steps, which no envelope of
targets can mend, so the share of the limits and of the box that they need as margin is reported.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract
from lrm_ros.config_arm import EnvelopeSettings
from lrm_ros.options import whole
from lrm_ros.progress import progress_bar
from lrm_ros.robot.envelope import Envelope
from lrm_ros.robot.limits import checked
from lrm_ros.robot.urdf import LinkPoints, Urdf
from lrm_ros.ros.transport import share_file
from lrm_ros.sim.servo_bus import protocol
from lrm_ros.sim.servo_bus.arm import Arm
from lrm_ros.sim.servo_bus.joints import SimpleJoints
from lrm_ros.sim.servo_bus.protocol import Packet
from lrm_ros.sim.servo_bus.registers import REGISTERS
from lrm_ros.sim.servo_bus.units import Mounting

JOINTS = RobotContract().joints
# A little inside the SO-101's stops; a leader's rate.
CONTRACT = RobotContract(
    name="so101",
    joints=JOINTS,
    lower=(-1.85, -1.70, -1.65, -1.60, -2.70, -0.15),
    upper=(1.85, 1.70, 1.65, 1.60, 2.70, 1.70),
    max_step=(0.05, 0.05, 0.05, 0.05, 0.08, 0.08),
    control_hz=30.0,
)
SETTINGS = EnvelopeSettings(
    max_velocity=(1.5, 1.5, 1.5, 2.0, 3.0, 3.0),
    max_acceleration=(8.0, 8.0, 8.0, 12.0, 20.0, 20.0),
    box_lower=(-0.20, -0.35, 0.04),
    box_upper=(0.30, 0.30, 0.40),
)
KINDS = ("random", "bang-bang", "at the limits", "corners", "tremor", "jumps", "not finite", "hold")
LEROBOT = {"P_Coefficient": 16, "Acceleration": 254}  # what LeRobot's follower writes
ROWS, COMMANDS = 50, 500  # arms of a round, and commands to each
# What rounding may add: of float64, and for the joints of the servos half a step of their encoders.
ROUNDING = {"joint_rad": 0.0, "step_rad": 1e-12, "velocity": 1e-9, "acceleration": 1e-5, "box_m": 0.0}
OUTSIDE_M = 0.001  # a point found outside the box may go so far the wrong way between two looks


def urdf() -> Urdf:
    """Return the SO-101's description."""
    return Urdf(share_file("config/so101.urdf"))


class Adversary:
    """Wishes for many arms: each follows one kind for a while, then another."""

    def __init__(self, rows: int, rng: np.random.Generator, points: LinkPoints) -> None:
        """Look for joint positions at and beyond the corners of the box."""
        self._rng, self._rows = rng, rows
        self._low, self._high = np.array(CONTRACT.lower), np.array(CONTRACT.upper)
        pool = rng.uniform(self._low, self._high, (4000, len(JOINTS)))
        tool = points(pool)[:, 0]
        box = np.array([SETTINGS.box_lower, SETTINGS.box_upper])
        corners = np.array(np.meshgrid(*box.T)).reshape(3, -1).T
        near = np.argsort(np.linalg.norm(tool[:, None] - corners, axis=-1), axis=0)[:30]
        self._corners = pool[near.ravel()]
        self.inside = pool[self._deep(points(pool), box)]
        self.outside = pool[((tool < box[0] - 0.02) | (tool > box[1] + 0.02)).any(axis=1)]
        self.kinds = rng.integers(len(KINDS), size=rows)
        self._left = rng.integers(20, 200, rows)
        self._wish = rng.uniform(self._low, self._high, (rows, len(JOINTS)))

    @staticmethod
    def _deep(points: NDArray[np.float64], box: NDArray[np.float64]) -> NDArray[np.bool_]:
        return ((points > box[0] + 0.005) & (points < box[1] - 0.005)).all(axis=(1, 2))

    def starts(self) -> NDArray[np.float64]:
        """Return where the arms stand at first: a quarter of them outside the box or the joint limits."""
        rng = self._rng
        at = self.inside[rng.integers(len(self.inside), size=self._rows)].copy()
        at[::8] = self.outside[rng.integers(len(self.outside), size=len(at[::8]))]
        beyond = rng.uniform(0.0, 0.2, at[4::8].shape)
        at[4::8] = np.where(rng.random(beyond.shape) < 0.5, self._high + beyond, self._low - beyond)
        return at

    def next(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (wishes (N, D), periods (N,) [s]); some wishes are not finite."""
        rng = self._rng
        self._left -= 1
        over = np.flatnonzero(self._left < 0)
        self.kinds[over] = rng.integers(len(KINDS), size=len(over))
        self._left[over] = rng.integers(20, 200, len(over))
        new, wish = rng.random(self._rows) < 0.05, self._wish
        new[over] = True
        for row in range(self._rows):
            wish[row] = self._one(KINDS[self.kinds[row]], wish[row], bool(new[row]))
        dt = rng.uniform(0.002, 0.016, self._rows)
        dt[rng.random(self._rows) < 0.02] = 1e-4
        dt[rng.random(self._rows) < 0.002] = 0.25
        return wish, dt

    def _one(self, kind: str, wish: NDArray[np.float64], new: bool) -> NDArray[np.float64]:
        rng, low, high = self._rng, self._low, self._high
        if kind == "tremor" and np.isfinite(wish).all():
            return wish + rng.normal(0, 0.05, wish.shape)
        if not new and np.isfinite(wish).all():
            return wish
        if kind == "bang-bang":
            return np.where(rng.random(wish.shape) < 0.5, low - 1, high + 1)
        if kind == "at the limits":
            return np.where(rng.random(wish.shape) < 0.5, low, high) + rng.choice([-1e-7, 0.0, 1e-7], wish.shape)
        if kind == "corners":
            return self._corners[rng.integers(len(self._corners))] + rng.normal(0, 0.01, wish.shape)
        if kind == "jumps":
            return rng.choice([-1e9, 1e9, -3.0, 3.0], wish.shape)
        wish = rng.uniform(low - 0.2, high + 0.2)
        if kind == "not finite":
            wish[rng.integers(len(wish))] = rng.choice([np.nan, np.inf, -np.inf])
        return wish


class Audit:
    """The worst excess of what was sent, by differences of the targets and by the points of the URDF."""

    def __init__(self, envelope: Envelope, points: LinkPoints, start: NDArray[np.float64]) -> None:
        """Begin at rest."""
        self._points, self._last = points, start
        self._highest, self._acceleration = envelope.highest, envelope.acceleration
        self._step = np.array(CONTRACT.max_step)
        self._low, self._high = np.array(CONTRACT.lower), np.array(CONTRACT.upper)
        self._box = np.array([SETTINGS.box_lower, SETTINGS.box_upper])
        self._at = points(start)
        self._speed: NDArray[np.float64] = np.zeros_like(start)
        self._dt: NDArray[np.float64] = np.full(len(start), 1e-4)
        self.out = ((self._at < self._box[0]) | (self._at > self._box[1])).any(axis=(1, 2))
        self.out |= ((start < self._low) | (start > self._high)).any(axis=1)
        self.worst = dict.fromkeys([*ROUNDING, "back_rad", "back_m"], -np.inf)

    def look(self, sent: NDArray[np.float64], dt: NDArray[np.float64]) -> None:
        """Take the next targets (N, D), sent (N,) seconds after the last ones."""
        last, inside, period = self._last, ~self.out, dt[:, None]
        narrow = sent.astype(np.float32).astype(np.float64)
        beyond = np.maximum(self._low - narrow, narrow - self._high)
        self._worse("joint_rad", beyond[inside])
        back = np.maximum(np.minimum(self._low, last) - sent, sent - np.maximum(self._high, last))
        self._worse("back_rad", back[self.out])
        self._worse("step_rad", np.abs(sent - last) - self._step * period * CONTRACT.control_hz)
        speed = (sent - last) / period
        self._worse("velocity", np.abs(speed) - self._highest)
        between = (period + self._dt[:, None]) / 2
        self._worse("acceleration", np.abs(speed - self._speed) / between - self._acceleration)
        at = self._points(narrow)
        self._worse("box_m", np.maximum(self._box[0] - at, at - self._box[1])[inside])
        way = np.maximum(np.minimum(self._box[0], self._at) - at, at - np.maximum(self._box[1], self._at))
        self._worse("back_m", way[self.out])
        self._last, self._speed, self._dt, self._at = sent, speed, dt, at

    def _worse(self, name: str, values: NDArray[np.float64]) -> None:
        if values.size:
            self.worst[name] = max(self.worst[name], float(values.max()))


class Servos:
    """Emulated SO-101 arms, set as LeRobot sets them."""

    def __init__(self, position: NDArray[np.float64]) -> None:
        """Place them at (N, D) [rad] with the torque on."""
        self._mounting, self.arms = Mounting(), []
        for row in position:
            joints = SimpleJoints()
            for name, angle in zip(JOINTS, row, strict=True):
                joints.place(name, float(angle))
            arm = Arm(joints)
            for servo in arm.servos:
                for name, value in LEROBOT.items():
                    servo.memory[name] = value
            self.arms.append(arm)

    def follow(self, targets: NDArray[np.float64], dt: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
        """Write goals (N, D) as the driver does, let time (N,) pass; returns (N, D) positions and velocities."""
        goal = REGISTERS["Goal_Position"]
        positions, velocities = [], []
        for arm, row, seconds in zip(self.arms, targets, dt, strict=True):
            data = bytearray((goal.address, goal.size))
            for number, angle in enumerate(row, 1):
                steps = round(self._mounting.present(float(angle), 0))
                data += bytes((number,)) + steps.to_bytes(2, "little")
            arm.answer(Packet(protocol.BROADCAST, protocol.SYNC_WRITE, bytes(data)), arm.servos[0].rate)
            arm.step(float(seconds))
            states = arm.joints.states()
            positions.append([state.position for state in states])
            velocities.append([state.velocity for state in states])
        return np.array(positions), np.array(velocities)


def trial(seed: int, rows: int = ROWS, commands: int = COMMANDS, servos: bool = True) -> dict[str, Any]:
    """Send ``commands`` to each of ``rows`` arms; returns the worst excess of each kind and some counts."""
    rng, description = np.random.default_rng(seed), urdf()
    points = LinkPoints(description, JOINTS, SETTINGS.points)
    adversary = Adversary(rows, rng, points)
    envelope = Envelope(CONTRACT, SETTINGS, description, rows)
    start = adversary.starts()
    envelope.start(start)
    audit = Audit(envelope, points, start)
    followers = Servos(start) if servos else None
    inside, box = ~audit.out, np.array([SETTINGS.box_lower, SETTINGS.box_upper])
    worst = dict.fromkeys(("joint_rad", "box_m", "velocity", "lag_rad"), -np.inf)
    refused = blocked = 0
    for _ in range(commands):
        wish, dt = adversary.next()
        hold = adversary.kinds == KINDS.index("hold")
        for row in np.flatnonzero(~np.isfinite(wish).all(axis=1)):
            try:
                checked(wish[row], "joint target", CONTRACT)
            except ValueError:
                refused += 1
            else:
                raise AssertionError(f"{wish[row]} was not refused")
            hold[row] = True
        sent = envelope.advance(np.where(np.isfinite(wish), wish, 0.0), dt, hold)
        blocked += int(envelope.blocked.sum())
        audit.look(sent, dt)
        if followers is not None:
            position, velocity = followers.follow(sent, dt)
            at = points(position)
            beyond = np.maximum(np.subtract(CONTRACT.lower, position), position - CONTRACT.upper)
            for name, values in (
                ("joint_rad", beyond),
                ("box_m", np.maximum(box[0] - at, at - box[1])),
                ("velocity", np.abs(velocity) - envelope.highest),
                ("lag_rad", np.abs(position - sent)),
            ):
                worst[name] = max(worst[name], float(values[inside].max()))
    return {"sent": audit.worst, "servos": worst, "refused": refused, "blocked": blocked, "commands": rows * commands}


def merged(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the worst of several trials and their sums."""
    total: dict[str, Any] = {k: sum(each[k] for each in results) for k in ("commands", "refused", "blocked")}
    for part in ("sent", "servos"):
        total[part] = {name: max(each[part][name] for each in results) for name in results[0][part]}
    return total


def passed(figures: dict[str, Any]) -> list[str]:
    """Return the limits of what was sent that were passed."""
    allowed = {**ROUNDING, "back_rad": 0.0, "back_m": OUTSIDE_M}
    return [name for name, excess in figures["sent"].items() if excess > allowed[name]]


def main(argv: list[str] | None = None) -> int:
    """Measure and print; 1 if a limit was passed."""
    parser = argparse.ArgumentParser(
        prog="lrm bench envelope", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commands", type=whole(1), default=100_000, help="how many, at least (default 100000)")
    parser.add_argument("--seed", type=whole(0), default=0, help="of the wishes")
    parser.add_argument("--jobs", type=whole(1), default=1, help="processes (default 1)")
    parser.add_argument("--no-servos", action="store_true", help="only what is sent, without the emulated servos")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(argv)
    rounds = -(-options.commands // (ROWS * COMMANDS))
    began, results = time.monotonic(), []
    with ProcessPoolExecutor(options.jobs) as pool, progress_bar(rounds * ROWS * COMMANDS, "envelope", "cmd") as bar:
        trials = [
            pool.submit(trial, options.seed * 1_000_000 + number, servos=not options.no_servos)
            for number in range(rounds)
        ]
        for done in as_completed(trials):
            results.append(done.result())
            bar.update(results[-1]["commands"])
    figures = merged(results)
    figures |= {"seed": options.seed, "seconds": round(time.monotonic() - began, 1)}
    print(f"{figures['commands']} commands, {figures['refused']} refused, {figures['blocked']} held back by the box")
    units = {"joint_rad": "rad", "step_rad": "rad", "velocity": "rad/s", "acceleration": "rad/s^2", "box_m": "m",
             "back_rad": "rad", "back_m": "m", "lag_rad": "rad"}  # fmt: skip
    for part in ("sent", "servos"):
        for name, excess in figures[part].items():
            if np.isfinite(excess):
                print(f"  {part:7s} {name:13s} {excess:+.3e} {units[name]}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        finite = {part: {k: v for k, v in figures[part].items() if np.isfinite(v)} for part in ("sent", "servos")}
        options.json.write_text(json.dumps(figures | finite, indent=2) + "\n")
    if wrong := passed(figures):
        print(f"lrm bench envelope: passed {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
