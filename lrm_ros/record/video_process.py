# SPDX-License-Identifier: Apache-2.0
"""Decode videos in a process of its own: a damaged file may crash the decoder, and then nothing else with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

COMMAND = (sys.executable, "-m", "lrm_ros.record.video_process")


class VideoProcess:
    """A process that decodes one video after the other, as LeRobot's own decoder by PyAV does; for ``with``.

    It is asked by a line on its input, and answers by a line before the pixels of each image.
    """

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        """Start nothing yet; the process begins with the first video."""
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> VideoProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def frames(self, path: Path, count: int) -> Iterator[NDArray[np.uint8]]:
        """Yield the first images of a video in order, (H, W, 3) RGB; all must be taken before another is asked for.

        Args:
            path: of the video.
            count: how many at most.

        Raises:
            ValueError: the file cannot be decoded, or crashes the decoder; names it and the cure.
        """
        if self._process is None:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps([str(path), count]).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise self._died(path) from None
        while True:
            head = process.stdout.readline()
            if not head.endswith(b"\n"):
                raise self._died(path)
            said = json.loads(head)
            if said == "end":
                return
            if isinstance(said, str):
                raise ValueError(f"video '{path}' cannot be decoded ({said}); write or fetch it again")
            height, width = said
            image = np.empty((height, width, 3), np.uint8)
            if process.stdout.readinto(image.data.cast("B")) < image.nbytes:  # type: ignore[attr-defined]
                raise self._died(path)
            yield image

    def _died(self, path: Path) -> ValueError:
        process, self._process = self._process, None
        assert process is not None
        process.communicate()
        code = process.returncode
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return ValueError(f"video '{path}' crashed its decoder ({how}): it is damaged; write or fetch it again")


def _answer(path: str, count: int, out: IO[bytes]) -> None:
    import av

    def say(what: Any) -> None:
        out.write(json.dumps(what).encode() + b"\n")

    try:
        with av.open(path) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number == count:
                    break
                image = np.ascontiguousarray(frame.to_ndarray(format="rgb24"), np.uint8)
                say(image.shape[:2])
                out.write(image.data)
        say("end")
    except Exception as error:  # FFmpeg meets damage with any
        say(f"{type(error).__name__}: {error}")
    out.flush()


def main(_: Sequence[str] | None = None) -> int:
    """Answer on the output what is asked on the input, until that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, for whoever asks
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print
    try:
        for line in sys.stdin.buffer:
            path, count = json.loads(line)
            _answer(path, count, out)
    except BrokenPipeError:  # nobody asks any more
        os._exit(0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
