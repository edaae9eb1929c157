# SPDX-License-Identifier: Apache-2.0
"""Who listens as a controller, what a controller_manager says of it, and the stand-in that the node's tests use."""

from __future__ import annotations

import numpy as np
import pytest
import rclpy
from controllers import TrajectoryController  # type: ignore[import-not-found]
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from lrm_ros import messages
from lrm_ros.config_arm import ControllerConfig
from lrm_ros.ros.controllers import ACTIVE_S, HEARD_S, Activity, Controllers

NOW_NS = 10**18


def said(name: str = "controller_manager: Controllers Activity", **states: str) -> DiagnosticArray:
    return DiagnosticArray(status=[messages.status(DiagnosticStatus.OK, name, "", states)])


def test_what_a_manager_says_is_believed_for_a_while():
    activity = Activity()
    assert activity.state("arm", 0.0) == ""
    activity.add(said(arm="inactive", other="active"), 10.0)
    assert activity.state("arm", 10.1) == "inactive" and activity.state("other", 10.1) == ""
    assert activity.state("arm", 10.1 + HEARD_S) == "", "said too long ago"
    activity.add(said(arm="active"), 20.0)
    assert activity.state("arm", 20.1) == ""
    activity.add(said("another_node: something", arm="inactive"), 30.0)
    assert activity.state("arm", 30.0) == ""


def test_of_two_managers_with_the_same_names_the_inactive_controller_is_not_taken_for_ours():
    activity = Activity()
    for second in range(10):
        activity.add(said(arm="active"), float(second))
        activity.add(said(arm="inactive"), second + 0.5)
        assert activity.state("arm", second + 0.6) == ""
    activity.add(said(arm="inactive"), 9.5 + ACTIVE_S)
    assert activity.state("arm", 9.6 + ACTIVE_S) == "inactive"


def test_somebody_else_who_listens_is_not_the_controller(spin, probe):
    controllers = Controllers(probe, [ControllerConfig("arm_controller", joints=("a", "b"))], ["b", "a"])
    topic = "arm_controller/joint_trajectory"
    received = spin.collect(probe, JointTrajectory, topic)
    spin.until(lambda: probe.count_subscribers(topic), what="an echo")
    assert "controller 'arm_controller' does not listen on '/arm_controller/joint_trajectory'" in controllers.missing()
    controllers.send(np.float32([1, 2]), 0.1)
    listener = spin.add(rclpy.create_node("arm_controller"))
    taken = spin.collect(listener, JointTrajectory, "~/joint_trajectory")
    spin.until(lambda: not controllers.missing(), what="the controller")
    controllers.send(np.float32([3, 4]), 0.25)
    spin.until(lambda: taken and received, what="a target")
    (message,) = taken
    assert list(message.joint_names) == ["a", "b"] and list(message.points[0].positions) == [4.0, 3.0]
    assert messages.to_ns(message.points[0].time_from_start) == 250_000_000 and len(received) == 1


def trajectory(*positions: float, seconds: float = 0.1, stamp_ns: int = 0, names=("b", "a"), **more) -> JointTrajectory:
    point = JointTrajectoryPoint(positions=positions, time_from_start=messages.to_duration(seconds), **more)
    message = JointTrajectory(joint_names=list(names), points=[point])
    message.header.stamp = messages.to_time(stamp_ns)
    return message


def test_the_stand_in_goes_to_a_point_in_its_time_replaces_and_holds():
    controller = TrajectoryController(["a", "b"])
    controller.activate(np.zeros(2), 0.0)
    controller.take(trajectory(1.0, 2.0), 0.0, NOW_NS)
    assert controller.at(0.05) == pytest.approx([1.0, 0.5])
    controller.take(trajectory(0.0, 0.0), 0.05, NOW_NS)
    assert controller.at(0.1) == pytest.approx([0.5, 0.25]) and controller.at(9.0) == pytest.approx([0, 0])
    assert controller.fastest == pytest.approx([20.0, 10.0]) and not controller.refused


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (trajectory(1.0, names=["a"]), "don't match the controller joints"),
        (trajectory(1.0, 2.0, names=["a", "c"]), "incoming joint"),
        (trajectory(1.0, 2.0, stamp_ns=NOW_NS - 200_000_000), "ends in the past"),
        (trajectory(1.0), "wrong number of positions"),
        (trajectory(1.0, 2.0, velocities=[0.0, 0.1]), "is not zero"),
    ],
)
def test_the_stand_in_refuses_what_the_controller_refuses(message, says):
    controller = TrajectoryController(["a", "b"])
    controller.activate(np.zeros(2), 0.0)
    controller.take(message, 0.0, NOW_NS)
    assert says in controller.refused[0] and controller.at(9.0) == pytest.approx([0, 0])


def test_the_stand_in_takes_some_of_its_joints_where_that_is_allowed():
    controller = TrajectoryController(["a", "b"], partial=True)
    controller.activate(np.ones(2), 0.0)
    controller.take(trajectory(3.0, names=["b"]), 0.0, NOW_NS)
    assert controller.at(9.0) == pytest.approx([1, 3])
