# SPDX-License-Identifier: Apache-2.0
"""A stand-in of what ros2_control offers by topic: two kinds of controllers and a joint_state_broadcaster.

After ros-controls/ros2_controllers: joint_trajectory_controller/src/joint_trajectory_controller.cpp (which trajectories
are refused) and trajectory.cpp (positions only: linear from the state before to the point, then held; a new message
replaces the old one), forward_command_controller/src/forward_controllers_base.cpp, joint_state_broadcaster/src/
joint_state_broadcaster.cpp. No controller_manager has been run.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages


class TrajectoryController:
    """A joint_trajectory_controller with position interface that interpolates from its desired state."""

    topic, message_type = "joint_trajectory", JointTrajectory

    def __init__(self, joints: Sequence[str], partial: bool = False) -> None:
        self.joints, self._partial = list(joints), partial
        self.refused: list[str] = []
        self.fastest = np.zeros(len(joints))  # of all its segments [rad/s]
        self._from_s = self._to_s = 0.0
        self._from = self._to = np.zeros(len(joints))

    def activate(self, position: np.ndarray, now_s: float) -> None:
        """Hold where the arm is."""
        self._from = self._to = np.array(position, float)
        self._from_s = self._to_s = now_s

    def take(self, message: JointTrajectory, now_s: float, now_ns: int) -> None:
        """Follow a trajectory of one point, or refuse it."""
        if reason := self._wrong(message, now_ns):
            self.refused.append(reason)
            return
        begun_s = now_s
        if message.header.stamp.sec or message.header.stamp.nanosec:
            begun_s += (messages.to_ns(message.header.stamp) - now_ns) / 1e9
        point = message.points[0]
        here = self.at(now_s)
        there = here.copy()  # joints that are left out hold
        for joint, position in zip(message.joint_names, point.positions, strict=True):
            there[self.joints.index(joint)] = position
        self._from_s, self._from = now_s, here
        self._to_s, self._to = begun_s + messages.to_ns(point.time_from_start) / 1e9, there
        seconds = max(self._to_s - now_s, 1e-9)
        self.fastest = np.maximum(self.fastest, np.abs(there - here) / seconds)

    def _wrong(self, message: JointTrajectory, now_ns: int) -> str:
        if not self._partial and len(message.joint_names) != len(self.joints):
            return "joints on incoming trajectory don't match the controller joints"
        if not message.joint_names or not message.points:
            return "empty"
        if unknown := set(message.joint_names) - set(self.joints):
            return f"incoming joint {unknown} doesn't match the controller's joints"
        if len(message.points) != 1:
            return "the stand-in follows one point"
        point, stamp_ns = message.points[0], messages.to_ns(message.header.stamp)
        if stamp_ns and stamp_ns + messages.to_ns(point.time_from_start) < now_ns:
            return "ends in the past"
        if len(point.positions) != len(message.joint_names):
            return "a wrong number of positions"
        if any(abs(velocity) > 1e-7 for velocity in point.velocities):
            return "velocity of last trajectory point is not zero"
        return ""

    def at(self, now_s: float) -> np.ndarray:
        """Return the desired positions."""
        if now_s >= self._to_s:
            return self._to
        share = (now_s - self._from_s) / (self._to_s - self._from_s)
        return self._from + share * (self._to - self._from)


class PositionController:
    """A forward_command_controller of interface position."""

    topic, message_type = "commands", Float64MultiArray

    def __init__(self, joints: Sequence[str]) -> None:
        self.joints = list(joints)
        self.refused: list[str] = []
        self._at = np.zeros(len(joints))

    def activate(self, position: np.ndarray, now_s: float) -> None:
        """Keep what the hardware has."""
        self._at = np.array(position, float)

    def take(self, message: Float64MultiArray, now_s: float, now_ns: int) -> None:
        """Go there at once."""
        if not np.isfinite(message.data).all() or len(message.data) != len(self.joints):
            self.refused.append("command size does not match number of interfaces")
            return
        self._at = np.array(message.data)

    def at(self, now_s: float) -> np.ndarray:
        """Return what the hardware is commanded."""
        return self._at


class Manager:
    """Controllers as nodes and a broadcaster, in a thread; the arm goes where they say, but for stuck joints.

    Attributes:
        controllers: by name.
        positions: of each joint [rad], as measured.
        stuck: joints that do not move.
        inactive: controllers that listen and ignore.
        received: messages that active controllers were sent, by name.
        skew_ns: of the stamps of joint states [ns].
        nan: joints whose position is published as NaN.
        publishing: whether the broadcaster does.
    """

    EXTRA = ("left_wheel", "mimic_finger")

    def __init__(self, controllers: dict, start: dict, states: str = "joint_states", best_effort: bool = False) -> None:
        """Begin with all controllers active; ``start``: position of each joint [rad]."""
        self.controllers = controllers
        self.positions = dict(start)
        self.stuck: set[str] = set()
        self.inactive: set[str] = set()
        self.nan: set[str] = set()
        self.received: dict[str, list] = {name: [] for name in controllers}
        self.skew_ns, self.publishing = 0, True
        self._best_effort = best_effort
        self._nodes: dict[str, rclpy.node.Node] = {}
        self._executor = SingleThreadedExecutor()
        self._asked: deque[tuple[Callable[[], None], threading.Event]] = deque()
        self._ending = False
        for name in controllers:
            self._load(name)
        node = self._nodes[""] = rclpy.create_node("joint_state_broadcaster")
        self._executor.add_node(node)
        self._states = node.create_publisher(JointState, states, 10)
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", 1)
        node.create_timer(0.01, self._update, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._thread = threading.Thread(target=self._run, name="controllers", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ending:
            while self._asked:
                work, done = self._asked.popleft()
                work()
                done.set()
            self._executor.spin_once(timeout_sec=0.01)

    def _do(self, work: Callable[[], None]) -> None:
        """Do something in the thread."""
        done = threading.Event()
        self._asked.append((work, done))
        assert done.wait(30.0), "the stand-in's thread does not answer"

    def close(self) -> None:
        """End the thread and the nodes."""
        self._ending = True
        self._thread.join()
        for node in self._nodes.values():
            self._executor.remove_node(node)
            node.destroy_node()
        self._executor.shutdown()

    def drain(self) -> None:
        """Take all that has come."""

        def work() -> None:
            for one in (one for node in self._nodes.values() for one in node.subscriptions):
                while (found := one.handle.take_message(one.msg_type, one.raw)) is not None:
                    one.callback(found[0])

        self._do(work)

    def load(self, name: str) -> None:
        """Load and activate a controller where the arm is."""
        self._do(lambda: self._load(name))

    def unload(self, name: str) -> None:
        """Let a controller go; the hardware stays at what it was commanded last."""
        self._do(lambda: self._unload(name))

    def switch(self, name: str, active: bool) -> None:
        """Activate a controller where the arm is, or deactivate it."""
        self._do(lambda: self._switch(name, active))

    def place(self, positions: dict[str, float]) -> None:
        """Move joints by hand; active controllers take them where they are."""

        def work() -> None:
            self.positions.update(positions)
            for name in self.controllers:
                if name not in self.inactive:
                    self._switch(name, True)

        self._do(work)

    def _load(self, name: str) -> None:
        controller = self.controllers[name]
        controller.activate(np.array([self.positions[joint] for joint in controller.joints]), time.monotonic())
        node = self._nodes[name] = rclpy.create_node(name)
        self._executor.add_node(node)

        def take(message) -> None:
            if name not in self.inactive:
                self.received[name].append(message)
                controller.take(message, time.monotonic(), time.time_ns())

        qos = QoSProfile(depth=10)
        if self._best_effort:
            qos.reliability = ReliabilityPolicy.BEST_EFFORT
        node.create_subscription(controller.message_type, f"~/{controller.topic}", take, qos)

    def _unload(self, name: str) -> None:
        node = self._nodes.pop(name)
        self._executor.remove_node(node)
        node.destroy_node()

    def _switch(self, name: str, active: bool) -> None:
        if active:
            controller = self.controllers[name]
            controller.activate(np.array([self.positions[joint] for joint in controller.joints]), time.monotonic())
            self.inactive.discard(name)
        else:
            self.inactive.add(name)

    def say(self) -> None:
        """Publish what a controller_manager says of its controllers about once a second."""
        states = {name: "inactive" if name in self.inactive else "active" for name in self.controllers}
        status = messages.status(DiagnosticStatus.OK, "controller_manager: Controllers Activity", "", states)
        self._diagnostics.publish(DiagnosticArray(status=[status]))

    def _update(self) -> None:
        now_s = time.monotonic()
        for name, controller in self.controllers.items():
            if name in self.inactive or name not in self._nodes:
                continue
            for joint, position in zip(controller.joints, controller.at(now_s), strict=True):
                if joint not in self.stuck:
                    self.positions[joint] = float(position)
        if not self.publishing:
            return
        # In an order of its own, with joints of others, of which it knows no position.
        names = [*self.EXTRA[:1], *sorted(self.positions, reverse=True), *self.EXTRA[1:]]
        values = [self.positions.get(name, float("nan")) for name in names]
        values = [float("nan") if name in self.nan else value for name, value in zip(names, values, strict=True)]
        message = JointState(name=names, position=values, velocity=[float("nan")] * len(names))
        message.header.stamp = messages.to_time(time.time_ns() + self.skew_ns)
        message.header.frame_id = "base_link"
        self._states.publish(message)
