# SPDX-License-Identifier: Apache-2.0
"""What the recorder keeps beside an episode's steps, so that players replay it: all joints, camera info, offers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from mcap.reader import make_reader
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages
from lrm_ros.config import RobotContract
from lrm_ros.nodes.recorder import RecorderNode
from lrm_ros.nodes.reward import RewardNode
from lrm_ros.record.journal import read_journal
from lrm_ros.record.writer import JournalWriter
from lrm_ros.ros.recorded import JointValues
from lrm_ros.topics import IMAGE, LATCHED, STREAM
from lrm_ros.types import ActionChunk, Frame

JOINTS = RobotContract().joints
DT = 100_000_000


def state(ns: int, wheel: float) -> JointState:
    names = ["wheel", *reversed(JOINTS)]
    message = JointState(name=names, position=[wheel] + [0.1] * 6, velocity=[0.5] * 7, effort=[2.0] * 7)
    message.header.stamp = messages.to_time(ns)
    return message


def test_a_journal_has_what_players_need(spin, probe, tmp_path):
    images = probe.create_publisher(Image, "front/image_raw", IMAGE)
    infos = probe.create_publisher(CameraInfo, "front/camera_info", IMAGE)
    states = probe.create_publisher(JointState, "joint_states", STREAM)
    sent = probe.create_publisher(JointTrajectory, "joint_command_sent", STREAM)
    task = probe.create_publisher(String, "task", LATCHED)
    task.publish(String(data="put the toy in the bowl"))
    node = spin.start(RecorderNode(folder=str(tmp_path), realtime=False, image_format="raw", min_free_mb=1))
    ends = (images, infos, states, sent, task)
    spin.until(lambda: all(end.get_subscription_count() for end in ends) and node._task)
    assert spin.call(probe, Trigger, "recorder/start_episode").success
    for k in range(1, 4):
        states.publish(state(k * DT, float(k)))
        images.publish(messages.from_frame(Frame(k * DT, "front", np.full((96, 96, 3), k, np.uint8))))
        infos.publish(messages.camera_info("front", k * DT, 96, 96))
        sent.publish(messages.from_chunk(ActionChunk(k * DT, np.zeros((1, 6), np.float32), 0.1), JOINTS))
    ended = spin.call(probe, Trigger, "recorder/stop_episode")
    assert ended.success, ended.message
    with Path(ended.message).open("rb") as stream:
        reader = make_reader(stream)
        found = [(channel, message.data) for _, channel, message in reader.iter_messages()]
    kinds = {"/joint_states": JointState, "/front/image_raw": Image, "/front/camera_info": CameraInfo}
    for topic, kind in kinds.items():
        played = [deserialize_message(data, kind) for channel, data in found if channel.topic == topic]
        assert [messages.to_ns(message.header.stamp) // DT for message in played] == [1, 2, 3], topic
        if kind is JointState:
            assert played[1].name == [*JOINTS, "wheel"] and list(played[1].velocity) == [0.5] * 7
            assert played[1].position[-1] == 2.0 and list(played[1].effort) == [2.0] * 7
        if kind is CameraInfo:
            assert played[0].width == 96
    offers = {channel.topic: yaml.safe_load(channel.metadata["offered_qos_profiles"]) for channel, _ in found}
    assert {topic: offer[0]["reliability"] for topic, offer in offers.items()} == dict.fromkeys(offers, "reliable")
    assert offers["/task"][0]["durability"] == "transient_local"
    assert offers["/joint_states"][0]["durability"] == "volatile"
    assert offers["/task"][0]["deadline"] == {"sec": 9223372036, "nsec": 854775807}
    steps = read_journal(ended.message).steps
    np.testing.assert_allclose([step.observation.state for step in steps], np.full((3, 6), 0.1), atol=1e-6)


def test_a_camera_info_that_came_once_or_without_a_stamp_is_of_the_episodes_time(spin, probe, tmp_path):
    infos = probe.create_publisher(CameraInfo, "front/camera_info", IMAGE)
    states = probe.create_publisher(JointState, "joint_states", STREAM)
    images = probe.create_publisher(Image, "front/image_raw", IMAGE)
    sent = probe.create_publisher(JointTrajectory, "joint_command_sent", STREAM)
    folder, task = str(tmp_path), "put the toy in the bowl"
    node = spin.start(RecorderNode(folder=folder, realtime=False, min_free_mb=1, task_text=task))
    spin.until(lambda: all(end.get_subscription_count() for end in (infos, states, images, sent)))

    def show(k: int) -> None:
        states.publish(state(k * DT, 0.0))
        images.publish(messages.from_frame(Frame(k * DT, "front", np.full((96, 96, 3), k % 256, np.uint8))))
        spin.until(lambda: node._state_ns == k * DT)

    infos.publish(messages.camera_info("front", 7, 96, 96))  # once, when its driver began
    spin.until(lambda: node.diagnostics.total("front/camera_info") == 1)
    show(1000)
    assert spin.call(probe, Trigger, "recorder/start_episode").success
    infos.publish(messages.camera_info("front", 0, 96, 96))
    spin.until(lambda: node.diagnostics.total("front/camera_info") == 2)
    sent.publish(messages.from_chunk(ActionChunk(1000 * DT, np.zeros((1, 6), np.float32), 0.1), JOINTS))
    show(1001)
    ended = spin.call(probe, Trigger, "recorder/stop_episode")
    assert ended.success, ended.message
    with Path(ended.message).open("rb") as stream:
        times = [(channel.topic, message.log_time) for _, channel, message in make_reader(stream).iter_messages()]
    assert [topic for topic, _ in times].count("/front/camera_info") == 2
    assert {ns for _, ns in times} == {1000 * DT, 1001 * DT}  # else it is played for years


def test_a_joint_state_has_what_is_known_of_every_joint():
    values = JointValues(("a", "b"))
    assert values.row(0, np.array([1.0, 2.0])) == (["a", "b"], [1.0, 2.0], [], [])
    message = JointState(name=["wheel", "a"], position=[9.0, 1.0], velocity=[0.1, 0.2])
    message.header.stamp = messages.to_time(DT)
    values.add(message)
    values.add(JointState(name=["odd"], position=[]))
    names, positions, velocities, efforts = values.row(DT, np.array([1.0, 2.0]))
    assert (names, positions, efforts) == (["a", "b", "wheel"], [1.0, 2.0, 9.0], [])
    np.testing.assert_equal(velocities, [0.2, np.nan, 0.1])
    assert values.row(20 * DT, np.array([1.0, 2.0]))[0] == ["a", "b"]  # the wheel's value is old


def test_our_nodes_hear_the_raw_images_of_a_journal_that_is_played(spin, probe, tmp_path):
    writer = JournalWriter(tmp_path / "e.mcap", "put the toy in the bowl", RobotContract(), "policy", "raw")
    for k in range(1, 4):
        writer.frame(Frame(k * DT, "front", np.full((96, 96, 3), 50 * k, np.uint8)))
    path = writer.finish()
    node = spin.start(RewardNode(model="fake", mode="progress", interval=1, realtime=False))
    rewards = spin.collect(probe, DiagnosticArray, "reward", STREAM)
    played, publishers = [], {}
    with path.open("rb") as stream:
        for schema, channel, message in make_reader(stream).iter_messages():
            kind, qos = {"/task": (String, LATCHED), "/front/image_raw": (Image, IMAGE)}[channel.topic]
            if channel.topic not in publishers:
                assert schema.name == f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
                publishers[channel.topic] = probe.create_publisher(kind, channel.topic, qos)
            played.append((publishers[channel.topic], message.data))
    spin.until(lambda: all(publisher.get_subscription_count() for publisher in publishers.values()))
    spin.until(lambda: probe.count_publishers("reward"))
    publishers["/task"].publish(played[0][1])
    spin.until(lambda: node._task == "put the toy in the bowl")
    for publisher, data in played[1:]:
        publisher.publish(data)
    spin.until(lambda: len(rewards) == 3)
    values = [messages.to_rewards(message)[0].value for message in rewards]
    np.testing.assert_allclose(values, [50 / 255, 100 / 255, 150 / 255])
