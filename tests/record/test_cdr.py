# SPDX-License-Identifier: Apache-2.0
"""What the journal's own CDR encoder writes must be what ROS 2 and mcap_ros2 read."""

from __future__ import annotations

import numpy as np
import pytest

from lrm_ros.record import cdr
from lrm_ros.types import ActionChunk, Frame, Reward, Unscored

JOINTS = ("shoulder_pan", "lift", "gripper")


def _is_read_by_ros_as(data: bytes, message) -> bool:
    """Whether ROS decodes ``data`` to ``message`` (its own bytes differ in padding, which is arbitrary)."""
    from rclpy.serialization import deserialize_message

    return deserialize_message(data, type(message)) == message


def test_joint_state_is_read_by_ros():
    from lrm_ros.messages import from_state

    positions = [0.1, -2.0, 3.25]
    ours = cdr.joint_state(1_234_567_890, JOINTS, positions)
    assert _is_read_by_ros_as(ours, from_state(1_234_567_890, JOINTS, positions))


@pytest.mark.parametrize("steps", [1, 5])
def test_joint_trajectory_is_read_by_ros(steps):
    from lrm_ros.messages import from_chunk

    chunk = ActionChunk(7_000_000_001, np.arange(steps * 3, dtype=np.float32).reshape(steps, 3), 0.1)
    ours = cdr.joint_trajectory(chunk.stamp_ns, JOINTS, chunk.actions, chunk.dt_s)
    assert _is_read_by_ros_as(ours, from_chunk(chunk, JOINTS))


def test_raw_image_is_read_by_ros(frame: Frame):
    from lrm_ros.messages import from_frame

    ours = cdr.image(frame.stamp_ns, "front_optical_frame", 96, 96, frame.image.tobytes())
    assert _is_read_by_ros_as(ours, from_frame(frame))


def test_compressed_image_and_string_is_read_by_ros():
    from sensor_msgs.msg import CompressedImage
    from std_msgs.msg import String

    message = CompressedImage(format="jpeg", data=b"\x01\x02\x03")
    message.header.stamp.sec = 5
    message.header.frame_id = "front_optical_frame"
    ours = cdr.compressed_image(5_000_000_000, "front_optical_frame", "jpeg", b"\x01\x02\x03")
    assert _is_read_by_ros_as(ours, message)
    assert _is_read_by_ros_as(cdr.string("lege den Bären"), String(data="lege den Bären"))


def test_reward_is_read_by_ros():
    from lrm_ros.messages import from_rewards

    rewards: list[Reward | Unscored] = [
        Reward(10, "progress", 0.1, "tiny", 0.01),
        Unscored(10, "completion", "time-out"),
    ]
    ours = cdr.diagnostic_array(
        10,
        "front_optical_frame",
        [
            (0, "progress", "", {"value": "0.1", "model": "tiny", "latency_s": "0.010000"}),
            (2, "completion", "time-out", {}),
        ],
    )
    assert _is_read_by_ros_as(ours, from_rewards(rewards, "front"))


def from_camera_info():
    from sensor_msgs.msg import CameraInfo

    message = CameraInfo(width=640, height=480, distortion_model="plumb_bob", d=[0.1] * 5, k=[1.5] * 9)
    message.roi.width = 7
    return message


def test_mcap_ros2_decodes_every_schema():
    from mcap_ros2._dynamic import generate_dynamic
    from rclpy.serialization import serialize_message

    examples = {
        "std_msgs/msg/String": cdr.string("x"),
        "sensor_msgs/msg/Image": cdr.image(1, "f", 1, 2, bytes(6)),
        "sensor_msgs/msg/CompressedImage": cdr.compressed_image(1, "f", "png", b"abc"),
        "sensor_msgs/msg/CameraInfo": serialize_message(from_camera_info()),
        "sensor_msgs/msg/JointState": cdr.joint_state(1, JOINTS, [1, 2, 3], [4, 5, 6], [7, 8, 9]),
        "trajectory_msgs/msg/JointTrajectory": cdr.joint_trajectory(1, JOINTS, [[1, 2, 3]], 0.1),
        "diagnostic_msgs/msg/DiagnosticArray": cdr.diagnostic_array(1, "f", [(0, "a", "b", {"c": "d"})]),
    }
    assert set(examples) == set(cdr.SCHEMAS)
    for name, data in examples.items():
        message = generate_dynamic(name, cdr.SCHEMAS[name])[name](data)
        assert message is not None
        if name.endswith("CameraInfo"):
            assert (message.width, list(message.k), message.roi.width) == (640, [1.5] * 9, 7)
