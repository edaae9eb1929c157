# SPDX-License-Identifier: Apache-2.0
"""The drivers of a camera and an arm in real time, which can do everything wrong that drivers do."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, JointState
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages
from lrm_ros.config import RobotContract
from lrm_ros.types import ActionChunk, Frame

JOINTS = RobotContract().joints
RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)


class Driver:
    """Publishes images, joint states and, if asked to, what is sent to the arm, at one rate.

    Attributes:
        n: ticks so far.
        offset: topic -> what is added to its stamps [ns].
        stamp: time -> stamp [ns].
        position: of the joints [rad].
        every: topic -> every so many ticks; 0: never.
    """

    def __init__(self, node, qos: QoSProfile = RELIABLE, hz: float = 20.0, size: int = 8, sends: bool = False) -> None:
        self.n, self._size = 0, size
        self.images = node.create_publisher(Image, "front/image_raw", qos)
        self.states = node.create_publisher(JointState, "joint_states", qos)
        self.sent = node.create_publisher(JointTrajectory, "joint_command_sent", qos)
        self.every = {"front/image_raw": 1, "joint_states": 1, "joint_command_sent": int(sends)}
        self.offset = dict.fromkeys(self.every, 0)
        self.stamp: Callable[[int], int] = lambda ns: ns
        self.position = np.zeros(6)
        self.timer = node.create_timer(1 / hz, self.tick)

    def tick(self) -> None:
        self.n += 1
        now_ns = time.time_ns()
        for topic, every in self.every.items():
            if not every or self.n % every:
                continue
            ns = self.stamp(now_ns) + self.offset[topic]
            if topic == "joint_states":
                self.states.publish(messages.from_state(ns, JOINTS, self.position))
            elif topic == "joint_command_sent":
                chunk = ActionChunk(ns, self.position[None].astype(np.float32), 0.1)
                self.sent.publish(messages.from_chunk(chunk, JOINTS))
            else:
                image = np.full((self._size, self._size, 3), self.n % 256, np.uint8)
                self.images.publish(messages.from_frame(Frame(ns, "front", image)))
