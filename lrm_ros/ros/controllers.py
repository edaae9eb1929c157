# SPDX-License-Identifier: Apache-2.0
"""Controllers of a controller_manager by their topics: who is sent which joints, who listens, who is not active.

What is known of them is from ros-controls/ros2_controllers (joint_trajectory_controller/src/
joint_trajectory_controller.cpp, forward_command_controller/src/forward_controllers_base.cpp) and ros-controls/
ros2_control (controller_manager/src/controller_manager.cpp): both kinds subscribe when they are configured and ignore
what comes while they are inactive, so that a subscription alone does not say that a controller is active. The
controller_manager says so about once a second on ``/diagnostics``. Its services and the controllers' own state need
controller_manager_msgs and control_msgs, which are on no Python package index.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rclpy.duration import Duration
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from lrm_ros import messages, topics
from lrm_ros.config_arm import POSITION, ControllerConfig

# Of the status of a controller_manager; its values are the controllers' names and states.
ACTIVITY = "Controllers Activity"
ACTIVE_S = 2.5  # who was active so shortly ago is not said to be inactive: of two managers with the same names [s]
HEARD_S = 5.0  # what was said longer ago says nothing [s]
_LOOK_S = 0.2  # between two looks at who listens
_UNKNOWN = "_NODE_NAME_UNKNOWN_"  # how rclpy calls a node whose topics are known a moment before its name


class Activity:
    """What controller_managers say of their controllers."""

    def __init__(self) -> None:
        """Know nothing."""
        self._states: dict[str, tuple[str, float]] = {}  # name -> state, when it was said [s]
        self._active_s: dict[str, float] = {}

    def add(self, message: DiagnosticArray, now_s: float) -> None:
        """Take a message of ``/diagnostics``; ``now_s``: steady time [s]."""
        for status in message.status:
            if status.name.endswith(ACTIVITY):
                for name, state in messages.status_values(status).items():
                    self._states[name] = state, now_s
                    if state == "active":
                        self._active_s[name] = now_s

    def state(self, name: str, now_s: float) -> str:
        """Return the state of a controller, e.g. ``inactive``; empty if it is active or nothing is known."""
        state, said_s = self._states.get(name, ("", 0.0))
        if not state or now_s - said_s > HEARD_S or now_s - self._active_s.get(name, -np.inf) < ACTIVE_S:
            return ""
        return state


class _Route:
    """One controller and its joints."""

    def __init__(self, node: Node, controller: ControllerConfig, columns: Sequence[int]) -> None:
        kind = topics.CONTROLLER_COMMANDS if controller.type == POSITION else topics.CONTROLLER_TRAJECTORY
        self._topic = kind.of(controller.name)
        self.controller, self.columns, self._node = controller, list(columns), node
        self.name = controller.name.rpartition("/")[2]
        self.publisher = self._topic.publisher(node)
        self.topic = self.publisher.topic_name  # absolute, for people
        self._listens, self._looked_s = False, -np.inf

    def listens(self, now_s: float) -> bool:
        """Return whether the controller has subscribed, whoever else has."""
        if not self.publisher.get_subscription_count():
            self._listens, self._looked_s = False, -np.inf
        elif now_s - self._looked_s > _LOOK_S:
            names = {found.node_name for found in self._node.get_subscriptions_info_by_topic(self._topic.name)}
            self._listens, self._looked_s = not names.isdisjoint({self.name, _UNKNOWN}), now_s
        return self._listens

    def message(self, target: NDArray[np.float32], seconds: float) -> JointTrajectory | Float64MultiArray:
        """Return the message that sends the controller to its part of a target."""
        positions = [float(value) for value in target[self.columns]]
        if self.controller.type == POSITION:
            return Float64MultiArray(data=positions)
        # Stamp 0: from now on. No velocities: most do not allow one at the last point that is not 0.
        point = JointTrajectoryPoint(positions=positions, time_from_start=messages.to_duration(seconds))
        return JointTrajectory(joint_names=list(self.controller.joints), points=[point])


class Controllers:
    """All controllers of an arm."""

    def __init__(self, node: Node, controllers: Sequence[ControllerConfig], joints: Sequence[str]) -> None:
        """Create the publishers.

        Args:
            node: whose they are.
            controllers: each joint is in one of them.
            joints: the controllers' names of the contract's joints, in its order.
        """
        columns: Mapping[str, int] = {joint: index for index, joint in enumerate(joints)}
        self._routes = [_Route(node, one, [columns[joint] for joint in one.joints]) for one in controllers]
        self._activity = Activity()
        topics.DIAGNOSTICS.subscribe(node, lambda message: self._activity.add(message, time.monotonic()))

    def send(self, target: NDArray[np.float32], seconds: float) -> None:
        """Send a target (D,) [rad] to all that listen, to be reached in so many seconds."""
        now_s = time.monotonic()
        for route in self._routes:
            if route.listens(now_s):
                route.publisher.publish(route.message(target, seconds))

    def missing(self) -> str:
        """Say which controllers cannot be sent anything, and the cure; empty if all can."""
        now_s = time.monotonic()
        for route in self._routes:
            if not route.listens(now_s):
                return (
                    f"controller '{route.name}' does not listen on '{route.topic}', nothing is sent: start it (ros2 "
                    f"run controller_manager spawner {route.name}), or load it and then ros2 control "
                    f"switch_controllers --activate {route.name}"
                )
            if state := self._activity.state(route.name, now_s):
                return (
                    f"controller '{route.name}' is {state}, nothing is sent: ros2 control switch_controllers "
                    f"--activate {route.name}"
                )
        return ""

    def deliver(self, seconds: float) -> None:
        """Wait up to so long until each controller that acknowledges has what was sent last [s]."""
        for route in self._routes:
            route.publisher.wait_for_all_acked(Duration(seconds=seconds))
