# SPDX-License-Identifier: Apache-2.0
"""What an arm is told by a hold, and after what."""

from __future__ import annotations

import time

import numpy as np
import pytest
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages
from lrm_ros.config import RecorderConfig
from lrm_ros.ros.arm_client import ArmClient
from lrm_ros.ros.base import LrmNode
from lrm_ros.topics import JOINT_COMMAND
from lrm_ros.types import ActionChunk

DT_S, STEPS = 0.5, 12  # so long that a busy host comes to the hold within a step or two
ACTIONS = np.repeat(np.arange(STEPS, dtype=np.float32)[:, None] / 100, 6, axis=1)  # (K, D) [rad]


@pytest.fixture
def arm(spin, probe):
    """A client, and what an arm that says nothing hears of it."""
    node = spin.add(LrmNode("policy", RecorderConfig))
    client = ArmClient(node)
    heard = spin.collect(probe, JointTrajectory, JOINT_COMMAND.name, JOINT_COMMAND.qos)
    spin.until(client._command.get_subscription_count)
    return client, heard


def ask_and_hold(spin, arm, stamp_ns: int) -> int:
    """Ask for the motion and hold at once; returns the number of the point at which the arm was told to stay."""
    client, heard = arm
    assert client.ask(ActionChunk(stamp_ns, ACTIONS, DT_S), client.holds) and client.hold()
    assert not client.ask(ActionChunk(stamp_ns, ACTIONS, DT_S), client.holds - 1), "begun before the hold"
    spin.until(lambda: len(heard) == 2)
    motion, hold = heard
    assert [len(command.points) for command in heard] == [STEPS, 1]
    assert messages.to_ns(motion.header.stamp) == stamp_ns and messages.to_ns(hold.header.stamp) == 0
    return round(hold.points[0].positions[0] * 100)


@pytest.mark.parametrize("age_s", [2.25, 40.0, 6.5])
def test_an_arm_that_says_nothing_stays_where_the_stamp_of_its_command_has_brought_it(spin, arm, age_s):
    begun_s = time.monotonic()
    point = ask_and_hold(spin, arm, time.time_ns() - round(1e9 * age_s))
    if age_s == 40.0:  # of another clock
        assert point <= (time.monotonic() - begun_s) / DT_S
    else:
        due = [min(int((age_s + passed_s) / DT_S), STEPS - 1) for passed_s in (0.0, time.monotonic() - begun_s)]
        assert due[0] <= point <= due[1]


def test_a_command_of_later_and_one_without_a_stamp_have_brought_it_nowhere(spin, arm):
    begun_s = time.monotonic()
    point = ask_and_hold(spin, arm, time.time_ns() + 900_000_000)
    assert point <= max(0.0, time.monotonic() - begun_s - 0.9) / DT_S
    arm[1].clear()
    begun_s = time.monotonic()
    assert ask_and_hold(spin, arm, 0) <= (time.monotonic() - begun_s) / DT_S


def test_an_arm_that_says_what_it_was_sent_stays_there(spin, arm):
    client, _ = arm
    sent = ActionChunk(time.time_ns(), ACTIONS[7:8], DT_S)
    client.on_sent(messages.from_chunk(sent, client._node.contract.joints))
    assert ask_and_hold(spin, arm, time.time_ns() - 2_250_000_000) == 7
