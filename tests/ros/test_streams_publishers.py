# SPDX-License-Identifier: Apache-2.0
"""Publishers of one topic that should not be there: a second one, in another order or slow, or of another type."""

from __future__ import annotations

import time

import pytest
import rclpy
from drivers import BEST_EFFORT, JOINTS, Driver  # type: ignore[import-not-found]
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String

from lrm_ros import messages, topics
from lrm_ros.config import RecorderConfig
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.streams import Streams


class Ear:
    """A node that listens to a camera and an arm."""

    def __init__(self, spin) -> None:
        self.node = spin.add(LrmNode("ear", RecorderConfig))
        self.images: list[Image] = []
        self.states: list[int] = []
        self.streams = Streams(self.node, realtime=True)
        self.streams.listen(topics.IMAGE_RAW.of("front"), self.images.append, 10.0)
        self.streams.listen_states(lambda stamp_ns, _: self.states.append(stamp_ns), 10.0)


@pytest.fixture
def ear(spin) -> Ear:
    return Ear(spin)


@pytest.mark.parametrize(
    ("names", "hz", "says"),
    [
        (["base", *JOINTS], 20.0, "shoulder_pan comes from"),  # as joint_state_publisher of a URDF does
        (JOINTS[::-1], 20.0, "gripper comes from"),
        (JOINTS[-1:], 20.0, "gripper comes from"),
        (JOINTS, 1.0, "shoulder_pan comes from"),
    ],
)
def test_a_second_publisher_of_a_joint_is_named_whatever_else_it_publishes_and_however_slowly(
    spin, probe, ear, names, hz, says
):
    Driver(probe)
    spin.until(lambda: len(ear.states) > 20)
    other = spin.add(LrmNode("leftover", RecorderConfig, {}))
    second = other.create_publisher(JointState, "joint_states", 10)

    def publish() -> None:
        second.publish(messages.from_state(time.time_ns(), names, [0.1] * len(names)))

    timer = other.create_timer(1 / hz, publish)
    ear.streams.begin()
    line = f"{says} more than one publisher (leftover, probe)"
    spin.until(lambda: line in ear.streams.faults().get("joint_states", ""), what=line)
    assert "joint_states" in ear.streams.end()
    other.destroy_timer(timer)
    spin.until(lambda: not ear.streams.faults())


def test_two_drivers_with_other_joints_each_are_no_fault_whoever_is_started_again(spin, probe, ear):
    publishers = [probe.create_publisher(JointState, "joint_states", 10) for _ in range(2)]
    driver = Driver(probe)
    driver.every["joint_states"] = 0

    def publish() -> None:
        ns = time.time_ns()
        publishers[0].publish(messages.from_state(ns, ["base", *JOINTS[:5]], [0.0] * 6))
        publishers[1].publish(messages.from_state(ns, [JOINTS[5], "base"], [0.0] * 2))

    probe.create_timer(0.05, publish)
    spin.until(lambda: len(ear.states) > 40)
    ear.streams.begin()
    probe.destroy_publisher(publishers[1])
    publishers[1] = probe.create_publisher(JointState, "joint_states", 10)
    heard = len(ear.states)
    spin.until(lambda: len(ear.states) > heard + 40)
    assert not ear.streams.end()


@pytest.mark.parametrize("late_ns", [None, 5_000_000_000, 0])
def test_what_is_wrong_with_the_joints_of_another_robot_is_no_fault_of_this_one(spin, probe, ear, late_ns):
    Driver(probe)
    spin.until(lambda: len(ear.states) > 20)
    wheels = [spin.add(LrmNode(f"base_{k}", RecorderConfig, {})) for k in range(2)]
    pair = [wheel.create_publisher(JointState, "joint_states", 10) for wheel in wheels]

    def publish() -> None:
        for each in pair:
            stamp_ns = 0 if late_ns is None else time.time_ns() - late_ns
            each.publish(messages.from_state(stamp_ns, ["wheel_left", "wheel_right"], [1.0, float("nan")]))

    wheels[0].create_timer(0.05, publish)
    spin.until(lambda: pair[1].get_subscription_count())
    ear.streams.begin()
    seen, told = len(ear.states), set()

    def later() -> bool:
        told.update(ear.streams.faults().values())
        return len(ear.states) > seen + 60

    spin.until(later)
    told.update(ear.streams.end().values())
    # A loaded host may be late with what is good.
    assert not [line for line in told if "its stamp" in line or "more than one publisher" in line]


def test_a_publisher_that_is_gone_leaves_no_fault_of_its_clock(spin, probe, ear):
    states = probe.create_publisher(JointState, "joint_states", 10)
    Driver(probe).every["joint_states"] = 0
    parts = [(JOINTS[:5], 0), (JOINTS[5:], -400_000_000)]

    def publish() -> None:
        for names, offset_ns in parts:
            states.publish(messages.from_state(time.time_ns() + offset_ns, names, [0.0] * len(names)))

    probe.create_timer(0.05, publish)
    spin.until(lambda: "0.4 s behind this host's clock" in ear.streams.faults().get("joint_states", ""))
    parts[:] = [(JOINTS, 0)]
    spin.until(lambda: not ear.streams.faults())


def test_who_publishes_another_type_under_the_name_is_named_with_both_types(spin, probe, ear):
    context = rclpy.Context()  # as a process of its own: one has one type of a topic
    rclpy.init(context=context)
    try:
        other = rclpy.create_node("encoder", context=context)
        other.create_publisher(CompressedImage, "front/image_raw", BEST_EFFORT)
        says = "published by encoder as sensor_msgs/msg/CompressedImage, it must be sensor_msgs/msg/Image: let that"
        spin.until(lambda: says in ear.streams.faults().get("front/image_raw", ""), what=says)
        assert says in ear.streams.not_ready()["front/image_raw"]
        Driver(probe)
        spin.until(lambda: len(ear.images) > 20 and not ear.streams.faults())
        other.destroy_node()
    finally:
        rclpy.shutdown(context=context)


def test_a_latched_topic_takes_best_effort_publishers_and_hears_no_other_one_more_than_twice(spin, probe):
    texts: list[str] = []
    node = spin.add(LrmNode("ear", RecorderConfig))
    topics.TASK.subscribe(node, lambda message: texts.append(message.data))
    latched = topics.TASK.publisher(probe)
    spin.until(lambda: latched.get_subscription_count() == 3)
    latched.publish(String(data="latched"))
    spin.until(lambda: len(texts) == 2)
    probe.destroy_publisher(latched)
    best_effort = probe.create_publisher(String, "task", BEST_EFFORT)
    spin.until(lambda: best_effort.get_subscription_count() and node.count_publishers("task") == 1)
    best_effort.publish(String(data="once"))
    spin.until(lambda: texts[-1] == "once")
    assert texts == ["latched", "latched", "once"]
