# SPDX-License-Identifier: Apache-2.0
"""``robot_description`` for late joiners, and frames that together are the poses of the links."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from std_msgs.msg import String

from lrm_ros import messages, topics
from lrm_ros.config import RecorderConfig, RobotContract
from lrm_ros.robot.urdf import Urdf
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.description import NO_FRAMES, Description, frames, quaternion

URDF = Urdf(Path(__file__).resolve().parents[2] / "config/so101.urdf")
JOINTS = RobotContract().joints


def test_quaternions_are_those_of_scipy_in_every_quarter() -> None:
    turns = Rotation.random(500, random_state=0).as_matrix()
    halves = [Rotation.from_rotvec(np.pi * axis).as_matrix() for axis in np.eye(3)]
    for turn in [*turns, *halves, np.eye(3)]:
        found = quaternion(turn)
        assert found[3] >= 0 and np.linalg.norm(found) == pytest.approx(1)
        np.testing.assert_allclose(Rotation.from_quat(found).as_matrix(), turn, atol=1e-9)


def test_the_frames_together_are_the_poses_of_the_links() -> None:
    positions = dict(zip(JOINTS, np.linspace(-0.8, 0.9, 6), strict=True))
    moving, fixed = (frames(URDF, positions, 5_000_000_001, fixed=which) for which in (False, True))
    assert [frame.child_frame_id for frame in fixed] == ["baseframe", "gripperframe"] and len(moving) == 6
    assert {messages.to_ns(frame.header.stamp) for frame in moving} == {5_000_000_001}
    poses = {URDF.root: np.eye(4)}
    left = [*fixed, *moving]
    while left:
        frame = next(frame for frame in left if frame.header.frame_id in poses)
        left.remove(frame)
        move, turn, step = frame.transform.translation, frame.transform.rotation, np.eye(4)
        step[:3, 3] = move.x, move.y, move.z
        step[:3, :3] = Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix()
        poses[frame.child_frame_id] = poses[frame.header.frame_id] @ step
    for link in URDF.links:
        np.testing.assert_allclose(poses[link], URDF.pose(link, positions), atol=1e-9)
    with pytest.raises(ValueError, match="joint 'shoulder_pan' has no position"):
        frames(URDF, {}, 0, fixed=False)


def test_late_joiners_get_the_description_and_the_diagnostics_say_whether_there_are_frames(spin, probe) -> None:
    node = spin.add(LrmNode("arm", RecorderConfig))
    description = Description(node, URDF)
    description.update(1, np.zeros(6))
    heard = spin.collect(probe, String, "robot_description", topics.LATCHED)
    spin.until(lambda: heard)
    assert heard[0].data == URDF.text
    said = {value.key: value.value for value in node.diagnostics.status().values}["frames"]
    assert said == ("on /tf" if importlib.util.find_spec("tf2_msgs") else NO_FRAMES)


def test_with_the_message_package_each_state_is_published_and_fixed_frames_once(spin, probe, monkeypatch) -> None:
    """In place of tf2_msgs, which may not be here, a type that is: what is published is looked at before it is sent."""
    published: list[list] = []

    class Message(String):
        def __init__(self, transforms=()) -> None:
            super().__init__(data="")
            published.append(list(transforms))

    for name in ("tf2_msgs", "tf2_msgs.msg"):
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(TFMessage=Message))
    node = spin.add(LrmNode("arm", RecorderConfig))
    description = Description(node, URDF)
    assert len(published) == 1 and len(published[0]) == 2
    description.update(7, np.full(6, 0.1))
    moving = published[-1]
    assert len(published) == 2 and len(moving) == 6 and messages.to_ns(moving[0].header.stamp) == 7
    spin.until(lambda: {topic for topic, _ in probe.get_topic_names_and_types()} >= {"/tf", "/tf_static"})
