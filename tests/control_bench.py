# SPDX-License-Identifier: Apache-2.0
"""The node in front of ros2_control over DDS, a stand-in of the controllers' topics below it, and who commands it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from controllers import Manager, PositionController, TrajectoryController  # type: ignore[import-not-found]
from rclpy.duration import Duration
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages, topics
from lrm_ros.config import RobotContract
from lrm_ros.config_arm import SECTIONS, load_control
from lrm_ros.config_files import load_yaml
from lrm_ros.nodes.ros2_control import ControlNode
from lrm_ros.topics import STREAM
from lrm_ros.types import ActionChunk

FILE = Path(__file__).parents[1] / "config" / "ros2_control.yaml"
CONTRACT = load_yaml(FILE, RobotContract, SECTIONS)
SETTINGS = load_control(FILE, CONTRACT)
HIGHEST, ACCELERATION = np.array(SETTINGS.max_velocity), np.array(SETTINGS.max_acceleration)
HOME = np.array([0.2, -0.5, 0.5, 0.3, 0.4, 0.5], np.float32)
FAR = np.array([1.5, -1.2, 1.0, -1.0, 1.5, 1.2], np.float32)
ARM, GRIPPER = "arm_controller", "gripper_controller"


class Bench:
    """The node, the stand-in, and a probe that commands and listens."""

    def __init__(self, spin, probe) -> None:
        self.spin, self.probe = spin, probe
        self.sent: list[JointTrajectory] = spin.collect(probe, JointTrajectory, "joint_command_sent", STREAM)
        self.stopped: list[Bool] = spin.collect(probe, Bool, "stopped", topics.STOPPED.qos)
        self.commands = probe.create_publisher(JointTrajectory, "joint_command", STREAM)
        self.estop = topics.ESTOP.publisher(probe)
        self.names = list(CONTRACT.joints)  # as the controllers have them
        self.manager: Manager | None = None

    def manage(self, controllers=None, **given) -> Manager:
        shipped = {ARM: TrajectoryController(CONTRACT.joints[:5]), GRIPPER: PositionController(["gripper"])}
        start = dict(zip(self.names, HOME.tolist(), strict=True))
        self.manager = Manager(controllers or shipped, start, **given)
        return self.manager

    def start(self, **overrides) -> ControlNode:
        given = {"contract": str(FILE), "approach_speed": 5.0, "state_timeout_s": 1.0, **overrides}
        self.node = self.spin.start(ControlNode(**given))
        self.spin.until(lambda: self.commands.get_subscription_count(), what="the node listens")
        return self.node

    def command(self, *points) -> None:
        chunk = ActionChunk(0, np.array(points, np.float32), CONTRACT.dt_s)
        self.commands.publish(messages.from_chunk(chunk, CONTRACT.joints))

    @property
    def at(self) -> np.ndarray:
        return np.array([self.manager.positions[name] for name in self.names])

    def go(self, target=HOME) -> None:
        self.ask(target, lambda: np.abs(self.at - target).max() < 0.02)

    def move(self) -> None:
        self.ask(FAR, lambda: np.abs(self.node._loop.server.envelope.velocity).max() > 1.0)

    def ask(self, target, done) -> None:
        """Command until something is true, again after a fault: on a busy machine a command may be forgotten.

        There the stand-in may also be so late that it does not follow: then the arm is taken up again.
        """
        before = [-1]

        def asked() -> bool:
            loop = self.node._loop
            if loop.fault and loop.silent and not self.node._hindrance():
                loop.reset()
                before[0] = -1
            if (count := sum(map(self.node.diagnostics.total, ("ignored", "faults")))) != before[0]:
                before[0] = count
                self.command(target)
            return done()

        self.spin.until(asked, 90.0, what=f"{target}, not {self.at}, {self.node.diagnostics.faults}")

    def still(self) -> None:
        self.spin.until(lambda: self.node._loop.server.envelope.standing, what="standing")

    def arrived(self) -> np.ndarray:
        """Where the arm is once it is at what was sent last."""
        self.spin.until(lambda: np.abs(self.at - self.node._loop.server.sent).max() < 1e-3, what="at its target")
        return self.at

    def more(self, count: int, name: str = ARM) -> list:
        """The next messages of a controller."""
        received = self.manager.received[name]
        have = len(received)
        self.spin.until(lambda: len(received) >= have + count, what="messages")
        return received[have:]

    def fault(self, words: str) -> None:
        self.spin.until(lambda: words in " ".join(self.node.diagnostics.faults.values()), what=words)

    def well(self) -> None:
        faults: dict = {}

        def over() -> bool:
            faults.clear()
            faults.update(self.node.diagnostics.faults)
            return not faults

        self.spin.until(over, what=faults)

    def refused(self) -> None:
        """A command from now on moves nothing."""
        diagnostics = self.node.diagnostics
        before = diagnostics.total("ignored") + diagnostics.total("rejected")
        self.command(FAR)
        self.spin.until(lambda: diagnostics.total("ignored") + diagnostics.total("rejected") > before, what="refused")

    def counts(self) -> dict[str, int]:
        """How many messages each controller has received, those that are on their way counted."""
        assert self.node._controllers is not None and self.manager is not None
        for route in self.node._controllers._routes:
            assert route.publisher.wait_for_all_acked(Duration(seconds=30.0)), route.name
        self.manager.drain()
        return {name: len(found) for name, found in self.manager.received.items()}

    def call(self, name: str) -> Trigger.Response:
        return self.spin.call(self.probe, Trigger, f"arm/{name}")


@contextlib.contextmanager
def running(spin, probe) -> Iterator[Bench]:
    """A probe; stand-in and node are started by the test."""
    bench = Bench(spin, probe)
    yield bench
    if bench.manager is not None:
        bench.manager.close()


def contract(folder, *changes: tuple[str, str]) -> str:
    """A copy of the shipped file with other lines."""
    text = FILE.read_text().replace("urdf: so101.urdf", f"urdf: {FILE.parent / 'so101.urdf'}")
    for before, after in changes:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    path = folder / "ros2_control.yaml"
    path.write_text(text)
    return str(path)
