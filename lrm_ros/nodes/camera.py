# SPDX-License-Identifier: Apache-2.0
"""The camera node: a device, a video, a folder of images or a synthetic picture -> images and camera_info.

The source's own thread reads and publishes, so that a device that blocks does not stop the node from saying so.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image

from lrm_ros import image_files, messages, topics
from lrm_ros.config import CameraConfig, CameraSpec
from lrm_ros.robot.devices.camera import Source, SourceThread, device_of, open_source
from lrm_ros.ros import camera_info
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.program import run
from lrm_ros.types import Frame

OPEN_S = 20.0  # a source has so long to open and deliver its first frame [s]
RELEASE_S = 2.0  # a read has so long to come back at cleanup [s]

_BITS = 24


def write_counter(image: NDArray[np.uint8], number: int) -> None:
    """Draw a number as 24 black or white blocks along the upper edge, readable after JPEG."""
    block = image.shape[1] // _BITS
    for bit in range(_BITS):
        image[:16, bit * block : (bit + 1) * block] = 255 if number >> bit & 1 else 0


def read_counter(image: NDArray[np.uint8]) -> int:
    """Return the number :func:`write_counter` drew."""
    block = image.shape[1] // _BITS
    bits = image[4:12, : block * _BITS].reshape(8, _BITS, block, 3).mean(axis=(0, 2, 3)) > 127  # (24,)
    return int(sum(1 << bit for bit in range(_BITS) if bits[bit]))


def synthetic(width: int, height: int) -> Iterator[NDArray[np.uint8]]:
    """Yield a coloured gradient with a moving bar and the number of the frame, (H, W, 3) uint8 RGB.

    Raises:
        ValueError: narrower than 24 or lower than 16 pixels: the number does not fit.
    """
    if width < _BITS or height < 16:
        raise ValueError(f"a synthetic image of {width}x{height} is too small; use at least {_BITS}x16")
    base = np.zeros((height, width, 3), np.uint8)
    base[..., 0] = np.linspace(0, 255, height, dtype=np.uint8)[:, None]
    base[..., 1] = np.linspace(0, 255, width, dtype=np.uint8)[None, :]
    base[..., 2] = 96
    number = 0
    while True:
        image = base.copy()
        left = number * 4 % width
        image[16:, left : left + max(2, width // 40)] = 255
        write_counter(image, number)
        yield image
        number += 1


class CameraNode(LrmNode[CameraConfig]):
    """Topics ``<camera>/image_raw`` (rgb8, stamped when read) and ``<camera>/camera_info``.

    ``<camera>/image_raw/compressed`` is made while somebody listens. ``camera_info`` is that of the file in
    ``camera_info_url``; without one it has the size alone.

    Pictures are upright, as far as the device, the video or the image file tells how it is turned. A device has one
    thread from configure to cleanup, which gives it back; one whose read blocks is not opened a second time.
    """

    def __init__(self, **overrides: Any) -> None:
        """Declare the parameters; ``overrides`` are parameter values."""
        super().__init__("camera", CameraConfig, overrides)
        self._source: SourceThread | None = None
        self._blocked: dict[str, SourceThread] = {}  # by device: a read that had not come back at cleanup
        self._last_frame_s = 0.0
        self._message: Image | None = None  # of the frame before
        self._info: CameraInfo | None = None  # of the calibration

    def configure(self) -> None:
        """Open the source and read its first frame.

        Raises:
            ValueError: no such source, it blocks, it delivers another size, no contract can name this camera, or there
                is no such calibration.
        """
        config = self.config
        CameraSpec(config.camera, config.width, config.height)
        self._info = self._calibration()
        where = f"camera '{config.camera}': source '{config.source}'"
        device = device_of(config.source)
        if device in self._blocked and not self._blocked[device].stop(RELEASE_S):
            raise ValueError(
                f"{where} is still held by a read that does not come back; unplug the device and plug it in, then "
                "configure again"
            )
        self._blocked.pop(device, None)
        self._source = SourceThread(self._open, config.rate_hz, self._publish, self._unreadable, self._released)
        try:
            first = self._source.first(OPEN_S)
        except TimeoutError as error:
            raise ValueError(f"{where}: {error}; check cable and power, then configure again") from error
        if first is None:
            raise ValueError(f"{where} opens but delivers no frame")
        if first.shape[:2] != (config.height, config.width):
            height, width = first.shape[:2]
            raise ValueError(
                f"{where} delivers {width}x{height}, not {config.width}x{config.height}; "
                f"set width:={width} height:={height}"
            )
        self._images = topics.IMAGE_RAW.of(config.camera).publisher(self)
        self._files = topics.IMAGE_COMPRESSED.of(config.camera).publisher(self)
        self._infos = topics.CAMERA_INFO.of(config.camera).publisher(self)
        self.create_timer(0.5, lambda: self.diagnostics.value("subscribers", self._images.get_subscription_count()))

    def activate(self) -> None:
        """Start to publish."""
        assert self._source is not None
        self._last_frame_s = time.monotonic()
        self._source.run()
        self._watch = self.create_timer(min(0.2, self.config.stall_s / 2), self._check_stall)

    def deactivate(self) -> None:
        """Stop to publish."""
        self.destroy_timer(self._watch)
        if self._source is not None:
            self._source.pause()
        for fault in ("stall", "read"):
            self.diagnostics.recovered(fault, f"camera '{self.config.camera}' is not read any more")
        self.diagnostics.publish()

    def cleanup(self) -> None:
        """Release the source; one whose read blocks releases itself when that comes back."""
        source, self._source = self._source, None
        if source is None or source.stop(RELEASE_S):
            return
        self._blocked[device_of(self.config.source)] = source
        self.diagnostics.fault(
            "release",
            f"camera '{self.config.camera}': source '{self.config.source}' is not released, its read does not come "
            "back; unplug the device",
        )
        if source.stop(0.0):  # just then
            self._released()

    # -- the source's thread -----------------------------------------------------------------------------------------

    def _open(self) -> Source:
        config = self.config
        if config.source != "synthetic":
            return open_source(config)
        first = next(synthetic(config.width, config.height))
        frames = chain([first], synthetic(config.width, config.height))  # after the first one the numbers start at 0
        return Source(lambda: next(frames))

    def _publish(self, image: NDArray[np.uint8] | None) -> None:
        """Publish a frame, stamped now; none while a simulator's clock has not told the time."""
        if image is None:
            self.diagnostics.count("misses")
            return
        self.diagnostics.recovered("read", f"camera '{self.config.camera}' is readable again")
        self._last_frame_s = time.monotonic()
        if not (stamp_ns := self.get_clock().now().nanoseconds):
            self.diagnostics.count("unstamped")
            return
        frame = Frame(stamp_ns, self.config.camera, image)
        self._message = messages.from_frame(frame, self._message)
        self._images.publish(self._message)
        self._infos.publish(self._info_of(stamp_ns, image))
        self._publish_file(frame)
        self.diagnostics.count("frames")

    def _publish_file(self, frame: Frame) -> None:
        """Publish the JPEG or PNG of a frame, if somebody listens."""
        kind = self.config.compressed
        if kind != "none" and self._files.get_subscription_count():
            data = image_files.encode(frame.image, kind, self.config.jpeg_quality)
            self._files.publish(messages.from_file(frame, data, kind))
            self.diagnostics.count("compressed")

    def _calibration(self) -> CameraInfo | None:
        """Return camera_info of the calibration, None without.

        Raises:
            ValueError: see :func:`lrm_ros.ros.camera_info.load`.
        """
        config = self.config
        if not config.camera_info_url:
            return None
        info, name = camera_info.load(config.camera_info_url, config.camera, config.width, config.height)
        if name not in ("", config.camera):
            self.get_logger().warning(f"camera '{config.camera}': its calibration is of one with the name '{name}'")
        return info

    def _info_of(self, stamp_ns: int, image: NDArray[np.uint8]) -> CameraInfo:
        """Return camera_info of an image: the calibration, or what is known without."""
        if self._info is None:
            height, width, _ = image.shape
            return messages.camera_info(self.config.camera, stamp_ns, width, height)
        self._info.header.stamp = messages.to_time(stamp_ns)
        return self._info

    def _unreadable(self, error: Exception) -> None:
        self.diagnostics.count("misses")
        self.diagnostics.fault("read", f"camera '{self.config.camera}': source '{self.config.source}': {error}")

    def _released(self) -> None:
        self.diagnostics.recovered("release", f"camera '{self.config.camera}': the source is released")

    def _check_stall(self) -> None:
        """Report a source that stopped delivering, and its return."""
        config = self.config
        silent_s = time.monotonic() - self._last_frame_s
        if silent_s > config.stall_s:
            self.diagnostics.fault(
                "stall",
                f"camera '{config.camera}' has delivered no frame for {silent_s:.1f} s (source '{config.source}'); "
                "check cable and power, it is being reopened",
            )
        else:
            self.diagnostics.recovered("stall", f"camera '{config.camera}' delivers again")


def main(argv: list[str] | None = None) -> int:
    """Run the node."""
    return run(CameraNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
