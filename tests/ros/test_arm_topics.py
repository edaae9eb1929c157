# SPDX-License-Identifier: Apache-2.0
"""Commands on the topics of an arm, from one node and from two."""

from __future__ import annotations

import numpy as np
import pytest
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages
from lrm_ros.config import RecorderConfig, RobotContract
from lrm_ros.robot.arm import ArmServer
from lrm_ros.ros.arm_topics import BACK, ArmTopics
from lrm_ros.ros.base import LrmNode
from lrm_ros.topics import STREAM
from lrm_ros.types import ActionChunk

JOINTS = RobotContract().joints
NOW_NS = 1_000_000_000


class Still:
    """An arm that stays where it is."""

    def read(self):
        return NOW_NS, np.zeros(len(JOINTS), np.float32)

    def send(self, target) -> None: ...


class Desk:
    """A node with an arm on its topics, and nodes that command it."""

    def __init__(self, spin, realtime: bool = True) -> None:
        self.spin = spin
        self.node = spin.add(LrmNode("arm", RecorderConfig, {}))
        self.node.trigger_configure()
        self.node.trigger_activate()
        self.taken: list[ActionChunk] = []
        self.nodes: list[Node] = []  # that command
        server = ArmServer(Still(), self.node.contract)
        ArmTopics(self.node, server, lambda: NOW_NS, self.taken.append).listen(realtime)

    def commander(self, name: str):
        node = self.spin.add(rclpy.create_node(name))
        self.nodes.append(node)
        publisher = node.create_publisher(JointTrajectory, "joint_command", STREAM)
        self.spin.until(publisher.get_subscription_count)
        return publisher

    def command(self, publisher, stamp_ns: int = NOW_NS) -> bool:
        """Publish a command, with stamp 0 a hold; returns whether it was taken."""
        taken, rejected = len(self.taken), self.node.diagnostics.total("rejected")
        chunk = ActionChunk(stamp_ns, np.zeros((1, len(JOINTS)), np.float32), 0.1)
        publisher.publish(messages.from_chunk(chunk, JOINTS))
        self.spin.until(lambda: len(self.taken) + self.node.diagnostics.total("rejected") > taken + rejected)
        return len(self.taken) > taken


@pytest.fixture
def desk(spin) -> Desk:
    return Desk(spin)


def test_two_nodes_that_command_the_arm_in_turn_are_named_and_neither_is_obeyed(desk):
    policy, teleop = desk.commander("policy"), desk.commander("teleop")
    assert all(desk.command(policy) for _ in range(3))
    taken = [desk.command(each) for _ in range(BACK + 1) for each in (teleop, policy)]
    assert taken[0] and not any(taken[-2:])
    assert (
        "several nodes command the arm at the same time (policy, teleop)"
        in desk.node.diagnostics.faults["joint_command"]
    )


def test_a_best_effort_commander_is_obeyed_and_a_reliable_one_again_after_it(desk):
    be = desk.spin.add(rclpy.create_node("be"))
    best_effort = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
    publisher = be.create_publisher(JointTrajectory, "joint_command", best_effort)
    desk.spin.until(publisher.get_subscription_count)
    assert desk.command(publisher)
    be.destroy_publisher(publisher)
    assert desk.command(desk.commander("policy"))


def test_in_lock_step_a_best_effort_commander_is_not_heard(spin):
    desk = Desk(spin, realtime=False)
    best_effort = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
    ears = desk.node.get_subscriptions_info_by_topic("joint_command")
    assert [ear.qos_profile.reliability for ear in ears] == [ReliabilityPolicy.RELIABLE]
    be = desk.spin.add(rclpy.create_node("be"))
    publisher = be.create_publisher(JointTrajectory, "joint_command", best_effort)
    spin.until(lambda: desk.node.count_publishers("joint_command"))
    reliable = desk.commander("policy")
    publisher.publish(messages.from_chunk(ActionChunk(NOW_NS, np.zeros((1, len(JOINTS)), np.float32), 0.1), JOINTS))
    assert desk.command(reliable) and len(desk.taken) == 1
    assert not publisher.get_subscription_count()


def test_one_node_takes_over_from_another(desk):
    policy, teleop = desk.commander("policy"), desk.commander("teleop")
    assert all(desk.command(policy) for _ in range(5))
    assert all(desk.command(teleop) for _ in range(10))
    assert not desk.node.diagnostics.faults


def test_nodes_that_hand_the_arm_over_with_a_hold_command_it_in_turn(desk):
    policy, teleop = desk.commander("policy"), desk.commander("teleop")
    for _ in range(2 * BACK):
        for each in (policy, teleop):
            assert all(desk.command(each) for _ in range(2)) and desk.command(each, 0)
    assert not desk.node.diagnostics.faults


def test_after_a_hold_another_node_may_ask_for_a_way_from_now_on(desk):
    """As the trial and the loop on an arm do, which bring it to its start when the policy has let go."""
    policy, mover = desk.commander("policy"), desk.commander("mover")
    for _ in range(2 * BACK):
        assert all(desk.command(policy) for _ in range(2)) and desk.command(policy, 0)
        assert desk.command(mover, 0)
    assert not desk.node.diagnostics.faults


def test_one_that_only_sends_holds_hands_nothing_over(desk):
    policy, other = desk.commander("policy"), desk.commander("other")
    for _ in range(3):  # so that the numbers of the two go up and down
        desk.command(policy)
    for _ in range(4 * BACK):
        desk.command(policy, 0)
        desk.command(other)
    assert "several nodes command the arm" in desk.node.diagnostics.faults["joint_command"]


def test_a_node_that_is_started_again_commands_as_before(desk):
    for k in range(BACK + 2):
        publisher = desk.commander(f"policy_{k}")
        assert all(desk.command(publisher) for _ in range(3))
        desk.nodes[-1].destroy_publisher(publisher)
        desk.spin.until(lambda: not desk.node.get_publishers_info_by_topic("joint_command"))
    assert not desk.node.diagnostics.faults
