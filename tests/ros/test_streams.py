# SPDX-License-Identifier: Apache-2.0
"""Real publishers and subscriptions: what comes, in which way it can be wrong, and what is said of it."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from drivers import BEST_EFFORT, JOINTS, RELIABLE, Driver  # type: ignore[import-not-found]
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages, topics
from lrm_ros.config import RecorderConfig
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.streams import Streams
from lrm_ros.types import ActionChunk

S = 1_000_000_000
TWO = {"front/image_raw", "joint_states"}


class Ear:
    """A node that listens to both."""

    def __init__(self, spin, realtime: bool = True, **overrides) -> None:
        self.node = spin.add(LrmNode("ear", RecorderConfig, overrides))
        self.images: list[Image] = []
        self.states: list[tuple[int, np.ndarray]] = []
        self.streams = Streams(self.node, realtime)
        self.streams.listen(topics.IMAGE_RAW.of("front"), self.images.append, 10.0)
        self.streams.listen_states(lambda *state: self.states.append(state), 10.0)

    @property
    def heard(self) -> int:
        return min(len(self.images), len(self.states))

    def fault(self, topic: str) -> str:
        """What the diagnostics say of a topic."""
        assert self.streams.faults().get(topic, "") == self.node.diagnostics.faults.get(topic, "")
        return self.node.diagnostics.faults.get(topic, "")


@pytest.fixture
def ear(spin) -> Ear:
    return Ear(spin)


@pytest.fixture
def driver(spin, probe) -> Driver:
    return Driver(probe)


def test_good_streams_are_good(spin, driver, ear):
    spin.until(lambda: ear.heard > 60, what="a window of the rate and more")
    assert not ear.streams.faults() and not ear.node.diagnostics.faults and not ear.streams.not_ready()
    ear.streams.begin()
    heard = ear.heard
    spin.until(lambda: ear.heard > heard + 10)
    assert not ear.streams.end()


@pytest.mark.parametrize(("first", "then"), [(RELIABLE, BEST_EFFORT), (BEST_EFFORT, RELIABLE)])
def test_publishers_of_any_reliability_reach_it_also_those_that_come_later(spin, probe, ear, first, then):
    driver = Driver(probe, first)
    spin.until(lambda: ear.heard > 2)
    for publisher in (driver.images, driver.states):
        probe.destroy_publisher(publisher)
    driver.timer.cancel()
    spin.until(lambda: not probe.count_publishers("joint_states"))
    ear.images.clear(), ear.states.clear()
    Driver(probe, then)
    spin.until(lambda: ear.heard > 2)


def test_in_lock_step_only_reliable_publishers_are_good(spin, probe):
    ear = Ear(spin, realtime=False)
    assert "nothing publishes it; start its node" in ear.streams.not_ready()["joint_states"]
    Driver(probe, BEST_EFFORT)
    spin.until(lambda: "published best effort by probe; in lock-step" in ear.fault("front/image_raw"))
    assert "best effort" in ear.streams.not_ready()["joint_states"] and not ear.images


def test_in_lock_step_nothing_has_to_come_until_it_is_commanded(spin, probe):
    driver, ear = Driver(probe), Ear(spin, realtime=False)
    driver.timer.cancel()
    assert not ear.streams.not_ready()
    driver.stamp = lambda _: S  # the simulator's own time
    driver.tick()
    spin.until(lambda: ear.heard == 1)
    assert not ear.streams.faults()


def test_in_lock_step_stamps_go_back_only_between_episodes(spin, probe):
    driver, ear = Driver(probe), Ear(spin, realtime=False)
    driver.timer.cancel()
    for k, stamp in enumerate((50 * S, 51 * S, 2 * S, 3 * S), start=1):
        driver.stamp = lambda _, stamp=stamp: stamp
        driver.tick()
        spin.until(lambda k=k: ear.heard == k)
    ear.streams.begin()
    driver.stamp = lambda _: S
    driver.tick()
    spin.until(lambda: "went back 2.0 s" in ear.fault("joint_states"))
    assert "went back" in ear.streams.end()["front/image_raw"] and ear.heard == 4


@pytest.mark.parametrize("topic", ["front/image_raw", "joint_states"])
def test_a_stream_that_never_comes_is_named(spin, probe, ear, topic):
    probe.create_publisher(Image if topic != "joint_states" else JointState, topic, RELIABLE)
    spin.until(lambda: len(ear.streams.faults()) == 2)
    assert "nothing comes from probe; is it active?" in ear.fault(topic)
    assert set(ear.streams.not_ready()) == {"front/image_raw", "joint_states"}


@pytest.mark.parametrize("topic", ["front/image_raw", "joint_states"])
def test_a_stream_that_stops_is_named_until_it_comes_again(spin, driver, ear, topic):
    spin.until(lambda: ear.heard > 2)
    ear.streams.begin()
    driver.every[topic] = 0
    spin.until(lambda: "stopped" in ear.fault(topic))
    assert "look at probe, its cable" in ear.fault(topic) and set(ear.streams.faults()) == {topic}
    assert set(ear.streams.not_ready()) == {topic}
    driver.every[topic] = 1
    spin.until(lambda: not ear.streams.faults())
    assert "stopped" in ear.streams.end()[topic], "the episode has a hole"
    ear.streams.begin()
    assert not ear.streams.end()


def test_two_publishers_of_the_same_are_named_until_there_is_one(spin, driver, ear):
    other = spin.add(LrmNode("leftover", RecorderConfig, {}))
    second = Driver(other)
    spin.until(lambda: all("more than one publisher (leftover, " in ear.fault(topic) for topic in TWO), what="fault")
    assert ear.streams.not_ready().keys() >= TWO
    other.destroy_timer(second.timer)
    spin.until(lambda: not ear.streams.faults())


def test_a_stream_whose_node_is_gone_says_so(spin, probe, driver, ear):
    spin.until(lambda: ear.heard > 2)
    probe.destroy_publisher(driver.images)
    driver.every["front/image_raw"] = 0
    spin.until(lambda: "its node is gone, start it" in ear.fault("front/image_raw"))


def test_a_stream_that_is_too_slow_is_named_with_both_rates(spin, driver, ear):
    driver.every["joint_states"] = 6  # 3.3 Hz
    spin.until(lambda: "Hz" in ear.fault("joint_states"))
    assert "comes at 3." in ear.fault("joint_states") and "10 Hz are needed" in ear.fault("joint_states")
    driver.every["joint_states"] = 1
    spin.until(lambda: not ear.streams.faults())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"stamp": lambda ns: 0}, "its stamps are 0"),
        ({"stamp": lambda ns: ns // (10 * S) * 10 * S}, "stands still"),
        ({"stamp": lambda ns: ns - 100 * S}, "100.0 s behind this host's clock"),
        ({"stamp": lambda ns: ns - S}, "1.0 s behind this host's clock"),
        ({"stamp": lambda ns: ns + 100 * S}, "100.0 s ahead of this host's clock"),
        ({"stamp": lambda ns: ns % S + S}, "years behind this host's clock"),
    ],
    ids=["zero", "still", "far behind", "behind", "ahead", "simulated"],
)
def test_stamps_that_cannot_be_used_are_named_from_the_first_on(spin, probe, driver, ear, change, says):
    for name, value in change.items():
        setattr(driver, name, value)
    spin.until(lambda: says in ear.fault("joint_states") and says in ear.fault("front/image_raw"))
    assert "joint_states" in ear.streams.not_ready()


@pytest.mark.parametrize(
    ("jump_s", "says"), [(-100, "went back"), (-5, "went back"), (100, "ahead of"), (2, "ahead of")]
)
def test_a_clock_that_is_set_while_it_runs_spoils_the_episode(spin, driver, ear, jump_s, says):
    spin.until(lambda: ear.heard > 2)
    ear.streams.begin()
    driver.offset["joint_states"] = jump_s * S
    spin.until(lambda: says in ear.fault("joint_states"))
    driver.offset["joint_states"] = 0
    spin.until(lambda: not ear.streams.faults())
    found = ear.streams.end()
    assert set(found) == {"joint_states"} and says in found["joint_states"]


def test_two_hosts_whose_clocks_differ_are_found_while_they_run(spin, driver, ear):
    spin.until(lambda: ear.heard > 2)
    driver.offset["front/image_raw"] = -S // 2
    spin.until(lambda: "0.5 s behind this host's clock; synchronise" in ear.fault("front/image_raw"))
    assert not ear.fault("joint_states")
    driver.offset["front/image_raw"] = 0
    spin.until(lambda: not ear.streams.faults())


def test_a_simulators_clock_is_good_without_use_sim_time_if_all_streams_have_it(spin, probe, driver, ear):
    probe.create_publisher(Clock, "/clock", 10)
    begun = time.time_ns()
    driver.stamp = lambda ns: ns - begun + S
    spin.until(lambda: ear.heard > 60)
    assert not ear.streams.faults()
    driver.offset["front/image_raw"] = 2 * S
    spin.until(lambda: "2.0 s ahead of those of 'joint_states'" in ear.fault("front/image_raw"))
    assert not ear.fault("joint_states")


def test_with_use_sim_time_the_clock_is_the_simulators(spin, probe):
    ear = Ear(spin, use_sim_time=True)
    assert "nothing publishes /clock" in ear.streams.not_ready()["/clock"]
    clock, driver, begun = probe.create_publisher(Clock, "/clock", 10), Driver(probe), time.time_ns()
    driver.stamp = lambda ns: ns - begun + S
    now = lambda: messages.to_time(driver.stamp(time.time_ns()))  # noqa: E731
    ticking = probe.create_timer(0.02, lambda: clock.publish(Clock(clock=now())))
    spin.until(lambda: ear.heard > 60)
    spin.until(lambda: not ear.streams.faults())
    driver.offset["front/image_raw"] = -2 * S
    spin.until(lambda: "2.0 s behind" in ear.fault("front/image_raw") or "went back" in ear.fault("front/image_raw"))
    driver.offset["front/image_raw"] = 0
    spin.until(lambda: not ear.streams.faults())
    driver.timer.cancel()
    ticking.cancel()  # a simulator that pauses: nothing has stopped
    looked = spin.collect(probe, DiagnosticArray, "/diagnostics")
    spin.until(lambda: len(looked) > 3)
    assert not ear.streams.faults()


def test_degrees_are_named_and_not_good_again_near_zero(spin, driver, ear):
    driver.position = np.array([60.0, 0, 0, 0, 0, 0])
    spin.until(lambda: "joint_states" in ear.streams.faults())
    assert "joint shoulder_pan is 60.0, its limits are -2 to 2 rad: does the driver" in ear.fault("joint_states")
    driver.position = np.zeros(6)
    rejected = ear.node.diagnostics.total("rejected")
    spin.until(lambda: ear.node.diagnostics.total("rejected") > rejected + 20)
    assert "60.0" in ear.fault("joint_states") and not ear.states
    spin.until(lambda: ear.states and not ear.streams.faults())


def test_joint_states_in_parts_are_one_stream(spin, probe, driver, ear):
    driver.every["joint_states"] = 0
    arm, gripper = (probe.create_publisher(JointState, "joint_states", qos) for qos in (RELIABLE, BEST_EFFORT))

    def publish() -> None:
        ns = time.time_ns()
        arm.publish(messages.from_state(ns, JOINTS[:5], np.full(5, 0.1)))
        gripper.publish(messages.from_state(ns, JOINTS[5:], [0.2]))  # with the same stamp, as of one controller manager

    timer = probe.create_timer(0.05, publish)
    spin.until(lambda: ear.heard > 60)
    np.testing.assert_allclose(ear.states[-1][1], [0.1] * 5 + [0.2], atol=1e-6)
    assert not ear.streams.faults()
    timer.cancel()
    probe.create_timer(0.05, lambda: arm.publish(messages.from_state(time.time_ns(), JOINTS[:5], np.full(5, 0.1))))
    spin.until(lambda: "lacks joint gripper" in ear.fault("joint_states"))
    probe.create_timer(0.3, lambda: gripper.publish(messages.from_state(time.time_ns(), JOINTS[5:], [0.2])))
    spin.until(lambda: "of its parts gripper most slowly, 10 Hz are needed" in ear.fault("joint_states"))


def test_a_single_bad_message_is_a_fault_but_does_not_spoil_the_episode(spin, driver, ear):
    spin.until(lambda: ear.heard > 2)
    ear.streams.begin()
    good, driver.position = driver.position, np.full(6, np.nan)
    spin.until(lambda: "nan" in ear.fault("joint_states"))
    driver.position = good
    spin.until(lambda: not ear.streams.faults())
    assert not ear.streams.end()


def test_messages_that_stay_bad_do(spin, driver, ear):
    spin.until(lambda: ear.heard > 2)
    ear.streams.begin()
    good, driver.position = driver.position, np.full(6, np.nan)
    rejected = ear.node.diagnostics.total("rejected")
    spin.until(lambda: ear.node.diagnostics.total("rejected") > rejected + 20)
    driver.position = good
    spin.until(lambda: not ear.streams.faults())
    assert "joint_states" in ear.streams.end()


def test_an_arm_that_is_commanded_must_say_what_it_sends(spin, probe, driver, ear):
    ear.streams.listen(topics.JOINT_COMMAND_SENT, lambda _: None, cause=topics.JOINT_COMMAND)
    ear.streams.listen(topics.JOINT_COMMAND, lambda _: None, stamped=False)
    command = probe.create_publisher(JointTrajectory, "joint_command", RELIABLE)
    sent = probe.create_publisher(JointTrajectory, "joint_command_sent", RELIABLE)

    def chunk() -> JointTrajectory:
        return messages.from_chunk(ActionChunk(time.time_ns(), np.zeros((1, 6), np.float32), 0.1), JOINTS)

    probe.create_timer(0.05, lambda: command.publish(chunk()))
    spin.until(lambda: "'joint_command' comes, 'joint_command_sent' does not" in ear.fault("joint_command_sent"))
    probe.create_timer(0.05, lambda: sent.publish(chunk()))
    spin.until(lambda: not ear.streams.faults())


def test_what_was_sent_before_the_end_is_taken_and_a_running_camera_does_not_hold_it_up(spin, probe, ear):
    driver = Driver(probe)
    spin.until(lambda: ear.heard > 2)
    driver.timer.cancel()
    spin.until(lambda: len(ear.images) == driver.n)
    for _ in range(5):
        driver.tick()
    ear.streams.drain()
    assert len(ear.images) == len(ear.states) == driver.n


def test_what_a_running_camera_sends_after_the_end_is_not_taken(spin, probe, ear):
    driver, over = Driver(probe), threading.Event()
    spin.until(lambda: ear.heard > 2)
    driver.timer.cancel()
    driver.every["joint_states"] = 0

    def run() -> None:
        while not over.wait(0.002):
            driver.tick()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        heard = len(ear.images)
        spin.until(lambda: len(ear.images) > heard + 20)
        before, n = time.time_ns(), driver.n
        ear.streams.drain()
    finally:
        over.set()
        thread.join()
    assert driver.n > n + 5, "it went on"
    late = [ns for message in ear.images if (ns := messages.to_ns(message.header.stamp)) > before + S // 100]
    assert not late


def test_a_latched_topic_takes_volatile_publishers_and_late_ones(spin, probe):
    early = probe.create_publisher(*(topics.TASK.message_type, "task", topics.LATCHED))
    early.publish(topics.TASK.message_type(data="latched"))
    texts: list[str] = []
    node = spin.add(LrmNode("ear", RecorderConfig))
    topics.TASK.subscribe(node, lambda message: texts.append(message.data))
    spin.until(lambda: texts == ["latched"])
    volatile = probe.create_publisher(
        topics.TASK.message_type, "task", QoSProfile(depth=1, durability=DurabilityPolicy.VOLATILE)
    )
    spin.until(volatile.get_subscription_count)
    volatile.publish(topics.TASK.message_type(data="once"))
    spin.until(lambda: texts[-1] == "once")
