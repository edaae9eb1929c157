# SPDX-License-Identifier: Apache-2.0
"""The camera node: real pictures from every kind of source, and an error with a cure when there are none."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo, Image

from lrm_ros.messages import to_frame, to_ns
from lrm_ros.nodes.camera import CameraNode, read_counter, synthetic, write_counter
from lrm_ros.topics import IMAGE

SIZE = {"width": 64, "height": 48, "rate_hz": 50.0}


def _stop(spin, node) -> None:
    node.close()
    spin.nodes.remove(node)


@pytest.mark.parametrize("number", [0, 1, 12345, 2**24 - 1])
def test_the_number_in_a_synthetic_frame_survives_jpeg(number):
    image = next(synthetic(640, 480))
    write_counter(image, number)
    ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])
    assert ok and read_counter(cv2.imdecode(data, cv2.IMREAD_COLOR)) == number


def test_synthetic_frames_arrive_in_order_stamped_and_with_their_info(spin, probe):
    node = spin.add(CameraNode(source="synthetic", camera="wrist", **SIZE))
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    images = spin.collect(probe, Image, "wrist/image_raw", IMAGE)
    infos = spin.collect(probe, CameraInfo, "wrist/camera_info", IMAGE)
    spin.until(lambda: probe.count_publishers("/wrist/image_raw") and node.count_subscribers("/wrist/image_raw"))
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    spin.until(lambda: len(images) >= 10 and len(infos) >= 10)
    numbers = [read_counter(to_frame(image, "wrist").image) for image in images]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    stamps = [to_ns(image.header.stamp) for image in images]
    assert stamps == sorted(stamps) and infos[0].header.stamp == images[0].header.stamp
    assert images[0].header.frame_id == "wrist_optical_frame" and (infos[0].width, infos[0].height) == (64, 48)
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    _stop(spin, node)


def _video(path) -> str:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (128, 96))
    for value in (10, 120, 230):
        writer.write(np.full((96, 128, 3), (0, 0, value), np.uint8))  # red, in OpenCV's BGR
    writer.release()
    return str(path)


def _folder(path) -> str:
    for value in (10, 120, 230):
        cv2.imwrite(str(path / f"{value:03d}.png"), np.full((96, 128, 3), (0, 0, value), np.uint8))
    return str(path)


@pytest.mark.parametrize("kind", ["video", "folder"])
def test_files_are_played_again_and_again_in_the_asked_size_and_as_rgb(spin, probe, tmp_path, kind):
    source = _video(tmp_path / "v.avi") if kind == "video" else _folder(tmp_path)
    node = spin.start(CameraNode(source=source, **SIZE))
    images = spin.collect(probe, Image, "front/image_raw", IMAGE)
    spin.until(lambda: len(images) >= 8)
    frames = [to_frame(image, "front").image for image in images]
    assert all(frame.shape == (48, 64, 3) and frame[..., 1:].max() < 20 for frame in frames)
    assert {round(frame[..., 0].mean(), -1) for frame in frames} >= {10, 120, 230}
    _stop(spin, node)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"source": "/dev/video99"}, "cannot open source '/dev/video99'"),
        ({"source": "99"}, "lrm doctor"),
        ({"source": "synthetic", "camera": "left/front"}, "camera name 'left/front' cannot be"),
        ({"source": "synthetic", "width": 10}, "too small"),
    ],
)
def test_a_source_that_is_not_there_names_the_cure(spin, parameters, says):
    node = spin.add(CameraNode(**{**SIZE, **parameters}))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert says in node.diagnostics.faults["configure"]


def test_an_empty_folder_is_an_error(spin, tmp_path):
    node = spin.add(CameraNode(source=str(tmp_path), **SIZE))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "has no image" in node.diagnostics.faults["configure"]


def test_a_camera_that_stops_is_a_fault_until_it_delivers_again(spin, probe, tmp_path):
    source = tmp_path / "frames"
    source.mkdir()
    _folder(source)
    node = spin.start(CameraNode(source=str(source), stall_s=0.2, **SIZE))
    images = spin.collect(probe, Image, "front/image_raw", IMAGE)
    spin.until(lambda: images)
    source.rename(tmp_path / "unplugged")
    spin.until(lambda: "stall" in node.diagnostics.faults)
    assert "check cable" in node.diagnostics.faults["stall"]
    (tmp_path / "unplugged").rename(source)
    spin.until(lambda: "stall" not in node.diagnostics.faults)
    source.rename(tmp_path / "unplugged")
    spin.until(lambda: "stall" in node.diagnostics.faults)
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert not node.diagnostics.faults, "a camera that is not read does not stall"
    _stop(spin, node)
