# SPDX-License-Identifier: Apache-2.0
"""The policy node before an arm that is stopped: it asks for nothing, says so, and a release alone moves nothing."""

from __future__ import annotations

import pytest
from played_robot import moving, start  # type: ignore[import-not-found]
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from lrm_ros import topics


def say(spin, node, arm, stopped: bool) -> None:
    spin.until(lambda: arm.get_subscription_count() == 3)
    arm.publish(Bool(data=stopped))
    spin.until(lambda: node._stop.stopped == stopped)


def seen(spin, node, robot) -> None:
    """Show new observations, and wait until the newest has been considered."""
    for _ in range(3):
        robot.observe(10)
        spin.until(lambda: node._state is not None and node._state[0] == robot.stamp_ns)
        spin.until(lambda: "front" in node._frames and node._frames["front"].stamp_ns == robot.stamp_ns)
    assert node._predictor.wait(30)


@pytest.mark.parametrize("again", ["reset", "activate"])
def test_nothing_is_asked_of_an_arm_that_was_stopped_before_its_release_and_a_new_start(spin, probe, again) -> None:
    node, robot = moving(spin, probe)
    arm = topics.STOPPED.publisher(probe)
    say(spin, node, arm, True)
    assert "the policy asks for nothing, the arm was stopped; when it is safe" in node.diagnostics.faults["estop"]
    asked = len(robot.commands)
    seen(spin, node, robot)
    refused = spin.call(probe, Trigger, "policy/reset")
    assert not refused.success and "no new episode: the arm is stopped" in refused.message
    seen(spin, node, robot)
    say(spin, node, arm, False)
    seen(spin, node, robot)
    assert len(robot.commands) == asked, "neither while it is stopped nor by the release"
    assert "it is released: call policy/reset" in node.diagnostics.faults["estop"]
    if again == "reset":
        assert spin.call(probe, Trigger, "policy/reset").success
    else:
        node.trigger_deactivate()
        node.trigger_activate()
    robot.observe(10)
    spin.until(lambda: len(robot.commands) > asked and len(robot.commands[-1].points) > 1)
    assert "estop" not in node.diagnostics.faults


def test_an_arm_that_is_stopped_already_is_not_moved_by_a_policy_that_starts(spin, probe) -> None:
    arm = topics.STOPPED.publisher(probe)
    arm.publish(Bool(data=True))
    node, robot = start(spin, probe)
    spin.until(lambda: node._stop.stopped)
    seen(spin, node, robot)
    assert not robot.commands and "estop" in node.diagnostics.faults


@pytest.mark.parametrize("first", ["deactivate", "release"])
def test_an_inactive_policy_shows_no_fault_of_a_stop_that_was_released(spin, probe, first) -> None:
    node, robot = moving(spin, probe)
    arm = topics.STOPPED.publisher(probe)
    say(spin, node, arm, True)
    if first == "release":
        say(spin, node, arm, False)
        assert "it is released: call policy/reset" in node.diagnostics.faults["estop"]
    node.trigger_deactivate()
    assert ("estop" in node.diagnostics.faults) == (first == "deactivate"), "as long as the arm is stopped"
    if first == "deactivate":
        say(spin, node, arm, False)
    assert "estop" not in node.diagnostics.faults
    asked = len(robot.commands)
    node.trigger_activate()
    robot.observe(10)
    spin.until(lambda: len(robot.commands) > asked)
