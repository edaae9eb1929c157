# SPDX-License-Identifier: Apache-2.0
"""Messages and types convert into each other without loss; wrong messages name what is wrong with them."""

from __future__ import annotations

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import Image

from lrm_ros import messages
from lrm_ros.types import ActionChunk, Frame, Reward, Unscored

JOINTS = ("a", "b", "c")


def test_stamps_survive_to_the_nanosecond():
    for ns in (0, 1, 999_999_999, 1_000_000_000, 1_795_000_000_123_456_789):
        assert messages.to_ns(messages.to_time(ns)) == ns
    assert messages.to_ns(messages.to_duration(0.1)) == 100_000_000


def test_a_frame_survives_the_round_trip_without_a_copy(frame: Frame):
    message = messages.from_frame(frame)
    assert message.encoding == "rgb8" and message.step == 288 and message.header.frame_id == "front_optical_frame"
    back = messages.to_frame(message, "front")
    assert back.stamp_ns == frame.stamp_ns and np.array_equal(back.image, frame.image)
    assert np.shares_memory(back.image, np.frombuffer(message.data, np.uint8))


def _encoded(frame: Frame, encoding: str) -> Image:
    rgb = frame.image
    alpha = np.full((96, 96, 1), 7, np.uint8)
    data = {
        "rgb8": rgb,
        "bgr8": rgb[..., ::-1],
        "rgba8": np.concatenate([rgb, alpha], -1),
        "bgra8": np.concatenate([rgb[..., ::-1], alpha], -1),
        "mono8": rgb[..., :1],
    }[encoding]
    padded = np.pad(data.reshape(96, -1), ((0, 0), (0, 5)))  # rows may be longer than their pixels
    return Image(height=96, width=96, encoding=encoding, step=padded.shape[1], data=padded.tobytes())


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"])
def test_every_encoding_becomes_rgb_and_the_step_is_respected(frame: Frame, encoding):
    image = messages.to_frame(_encoded(frame, encoding), "front").image
    expected = np.repeat(frame.image[..., :1], 3, axis=2) if encoding == "mono8" else frame.image
    assert np.array_equal(image, expected)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"width": 0}, "'wrist': the image has no pixels"),
        ({"encoding": "rgb16"}, "'wrist': image encoding 'rgb16' is not supported; set the driver to one of rgb8, "),
        ({"encoding": "16UC1"}, "'wrist': '16UC1' is a depth image, not colour; give the colour topic"),
        ({"height": 97}, "cannot hold 96x97"),
        ({"step": 10}, "with step 10 cannot hold"),
    ],
)
def test_a_wrong_image_names_the_camera_and_the_cure(frame: Frame, fields, says):
    message = messages.from_frame(frame)
    for name, value in fields.items():
        setattr(message, name, value)
    with pytest.raises(ValueError, match=says):
        messages.to_frame(message, "wrist")


def test_camera_info_has_the_focal_length_of_its_field_of_view():
    info = messages.camera_info("front", 5, 96, 64, fov_rad=np.pi / 2)
    assert (info.width, info.height) == (96, 64)
    np.testing.assert_allclose(info.k, [32, 0, 48, 0, 32, 32, 0, 0, 1])
    assert not np.any(messages.camera_info("front", 5, 96, 64).k)


def test_joint_states_are_taken_in_the_contracts_order():
    message = messages.from_state(7, ("c", "x", "a", "b"), [3.0, 9.0, 1.0, 2.0])
    assert messages.to_state(message, JOINTS).tolist() == [1.0, 2.0, 3.0]


def test_a_missing_joint_or_a_nan_is_named():
    with pytest.raises(ValueError, match="lacks joint b"):
        messages.to_state(messages.from_state(7, ("a", "c"), [1.0, 2.0]), JOINTS)
    with pytest.raises(ValueError, match="b = nan"):
        messages.to_state(messages.from_state(7, JOINTS, [1.0, float("nan"), 2.0]), JOINTS)


def test_a_chunk_for_other_joints_is_never_sent():
    with pytest.raises(ValueError, match=r"actions of 2 joints for the 3 of the robot contract: .*use a policy"):
        messages.from_chunk(ActionChunk(9, np.zeros((4, 2), np.float32), 0.1), JOINTS)


def test_an_action_chunk_survives_the_round_trip_in_any_joint_order():
    chunk = ActionChunk(9, np.arange(12, dtype=np.float32).reshape(4, 3), 0.1)
    message = messages.from_chunk(chunk, JOINTS)
    assert [messages.to_ns(point.time_from_start) for point in message.points] == [
        100_000_000 * k for k in (1, 2, 3, 4)
    ]
    back = messages.to_chunk(message, ("c", "b", "a"), 0.1)
    assert back.stamp_ns == 9 and np.array_equal(back.actions, chunk.actions[:, ::-1])


def test_a_command_that_names_a_joint_twice_is_refused():
    message = messages.from_chunk(ActionChunk(9, np.zeros((1, 4), np.float32), 0.1), (*JOINTS, JOINTS[0]))
    with pytest.raises(ValueError, match=f"joint_command has joint {JOINTS[0]} more than once; name each"):
        messages.to_chunk(message, JOINTS, 0.1)
    message.joint_names[-1] = "wheel"
    assert messages.to_chunk(message, JOINTS, 0.1).actions.shape == (1, 3), "of others it may say anything"


def test_commands_for_another_control_rate_or_without_points_are_refused():
    message = messages.from_chunk(ActionChunk(9, np.zeros((4, 3), np.float32), 0.05), JOINTS)
    with pytest.raises(ValueError, match="control period is"):
        messages.to_chunk(message, JOINTS, 0.1)
    message = messages.from_chunk(ActionChunk(9, np.zeros((4, 3), np.float32), 0.1), JOINTS)
    message.points[1], message.points[2] = message.points[2], message.points[1]  # as many in as long a time, disordered
    with pytest.raises(ValueError, match=r"points at \[0.1, 0.3, 0.2, 0.4\] s; .*control period is"):
        messages.to_chunk(message, JOINTS, 0.1)
    message.points = []
    with pytest.raises(ValueError, match="no points"):
        messages.to_chunk(message, JOINTS, 0.1)


def test_points_that_keep_the_rate_in_the_mean_only_are_refused():
    message = messages.from_chunk(ActionChunk(9, np.zeros((4, 3), np.float32), 0.1), JOINTS)
    message.points[1].time_from_start = messages.to_duration(0.11)  # 0.1, 0.11, 0.3, 0.4
    with pytest.raises(ValueError, match="control period is"):
        messages.to_chunk(message, JOINTS, 0.1)


def test_a_joint_that_is_named_twice_is_refused_and_one_of_another_arm_is_not_looked_at():
    message = messages.from_chunk(ActionChunk(9, np.zeros((2, 4), np.float32), 0.1), ("a", "b", "c", "b"))
    message.points[1].positions[3] = 1.0
    with pytest.raises(ValueError, match="joint_command has joint b more than once"):
        messages.to_chunk(message, JOINTS, 0.1)
    message.joint_names = ["a", "b", "c", "d"]
    assert not messages.to_chunk(message, JOINTS, 0.1).actions.any()


def test_rewards_survive_and_a_failure_never_becomes_a_number():
    rewards: list[Reward | Unscored] = [
        Reward(5, "progress", 1 / 3, "tiny", 0.25),
        Reward(5, "contrastive", 0.5, "tiny", 0.25, 0.125),
        Unscored(5, "completion", "time-out after 2 s"),
    ]
    message = messages.from_rewards(rewards, "front")
    assert [status.level for status in message.status] == [
        DiagnosticStatus.OK,
        DiagnosticStatus.OK,
        DiagnosticStatus.ERROR,
    ]
    assert messages.to_rewards(message) == rewards
    assert messages.from_rewards(rewards[:1], "front", held=True).status[0].level == DiagnosticStatus.STALE


def test_a_reward_message_is_about_one_frame():
    with pytest.raises(ValueError, match="one frame"):
        messages.from_rewards([Reward(5, "progress", 0.1), Reward(6, "completion", 0.1)], "front")


def test_the_memory_of_a_published_image_is_used_again_for_one_of_its_size_only():
    def frame(stamp_ns, height, value):
        return Frame(stamp_ns, "front", np.full((height, 4, 3), value, np.uint8))

    first = messages.from_frame(frame(1, 2, 7))
    again = messages.from_frame(frame(2, 2, 9), first)
    assert again is first
    assert messages.to_frame(again, "front").stamp_ns == 2 and (messages.to_frame(again, "front").image == 9).all()
    other = messages.from_frame(frame(3, 5, 11), first)
    assert other is not first and (other.height, len(other.data)) == (5, 60)
