# SPDX-License-Identifier: Apache-2.0
"""Frames rendered beforehand for ``lrm bench record``: numbered videos, and the number of a frame in a journal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.nodes.camera import write_counter

WIDTH, HEIGHT, HZ = 640, 480, 30
LOOP = 600  # frames of a video, which is played again and again: 20 s
_BITS = 12  # of a number; as many more hold its complement, so that a damaged one is not taken for another
_BLOCK = WIDTH // (2 * _BITS)
_TURN = 300  # frames until the camera has swept over the desk and back


def pictures(count: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    """Yield a desk under a moving camera with moving things and a sensor's noise, numbered from 0.

    As JPEG of quality 95 a picture has about as many bytes as one of a webcam.

    Args:
        count: how many, at most 4096.
        seed: another one is another desk.

    Yields:
        (480, 640, 3) uint8 RGB.
    """
    import cv2

    rng = np.random.default_rng(seed)
    desk = np.zeros((HEIGHT + 80, WIDTH + 160, 3), np.float32)
    for cells in (4, 9, 20, 45, 110):  # coarse and fine structure
        noise = rng.normal(0, 42 * cells**-0.45, (cells, cells, 3)).astype(np.float32)
        desk += cv2.resize(noise, desk.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    table = np.clip(desk + 110, 0, 245).astype(np.uint8)
    grain = [np.clip(rng.normal(5, 1.5, (HEIGHT, WIDTH, 3)), 0, 10).astype(np.uint8) for _ in range(6)]
    colours = [tuple(map(float, rng.integers(20, 240, 3))) for _ in range(5)]
    for number in range(count):
        turn = 2 * np.pi * number / _TURN
        left, top = round(80 - 80 * np.cos(turn)), round(40 - 40 * np.sin(turn))
        image: NDArray[np.uint8] = table[top : top + HEIGHT, left : left + WIDTH] + grain[number % len(grain)]
        for k, colour in enumerate(colours):
            angle = turn * (k + 1) + k
            centre = (round(320 + 220 * np.cos(angle)), round(250 + 160 * np.sin(angle)))
            cv2.circle(image, centre, 18 + 7 * k, colour, -1, cv2.LINE_AA)
        write_counter(image, number | (~number & (1 << _BITS) - 1) << _BITS)
        yield image


def write_video(path: Path, seed: int, count: int = LOOP) -> None:
    """Write ``count`` pictures as Motion-JPEG, which is what a webcam sends.

    Raises:
        ValueError: OpenCV cannot write it.
    """
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), HZ, (WIDTH, HEIGHT))
    if not writer.isOpened():
        raise ValueError(f"OpenCV cannot write '{path}'; is the disk full?")
    for image in pictures(count, seed):
        writer.write(image[:, :, ::-1])
    writer.release()


def number_of(file: Any) -> int | None:
    """Return the number in a JPEG of a numbered picture, None if it cannot be read.

    An eighth of the size is decoded: then a pixel is the mean of a square inside a block of :func:`write_counter`.
    """
    import cv2

    small = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8)
    if small is None or small.shape != (HEIGHT // 8, WIDTH // 8):
        return None
    columns = (np.arange(2 * _BITS) * _BLOCK + _BLOCK // 2) // 8
    bits = small[0, columns] > 127  # its square is rows 0 to 7, all of the strip
    number, complement = (sum(1 << k for k in range(_BITS) if part[k]) for part in (bits[:_BITS], bits[_BITS:]))
    return number if number ^ complement == (1 << _BITS) - 1 else None
