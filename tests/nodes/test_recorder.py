# SPDX-License-Identifier: Apache-2.0
"""The recorder node, with real publishers: what is on the topics is in the journal; trouble is said, not recorded."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages
from lrm_ros.config import RobotContract
from lrm_ros.nodes.recorder import RecorderNode
from lrm_ros.record.journal import read_info, read_journal, recover
from lrm_ros.topics import EVENTS, IMAGE, LATCHED, STREAM
from lrm_ros.types import ActionChunk, Frame

JOINTS = RobotContract().joints
DT = 100_000_000


class Arm:
    """What a twin publishes: a task, and at each step a state, an image and the sent command."""

    def __init__(self, node) -> None:
        self.images = node.create_publisher(Image, "front/image_raw", IMAGE)
        self.states = node.create_publisher(JointState, "joint_states", STREAM)
        self.sent = node.create_publisher(JointTrajectory, "joint_command_sent", STREAM)
        self.wishes = node.create_publisher(JointTrajectory, "policy/wish", STREAM)
        self.task = node.create_publisher(String, "task", LATCHED)
        self.task.publish(String(data="put the toy in the bowl"))

    def ready(self) -> bool:
        return all(p.get_subscription_count() for p in (self.images, self.states, self.sent, self.wishes, self.task))

    def step(self, k: int, first: int = 1) -> None:
        ns = k * DT
        self.states.publish(messages.from_state(ns, JOINTS, np.full(6, k / 100)))
        self.images.publish(messages.from_frame(Frame(ns, "front", np.full((96, 96, 3), k, np.uint8))))
        chunk = ActionChunk(ns, np.full((1, 6), k / 50, np.float32), 0.1)
        self.wishes.publish(messages.from_chunk(chunk, JOINTS))
        self.sent.publish(messages.from_chunk(chunk, JOINTS))


@pytest.fixture
def arm(spin, probe) -> Arm:
    return Arm(probe)


@pytest.fixture
def recorder(spin, probe, arm, tmp_path) -> Iterator[RecorderNode]:
    node = spin.start(RecorderNode(folder=str(tmp_path), realtime=False, image_format="png", min_free_mb=1))
    spin.until(lambda: arm.ready() and node._task)
    yield node
    node.close()
    spin.nodes.remove(node)


def records(path: Path) -> list[tuple[str, int]]:
    """(topic, time) of each message in a journal."""
    from mcap.reader import make_reader

    with path.open("rb") as file:
        return [(channel.topic, message.log_time) for _, channel, message in make_reader(file).iter_messages()]


def _name(node: RecorderNode, name: str) -> None:
    assert node.set_parameters([Parameter("episode_id", value=name)])[0].successful


def test_an_episode_on_the_topics_is_an_episode_in_the_journal(spin, probe, arm, recorder, tmp_path):
    events = spin.collect(probe, messages.DiagnosticStatus, "episode", EVENTS)
    _name(recorder, "e1")
    started = spin.call(probe, Trigger, "recorder/start_episode")
    assert started.success and started.message == str(tmp_path / "e1.mcap")
    for k in range(1, 21):
        arm.step(k)
    ended = spin.call(probe, SetBool, "recorder/end_episode", SetBool.Request(data=True))
    assert ended.success and ended.message == str(tmp_path / "e1.mcap")
    episode = read_journal(ended.message)
    assert len(episode.steps) == 20 and episode.outcome is True and episode.task == "put the toy in the bowl"
    for k, step in enumerate(episode.steps, start=1):
        np.testing.assert_allclose(step.observation.state, k / 100, atol=1e-6)
        np.testing.assert_allclose(step.wish, k / 50, atol=1e-6)
        assert step.observation.frames["front"].image[0, 0, 0] == k
    spin.until(lambda: len(events) == 2)
    assert [event.message for event in events] == ["started", "ended"]
    assert messages.status_values(events[1])["path"] == ended.message


def test_an_episode_started_after_the_reset_has_the_frame_of_the_reset(spin, probe, arm, recorder):
    arm.states.publish(messages.from_state(DT, JOINTS, np.zeros(6)))
    arm.images.publish(messages.from_frame(Frame(DT, "front", np.full((96, 96, 3), 9, np.uint8))))
    spin.until(lambda: len(recorder._newest) == 2)
    _name(recorder, "e1")
    spin.call(probe, Trigger, "recorder/start_episode")
    chunk = ActionChunk(DT, np.zeros((1, 6), np.float32), 0.1)
    arm.sent.publish(messages.from_chunk(chunk, JOINTS))
    path = spin.call(probe, Trigger, "recorder/stop_episode").message
    assert read_journal(path).steps[0].observation.frames["front"].image[0, 0, 0] == 9
    assert read_info(path).outcome is None


def test_a_command_that_means_now_is_recorded_at_the_time_of_the_newest_state(spin, probe, arm, recorder):
    _name(recorder, "hold")
    commands = probe.create_publisher(JointTrajectory, "joint_command", STREAM)
    arm.step(1)
    spin.call(probe, Trigger, "recorder/start_episode")
    arm.step(2)
    spin.until(lambda: recorder._state_ns == 2 * DT and commands.get_subscription_count())
    hold = ActionChunk(0, np.full((1, 6), 0.7, np.float32), 0.1)
    commands.publish(messages.from_chunk(hold, JOINTS))
    ended = spin.call(probe, SetBool, "recorder/end_episode", SetBool.Request(data=True))
    assert ended.success
    asked = [message for message in records(Path(ended.message)) if message[0] == "/joint_command"]
    assert [ns for _, ns in asked] == [2 * DT]


def test_without_a_task_no_episode_starts(spin, probe, tmp_path):
    node = spin.start(RecorderNode(folder=str(tmp_path)))
    answer = spin.call(probe, Trigger, "recorder/start_episode")
    assert not answer.success and "topic 'task'" in answer.message
    node.close()
    spin.nodes.remove(node)


def test_a_nearly_full_disk_refuses_the_start(spin, probe, arm, recorder):
    recorder.set_parameters([Parameter("min_free_mb", value=10**12)])
    answer = spin.call(probe, Trigger, "recorder/start_episode")
    assert not answer.success and "min_free_mb" in answer.message


def test_a_folder_that_cannot_be_made_refuses_the_start_with_the_cure(spin, probe, arm, recorder, tmp_path):
    (tmp_path / "file").touch()
    recorder.set_parameters([Parameter("folder", value=str(tmp_path / "file" / "episodes"))])
    answer = spin.call(probe, Trigger, "recorder/start_episode")
    assert not answer.success and "cannot be made: Not a directory; set parameter 'folder'" in answer.message


def test_an_image_format_that_there_is_not_is_refused_at_once(recorder):
    (result,) = recorder.set_parameters([Parameter("image_format", value="gif")])
    assert not result.successful and "'image_format' must be str of 'jpeg', 'png', 'raw', got 'gif'" in result.reason


@pytest.mark.parametrize("name", ["../outside", "a/b", "/tmp/x", "..", ".hidden", "x" * 201])
def test_an_episode_id_that_is_no_name_of_a_file_in_the_folder_is_refused(spin, probe, arm, recorder, tmp_path, name):
    _name(recorder, name)
    answer = spin.call(probe, Trigger, "recorder/start_episode")
    assert not answer.success and "is no name of a file in" in answer.message
    assert not list(tmp_path.rglob("*.mcap*")) and not list(tmp_path.parent.glob("outside*"))


def test_a_disk_that_fills_up_ends_the_episode_and_keeps_the_finished_ones(spin, probe, arm, recorder, tmp_path):
    events = spin.collect(probe, messages.DiagnosticStatus, "episode", EVENTS)
    _name(recorder, "good")
    spin.call(probe, Trigger, "recorder/start_episode")
    arm.step(1)
    good = spin.call(probe, Trigger, "recorder/stop_episode").message
    _name(recorder, "bad")
    spin.call(probe, Trigger, "recorder/start_episode")
    for k in range(2, 12):
        arm.step(k)
    spin.until(lambda: recorder._writer.counts.get("/joint_command_sent") == 10)
    with recorder._lock:
        recorder._writer.sync()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(tmp_path / "bad.mcap.part") + 10, hard))
    try:
        arm.step(13)
        spin.until(lambda: any(event.message == "failed" for event in events), what="episode failed")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    answer = spin.call(probe, Trigger, "recorder/stop_episode")
    assert not answer.success and "'bad' was not finished" in answer.message and "free disk space" in answer.message
    assert len(read_journal(good).steps) == 1
    assert len(read_journal(recover(tmp_path / "bad.mcap.part")).steps) == 10
    _name(recorder, "next")
    assert spin.call(probe, Trigger, "recorder/start_episode").success


def _bad_state() -> JointState:
    return messages.from_state(DT, JOINTS, [0.0, float("nan"), 0.0, 0.0, 0.0, 0.0])


def _bad_image(**fields) -> Image:
    message = messages.from_frame(Frame(DT, "front", np.zeros((96, 96, 3), np.uint8)))
    for name, value in fields.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("topic", "bad", "says"),
    [
        ("joint_states", _bad_state, "shoulder_lift = nan"),
        ("front/image_raw", lambda: _bad_image(encoding="bayer_rggb16"), "bayer_rggb16"),
        ("front/image_raw", lambda: _bad_image(width=0, height=0, step=0, data=b""), "no pixels"),
        ("front/image_raw", lambda: _bad_image(height=48, data=bytes(48 * 288)), "contract says 96x96"),
    ],
)
def test_a_bad_message_is_one_fault_and_is_not_recorded(spin, probe, arm, recorder, topic, bad, says):
    _name(recorder, "e1")
    spin.call(probe, Trigger, "recorder/start_episode")
    publisher = arm.states if topic == "joint_states" else arm.images
    publisher.publish(bad())
    publisher.publish(bad())
    spin.until(lambda: recorder.diagnostics.total("rejected") == 2)
    assert says in recorder.diagnostics.faults[topic]
    arm.step(2)
    spin.until(lambda: topic not in recorder.diagnostics.faults)
    episode = read_journal(spin.call(probe, Trigger, "recorder/stop_episode").message)
    assert len(episode.steps) == 1 and episode.steps[0].observation.stamp_ns == 2 * DT


def test_a_recorder_stopped_in_an_episode_leaves_it_recoverable(spin, probe, arm, recorder, tmp_path):
    _name(recorder, "e1")
    spin.call(probe, Trigger, "recorder/start_episode")
    arm.step(1)
    spin.until(lambda: recorder.diagnostics.total("actions") == 1)
    assert recorder.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert [p.name for p in Path(tmp_path).iterdir()] == ["e1.mcap.part"]
    assert len(read_journal(recover(tmp_path / "e1.mcap.part")).steps) == 1
    assert recorder.trigger_activate() == TransitionCallbackReturn.SUCCESS


def test_what_a_kill_left_is_kept_when_its_episode_is_recorded_again(spin, probe, arm, recorder, tmp_path):
    _name(recorder, "e1")
    for k in (1, 2):
        assert spin.call(probe, Trigger, "recorder/start_episode").success
        arm.step(k)
        spin.until(lambda k=k: recorder.diagnostics.total("actions") == k)
        if k == 1:
            recorder._queue.join()
            recorder._writer.abandon()  # as a kill leaves it
            recorder._writer = None
    (tmp_path / "e1.mcap").write_bytes(b"another's")
    reply = spin.call(probe, Trigger, "recorder/stop_episode")
    assert reply.success and (tmp_path / "e1.mcap").read_bytes() == b"another's"
    assert reply.message == str(tmp_path / "e1_2.mcap") and len(read_journal(reply.message).steps) == 1
    assert len(read_journal(recover(tmp_path / "e1_unfinished.mcap.part")).steps) == 1


def test_a_discarded_episode_leaves_nothing(spin, probe, arm, recorder, tmp_path):
    _name(recorder, "e1")
    spin.call(probe, Trigger, "recorder/start_episode")
    arm.step(1)
    assert spin.call(probe, Trigger, "recorder/discard_episode").success
    assert list(Path(tmp_path).iterdir()) == []
    assert not spin.call(probe, Trigger, "recorder/stop_episode").success


def test_an_episode_is_reported_while_its_thread_writes_on_another_topic_first(spin, probe, arm, recorder):
    events = spin.collect(probe, messages.DiagnosticStatus, "episode", EVENTS)
    spin.until(lambda: recorder.count_subscribers("episode"))
    assert spin.call(probe, Trigger, "recorder/start_episode").success
    counts = recorder._writer.counts

    class Topic(str):
        def strip(self, *given) -> str:
            counts["/new"] = 1  # what the thread does between two topics of the report
            return super().strip(*given)

    counts[Topic("/old")] = 3
    recorder._report(recorder._writer, "ending", recorder._writer.part)
    spin.until(lambda: events[-1:] and events[-1].message == "ending")
    assert messages.status_values(events[-1])["old"] == "3"
    assert spin.call(probe, Trigger, "recorder/discard_episode").success
