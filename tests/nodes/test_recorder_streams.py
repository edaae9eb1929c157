# SPDX-License-Identifier: Apache-2.0
"""The recorder in real time: what it starts on, what an episode must be, what becomes of one that is not good."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from drivers import BEST_EFFORT, RELIABLE, Driver  # type: ignore[import-not-found]
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool, Trigger

from lrm_ros import messages, topics
from lrm_ros.config import RobotContract
from lrm_ros.nodes.recorder import RecorderNode
from lrm_ros.record.journal import read_info, read_journal
from lrm_ros.topics import EVENTS

JOINTS = RobotContract().joints
S = 1_000_000_000


class Desk:
    """A recorder, a caller and the drivers in front of it."""

    def __init__(self, spin, probe, folder: Path, task_text: str = "put it there") -> None:
        self.spin, self.probe, self.folder = spin, probe, folder
        self.node = spin.start(RecorderNode(folder=str(folder), min_free_mb=1, task_text=task_text))

    def driver(self, qos=RELIABLE) -> Driver:
        self.driving = Driver(self.probe, qos, size=96, sends=True)
        return self.driving

    def total(self, name: str) -> int:
        return self.node.diagnostics.total(name)

    def more(self, name: str, count: int = 20) -> None:
        """Wait for so many more messages."""
        before = self.total(name)
        self.spin.until(lambda: self.total(name) >= before + count, what=name)

    def start(self) -> Trigger.Response:
        return self.spin.call(self.probe, Trigger, "recorder/start_episode")

    def begin(self) -> str:
        """Start an episode as soon as the streams are good: a busy host's may come too slowly now. Returns its path."""
        answer = self.start()
        while not answer.success and re.search(
            r" Hz, 10 Hz are needed|' stopped .* s ago: look at probe", answer.message
        ):
            self.more("actions", 3)
            answer = self.start()
        assert answer.success, answer.message
        return answer.message

    def end(self) -> SetBool.Response:
        return self.spin.call(self.probe, SetBool, "recorder/end_episode", SetBool.Request(data=True))

    def fault(self, topic: str) -> str:
        return self.node.diagnostics.faults.get(topic, "")


@pytest.fixture
def desk(spin, probe, tmp_path) -> Iterator[Desk]:
    desk = Desk(spin, probe, tmp_path)
    yield desk
    desk.node.close()
    spin.nodes.remove(desk.node)


def test_an_episode_in_which_the_arm_was_stopped_is_not_good_and_none_starts_before_its_release(desk):
    arm = topics.STOPPED.publisher(desk.probe)
    desk.driver()
    for name in ("frames_front", "states", "actions"):
        desk.more(name, 3)
    desk.spin.until(lambda: arm.get_subscription_count() == 3)
    desk.begin()
    desk.more("actions", 3)
    arm.publish(Bool(data=True))
    desk.spin.until(lambda: desk.node._arm.stopped)
    ended = desk.end()
    assert not ended.success and "is not good: the arm was stopped by its e-stop" in ended.message
    assert [path.suffix for path in desk.folder.iterdir()] == [".faulty"]
    refused = desk.start()
    assert not refused.success and refused.message.startswith("the arm is stopped; when it is safe")
    arm.publish(Bool(data=False))
    desk.spin.until(lambda: not desk.node._arm.stopped)
    desk.more("actions", 3)
    desk.begin()
    desk.more("actions", 3)
    assert desk.end().success


@pytest.mark.parametrize("qos", [RELIABLE, BEST_EFFORT], ids=["reliable", "best effort"])
def test_an_episode_on_good_streams_is_good(desk, qos):
    desk.driver(qos)
    for name in ("frames_front", "states", "actions"):
        desk.more(name, 3)
    started = desk.begin()
    desk.more("actions", 40)
    ended = desk.end()
    assert ended.success and ended.message == started
    episode = read_journal(ended.message)
    assert len(episode.steps) >= 40 and all(step.observation.frames for step in episode.steps[1:])
    assert not desk.node.diagnostics.faults


def test_no_episode_starts_before_everything_comes(desk):
    refused = desk.start()
    assert not refused.success and not list(desk.folder.iterdir())
    assert "'front/image_raw': nothing publishes it" in refused.message and "'joint_states'" in refused.message
    desk.driver().every["joint_states"] = 0
    desk.more("frames_front", 3)
    refused = desk.start()
    assert not refused.success and "'joint_states': nothing comes from" in refused.message
    assert "image_raw" not in refused.message


def _stop(topic: str) -> Callable[[Driver], None]:
    return lambda driver: driver.every.update({topic: 0})


def _shift(topic: str, seconds: float) -> Callable[[Driver], None]:
    return lambda driver: driver.offset.update({topic: round(seconds * S)})


def _degrees(driver: Driver) -> None:
    driver.position = np.full(6, 60.0)


@pytest.mark.parametrize(
    ("wrong", "topic", "says"),
    [
        (_stop("front/image_raw"), "front/image_raw", "stopped"),
        (_stop("joint_states"), "joint_states", "stopped"),
        (_shift("front/image_raw", -2), "front/image_raw", "went back"),
        (_shift("front/image_raw", -100), "front/image_raw", "went back"),
        (_shift("joint_states", 100), "joint_states", "ahead of this host's clock"),
        (lambda driver: setattr(driver, "stamp", lambda ns: 0), "joint_states", "its stamps are 0"),
        (_degrees, "joint_states", "joint shoulder_pan is 60.0, its limits are -2 to 2 rad"),
        (_degrees, "joint_command_sent", "joint shoulder_pan is 60.0, its limits are -2 to 2 rad"),
    ],
    ids=["camera stops", "arm stops", "camera's clock", "back", "ahead", "zero", "state in degrees", "sent in degrees"],
)
def test_what_goes_wrong_in_an_episode_is_its_end_without_success(desk, spin, probe, wrong, topic, says):
    events = spin.collect(probe, messages.DiagnosticStatus, "episode", EVENTS)
    driver = desk.driver()
    for name in ("frames_front", "states", "actions"):
        desk.more(name, 3)
    desk.node.set_parameters([Parameter("episode_id", value="e1")])
    desk.begin()
    desk.more("actions", 5)
    wrong(driver)
    spin.until(lambda: says in desk.fault(topic))
    ended = desk.end()
    path = desk.folder / "e1.mcap.faulty"
    assert not ended.success and says in ended.message and f"journal is '{path}'" in ended.message
    assert "episode 'e1' is not good" in ended.message and [p.name for p in desk.folder.iterdir()] == [path.name]
    assert len(read_journal(path).steps) >= 5
    info = read_info(path)
    assert info.episode_id == "e1" and info.outcome is True and says in info.notes["faults"]
    spin.until(lambda: len(events) == 2)
    assert [event.message for event in events] == ["started", "faulty"]
    assert events[1].level == messages.DiagnosticStatus.ERROR
    assert not desk.start().success


def test_an_episode_in_which_nothing_was_sent_is_not_good_and_a_second_one_keeps_the_first(desk):
    desk.driver().every["joint_command_sent"] = 0
    for name in ("frames_front", "states"):
        desk.more(name, 3)
    desk.node.set_parameters([Parameter("episode_id", value="e1")])
    for _ in range(2):
        desk.begin()
        desk.more("states", 5)
        ended = desk.end()
        assert not ended.success and "not one command was sent in the episode" in ended.message
    assert sorted(p.name for p in desk.folder.iterdir()) == ["e1.mcap.faulty", "e1_2.mcap.faulty"]


@pytest.mark.parametrize("own_text", [True, False])
def test_another_task_in_the_middle_spoils_an_episode_that_has_no_text_of_its_own(desk, spin, probe, own_text):
    desk.driver()
    desk.more("actions", 3)
    task = topics.TASK.publisher(probe)
    if not own_text:
        desk.node.set_parameters([Parameter("task_text", value="")])
    for text in ("put it there", "put it there", "give it to me"):
        task.publish(String(data=text))
        spin.until(lambda text=text: desk.node._task == text)
        assert desk.node._writer is not None or desk.begin()
    desk.more("actions", 2)
    ended = desk.end()
    assert ended.success == own_text, ended.message
    assert own_text or "became 'give it to me' in the middle of an episode of 'put it there'" in ended.message


def test_joint_states_in_parts_and_with_more_joints_are_recorded(desk, probe):
    driver = desk.driver()
    driver.every["joint_states"] = 0

    def publish() -> None:
        ns = driver.stamp(messages.to_ns(probe.get_clock().now().to_msg()))
        for names in (("wheel", *JOINTS[:5]), JOINTS[5:]):
            driver.states.publish(messages.from_state(ns, names, [0.1] * len(names)))

    probe.create_timer(0.05, publish)
    for name in ("frames_front", "states", "actions"):
        desk.more(name, 3)
    desk.begin()
    desk.more("actions", 20)
    ended = desk.end()
    assert ended.success, ended.message
    np.testing.assert_allclose(read_journal(ended.message).steps[-1].observation.state, [0.1] * 6, atol=1e-6)


def test_the_end_does_not_wait_for_a_host_whose_clock_is_behind(desk):
    driver = desk.driver()
    for name in ("frames_front", "states", "actions"):
        desk.more(name, 3)
    desk.begin()
    desk.more("actions", 5)
    entry = desk.node._streams._inputs["joint_states"]
    endless = Endless(
        entry.subscription, lambda: messages.from_state(driver.stamp(time.time_ns()), JOINTS, np.zeros(6))
    )
    entry.subscription, taken = endless, entry.subscription
    ended = desk.end()
    entry.subscription = taken
    assert ended.message and endless.taken > 1


class Endless:
    """A subscription that has a message whenever it is asked, sent by a clock that is an hour behind."""

    msg_type = JointState

    def __init__(self, subscription, message: Callable[[], JointState]) -> None:
        self.handle, self._message, self.taken = self, message, 0
        self._subscription = subscription

    def __enter__(self) -> None: ...

    def __exit__(self, *_) -> None: ...

    def take_message(self, *_) -> tuple[JointState, dict[str, int]]:
        self.taken += 1
        now_ns = time.time_ns()
        times = {"source_timestamp": now_ns - 3600 * S, "received_timestamp": now_ns}
        return self._message(), times | {"publication_sequence_number": self.taken}
