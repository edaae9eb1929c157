# SPDX-License-Identifier: Apache-2.0
"""A robot that a test plays for the policy node in real time, and a policy that answers when the test says so."""

from __future__ import annotations

import threading

import numpy as np
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages
from lrm_ros.config import RobotContract
from lrm_ros.nodes.policy import PolicyNode
from lrm_ros.topics import IMAGE, STREAM
from lrm_ros.types import ActionChunk, Frame

CONTRACT = RobotContract()
DT_NS = 100_000_000
TARGET = np.array([0.5, 0.4, 0.3, 0.2, 0.1, 0.0], np.float32)


class Robot:
    """Publishes what a robot does and listens to what it is told."""

    def __init__(self, spin, probe) -> None:
        self.spin, self.probe = spin, probe
        self.states = probe.create_publisher(JointState, "joint_states", STREAM)
        self.images = probe.create_publisher(Image, "front/image_raw", IMAGE)
        self.sent = probe.create_publisher(JointTrajectory, "joint_command_sent", STREAM)
        self.commands = spin.collect(probe, JointTrajectory, "joint_command", STREAM)
        # A simulator's clock: it moves when the test says so.
        probe.create_publisher(Clock, "/clock", STREAM)
        self.stamp_ns = 1_000_000_000

    def state(self, position=None) -> None:
        values = np.zeros(6) if position is None else position
        self.states.publish(messages.from_state(self.stamp_ns, CONTRACT.joints, values))

    def image(self) -> None:
        frame = Frame(self.stamp_ns, "front", np.full((96, 96, 3), 7, np.uint8))
        self.images.publish(messages.from_frame(frame))

    def observe(self, steps: int = 1) -> None:
        self.stamp_ns += steps * DT_NS
        self.state()
        self.image()

    def say_sent(self, target=TARGET) -> None:
        self.sent.publish(messages.from_chunk(ActionChunk(self.stamp_ns, target[None], 0.1), CONTRACT.joints))


class Slow:
    """A policy that answers when the test says so."""

    execute_steps, observed_steps = 8, 1

    def __init__(self, error: BaseException | None = None) -> None:
        self.error, self.asked, self.resets = error, 0, 0
        self.running: tuple[int, int] | None = None  # what it was told of the chunk that is executed
        self.stamp_ns = 0  # of the observation that it is asked about
        self.go = threading.Event()

    def predict(self, observation, delay_steps=0, running=None) -> ActionChunk:
        self.stamp_ns = observation.stamp_ns
        self.asked += 1
        self.running = running
        assert self.go.wait(30)
        if self.error is not None:
            raise type(self.error)(*self.error.args)  # a new one: its traceback keeps the node
        return ActionChunk(observation.stamp_ns, np.tile(observation.state + 1, (20, 1)), 0.1)

    def reset(self, seed=None) -> None:
        self.resets += 1


def start(spin, probe, **parameters) -> tuple[PolicyNode, Robot]:
    robot = Robot(spin, probe)
    given = {"checkpoint": "fake", "autostart": False, "realtime": True, "timeout_s": 1000.0} | parameters
    node = spin.start(PolicyNode(**given))
    spin.until(lambda: probe.count_publishers("joint_command") == 1 and node.count_publishers("joint_states") == 1)
    spin.until(lambda: probe.count_subscribers("front/image_raw") == 1)
    spin.until(lambda: probe.count_subscribers("joint_command_sent") == 1)
    return node, robot


def moving(spin, probe, **parameters) -> tuple[PolicyNode, Robot]:
    """Start a node whose policy moves the arm, which says where it was sent."""
    node, robot = start(spin, probe, **parameters)
    robot.say_sent()
    robot.observe()
    spin.until(lambda: len(robot.commands) == 1 and node._arm.sent is not None)
    assert len(robot.commands[0].points) > 1
    return node, robot


def keep_moving(node, robot) -> None:
    """Let the running chunk be one that lasts for 50 steps more, and the next one due at once."""
    node._arm.asked = ActionChunk(robot.stamp_ns - 50 * DT_NS, np.zeros((100, 6), np.float32), 0.1)


def is_hold(message, target=TARGET) -> bool:
    """Whether a command is one point at a target, to be taken now."""
    now = messages.to_ns(message.header.stamp) == 0
    return now and len(message.points) == 1 and np.allclose(message.points[0].positions, target)


def stamps(received) -> list[int]:
    return [messages.to_ns(message.header.stamp) for message in received]
