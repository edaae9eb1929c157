# SPDX-License-Identifier: Apache-2.0
"""Journals of other versions and of odd content: read as far as they can be, else the error says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from journals import ARM as CONTRACT  # type: ignore[import-not-found]
from journals import DT, three_steps
from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer

from lrm_ros.config_files import to_dict
from lrm_ros.record import cdr
from lrm_ros.record.info import sealed
from lrm_ros.record.journal import JournalError, last_frames, read_info, read_journal, recover
from lrm_ros.record.writer import JournalWriter
from lrm_ros.types import Frame, Reward

LIVE = {
    "/joint_states": ("/arm1/joint_states", "- history: keep_last"),
    "/front/image_raw/compressed": ("/arm1/front/image_raw/compressed", ""),
    "/front/image_raw": ("/arm1/front/image_raw", ""),
    "/reward": ("/judge", ""),
}


def foreign(path: Path, messages: list[tuple[str, str, bytes]] = (), **about: str | None) -> Path:
    """A journal with other metadata (``None``: without it) and more messages than ours."""
    metadata = {
        "episode_id": "e",
        "task": "put the toy in the bowl",
        "source": "policy",
        "contract": json.dumps(to_dict(CONTRACT)),
    } | about
    with path.open("wb") as stream:
        writer = Writer(stream, compression=CompressionType.NONE)
        writer.start(profile="ros2", library="test")
        writer.add_metadata("episode", sealed({key: value for key, value in metadata.items() if value is not None}))
        channels: dict[str, int] = {}
        own = [
            ("/joint_states", "sensor_msgs/msg/JointState", cdr.joint_state(DT, ("a", "b"), (0.0, 0.0))),
            ("/joint_command_sent", "trajectory_msgs/msg/JointTrajectory",
             cdr.joint_trajectory(DT, ("a", "b"), [[0.0, 0.0]], 0.1)),
        ]  # fmt: skip
        for topic, schema, data in [*own, *messages]:
            if topic not in channels:
                number = writer.register_schema(schema, "ros2msg", cdr.SCHEMAS[schema].encode())
                channels[topic] = writer.register_channel(topic, "cdr", number)
            writer.add_message(channels[topic], DT, data, DT)
        writer.finish()
    return path


@pytest.mark.parametrize("image_format", ["png", "raw"])
def test_a_journal_has_live_names_offers_and_whole_joint_states_and_reads_as_before(tmp_path, image_format):
    path = three_steps(tmp_path / "e.mcap", image_format, topics=LIVE).finish(outcome=True)
    with path.open("rb") as stream:
        reader = make_reader(stream)
        summary = reader.get_summary()
        channels = {channel.topic: channel.metadata for channel in summary.channels.values()}
        image = f"/arm1/front/image_raw{'' if image_format == 'raw' else '/compressed'}"
        assert set(channels) == {"/arm1/joint_states", image, "/judge", "/joint_command_sent", "/task"}
        assert channels["/arm1/joint_states"] == {"offered_qos_profiles": "- history: keep_last"}
        data = next(message.data for _, _, message in reader.iter_messages("/arm1/joint_states"))
    from rclpy.serialization import deserialize_message
    from sensor_msgs.msg import JointState

    state = deserialize_message(data, JointState)
    assert state.name == ["wheel", "b", "a"] and list(state.position) == [9.0, 0.5, 0.01]
    assert list(state.velocity) == [0.1, 0.2, 0.3] and list(state.effort) == [1.0, 2.0, 3.0]
    episode = read_journal(path)
    assert [step.observation.state.tolist() for step in episode.steps] == [
        pytest.approx([k / 100, 0.5], abs=1e-6) for k in (1, 2, 3)
    ]
    assert [int(step.observation.frames["front"].image[0, 0, 0]) for step in episode.steps] == [1, 2, 3]
    assert episode.steps[2].rewards["progress"] == Reward(3 * DT, "progress", 0.3)
    assert [frame.stamp_ns for frame in last_frames(path, "front", 2)] == [2 * DT, 3 * DT]


def test_raw_images_are_messages_that_nodes_subscribe_to_and_take_little_room(tmp_path):
    path = three_steps(tmp_path / "e.mcap", "raw").finish()
    from rclpy.serialization import deserialize_message
    from sensor_msgs.msg import Image

    from lrm_ros.messages import to_frame

    with path.open("rb") as stream:
        data = [message.data for _, _, message in make_reader(stream).iter_messages("/front/image_raw")]
    assert [int(to_frame(deserialize_message(item, Image), "front").image[0, 0, 0]) for item in data] == [1, 2, 3]
    large = JournalWriter(tmp_path / "large.mcap", "task", CONTRACT, "policy", "raw")
    for k in range(20):
        large.frame(Frame(k, "front", np.zeros((480, 640, 3), np.uint8)))
    assert large.finish().stat().st_size < 480 * 640 * 3


def test_a_kill_keeps_names_and_offers(tmp_path):
    writer = three_steps(tmp_path / "e.mcap", topics=LIVE)
    recovered = recover(writer.abandon())
    assert len(read_journal(recovered).steps) == 3 and read_info(recovered).recovered
    with recovered.open("rb") as stream:
        channels = {c.topic: c.metadata for c in make_reader(stream).get_summary().channels.values()}
    assert channels["/arm1/joint_states"] == {"offered_qos_profiles": "- history: keep_last"}


def test_a_journal_of_the_first_format_is_read(tmp_path):
    path = foreign(tmp_path / "e.mcap")
    assert len(read_journal(path).steps) == 1 and read_info(path).topics == {}


@pytest.mark.parametrize("number", [None, "2", "3"])
def test_what_another_version_has_added_to_the_contract_is_left_out_and_said(tmp_path, caplog, number):
    contract = to_dict(CONTRACT)
    contract["mass_kg"] = 3.0
    contract["cameras"][0]["fov_deg"] = 60
    path = foreign(tmp_path / "e.mcap", contract=json.dumps(contract), format=number)
    assert read_info(path).contract == CONTRACT and len(read_journal(path).steps) == 1
    assert "ignored mass_kg, cameras.fov_deg of its contract" in caplog.text


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ({"contract": "{"}, "its robot contract cannot be used (Expecting property name"),
        ({"contract": "{}"}, "(contract lacks name, joints, lower, upper, max_step, cameras, control_hz; give"),
        ({"contract": "[]"}, "its robot contract cannot be used (expected an object"),
        ({"contract": json.dumps(to_dict(CONTRACT) | {"joints": 3})}, "contract.joints: expected a list"),
        ({"contract": None}, "does not say its contract; record again"),
        ({"task": None, "format": "7"}, "it has format 7, this version knows 2: install a newer lrm_ros"),
        ({"topics": "["}, "the names of its topics cannot be read"),
    ],
)
def test_metadata_that_cannot_be_used_is_named_and_no_damage_is_claimed(tmp_path, about, says):
    path = foreign(tmp_path / "e.mcap", **about)
    for read in (read_info, read_journal):
        with pytest.raises(JournalError) as error:
            read(path)
        assert says in str(error.value) and str(path) in str(error.value)
        assert "corrupt" not in str(error.value) and "recover" not in str(error.value)


def _status(**values: str) -> bytes:
    return cdr.diagnostic_array(DT, "front_optical_frame", [(0, "progress", "", values)])


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (("/joint_states", "sensor_msgs/msg/JointState", cdr.joint_state(DT, ("a",), (0.0,))), "'b' is not in list"),
        (("/joint_states", "sensor_msgs/msg/JointState", b"\x00\x01"), "'/joint_states' cannot be decoded"),
        (("/joint_command_sent", "trajectory_msgs/msg/JointTrajectory",
          cdr.joint_trajectory(DT, ("a", "b"), [], 0.1)), "list index out of range"),
        (("/front/image_raw/compressed", "sensor_msgs/msg/CompressedImage",
          cdr.compressed_image(DT, "", "png", b"no image")), "the png image at 100000000 ns cannot be decoded"),
        (("/front/image_raw", "sensor_msgs/msg/Image", cdr.image(DT, "", 4, 4, bytes(5))), "cannot reshape"),
        (("/reward", "diagnostic_msgs/msg/DiagnosticArray", _status(value="much")), "could not convert"),
        (("/reward", "diagnostic_msgs/msg/DiagnosticArray", _status(value="nan")), "must be Unscored"),
    ],
)  # fmt: skip
def test_content_that_cannot_be_used_is_named_and_no_damage_is_claimed(tmp_path, message, says):
    path = foreign(tmp_path / "e.mcap", [message])
    with pytest.raises(JournalError) as error:
        read_journal(path)
    assert says in str(error.value) and str(path) in str(error.value)
    assert "corrupt" not in str(error.value) and "record.recover" not in str(error.value)
    assert read_info(path).task == "put the toy in the bowl"


def test_what_is_on_topics_that_no_episode_is_made_of_does_not_matter(tmp_path):
    assert len(read_journal(foreign(tmp_path / "e.mcap", [("/chatter", "std_msgs/msg/String", b"\x00")])).steps) == 1


@pytest.mark.parametrize("record", ["episode", "end"])
def test_changed_metadata_are_damage(tmp_path, record):
    path = three_steps(tmp_path / "e.mcap").finish(outcome=True)
    before, after = {"episode": (b"put the toy", b"put the boy"), "end": (b"true", b"trua")}[record]
    path.write_bytes(path.read_bytes().replace(before, after))
    with pytest.raises(JournalError, match=rf"'{path}' is corrupt: its metadata '{record}'"):
        read_info(path)
