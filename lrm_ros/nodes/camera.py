# SPDX-License-Identifier: Apache-2.0
"""The camera node: a device, a video, a folder of images or a synthetic picture -> image_raw and camera_info.

A thread reads and publishes, so that a device that blocks does not stop the node from saying so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros import messages, topics
from lrm_ros.config import CameraConfig, CameraSpec
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.program import run
from lrm_ros.types import Frame

_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
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
    """Topics ``<camera>/image_raw`` (rgb8, stamped when read) and ``<camera>/camera_info``."""

    def __init__(self, **overrides: Any) -> None:
        """Declare the parameters; ``overrides`` are parameter values."""
        super().__init__("camera", CameraConfig, overrides)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._read: Callable[[], NDArray[np.uint8] | None] | None = None
        self._last_frame_s = 0.0

    def configure(self) -> None:
        """Open the source and read its first frame.

        Raises:
            ValueError: no such source, it delivers another size, or no contract can name this camera.
        """
        config = self.config
        CameraSpec(config.camera, config.width, config.height)
        self._read = self._open()
        first = self._read()
        if first is None:
            raise ValueError(f"camera '{config.camera}': source '{config.source}' opens but delivers no frame")
        if first.shape[:2] != (config.height, config.width):
            height, width = first.shape[:2]
            raise ValueError(
                f"camera '{config.camera}': source '{config.source}' delivers {width}x{height}, not "
                f"{config.width}x{config.height}; set width:={width} height:={height}"
            )
        if config.source == "synthetic":
            self._read = self._open()  # the numbers start at 0
        self._images = topics.IMAGE_RAW.of(config.camera).publisher(self)
        self._infos = topics.CAMERA_INFO.of(config.camera).publisher(self)
        self.create_timer(0.5, lambda: self.diagnostics.value("subscribers", self._images.get_subscription_count()))

    def activate(self) -> None:
        """Start to publish."""
        self._stopping.clear()
        self._last_frame_s = time.monotonic()
        self._thread = threading.Thread(target=self._publish_frames, name="camera")
        self._thread.start()
        self._watch = self.create_timer(min(0.2, self.config.stall_s / 2), self._check_stall)

    def deactivate(self) -> None:
        """Stop to publish."""
        self.destroy_timer(self._watch)
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=2.0)
            self._thread = None
        self.diagnostics.publish()

    def cleanup(self) -> None:
        """Close the source."""
        self._read = None

    # -- sources -----------------------------------------------------------------------------------------------------

    def _open(self) -> Callable[[], NDArray[np.uint8] | None]:
        """Return a function that reads the next frame, (H, W, 3) uint8 RGB, or None if there is none now."""
        config = self.config
        if config.source == "synthetic":
            frames = synthetic(config.width, config.height)
            return lambda: next(frames)
        path = Path(config.source)
        if path.is_dir():
            return self._folder(path)
        return self._capture(config.source)

    def _folder(self, path: Path) -> Callable[[], NDArray[np.uint8] | None]:
        """Read the images of a folder in the order of their names, again and again."""
        import cv2

        files = sorted(file for file in path.iterdir() if file.suffix.lower() in _IMAGES)
        if not files:
            raise ValueError(f"folder '{path}' has no image ({', '.join(_IMAGES)})")
        position = -1

        def read() -> NDArray[np.uint8] | None:
            nonlocal position
            position = (position + 1) % len(files)
            image = cv2.imread(str(files[position]), cv2.IMREAD_COLOR)
            return None if image is None else self._fit(image)

        return read

    def _capture(self, source: str) -> Callable[[], NDArray[np.uint8] | None]:
        """Read a device (reopened after it vanished) or a video file (played again and again)."""
        import cv2

        config = self.config
        is_file = Path(source).is_file()

        def open_source() -> Any:
            capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
            if not is_file:
                capture.set(cv2.CAP_PROP_FRAME_WIDTH, config.width)
                capture.set(cv2.CAP_PROP_FRAME_HEIGHT, config.height)
                capture.set(cv2.CAP_PROP_FPS, config.rate_hz)
                capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
            return capture

        capture = open_source()
        if not capture.isOpened():
            raise ValueError(
                f"camera '{config.camera}': cannot open source '{source}'; devices are /dev/video*, see 'lrm doctor'; "
                "or use source:=synthetic, a video file or a folder of images"
            )

        def read() -> NDArray[np.uint8] | None:
            nonlocal capture
            ok, image = capture.read()
            if not ok:
                capture.release()
                capture = open_source()
                ok, image = capture.read() if is_file else (False, None)
            if not ok:
                return None
            return self._fit(image) if is_file else np.ascontiguousarray(image[:, :, ::-1])

        return read

    def _fit(self, bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a stored image as RGB in the configured size."""
        import cv2

        size = (self.config.width, self.config.height)
        if bgr.shape[1::-1] != size:
            bgr = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(bgr[:, :, ::-1])

    # -- running -----------------------------------------------------------------------------------------------------

    def _publish_frames(self) -> None:
        """Read and publish at the configured rate; runs in the camera's own thread."""
        config, read = self.config, self._read
        assert read is not None
        due = time.monotonic()
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            image = read()
            due = max(due + 1 / config.rate_hz, time.monotonic() - 1 / config.rate_hz)
            if image is None:
                self.diagnostics.count("misses")
                due = time.monotonic() + 0.1
                continue
            stamp_ns = self.get_clock().now().nanoseconds
            self._images.publish(messages.from_frame(Frame(stamp_ns, config.camera, image)))
            height, width, _ = image.shape
            self._infos.publish(messages.camera_info(config.camera, stamp_ns, width, height))
            self._last_frame_s = time.monotonic()
            self.diagnostics.count("frames")

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
