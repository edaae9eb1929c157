# SPDX-License-Identifier: Apache-2.0
"""The camera node's JPEG and PNG, made for listeners only, and the calibration in its camera_info."""

from __future__ import annotations

import numpy as np
import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from lrm_ros.messages import to_frame, to_ns
from lrm_ros.nodes.camera import CameraNode, read_counter
from lrm_ros.topics import IMAGE

SIZE = {"width": 64, "height": 48, "rate_hz": 50.0}
CALIBRATION = """
image_width: {width}
image_height: 48
camera_name: wrist
camera_matrix: {{data: [50, 0, 31, 0, 51, 23, 0, 0, 1]}}
distortion_model: plumb_bob
distortion_coefficients: {{data: [0.1, 0, 0, 0, 0]}}
rectification_matrix: {{data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}}
projection_matrix: {{data: [50, 0, 31, 0, 0, 51, 23, 0, 0, 0, 1, 0]}}
"""


@pytest.fixture
def camera(spin):
    """Start synthetic camera nodes, which are closed at the end."""
    nodes = []

    def start(**parameters) -> CameraNode:
        nodes.append(spin.start(CameraNode(source="synthetic", **SIZE, **parameters)))
        return nodes[-1]

    yield start
    for node in nodes:
        node.close()
        spin.nodes.remove(node)


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_a_listener_gets_the_same_frames_compressed(spin, probe, camera, kind):
    camera(compressed=kind)
    raw = spin.collect(probe, Image, "front/image_raw", IMAGE)
    files = spin.collect(probe, CompressedImage, "front/image_raw/compressed", IMAGE)
    spin.until(lambda: len(raw) >= 10 and len(files) >= 10)
    assert {file.format for file in files} == {f"rgb8; {kind} compressed bgr8"}
    assert {file.header.frame_id for file in files} == {"front_optical_frame"}
    by_stamp = {to_ns(image.header.stamp): to_frame(image, "front").image for image in raw}
    both = [(to_frame(file, "front"), by_stamp.get(to_ns(file.header.stamp))) for file in files]
    pairs = [(frame.image, image) for frame, image in both if image is not None]
    assert len(pairs) >= 5
    for image, expected in pairs:
        assert read_counter(image) == read_counter(expected)
        if kind == "png":
            assert np.array_equal(image, expected)
        else:
            assert np.abs(image.astype(int) - expected)[20:].mean() < 4


def test_nothing_is_compressed_without_a_listener_or_for_none(spin, probe, camera):
    node = camera()
    raw = spin.collect(probe, Image, "front/image_raw", IMAGE)
    spin.until(lambda: len(raw) >= 5)
    assert not node.diagnostics.total("compressed")
    files = spin.collect(probe, CompressedImage, "front/image_raw/compressed", IMAGE)
    spin.until(lambda: files)
    assert node.set_parameters([Parameter("compressed", value="none")])[0].successful
    frames, done = node.diagnostics.total("frames"), node.diagnostics.total("compressed")
    spin.until(lambda: node.diagnostics.total("frames") >= frames + 10)
    assert node.diagnostics.total("compressed") <= done + 1  # one was being made
    (refused,) = node.set_parameters([Parameter("compressed", value="gif")])
    assert not refused.successful and "'gif'" in refused.reason and "'jpeg', 'png', 'none'" in refused.reason


def test_camera_info_is_the_calibration_with_the_stamp_of_each_image(spin, probe, camera, tmp_path):
    (tmp_path / "wrist.yaml").write_text(CALIBRATION.format(width=64))
    camera(camera="wrist", camera_info_url=f"file://{tmp_path}/${{NAME}}.yaml")
    infos = spin.collect(probe, CameraInfo, "wrist/camera_info", IMAGE)
    images = spin.collect(probe, Image, "wrist/image_raw", IMAGE)
    spin.until(lambda: len(infos) >= 5 and len(images) >= 5)
    stamps = {to_ns(image.header.stamp) for image in images}
    assert len({to_ns(info.header.stamp) for info in infos} & stamps) >= 3
    info = infos[-1]
    assert info.k.tolist() == [50, 0, 31, 0, 51, 23, 0, 0, 1] and info.d[0] == 0.1
    assert info.header.frame_id == "wrist_optical_frame" and (info.width, info.height) == (64, 48)


def test_a_calibration_for_another_size_is_refused_at_configure(spin, tmp_path):
    (tmp_path / "a.yaml").write_text(CALIBRATION.format(width=640))
    node = spin.add(CameraNode(source="synthetic", camera_info_url=str(tmp_path / "a.yaml"), **SIZE))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "is of 640x48 pixels, the images have 64x48" in node.diagnostics.faults["configure"]
