# SPDX-License-Identifier: Apache-2.0
"""The last frame of an episode is judged before the recorder ends it; where its answer does not come it is Unscored."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages
from lrm_ros.config import CameraSpec, RobotContract
from lrm_ros.nodes.recorder import RecorderNode
from lrm_ros.nodes.reward import RewardNode
from lrm_ros.record.convert import journals_to_dataset
from lrm_ros.record.dataset import write_dataset
from lrm_ros.record.journal import read_info, read_journal
from lrm_ros.record.steps import Steps
from lrm_ros.ros import last_reward
from lrm_ros.ros.executor import make_executor
from lrm_ros.ros.last_reward import LastReward
from lrm_ros.topics import EVENTS, IMAGE, LATCHED, REWARD, STREAM
from lrm_ros.types import ActionChunk, Frame, Reward, Unscored

JOINTS = RobotContract().joints
DT = 100_000_000


class Arm:
    """A world in lock-step: a state and an image before each command, and after the last one."""

    def __init__(self, probe) -> None:
        self.images = probe.create_publisher(Image, "front/image_raw", IMAGE)
        self.states = probe.create_publisher(JointState, "joint_states", STREAM)
        self.sent = probe.create_publisher(JointTrajectory, "joint_command_sent", STREAM)
        self.task = probe.create_publisher(String, "task", LATCHED)
        self.task.publish(String(data="put the toy in the bowl"))
        self.image_subscribers = 1

    def ready(self) -> bool:
        others = all(p.get_subscription_count() for p in (self.states, self.sent, self.task))
        return others and self.images.get_subscription_count() >= self.image_subscribers

    def show(self, k: int) -> None:
        self.states.publish(messages.from_state(k * DT, JOINTS, np.zeros(6)))
        self.images.publish(messages.from_frame(Frame(k * DT, "front", np.full((96, 96, 3), 10 * k, np.uint8))))

    def act(self, k: int) -> None:
        chunk = ActionChunk(k * DT, np.zeros((1, 6), np.float32), 0.1)
        self.sent.publish(messages.from_chunk(chunk, JOINTS))


@pytest.fixture
def arm(spin, probe) -> Arm:
    return Arm(probe)


@pytest.fixture
def recorder(spin, probe, arm, tmp_path) -> Iterator[RecorderNode]:
    folder = str(tmp_path / "episodes")
    node = spin.start(RecorderNode(folder=folder, realtime=False, image_format="png", min_free_mb=1))
    spin.until(lambda: arm.ready() and node._task)
    yield node
    node.close()
    spin.nodes.remove(node)


@pytest.fixture
def judge(spin, arm) -> Iterator[RewardNode]:
    """A reward node with an executor of its own, as in a process of its own."""
    node = RewardNode(model="fake", mode="progress", interval=10, realtime=False)
    node.trigger_configure()
    node.trigger_activate()
    executor = make_executor(rclpy.logging.get_logger("judge"))
    executor.add_node(node)
    stopping = threading.Event()

    def turn() -> None:
        while not stopping.is_set():
            executor.spin_once(timeout_sec=0.02)

    thread = threading.Thread(target=turn)
    thread.start()
    arm.image_subscribers = 2
    yield node
    stopping.set()
    thread.join()
    executor.remove_node(node)
    node.close()
    executor.shutdown()


def record(spin, probe, arm: Arm, steps: int, name: str, node: RecorderNode, first: int = 1) -> Path:
    """Record so many steps and the frame after them; returns the journal."""
    node.set_parameters([Parameter("episode_id", value=name)])
    assert spin.call(probe, Trigger, "recorder/start_episode").success
    for k in range(first, first + steps):
        arm.show(k)
        arm.act(k)
    arm.show(first + steps)
    ended = spin.call(probe, Trigger, "recorder/stop_episode")
    assert ended.success, ended.message
    return Path(ended.message)


def hears_ends(spin, probe, recorder: RecorderNode) -> None:
    """Have the probe listen for the ends of episodes, as an active reward node does."""
    spin.collect(probe, messages.DiagnosticStatus, "episode", EVENTS)
    spin.until(lambda: recorder.count_subscribers("episode"))


def test_the_last_frame_is_judged_before_the_episode_ends(spin, probe, arm, judge, recorder, tmp_path):
    events = spin.collect(probe, messages.DiagnosticStatus, "episode", EVENTS)
    spin.until(lambda: arm.ready() and judge._task and probe.count_publishers("reward"))
    path = record(spin, probe, arm, 5, "e1", recorder)
    episode = read_journal(path)
    (answer,) = episode.final_rewards.values()
    assert isinstance(answer, Reward) and answer.stamp_ns == 6 * DT and answer.value == pytest.approx(60 / 255)
    assert episode.steps[-1].rewards["progress"].stamp_ns == DT  # the interval is 10
    assert "unjudged" not in read_info(path).notes
    spin.until(lambda: len(events) == 3)
    assert [event.message for event in events] == ["started", "ending", "ended"]
    root = write_dataset([episode], tmp_path / "d", RobotContract(), reward_head="progress")
    import pyarrow.parquet as pq

    (file,) = root.glob("data/*/*.parquet")
    rewards = [float(np.ravel(value)[0]) for value in pq.read_table(file)["next.reward"].to_pylist()]
    assert rewards == pytest.approx([10 / 255] * 4 + [60 / 255])
    # The next episode goes on as before: its first frame is judged after the reset.
    assert spin.call(probe, Trigger, "reward/reset").success
    episode = read_journal(record(spin, probe, arm, 3, "e2", recorder, first=11))
    assert episode.steps[-1].rewards["progress"].stamp_ns == 11 * DT
    assert episode.final_rewards["progress"].stamp_ns == 14 * DT


def test_what_does_not_come_is_named_and_unscored_and_spoils_nothing(spin, probe, arm, recorder, tmp_path):
    rewards = probe.create_publisher(DiagnosticArray, "reward", REWARD.qos)
    hears_ends(spin, probe, recorder)
    spin.until(rewards.get_subscription_count)
    recorder.set_parameters([Parameter("reward_s", value=0.1)])
    recorder.set_parameters([Parameter("episode_id", value="e1")])
    assert spin.call(probe, Trigger, "recorder/start_episode").success
    arm.show(1)
    arm.act(1)
    rewards.publish(messages.from_rewards([Reward(DT, "progress", 0.25)], "front"))
    arm.show(2)
    ended = spin.call(probe, Trigger, "recorder/stop_episode")
    assert ended.success, ended.message
    assert "no reward came for the last frame of camera front" in read_info(ended.message).notes["unjudged"]
    episode = read_journal(ended.message)
    assert episode.steps[0].rewards["progress"] == Reward(DT, "progress", 0.25)
    last = episode.final_rewards["progress"]
    assert isinstance(last, Unscored) and last.stamp_ns == 2 * DT
    assert journals_to_dataset([ended.message], tmp_path / "d").is_dir()


def test_a_reward_node_that_is_silent_is_named(spin, probe, arm, recorder):
    probe.create_publisher(DiagnosticArray, "reward", REWARD.qos)
    hears_ends(spin, probe, recorder)
    spin.until(lambda: recorder.count_publishers("reward"))
    recorder.set_parameters([Parameter("reward_s", value=0.1)])
    notes = read_info(record(spin, probe, arm, 2, "e1", recorder)).notes
    assert "answered nothing in the episode" in notes["unjudged"]


def test_a_reward_node_that_is_not_active_is_not_waited_for(spin, probe, arm, judge, recorder):
    spin.until(lambda: recorder.count_publishers("reward") and recorder.count_subscribers("episode"))
    judge.trigger_deactivate()
    spin.until(lambda: not recorder.count_subscribers("episode"))
    recorder.set_parameters([Parameter("reward_s", value=600.0)])
    notes = read_info(record(spin, probe, arm, 2, "e1", recorder)).notes
    assert "last frame of camera front" in notes["unjudged"] and "is the reward node active?" in notes["unjudged"]
    judge.trigger_activate()
    spin.until(lambda: recorder.count_subscribers("episode") and judge._task)
    path = record(spin, probe, arm, 2, "e2", recorder, first=11)
    assert "unjudged" not in read_info(path).notes
    assert read_journal(path).final_rewards["progress"].stamp_ns == 13 * DT


def test_streams_are_taken_while_the_last_reward_is_waited_for(spin, probe, arm, recorder):
    rewards = probe.create_publisher(DiagnosticArray, "reward", REWARD.qos)
    hears_ends(spin, probe, recorder)
    spin.until(rewards.get_subscription_count)
    recorder.set_parameters([Parameter("reward_s", value=600.0)])
    done, taken = threading.Event(), []

    def go_on() -> None:
        """A camera that goes on, and an answer once two of its images were taken."""
        while not done.is_set() and not recorder._ending:
            done.wait(0.001)
        before = recorder.diagnostics.total("frames_front")
        for k in (4, 5):
            arm.show(k)
        while not done.is_set() and recorder.diagnostics.total("frames_front") < before + 2:
            done.wait(0.001)
        taken.append(recorder.diagnostics.total("frames_front") - before)
        rewards.publish(messages.from_rewards([Reward(3 * DT, "progress", 0.5)], "front"))

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        episode = read_journal(record(spin, probe, arm, 2, "e1", recorder))
    finally:
        done.set()
        thread.join()
    assert taken == [2] and episode.final_rewards["progress"] == Reward(3 * DT, "progress", 0.5)
    assert [step.observation.stamp_ns for step in episode.steps] == [DT, 2 * DT] and episode.final is not None
    assert episode.final.stamp_ns == 3 * DT  # what came after the end is not of the episode


def test_what_is_missing_at_the_end_of_an_episode():
    cameras = RobotContract(cameras=(CameraSpec("front", 8, 8), CameraSpec("side", 8, 8))).cameras
    last = {camera.name: 9 for camera in cameras}
    rewards = LastReward()
    assert rewards.missing(last) == ["front", "side"]  # nobody has answered: any may be judged
    rewards.came("front", [Reward(5, "progress", 0.5), Unscored(5, "completion", "time-out")])
    assert rewards.missing(last) == ["front"]
    assert rewards.unscored(last, "why") == {
        "front": [Unscored(9, "progress", "why"), Unscored(9, "completion", "why")]
    }
    asked = []

    def attend(done) -> None:
        while not done():
            asked.append(1)
            rewards.came("front", [Reward(12, "progress", 0.5)])  # overtakes

    assert "camera front" in rewards.wait(last, 600.0, attend, in_order=True) and asked == [1]

    def late(done) -> None:
        while not done():
            rewards.came("front", [Reward(14 if len(asked) == 1 else 9, "progress", 0.5)])
            asked.append(2)

    assert rewards.wait(last, 600.0, late) == "" and asked == [1, 2, 2]
    rewards.came("front", [Reward(9, "progress", 0.5)])
    assert rewards.missing(last) == [] and rewards.wait(last, 600.0, attend) == ""


def test_answers_about_later_frames_do_not_prolong_the_wait(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(last_reward.time, "monotonic", lambda: now[0])
    rewards, last = LastReward(), {"front": 9}
    rewards.came("front", [Reward(5, "progress", 0.5)])
    stamps = iter([7, *range(10, 100)])

    def attend(done) -> None:
        while not done():
            now[0] += 1.0
            rewards.came("front", [Reward(next(stamps), "progress", 0.5)])

    assert rewards.wait(last, 5.0, attend) == "no reward came for the last frame of camera front"
    assert now[0] == 7, "one answer about the episode, at 1 s, then five seconds of others"


@pytest.mark.parametrize("stamps", [[0], [7], range(-100_000, 0)], ids=["zero", "the same", "of no frame"])
def test_an_end_is_not_put_off_by_answers_that_bring_it_no_nearer(monkeypatch, stamps):
    now = [0.0]
    monkeypatch.setattr(last_reward.time, "monotonic", lambda: now[0])
    frames, last = Steps(["front"], 1.0, 1.0), {"front": 9}
    for ns in (5, 7, 9):
        frames.add("frame", Frame(ns, "front", np.zeros((8, 8, 3), np.uint8)))
    rewards, endless = LastReward(frames.has_frame), itertools.cycle(stamps)
    rewards.came("front", [Reward(5, "progress", 0.5)])

    def attend(done) -> None:
        while not done():
            now[0] += 1.0
            assert now[0] < 100, "it waits for ever"
            rewards.came("front", [Reward(next(endless), "progress", 0.5)])

    assert rewards.wait(last, 5.0, attend) == "no reward came for the last frame of camera front"


def test_the_heads_of_two_reward_nodes_that_judge_one_camera_are_all_unscored():
    rewards = LastReward()
    rewards.came("front", [Reward(5, "progress", 0.5), Reward(5, "completion", 0.1)])
    rewards.came("front", [Reward(7, "robometer", 0.5)])
    assert rewards.unscored({"front": 9}, "why") == {
        "front": [Unscored(9, head, "why") for head in ("progress", "completion", "robometer")]
    }
