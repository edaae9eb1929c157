# SPDX-License-Identifier: Apache-2.0
"""An emulated SO-101 in a process of its own: what its servos and joints did and when, and faults on demand."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.sim.servo_bus.faults import Fault

Floats = NDArray[np.float64]
NAME = "bench"  # of the arm, its port's link and its calibration file
HELD_RAD = 0.02  # an arm that holds stays within so much of where it stands then, a degree
MOVED = 2  # a goal that changes by more is another one [steps]; an encoder's step is 0.0015 rad
_HEAR_S = 30.0  # the process has so long to answer [s]


@dataclass(frozen=True)
class Course:
    """What an arm did, once each step of its servos (5 ms).

    Attributes:
        at_s: (N,) monotonic time [s].
        joints: (N, D) in truth [rad].
        goals: (N, D) registers Goal_Position [steps].
        torque: (N, D) whether the torque is on.
    """

    at_s: Floats
    joints: Floats
    goals: Floats
    torque: NDArray[np.bool_]

    @staticmethod
    def of(rows: Floats) -> Course:
        """Return what the process has sent: (N, 1 + 3 D)."""
        joints, goals, torque = np.split(rows[:, 1:], 3, axis=1)
        return Course(rows[:, 0], joints, goals, torque > 0)

    def between(self, begin_s: float, end_s: float) -> Course:
        """Return the part between two moments [s]."""
        part = (self.at_s >= begin_s) & (self.at_s <= end_s)
        return Course(self.at_s[part], self.joints[part], self.goals[part], self.torque[part])

    def then(self, later: Course) -> Course:
        """Return this and what came later."""
        pairs = zip(vars(self).values(), vars(later).values(), strict=True)
        return Course(*(np.concatenate(pair) for pair in pairs))

    def held_s(self, begin_s: float) -> float:
        """Return how long after a moment the arm began to hold [s]; 0: it did.

        From then on no goal changes, and every driven joint is within ``HELD_RAD`` of where it stands at the end.
        """
        course = self.between(begin_s, np.inf)
        driven = course.torque & course.torque[-1:]
        away = driven & (np.abs(course.joints - course.joints[-1:]) > HELD_RAD)
        other = driven & (np.abs(course.goals - course.goals[-1:]) > MOVED)
        moves = (away | other).any(axis=1)
        return float(course.at_s[moves].max() - begin_s) if moves.any() else 0.0

    def wandered(self) -> float:
        """Return how far the goals of driven joints went from where they were at its begin [steps]."""
        driven = self.torque & self.torque[:1]
        return float(np.abs((self.goals - self.goals[:1]) * driven).max()) if len(self.at_s) else 0.0

    def moved(self) -> float:
        """Return how far driven joints went from where they were at its begin [rad]."""
        driven = self.torque & self.torque[:1]
        return float(np.abs((self.joints - self.joints[:1]) * driven).max()) if len(self.at_s) else 0.0

    def fastest(self, window_s: float) -> Floats:
        """Return how fast each goal went at most, as the mean over a window [s]: (D,) [steps/s]."""
        at = np.searchsorted(self.at_s, self.at_s + window_s)
        whole = at < len(self.at_s)
        seconds = (self.at_s[at[whole]] - self.at_s[whole])[:, None]
        return np.asarray((np.abs(self.goals[at[whole]] - self.goals[whole]) / seconds).max(axis=0))


def calibrate(servos: Any, folder: str) -> None:
    """Give servos their ranges and write LeRobot's calibration file of them."""
    from lrm_ros.sim.servo_bus.calibration import preset, write
    from lrm_ros.sim.servo_bus.joints import SO101

    values = {}
    for i, joint in enumerate(SO101):
        low, high = (1934, 3186) if joint.name == "gripper" else (0, 4095)  # -10 and 100 degrees
        values[joint.name] = {"id": i + 1, "drive_mode": 0, "homing_offset": 0, "range_min": low, "range_max": high}
    preset(servos, values)
    write(values, Path(folder), NAME)


def _emulate(folder: str, pipe: Connection) -> None:
    """Run the arm until ``None`` comes; answers lines and faults with (monotonic time [s], what there is to say)."""
    from lrm_ros.sim.servo_bus.arm import Arm
    from lrm_ros.sim.servo_bus.bus import Bus
    from lrm_ros.sim.servo_bus.commands import execute
    from lrm_ros.sim.servo_bus.server import Server

    rows: list[tuple[float, ...]] = []

    class Recorded(Arm):
        def step(self, dt: float) -> None:
            super().step(dt)
            joints = [state.position for state in self.joints.states()]
            registers = [[servo.memory[name] for servo in self.servos] for name in ("Goal_Position", "Torque_Enable")]
            rows.append((time.monotonic(), *joints, *registers[0], *registers[1]))

    bus = Bus(Recorded())
    calibrate(bus.arm.servos, folder)
    with Server({NAME: bus}, {NAME: Path(folder) / NAME}) as server:
        pipe.send((time.monotonic(), "ready"))
        while (asked := pipe.recv()) is not None:
            if asked == "course":
                with server.lock:
                    pipe.send(np.array(rows).reshape(len(rows), -1) if rows else np.zeros((0, 19)))
                    rows.clear()
                continue
            said = ""
            if isinstance(asked, Fault):
                with server.lock:
                    bus.wire.set(asked)
            else:
                said = execute(server, asked)
            pipe.send((time.monotonic(), said))


class EmulatedBus:
    """The process. Its port is ``FOLDER/bench``, its calibration file ``FOLDER/bench.json``."""

    def __init__(self, folder: Path) -> None:
        """Start it and wait until it runs."""
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_emulate, args=(str(folder), there), name="emulator")
        self._process.start()
        there.close()
        self._hear()

    def _hear(self) -> Any:
        if not self._pipe.poll(_HEAR_S):
            raise TimeoutError(f"the emulated bus does not answer within {_HEAR_S:.0f} s")
        return self._pipe.recv()

    def do(self, what: str | Fault) -> float:
        """Do what a line (``lrm_ros.sim.servo_bus.commands``, without the arm's name) or a fault says.

        Returns:
            When it was done: monotonic time [s].
        """
        self._pipe.send(what if isinstance(what, Fault) else f"{NAME} {what}")
        return float(self._hear()[0])

    def course(self) -> Course:
        """Return what the arm did since the last call."""
        self._pipe.send("course")
        return Course.of(self._hear())

    def close(self) -> None:
        """End it."""
        self._pipe.send(None)
        self._process.join()
