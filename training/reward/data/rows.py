# SPDX-License-Identifier: Apache-2.0
"""The keyframes of one episode as JPEG images, with labels from the state or from time."""

from __future__ import annotations

import hashlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lrm_ros.training.reward.data.sources.episode import BadEpisode, Entry, SourceEpisode, same_size

TENTHS = 10
QUALITY = 95  # of the JPEG images
VAL_SHARE = 0.1  # a change would move episodes between training and validation


def keyframe_indices(length: int) -> list[int]:
    """Return the indices of the frames at 0, 1/10, ... 10/10 of an episode's time, each once (paper: III-A)."""
    return sorted({round(tenth * (length - 1) / TENTHS) for tenth in range(TENTHS + 1)})


def split_of(source: str, episode_id: str) -> str:
    """Return ``"train"`` or ``"val"``, by a hash; the same for all cameras of an episode (``ID@CAMERA``)."""
    name = f"{source}\n{episode_id.split('@')[0]}"
    share = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) / 2**64
    return "val" if share < VAL_SHARE else "train"


def encode_jpeg(image: NDArray[np.uint8]) -> bytes:
    """Return an RGB image (H, W, 3) as JPEG.

    Raises:
        BadEpisode: not such an image, or one too large.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise BadEpisode("frames that are no (H, W, 3) uint8 images")
    if max(image.shape) > 32767:
        raise BadEpisode("frames of more than 32767 pixels a side")
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        raise BadEpisode("frames that cannot be written as JPEG")
    return data.tobytes()


def keyframes_of(entry: Entry) -> dict[str, list[Any]]:
    """Open an episode and return the columns of its keyframes, see ``lrm_ros.training.reward.data.shards.COLUMNS``.

    Labels, where the source does not know them from the state: in an episode that succeeded, and in a demonstration of
    which nobody said how it ended, progress is the time, and the task is done at the end, not known at 8/10 and 9/10,
    and not done before. In a failed one it is never done, and progress is not known but for a scored end.

    Raises:
        BadEpisode: it cannot be used.
    """
    episode = entry.open()
    indices = keyframe_indices(episode.length)
    if len(indices) < 2 and episode.progress is None:
        raise BadEpisode("a single frame: no progress from time")
    jpegs, height, width = [], 0, 0
    for frame in same_size(episode.read(indices)):
        jpegs.append(encode_jpeg(frame))
        height, width = frame.shape[:2]
    if len(jpegs) != len(indices):
        raise BadEpisode("fewer frames than it should have")
    # Where frames are fewer than keyframes, the tenth that is nearest to a frame's own time.
    positions = [round(TENTHS * index / max(1, episode.length - 1)) for index in indices]
    count = len(indices)
    return {
        "source": [entry.source] * count,
        "episode_id": [entry.episode_id] * count,
        "task": [episode.task.strip()] * count,
        "kind": [episode.kind] * count,
        "success": [None if episode.success is None else bool(episode.success)] * count,
        "position": positions,
        "frame": indices,
        "fps": [float(episode.fps)] * count,
        "progress": _progress(episode, indices, positions),
        "by_state": [episode.progress is not None] * count,
        "done": _done(episode, indices, positions),
        "split": [split_of(entry.source, entry.episode_id)] * count,
        "height": [height] * count,
        "width": [width] * count,
        "jpeg": jpegs,
    }


def _ends_done(episode: SourceEpisode) -> bool:
    return episode.kind == "demonstration" if episode.success is None else episode.success


def _progress(episode: SourceEpisode, indices: list[int], positions: list[int]) -> list[float | None]:
    if episode.progress is not None:
        return [float(episode.progress[index]) for index in indices]
    if _ends_done(episode):
        return [position / TENTHS for position in positions]
    return [*[None] * (len(indices) - 1), episode.end_progress]


def _done(episode: SourceEpisode, indices: list[int], positions: list[int]) -> list[bool | None]:
    if episode.done is not None:
        return [bool(episode.done[index]) for index in indices]
    if episode.success is False:
        return [False] * len(indices)
    if _ends_done(episode):
        return [True if tenth == TENTHS else None if tenth >= TENTHS - 2 else False for tenth in positions]
    return [None] * len(indices)
