# SPDX-License-Identifier: Apache-2.0
"""The camera node and its device: pictures are upright, and one thread has the device until it is given back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from lrm_ros.messages import to_frame
from lrm_ros.nodes import camera
from lrm_ros.nodes.camera import CameraNode
from lrm_ros.topics import IMAGE

SIZE = {"width": 64, "height": 48, "rate_hz": 50.0}
LONG_S = 30.0


def _stop(spin, node) -> None:
    node.close()
    spin.nodes.remove(node)


# -- turned ----------------------------------------------------------------------------------------------------------

QUARTERS = np.repeat(
    np.repeat(np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [250, 250, 250]]], np.uint8), 24, 0), 32, 1
)


def corners(image) -> str:
    """The colours of the corners, from the upper left to the lower right."""
    names = {(True, False, False): "R", (False, True, False): "G", (False, False, True): "B", (True,) * 3: "W"}
    height, width, _ = image.shape
    points = [image[y, x] > 128 for y in (4, height - 5) for x in (4, width - 5)]
    return "".join(names.get(tuple(point.tolist()), "?") for point in points)


UPRIGHT = {0: "RGBW", 90: "BRWG", 180: "WBGR", 270: "GWRB"}


def _size(degrees: int) -> dict[str, int]:
    return {"width": 64, "height": 48} if degrees % 180 == 0 else {"width": 48, "height": 64}


@pytest.mark.parametrize("degrees", UPRIGHT)
def test_a_video_of_a_camera_that_was_held_turned_is_upright(spin, probe, tmp_path, degrees):
    av = pytest.importorskip("av")  # to write the video
    from numbered import say_turned  # type: ignore[import-not-found]

    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(QUARTERS, "rgb24")))
        container.mux(stream.encode())
    node = spin.start(CameraNode(source=str(say_turned(path, degrees)), **SIZE | _size(degrees)))
    images = spin.collect(probe, Image, "front/image_raw", IMAGE)
    spin.until(lambda: len(images) >= 8)  # it has begun anew
    assert {corners(to_frame(image, "front").image) for image in images} == {UPRIGHT[degrees]}
    _stop(spin, node)


class Device:
    """What OpenCV opens: a camera with numbered frames whose reads the test may block."""

    opened: ClassVar[list[Device]] = []

    def __init__(self, source: Any) -> None:
        self.settings: dict[int, float] = {cv2.CAP_PROP_ORIENTATION_AUTO: 0, cv2.CAP_PROP_ORIENTATION_META: 0}
        self.turns_itself = False
        self.raises: Exception | None = None
        self.go_on, self.in_read = threading.Event(), threading.Event()
        self.go_on.set()
        self.readers: set[int] = set()
        self.reads = self.released = 0
        self.image = QUARTERS
        self.prepare(self)
        Device.opened.append(self)

    prepare: Any = staticmethod(lambda device: None)

    def isOpened(self) -> bool:
        return True

    def set(self, key: int, value: float) -> bool:
        if key == cv2.CAP_PROP_ORIENTATION_AUTO and not self.turns_itself:
            return False
        self.settings[key] = value
        return True

    def get(self, key: int) -> float:
        return self.settings[key]

    def read(self) -> tuple[bool, Any]:
        self.readers.add(threading.get_ident())
        self.reads += 1
        self.in_read.set()
        assert self.go_on.wait(LONG_S)
        self.in_read.clear()
        assert not self.released, "read after it was released"
        if self.raises is not None:
            raise self.raises
        return True, self.image[:, :, ::-1]

    def release(self) -> None:
        self.released += 1


@pytest.fixture
def device(monkeypatch) -> Iterator[type[Device]]:
    monkeypatch.setattr(cv2, "VideoCapture", Device)
    monkeypatch.setattr(camera, "RELEASE_S", LONG_S)
    Device.opened = []
    yield Device
    for opened in Device.opened:
        opened.go_on.set()


def _block(spin, device: Device) -> None:
    device.go_on.clear()
    device.in_read.clear()
    spin.until(device.in_read.is_set)


@pytest.mark.parametrize("turns_itself", [False, True], ids=["device", "OpenCV"])
@pytest.mark.parametrize("degrees", UPRIGHT)
def test_a_device_that_says_that_it_is_mounted_turned_is_upright(
    spin, probe, monkeypatch, device, degrees, turns_itself
):
    def prepare(opened: Device) -> None:
        opened.settings[cv2.CAP_PROP_ORIENTATION_META] = degrees
        opened.turns_itself = turns_itself
        opened.image = np.rot90(QUARTERS, -degrees // 90) if turns_itself else QUARTERS

    monkeypatch.setattr(device, "prepare", staticmethod(prepare))
    node = spin.start(CameraNode(source="0", **SIZE | _size(degrees)))
    images = spin.collect(probe, Image, "front/image_raw", IMAGE)
    spin.until(lambda: images)
    assert corners(to_frame(images[0], "front").image) == UPRIGHT[degrees]
    asked = device.opened[0].settings[cv2.CAP_PROP_FRAME_WIDTH], device.opened[0].settings[cv2.CAP_PROP_FRAME_HEIGHT]
    wanted = _size(degrees) if turns_itself else _size(0)  # what the sensor delivers
    assert asked == (wanted["width"], wanted["height"])
    _stop(spin, node)


def test_a_device_that_is_turned_by_less_than_a_quarter_is_refused_and_given_back(spin, monkeypatch, device):
    turn = lambda opened: opened.settings.update({cv2.CAP_PROP_ORIENTATION_META: 45})  # noqa: E731
    monkeypatch.setattr(device, "prepare", staticmethod(turn))
    node = spin.add(CameraNode(source="0", **SIZE))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "turned by 45 degrees" in node.diagnostics.faults["configure"] and device.opened[0].released == 1


# -- one thread a device ---------------------------------------------------------------------------------------------


def test_a_read_that_blocked_goes_on_in_the_same_thread_and_publishes_nothing_while_the_node_is_inactive(
    spin, probe, device
):
    node = spin.start(CameraNode(source="0", **SIZE))
    images = spin.collect(probe, Image, "front/image_raw", IMAGE)
    spin.until(lambda: images)
    (opened,) = device.opened
    _block(spin, opened)
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    published = node.diagnostics.total("frames")
    opened.go_on.set()
    spin.until(lambda: not opened.in_read.is_set())
    _ = [spin.executor.spin_once(timeout_sec=0.02) for _ in range(5)]
    assert node.diagnostics.total("frames") == published
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    _block(spin, opened)
    for transition in ("deactivate", "activate") * 2:
        assert getattr(node, f"trigger_{transition}")() == TransitionCallbackReturn.SUCCESS
    opened.go_on.set()
    spin.until(lambda: node.diagnostics.total("frames") > published + 5)
    assert device.opened == [opened] and len(opened.readers) == 1
    _stop(spin, node)
    assert opened.released == 1


def test_cleanup_gives_the_device_back_and_configure_takes_it_again(spin, device):
    node = spin.start(CameraNode(source="0", **SIZE))
    assert node.trigger_deactivate() == node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert [opened.released for opened in device.opened] == [1]
    assert node.trigger_configure() == node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    spin.until(lambda: node.diagnostics.total("frames"))
    assert [opened.released for opened in device.opened] == [1, 0] and not node.diagnostics.faults
    _stop(spin, node)
    assert [opened.released for opened in device.opened] == [1, 1]


@pytest.mark.parametrize("again", ["0", "/dev/video0"])
def test_a_device_whose_read_blocks_at_cleanup_is_not_opened_before_it_is_released(spin, monkeypatch, device, again):
    monkeypatch.setattr(camera, "RELEASE_S", 0.01)
    node = spin.start(CameraNode(source="0", **SIZE))
    (opened,) = device.opened
    _block(spin, opened)
    assert node.trigger_deactivate() == node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert "source '0' is not released" in node.diagnostics.faults["release"]
    node.set_parameters([Parameter("source", value=again)])
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert f"source '{again}' is still held by a read that does not come back" in node.diagnostics.faults["configure"]
    assert device.opened == [opened] and opened.released == 0
    node.set_parameters([Parameter("source", value="synthetic")])
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS, "another source is free"
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    opened.go_on.set()
    spin.until(lambda: opened.released == 1 and "release" not in node.diagnostics.faults)
    node.set_parameters([Parameter("source", value=again)])
    assert node.trigger_configure() == node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    spin.until(lambda: node.diagnostics.total("frames"))
    assert len(device.opened) == 2 and len(opened.readers) == 1 and not node.diagnostics.faults
    _stop(spin, node)


def test_a_device_that_opens_and_then_blocks_fails_configure_and_is_released_when_it_comes_back(
    spin, monkeypatch, device
):
    monkeypatch.setattr(camera, "OPEN_S", 0.05)
    monkeypatch.setattr(camera, "RELEASE_S", 0.01)
    monkeypatch.setattr(device, "prepare", staticmethod(lambda opened: opened.go_on.clear()))
    node = spin.add(CameraNode(source="0", **SIZE))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "source '0': no answer within 0.05 s; check cable" in node.diagnostics.faults["configure"]
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "still held" in node.diagnostics.faults["configure"]
    (opened,) = device.opened
    opened.go_on.set()
    spin.until(lambda: opened.released == 1)


def test_what_a_read_raises_is_a_fault_until_it_reads_again(spin, device):
    node = spin.start(CameraNode(source="0", **SIZE))
    (opened,) = device.opened
    opened.raises = cv2.error("no buffer")
    spin.until(lambda: "read" in node.diagnostics.faults)
    assert "source '0': no buffer" in node.diagnostics.faults["read"]
    opened.raises = None
    spin.until(lambda: "read" not in node.diagnostics.faults)
    _stop(spin, node)
