# SPDX-License-Identifier: Apache-2.0
"""Named pipes of video: what OpenCV and our camera's source make of them."""

from __future__ import annotations

import time

import numpy as np
import pytest
from sensor_msgs.msg import Image
from servo_buses import wait_until  # type: ignore[import-not-found]

from lrm_ros.config import CameraConfig
from lrm_ros.messages import to_frame
from lrm_ros.nodes.camera import CameraNode
from lrm_ros.robot.devices.camera import open_source
from lrm_ros.sim.servo_bus import fifo
from lrm_ros.topics import IMAGE


def chart(width: int, height: int, shade: int = 0) -> np.ndarray:
    """Areas of colour, the shade in the middle one."""
    image = np.zeros((height, width, 3), np.uint8)
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (shade, shade, shade), (255, 255, 255), (240, 150, 40)]
    for i, colour in enumerate(colours):
        image[:, i * width // 6 : (i + 1) * width // 6] = colour
    return image


class Scene:
    """A picture that changes when it is told to, and the pipe that shows it."""

    def __init__(self, path, width: int = 96, height: int = 64) -> None:
        fifo.make(path)
        self.path, self.size = path, (width, height)
        self.counts = [0, 0, 0]
        self.newest: tuple[int, np.ndarray] | None = None
        self.writer = fifo.FifoWriter(path, lambda: self.newest, self.counts)

    def show(self, shade: int) -> None:
        self.newest = (shade, chart(*self.size, shade))

    def open(self):
        return open_source(CameraConfig("front", str(self.path), *self.size))


@pytest.fixture
def scene(tmp_path):
    made = Scene(tmp_path / "front")
    yield made
    made.writer.close()


def test_our_cameras_source_opens_the_pipe_as_a_device_and_sees_the_colours(scene):
    scene.show(100)
    source = scene.open()
    image = source.read()
    assert image.shape == (64, 96, 3)
    centres = [image[32, 8 + 16 * i] for i in range(6)]
    np.testing.assert_allclose(centres, [chart(96, 64, 100)[32, 8 + 16 * i] for i in range(6)], atol=3)
    source.close()


def test_the_newest_picture_comes_and_an_old_one_is_repeated_and_counted(scene):
    scene.show(0)
    source = scene.open()
    for shade in (50, 200):
        scene.show(shade)
        wait_until(lambda shade=shade: abs(int(source.read()[32, 56, 0]) - shade) <= 3, "shown")
    wait_until(lambda: source.read() is not None and scene.counts[1] > 3, "repeated")
    assert scene.counts[0] > scene.counts[1]
    source.close()


def test_a_reader_that_is_late_gets_fewer_frames_and_none_is_stored_for_it(scene):
    scene.show(0)
    source = scene.open()
    source.read()
    wait_until(lambda: source.read() is not None and scene.counts[0] > 2, "running")
    written = scene.counts[0]
    scene.show(200)
    end = time.monotonic() + 0.5  # 15 frames, if they were stored
    wait_until(lambda: time.monotonic() > end, "half a second later")
    assert scene.counts[0] - written < 10
    wait_until(lambda: source.read()[32, 56, 0] > 190, "the newest after what was on its way")
    wait_until(lambda: source.read() is not None and scene.counts[2] > 5, "skipped")
    source.close()


def test_one_reader_after_the_other_gets_a_stream_from_its_beginning(scene):
    scene.show(10)
    for _ in range(3):
        wait_until(lambda: not scene.writer.read, "free")
        source = scene.open()
        assert source.read().shape == (64, 96, 3)
        source.close()


def test_what_is_no_pipe_is_left_alone(tmp_path):
    (tmp_path / "front").write_text("mine")
    with pytest.raises(FileExistsError, match="is no named pipe; give another folder for the cameras"):
        fifo.make(tmp_path / "front")
    assert (tmp_path / "front").read_text() == "mine"


def test_the_camera_node_delivers_from_a_pipe_and_again_after_its_writer_came_back(spin, probe, tmp_path):
    first = Scene(tmp_path / "front", 64, 48)
    first.show(60)
    node = spin.start(CameraNode(source=str(first.path), width=64, height=48, rate_hz=30.0))
    images = spin.collect(probe, Image, "front/image_raw", IMAGE)
    spin.until(lambda: len(images) >= 3)
    assert abs(int(to_frame(images[-1], "front").image[24, 37, 0]) - 60) <= 3
    first.writer.close()
    second = Scene(first.path, 64, 48)
    second.show(220)
    spin.until(lambda: to_frame(images[-1], "front").image[24, 37, 0] > 200)
    node.close()
    spin.nodes.remove(node)
    second.writer.close()


def test_what_ends_the_writer_is_told(tmp_path):
    scene = Scene(tmp_path / "front")
    scene.newest = (0, np.zeros((4, 4), np.uint8))  # no RGB
    with scene.path.open("rb"):
        wait_until(lambda: scene.writer._error, "an error")
        with pytest.raises(RuntimeError, match=r"nothing more is written to '.*front'"):
            scene.writer.check()
    with pytest.raises(RuntimeError, match="nothing more is written"):
        scene.writer.close()
