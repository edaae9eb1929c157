# SPDX-License-Identifier: Apache-2.0
"""The twin's cameras in a process of their own: the same pictures as in the twin, and a desk's two cameras."""

from __future__ import annotations

import numpy as np
import pytest
from servo_buses import wait_until  # type: ignore[import-not-found]

from lrm_ros.config import CameraConfig, CameraSpec, RobotContract
from lrm_ros.robot.devices.camera import Source, open_source
from lrm_ros.sim.servo_bus.cameras import DESK, TWIN, WRIST, Camera, Cameras, Mirror
from lrm_ros.sim.servo_bus.twin import TwinJoints
from lrm_ros.sim.twin.world import World

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def joints():
    made = TwinJoints()
    yield made
    made.world.close()


def opened(cameras: Cameras, camera: Camera) -> Source:
    return open_source(CameraConfig(camera.name, str(cameras.paths[camera.name]), *camera.size))


def away(image: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(image.astype(int) - other.astype(int)).mean())


def test_the_pipe_shows_what_the_twins_policies_see(joints, tmp_path):
    with Cameras(joints, tmp_path, TWIN) as cameras:
        source = opened(cameras, TWIN[0])
        for seed in (3, 8):
            joints.scene(seed)
            other = joints.world.frame().image
            wait_until(lambda other=other: away(source.read(), other) < 1.0, "the scene")
            robot, toy = joints.world.task_env.agent.robot._objs[0], joints.world.task_env.toy._objs[0]
            robot.set_qpos(np.array([0.5, -0.5, 0.7, 1.0, 0.3, 0.4], np.float32))
            pose = toy.pose
            pose.p = [0.2, 0.1, 0.1]
            toy.set_pose(pose)
            joints._see()
            moved = joints.world.frame().image
            assert away(moved, other) > 3
            wait_until(lambda moved=moved: away(source.read(), moved) < 1.0, "the arm and the toy")
        source.close()
        assert cameras.counts()["front"][0] > 4
    assert list(tmp_path.iterdir()) == []


def test_with_a_wrist_camera_the_front_shows_what_it_showed_and_the_wrist_moves_with_the_arm(joints, tmp_path):
    joints.scene(3)
    front = joints.world.frame().image
    with Cameras(joints, tmp_path, WRIST) as cameras:
        sources = [opened(cameras, camera) for camera in WRIST]
        wait_until(lambda: away(sources[0].read(), front) < 1.0, "the same picture as without it")
        before = sources[1].read()
        assert before.shape == (96, 96, 3) and away(before, front) > 10
        joints.world.task_env.agent.robot._objs[0].set_qpos(np.array([0.5, -0.5, 0.7, 1.0, 0.3, 0.4], np.float32))
        joints._see()
        wait_until(lambda: away(sources[1].read(), before) > 5, "another view")
        for source in sources:
            source.close()


def test_a_desk_has_a_front_and_a_wrist_camera_of_a_real_cameras_size(joints, tmp_path):
    joints.scene(1)
    with Cameras(joints, tmp_path, DESK) as cameras:
        front, wrist = (opened(cameras, camera) for camera in DESK)
        first, on_arm = front.read(), wrist.read()
        assert first.shape == on_arm.shape == (480, 640, 3)
        assert away(first, on_arm) > 5
        joints.world.task_env.agent.robot._objs[0].set_qpos(np.array([0.9, -1.2, 1.1, 1.2, 0.0, 0.2], np.float32))
        joints._see()
        wait_until(lambda: away(wrist.read(), on_arm) > 5, "another view from the arm")
        front.close()
        wrist.close()
        wait_until(lambda: cameras.counts()["wrist"][0] > 0, "counted")


def test_a_process_that_dies_is_told(joints, tmp_path):
    with Cameras(joints, tmp_path, TWIN) as cameras:
        cameras._process.kill()
        cameras._process.join()
        with pytest.raises(RuntimeError, match="the cameras' process has ended with code -9; start again"):
            cameras.counts()


def test_a_mirror_of_the_plain_camera_is_the_twins_own_picture_to_the_bit(joints):
    mirror = Mirror(TWIN)
    joints.scene(6)
    mirror.show(joints.snapshot.copy())
    np.testing.assert_array_equal(mirror.picture(TWIN[0]), joints.world.frame().image)
    mirror.close()


def test_the_twin_says_which_cameras_it_has():
    with pytest.raises(ValueError, match="camera 'side': the twin's desk has the cameras front and wrist"):
        World(contract=RobotContract(cameras=(CameraSpec("side", 64, 48),)), desk=True)
    with pytest.raises(ValueError, match="the twin renders square images"):
        World(contract=RobotContract(cameras=(CameraSpec("front", 64, 48),)))
