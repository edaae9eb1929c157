# SPDX-License-Identifier: Apache-2.0
"""Sources of pictures, upright: a device, a video or a folder of images, and the one thread that may touch a source."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import CameraConfig

Image = NDArray[np.uint8]  # (H, W, 3) RGB

_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


@dataclass(frozen=True)
class Source:
    """An open source.

    Attributes:
        read: returns the next picture, (H, W, 3) uint8 RGB, or None if there is none now; may block.
        close: releases it.
    """

    read: Callable[[], Image | None]
    close: Callable[[], None] = lambda: None


def device_of(source: str) -> str:
    """Return one name for every way to name a device or file: ``0`` and a link to it are ``/dev/video0``."""
    return os.path.realpath(f"/dev/video{source}" if source.isdigit() else source)


def open_source(config: CameraConfig) -> Source:
    """Open a device, a video file or a folder of images.

    Raises:
        ValueError: there is none; names the source and the cure.
    """
    path = Path(config.source)
    return Source(_folder(path, config)) if path.is_dir() else _capture(config)


def _folder(path: Path, config: CameraConfig) -> Callable[[], Image | None]:
    """Read the images of a folder in the order of their names, again and again."""
    import cv2

    files = sorted(file for file in path.iterdir() if file.suffix.lower() in _IMAGES)
    if not files:
        raise ValueError(f"folder '{path}' has no image ({', '.join(_IMAGES)})")
    position = -1

    def read() -> Image | None:
        nonlocal position
        position = (position + 1) % len(files)
        image = cv2.imread(str(files[position]), cv2.IMREAD_COLOR)  # upright by its EXIF data
        return None if image is None else _fit(image, config)

    return read


def _capture(config: CameraConfig) -> Source:
    """Read a device (reopened after it vanished) or a video file (played again and again)."""
    source, is_file = config.source, Path(config.source).is_file()
    capture, turns = _open_capture(config, is_file)
    if not capture.isOpened():
        raise ValueError(
            f"camera '{config.camera}': cannot open source '{source}'; devices are /dev/video*, see 'lrm doctor'; "
            "or use source:=synthetic, a video file or a folder of images"
        )

    def read() -> Image | None:
        nonlocal capture, turns
        ok, image = capture.read()
        if not ok:
            capture.release()
            capture, turns = _open_capture(config, is_file)
            ok, image = capture.read() if is_file else (False, None)
        if not ok:
            return None
        image = np.rot90(image, -turns)
        return _fit(image, config) if is_file else np.ascontiguousarray(image[:, :, ::-1])

    return Source(read, lambda: capture.release())


def _open_capture(config: CameraConfig, is_file: bool) -> tuple[Any, int]:
    """Return OpenCV's capture and how many quarter turns clockwise are left to make its pictures upright.

    Raises:
        ValueError: the source says that it is turned by less than a quarter.
    """
    import cv2

    capture = cv2.VideoCapture(int(config.source) if config.source.isdigit() else config.source)
    # Versions differ in their default, and kinds of sources in whether they turn the pictures themselves.
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
    degrees = capture.get(cv2.CAP_PROP_ORIENTATION_META)
    if degrees % 90:
        capture.release()
        raise ValueError(
            f"camera '{config.camera}': source '{config.source}' says that it is turned by {degrees:g} degrees; give "
            "one that is turned by a multiple of 90"
        )
    turned = capture.get(cv2.CAP_PROP_ORIENTATION_AUTO) == 1
    turns = 0 if turned else round(degrees / 90) % 4
    if not is_file:
        size = (config.width, config.height) if turns % 2 == 0 else (config.height, config.width)
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
        capture.set(cv2.CAP_PROP_FPS, config.rate_hz)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return capture, turns


def _fit(bgr: Image, config: CameraConfig) -> Image:
    """Return a stored image as RGB in the configured size."""
    import cv2

    size = (config.width, config.height)
    if bgr.shape[1::-1] != size:
        bgr = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return np.ascontiguousarray(bgr[:, :, ::-1])


class SourceThread:
    """The only thread that touches a source: it opens it, reads it at a rate while it is to, and releases it.

    A read that blocks holds up this thread alone. When it comes back, the thread goes on as it is told by then.
    """

    def __init__(
        self,
        open_: Callable[[], Source],
        rate_hz: float,
        take: Callable[[Image | None], None],
        failed: Callable[[Exception], None],
        released: Callable[[], None],
    ) -> None:
        """Open the source and read its first picture, in the thread.

        Args:
            open_: opens the source; may raise.
            rate_hz: how often to read while running [1/s].
            take: called in the thread with what each read has given while running, never after :meth:`pause`.
            failed: called in the thread with what a read has raised while running; it is read again.
            released: called in the thread when it has released the source.
        """
        self._open, self._rate_hz = open_, rate_hz
        self._take, self._failed, self._released = take, failed, released
        self._changed = threading.Condition()
        self._running = self._stopping = self._opened = False
        self._first: Image | None = None
        self._error: Exception | None = None
        # A daemon: a device that blocks for ever must not keep the process.
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)
        self._thread.start()

    def first(self, timeout_s: float) -> Image | None:
        """Return the first picture, None if the source opens but has none.

        Raises:
            TimeoutError: opening and reading it takes longer than ``timeout_s`` [s].
            Exception: what opening or reading has raised.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._opened, timeout_s):
                raise TimeoutError(f"no answer within {timeout_s:g} s")
        if self._error is not None:
            raise self._error
        return self._first

    def run(self) -> None:
        """Read, and pass on what is read."""
        with self._changed:
            self._running = True
            self._changed.notify_all()

    def pause(self) -> None:
        """Pass nothing on any more; the source stays open."""
        with self._changed:
            self._running = False
            self._changed.notify_all()

    def stop(self, timeout_s: float) -> bool:
        """Pass nothing on any more and release the source; may be called again.

        Returns:
            Whether it is released within ``timeout_s`` [s]. If not, a read blocks; it is as soon as that comes back.
        """
        with self._changed:
            self._running, self._stopping = False, True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        source: Source | None = None
        try:
            try:
                source = self._open()
                self._first = source.read()
            except Exception as error:
                self._error = error
            with self._changed:
                self._opened = True
                self._changed.notify_all()
            if source is not None and self._error is None:
                self._read(source)
        finally:
            if source is not None:
                source.close()
            self._released()

    def _read(self, source: Source) -> None:
        """Read until :meth:`stop`."""
        period_s, due_s = 1 / self._rate_hz, 0.0
        while self._wait(due_s):
            image, error = None, None
            try:
                image = source.read()
            except Exception as raised:
                error = raised
            now = time.monotonic()
            due_s = max(due_s + period_s, now - period_s) if image is not None else now + 0.1
            with self._changed:
                if self._running and error is not None:
                    self._failed(error)
                elif self._running:
                    self._take(image)

    def _wait(self, due_s: float) -> bool:
        """Wait for the moment of the next read, by time.monotonic(). Returns whether it has come; False: stop."""

        def left_s() -> float | None:
            """Return the time to wait; None while nothing is to be read."""
            return max(0.0, due_s - time.monotonic()) if self._running else None

        with self._changed:
            while not self._stopping and (wait_s := left_s()) != 0.0:
                self._changed.wait(wait_s)
            return not self._stopping
