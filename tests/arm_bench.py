# SPDX-License-Identifier: Apache-2.0
"""A running arm node over DDS, LeRobot's real driver below it, the emulated SO-101 below that."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import numpy as np
from sensor_msgs.msg import JointState
from so101 import CONTRACT, FILE, angles, follower, patiently  # type: ignore[import-not-found]
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages
from lrm_ros.nodes.arm import ArmNode
from lrm_ros.topics import STREAM
from lrm_ros.types import ActionChunk

HOME = np.array([0.2, -0.5, 0.5, 0.3, 0.4, 0.5], np.float32)
FAR = np.array([1.5, -1.2, 1.0, -1.0, 1.5, 1.2], np.float32)
URDF = FILE.parent / "so101.urdf"


class Bench:
    """A running arm node, the emulated arm, and a probe that commands and listens."""

    def __init__(self, spin, probe, server, folder) -> None:
        self.spin, self.probe, self.server, self.folder = spin, probe, server, folder
        self.bus = server.buses["follower"]
        self.states: list[JointState] = spin.collect(probe, JointState, "joint_states", STREAM)
        self.sent: list[JointTrajectory] = spin.collect(probe, JointTrajectory, "joint_command_sent", STREAM)
        self.commands = probe.create_publisher(JointTrajectory, "joint_command", STREAM)

    def node(self, **overrides) -> ArmNode:
        given = {"contract": str(FILE), "port": self.server.ports["follower"].path, "approach_speed": 3.0}
        self.arm = ArmNode(**{**given, "calibration_dir": str(self.folder), **overrides})
        return self.arm

    def start(self, **overrides) -> ArmNode:
        node = self.spin.start(self.node(**overrides))
        self.spin.until(lambda: self.states and self.commands.get_subscription_count())
        return node

    def command(self, *points, stamp_ns: int = 0) -> None:
        chunk = ActionChunk(stamp_ns, np.array(points, np.float32), CONTRACT.dt_s)
        self.commands.publish(messages.from_chunk(chunk, CONTRACT.joints))

    def call(self, name: str) -> Trigger.Response:
        return self.spin.call(self.probe, Trigger, f"arm/{name}")

    def at(self, target, within: float = 0.08) -> bool:
        return bool(np.abs(np.array(angles(self.server)) - np.array(target)).max() < within)

    def lead(self, *points, until, what: str) -> None:
        """Command points until something is so.

        Again, as a person would, where a busy host let the node stand still: it has forgotten.
        """
        diagnostics, faults = self.arm.diagnostics, -1

        def so() -> bool:
            nonlocal faults
            if diagnostics.total("faults") != faults and "joint_states" not in diagnostics.faults:
                faults = diagnostics.total("faults")
                self.command(*points)
            return until()

        self.spin.until(so, what=what)

    def go(self, target=HOME, way=()) -> None:
        """Command a target, behind the points of a way, and wait."""
        self.lead(*way, target, until=lambda: self.at(target), what=f"arm at {target}, not {angles(self.server)}")

    @property
    def torque(self) -> list[int]:
        return [servo.memory["Torque_Enable"] for servo in self.bus.arm.servos]

    @property
    def goals(self) -> list[int]:
        return [servo.memory["Goal_Position"] for servo in self.bus.arm.servos]

    def fault(self, words: str) -> None:
        self.spin.until(lambda: words in " ".join(self.arm.diagnostics.faults.values()), what=words)

    def newest(self) -> np.ndarray:
        """The next joint state."""
        self.states.clear()
        self.spin.until(lambda: self.states, what="joint states")
        return np.array(self.states[-1].position)

    def wait_states(self, count: int) -> None:
        """Wait for so many more joint states: so many cycles of the bus."""
        self.states.clear()
        self.spin.until(lambda: len(self.states) >= count, what="joint states")

    def move(self, target=FAR) -> None:
        """Command a long way and wait until the servos are on it, fast."""
        self.go()
        self.lead(target, until=lambda: np.abs(self.arm._loop.server.envelope.velocity).max() > 1.0, what="in motion")

    def still(self) -> list[int]:
        """The goals of the servos once the braking is over."""
        self.spin.until(lambda: self.arm._loop.server.envelope.standing, what="standing")
        self.wait_states(3)
        return self.goals

    def values(self) -> dict[str, str]:
        """What the node's diagnostics show."""
        return {value.key: value.value for value in self.arm.diagnostics.status().values}


@contextlib.contextmanager
def running(spin, probe, folder, monkeypatch) -> Iterator[Bench]:
    """An emulated arm that is calibrated, and a probe; the node is started by the test."""
    patiently(monkeypatch)
    interval = sys.getswitchinterval()
    with follower(folder) as server:
        yield Bench(spin, probe, server, folder)
        spin.close()  # before the port goes
    sys.setswitchinterval(interval)


def contract(folder, **changes: str) -> dict[str, str]:
    """The node's parameter for a copy of our contract's file, in which lines NAME: ... of section arm are others."""
    path, text = folder / "so101.yaml", FILE.read_text()
    for name, value in {"urdf": str(URDF), **changes}.items():
        begin = text.index(f"\n  {name}: ") + 1
        text = text[:begin] + f"  {name}: {value}" + text[text.index("\n", begin) :]
    path.write_text(text)
    return {"contract": str(path)}
