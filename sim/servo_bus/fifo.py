# SPDX-License-Identifier: Apache-2.0
"""A camera as a named pipe of YUV4MPEG2 video, live: OpenCV (FFmpeg) opens it by its path as it opens a device.

The stream is 4:4:4, limited range, BT.601, 30 frames a second for as long as someone reads: the newest picture again
where there is no newer one, and none where the reader is late. Facts: the format is that of mjpegtools (yuv4mpeg(5)),
as FFmpeg's demuxer reads it: a header line, then ``FRAME`` and the planes of each picture.
"""

from __future__ import annotations

import fcntl
import os
import select
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 30
Image = NDArray[np.uint8]  # (H, W, 3) RGB

# BT.601, 16 to 235 and 16 to 240, from RGB 0 to 255; the last column is added.
_YUV = np.array(
    [[65.481, 128.553, 24.966, 16 * 255], [-37.797, -74.203, 112.0, 128 * 255], [112.0, -93.786, -18.214, 128 * 255]]
) / np.array([255, 255, 255, 255])


class Counts(Protocol):
    """Anything with numbers by index: frames, of them repeated, and skipped for a late reader."""

    def __getitem__(self, index: int, /) -> int: ...
    def __setitem__(self, index: int, value: int, /) -> None: ...


def header(width: int, height: int) -> bytes:
    """Return the first line of a stream."""
    return f"YUV4MPEG2 W{width} H{height} F{RATE_HZ}:1 Ip A1:1 C444 XCOLORRANGE=LIMITED\n".encode()


def encode_frame(image: Image) -> bytes:
    """Return one picture of a stream."""
    import cv2

    planes = cv2.transform(image, _YUV)
    return b"FRAME\n" + np.ascontiguousarray(planes.transpose(2, 0, 1)).tobytes()


def make(path: Path) -> None:
    """Make a named pipe; one from before is taken.

    Raises:
        FileExistsError: there is something else.
    """
    if path.exists() and not stat.S_ISFIFO(path.stat().st_mode):
        raise FileExistsError(f"'{path}' is no named pipe; give another folder for the cameras")
    if not path.exists():
        os.mkfifo(path)


class FifoWriter:
    """Writes the newest picture into a named pipe, in a thread of its own, whenever someone reads.

    Attributes:
        read: whether someone reads now.
    """

    def __init__(self, path: Path, newest: Callable[[], tuple[int, Image] | None], counts: Counts) -> None:
        """Start; the pipe is there.

        Args:
            path: of the pipe.
            newest: returns the newest picture and its number, ``None`` while there is none.
            counts: three numbers, kept up to date.
        """
        self._path, self._newest, self._counts = path, newest, counts
        self.read = False
        self._error: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"camera {path.name}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise RuntimeError if the thread has ended by something else than :meth:`close`; says by what."""
        if self._error is not None:
            raise RuntimeError(f"nothing more is written to '{self._path}': {self._error}") from self._error

    def close(self) -> None:
        """Stop; whoever reads comes to the end of the stream. Raises as :meth:`check`."""
        self._stop.set()
        self._thread.join()
        self.check()

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as error:
            self._error = error

    def _serve(self) -> None:
        """Write to one reader after the other."""
        while not self._stop.is_set():
            try:
                fd = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # nobody reads, or the pipe is gone
                self._stop.wait(0.02)
                continue
            self.read = True
            try:
                self._stream(fd)
            except BrokenPipeError:
                pass  # the reader has gone
            finally:
                self.read = False
                os.close(fd)

    def _stream(self, fd: int) -> None:
        """Write from the header on until the reader goes."""
        while (newest := self._newest()) is None:
            if self._stop.wait(0.01) or _gone(fd):
                return
        height, width, _ = newest[1].shape
        # Little more than a frame at most is on its way: the rest of it is made when the reader comes for it.
        room = max(4096, min(65536, 1 << ((3 * width * height).bit_length() - 1)))
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, room)
        self._write(fd, header(width, height))
        number, data, due = -1, b"", time.monotonic()
        while not self._stop.is_set():
            newest = self._newest() or newest
            if newest[0] == number:
                self._counts[1] += 1
            else:
                number, data = newest[0], encode_frame(newest[1])
            self._write(fd, data)
            self._counts[0] += 1
            due += 1 / RATE_HZ
            late = time.monotonic() - due
            if late > 0:
                skipped = int(late * RATE_HZ)
                self._counts[2] += skipped
                due += skipped / RATE_HZ
            self._stop.wait(max(0.0, -late))

    def _write(self, fd: int, data: bytes) -> None:
        left = memoryview(data)
        while left and not self._stop.is_set():
            _, ready, _ = select.select([], [fd], [], 0.1)
            if ready:
                try:
                    left = left[os.write(fd, left) :]
                except BlockingIOError:  # less room than a page
                    time.sleep(0.001)


def _gone(fd: int) -> bool:
    """Whether nobody reads a pipe any more."""
    poll = select.poll()
    poll.register(fd, 0)
    return bool(poll.poll(0))
