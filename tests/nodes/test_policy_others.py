# SPDX-License-Identifier: Apache-2.0
"""The policy node in real time beside others: it does not hold whose arm is not its own, its own whatever is raised."""

from __future__ import annotations

import numpy as np
import pytest
from played_robot import Slow, is_hold, moving  # type: ignore[import-not-found]
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from lrm_ros import topics


def state_not_usable(spin, node, robot) -> None:
    robot.stamp_ns += 100_000_000
    robot.state([0, np.nan, 0, 0, 0, 0])
    spin.until(lambda: "joint_states" in node.diagnostics.faults)


def reloaded(spin, node, robot) -> None:
    assert spin.call(robot.probe, Trigger, "policy/reload").success


@pytest.mark.parametrize("cause", [state_not_usable, reloaded])
@pytest.mark.parametrize("whose", ["deactivated", "stopped"])
def test_a_policy_that_does_not_move_the_arm_holds_it_for_nobody(spin, probe, whose, cause) -> None:
    node, robot = moving(spin, probe)
    if whose == "deactivated":
        node.trigger_deactivate()
    else:
        arm = topics.STOPPED.publisher(probe)
        spin.until(lambda: arm.get_subscription_count() == 3)
        for stopped in (True, False):
            arm.publish(Bool(data=stopped))
            spin.until(lambda stopped=stopped: node._stop.stopped == stopped)
    holds = node.diagnostics.total("holds")
    assert holds == (whose == "deactivated")
    cause(spin, node, robot)
    assert node.diagnostics.total("holds") == holds, "a person may lead it now"


def test_a_prediction_that_fails_after_the_hand_over_holds_the_arm_for_nobody(spin, probe) -> None:
    node, robot = moving(spin, probe)
    slow = Slow(RuntimeError("CUDA error"))
    node._predictor.policy = slow
    robot.observe(8)
    spin.until(lambda: slow.asked == 1)
    node.trigger_deactivate()
    slow.go.set()
    assert node._predictor.wait(30)
    assert node.diagnostics.total("holds") == 1 and "CUDA error" in node.diagnostics.faults["policy"]


class CannotBeShown(Exception):
    """An exception of a library that fails itself when it is to be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_an_exception_that_cannot_be_shown_makes_the_policy_hold(spin, probe) -> None:
    node, robot = moving(spin, probe)
    slow = Slow(CannotBeShown())
    slow.go.set()
    node._predictor.policy = slow
    robot.observe(8)
    spin.until(lambda: is_hold(robot.commands[-1]), what="the hold")
    assert "CannotBeShown" in node.diagnostics.faults["policy"]
