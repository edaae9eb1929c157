# SPDX-License-Identifier: Apache-2.0
"""Images that carry a number which survives compression, videos and episodes of them, for the tests of reward data."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import av
import numpy as np

from lrm_ros.training.reward.data.sources.episode import Entry, SourceEpisode, array_reader

BITS, BLOCK = 12, 16  # 4 x 3 blocks of 16 pixels, light for 1


def numbered(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """An image of at least 48x64 with a number in its upper left corner; red is brighter than blue."""
    image = np.full((height, width, 3), (90, 60, 40), np.uint8)
    for bit in range(BITS):
        y, x = (BLOCK * k for k in divmod(bit, 4))
        if number >> bit & 1:
            image[y : y + BLOCK, x : x + BLOCK] = (230, 200, 180)
    return image


def number_in(image: np.ndarray) -> int:
    """The number in an image; fails if it is no colour image of the right kind."""
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    assert image[..., 0].mean() > image[..., 2].mean() + 20, "not RGB"
    blocks = image[: 3 * BLOCK, : 4 * BLOCK].reshape(3, BLOCK, 4, BLOCK, 3)[:, 4:-4, :, 4:-4].mean(axis=(1, 3, 4))
    return sum(1 << bit for bit in range(BITS) if blocks.flat[bit] > 130)


def write_video(
    path: Path, numbers: Iterable[int], fps: int = 20, codec: str = "libx264", muxer: dict | None = None, **options
) -> Path:
    """Write a video of numbered images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {key.replace("_", "-"): str(value) for key, value in options.items()}
        for number in numbers:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(number), "rgb24")))
        container.mux(stream.encode())
    return path


# How a camera that was held turned says so in an MP4: a matrix of the track, here as whole turns clockwise.
_TURNS = {
    0: (1, 0, 0, 1),
    90: (0, 1, -1, 0),
    180: (-1, 0, 0, -1),
    270: (0, -1, 1, 0),
    45: (0.7071, 0.7071, -0.7071, 0.7071),
}


def say_turned(path: Path, degrees: int) -> Path:
    """Change an MP4 so that it says that its frames are to be turned clockwise; the frames stay as they are."""
    data = bytearray(path.read_bytes())
    a, b, c, d = (round(value * 2**16) for value in _TURNS[degrees])
    at = data.index(b"tkhd") + 44
    assert struct.unpack(">9i", data[at : at + 36]) == (2**16, 0, 0, 0, 2**16, 0, 0, 0, 2**30)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 2**30)
    path.write_bytes(data)
    return path


def episode(source="lab", name="0", length=21, first=0, task="put the square", **about) -> SourceEpisode:
    """An episode whose frames carry the numbers first, first + 1, ..."""
    images = np.stack([numbered(first + k) for k in range(length)])
    return SourceEpisode(source, name, task, 10.0, length, array_reader(images), **about)


def entry(made: SourceEpisode) -> Entry:
    return Entry(made.source, made.episode_id, lambda: made)


def entries(source: str, count: int, start=0, opened=None, **about) -> Iterator[Entry]:
    """Entries of different episodes, made when they are opened; ``opened`` gets their ids."""

    def make(number: int) -> SourceEpisode:
        if opened is not None:
            opened.append(f"{source}/{number}")
        return episode(source, str(number), first=30 * number, **about)

    for number in range(start, start + count):
        yield Entry(source, str(number), partial(make, number))
