# SPDX-License-Identifier: Apache-2.0
"""Frames of a video file by index: exact, one at a time, decoding only what they need."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lrm_ros.training.reward.data.sources.episode import BadEpisode, same_size

OPEN_FILES = 16  # kept open, and their indices kept in memory


@dataclass(frozen=True)
class Video:
    """A video file, or the part of it that is one episode.

    Attributes:
        path: the file.
        first: index of the part's first frame in the file.
        count: number of frames of the part; ``None``: to the end of the file.
    """

    path: Path
    first: int = 0
    count: int | None = None

    @property
    def _index(self) -> _Index:
        with _reading():
            state = self.path.stat()
        return _index(_File(self.path, state.st_size, state.st_mtime_ns))

    @property
    def length(self) -> int:
        """Number of frames; of a file that is cut off, MP4 and MOV tell it, Matroska does not.

        Raises:
            BadEpisode: the file cannot be read or is too short.
        """
        index = self._index
        if self.count is None and len(index.times) < index.expected:
            raise BadEpisode(f"the video is cut off: {len(index.times)} of {index.expected} frames")
        there = len(index.times) - self.first
        if there < (self.count or 1):
            raise BadEpisode(f"the video ends early: {max(0, there)} of {self.count or 1} frames")
        return there if self.count is None else self.count

    @property
    def fps(self) -> float:
        """Frames a second.

        Raises:
            BadEpisode: the file cannot be read.
        """
        return self._index.fps

    def read(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames of ascending indices, each (H, W, 3) uint8 RGB, all of one size.

        Colours follow the matrix and the range that the video tells; if it tells none, BT.601 and limited.

        Raises:
            BadEpisode: the file cannot be read, or a frame of it.
            ValueError: indices do not ascend or lie outside the part.
        """
        wanted = np.asarray(indices, np.int64)
        if len(wanted) == 0:
            return
        if wanted[0] < 0 or wanted[-1] >= self.length or (np.diff(wanted) <= 0).any():
            raise ValueError(f"indices must ascend within 0 ... {self.length - 1}, got {list(indices)}")
        index = self._index
        yield from same_size(_decode(index, self.first + wanted))


class _File(NamedTuple):
    """A version of a file: size and modification time change when it is replaced."""

    path: Path
    size: int
    modified_ns: int


@dataclass(frozen=True)
class _Index:
    """Times of the frames of a file (F,) and of its key frames (K,), both ascending, in units of the stream.

    ``expected``: number of frames by the file's header.
    """

    file: _File
    times: NDArray[np.int64]
    keys: NDArray[np.int64]
    fps: float
    expected: int


@contextmanager
def _reading() -> Iterator[None]:
    """Raise BadEpisode for every error of a file."""
    import av

    try:
        yield
    except FileNotFoundError as error:
        raise BadEpisode("no such video") from error
    except (av.FFmpegError, OSError) as error:
        raise BadEpisode(f"unreadable video: {type(error).__name__}") from error


_open_files: OrderedDict[tuple[int, _File], Any] = OrderedDict()  # that are not in use


@contextmanager
def _opened(file: _File, reopen: bool = False) -> Iterator[tuple[Any, Any]]:
    """Give an open file and its video stream, at any position, or at its start (``reopen``).

    It stays open for the next reader, as opening takes as long as decoding several frames.
    """
    import av

    key = (os.getpid(), file)  # a forked process shares the position in an open file with its parent
    container = _open_files.pop(key, None)
    if container is None or reopen:
        container = av.open(str(file.path))
    try:
        if not container.streams.video:
            raise BadEpisode("no video stream")
        stream = container.streams.video[0]
        if not stream.codec_context.is_open:
            stream.thread_type = "NONE"  # one thread: files are read side by side, and a fork keeps no others
            stream.codec_context.thread_count = 1
        yield container, stream
    except BaseException:
        container.close()
        raise
    _open_files[key] = container
    while len(_open_files) > OPEN_FILES:
        _open_files.popitem(last=False)[1].close()


@lru_cache(maxsize=OPEN_FILES)
def _index(file: _File) -> _Index:
    """Read the times of all frames."""
    with _reading(), _opened(file, reopen=True) as (container, stream):
        if container.format.name == "avi" and stream.codec_context.has_b_frames:
            raise BadEpisode("an AVI file that does not tell the order of its frames")
        packets: list[tuple[int, int, bool, bool]] = []  # pts, dts, key frame, hidden
        expected, rate = stream.frames, stream.average_rate
        for packet in _packets(container, stream):
            if packet.is_corrupt:
                expected = max(expected, len(packets) + 1)
                break
            packets.append((packet.pts, packet.dts, packet.is_keyframe, packet.is_discard))
    if any(pts is None for pts, *_ in packets):
        raise BadEpisode("frames without time stamps")
    # An edit list hides frames that only serve to decode others; the header counts them all the same.
    times = np.sort([pts for pts, _, _, hidden in packets if not hidden])
    keys = np.sort([pts for pts, _, is_key, _ in packets if is_key])
    if len(times) == 0 or len(keys) == 0 or not rate:
        raise BadEpisode("no frames")
    expected -= len(packets) - len(times)
    if len(times) < expected and packets[-1][1] is not None:
        times = times[times <= packets[-1][1]]  # B-frames come late: before a later one, some may be lost
    return _Index(file, times, keys, float(rate), expected)


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """Yield the packets of a stream without the empty one at the end."""
    return (packet for packet in container.demux(stream) if packet.size)


def _decode(index: _Index, wanted: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """Yield frames by ascending index in the file."""
    from av.video.reformatter import Colorspace, VideoReformatter

    times = index.times[wanted]
    keys = np.maximum(np.searchsorted(index.keys, times, side="right") - 1, 0)
    # A run is decoded in one go; a new one starts where a key frame lets frames be left out.
    starts = 1 + np.flatnonzero(index.keys[keys[1:]] > index.times[np.minimum(wanted[:-1] + 1, len(index.times) - 1)])
    # PyAV heeds the matrix and the range that a frame tells only where others are asked for; for RGB, any will do.
    convert = partial(VideoReformatter().reformat, format="rgb24", dst_colorspace=Colorspace.ITU601)
    with _reading(), _opened(index.file) as (container, stream):
        for run, key in zip(np.split(times, starts), keys[[0, *starts]], strict=True):
            for frame in _decode_run(container, stream, index.keys, int(key), run):
                yield np.asarray(convert(frame, src_color_range=frame.color_range).to_ndarray(), np.uint8)


def _decode_run(
    container: Any, stream: Any, keys: NDArray[np.int64], key: int, times: NDArray[np.int64]
) -> Iterator[Any]:
    """Yield the frames of ascending times, decoded from a key frame on."""
    asked = set(times.tolist())
    unsent = set(asked)
    found = 0
    context = stream.codec_context
    may_skip = context.name == "h264"  # there, no frame is made from one that is marked as no reference
    for packet in _from_key(container, stream, keys, key):
        if may_skip:
            context.skip_frame = "DEFAULT" if packet.pts in asked else "NONREF"
        frames = packet.decode()
        unsent.discard(packet.pts)
        if not unsent:
            frames += context.decode(None)  # the frames that it holds back to put them in order
        for frame in frames:
            if frame.pts in asked:
                found += 1
                yield frame
        if not unsent:
            break
    if found < len(asked):
        raise BadEpisode(f"{len(asked) - found} frames cannot be decoded")


def _from_key(container: Any, stream: Any, keys: NDArray[np.int64], key: int) -> Iterator[Any]:
    """Seek to a key frame and return the packets from there on (or from one before it)."""
    for back in range(3):  # files are searched by decoding time, so a seek may end one key frame too late
        container.seek(int(keys[max(0, key - back)]), stream=stream, backward=True)
        packets = _packets(container, stream)
        first = next(packets, None)
        if first is not None and first.pts <= keys[key]:
            return chain([first], packets)
    raise BadEpisode("the video cannot be searched")
