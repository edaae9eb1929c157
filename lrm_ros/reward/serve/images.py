# SPDX-License-Identifier: Apache-2.0
"""Images of a request: raw arrays as upstream's client sends them, JPEG or PNG, or shared memory of this machine."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lrm_ros.image_files import decode

SHARED_MEMORY = Path("/dev/shm")
SHARED_PREFIX = "lrm_"  # nothing else of a machine's shared memory is read
_RAW_TYPES = ("uint8", "float32", "float64", "float16")
_WORST = 8  # bytes of a value


class BadImage(ValueError):
    """An image that cannot be judged; the message says why."""


def bytes_of(text: str) -> bytes:
    """Return the bytes of a base64 text.

    Raises:
        BadImage: it is none.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadImage(f"its data is no base64 ({error})") from error


def raw_image(data: bytes, shape: Sequence[int], dtype: str, max_pixels: int) -> NDArray[np.uint8]:
    """Return an array of raw bytes as RGB.

    Args:
        data: the bytes, row by row.
        shape: (H, W, 3), also (H, W, 4) with an alpha that is dropped, or (H, W) of grey.
        dtype: uint8 (0 to 255), or a float of 0 to 1.
        max_pixels: refuse more.

    Returns:
        (H, W, 3) uint8.

    Raises:
        BadImage: shape, type and size do not fit each other, or a value is out of its range.
    """
    if dtype not in _RAW_TYPES:
        raise BadImage(f"its dtype is '{dtype}'; give uint8 (0 to 255), or a float type of 0 to 1")
    if not 2 <= len(shape) <= 3 or (len(shape) == 3 and shape[2] not in (1, 3, 4)) or min(shape) < 1:
        raise BadImage(f"its shape is {list(shape)}; give [height, width, 3]")
    _check_size(shape[1], shape[0], max_pixels)
    needed = math.prod(shape) * np.dtype(dtype).itemsize
    if len(data) != needed:
        raise BadImage(f"it has {len(data)} bytes, shape {list(shape)} of {dtype} needs {needed}")
    array = np.frombuffer(data, dtype).reshape(shape)
    if dtype != "uint8":
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise BadImage(f"it holds values outside 0 to 1 or that are no numbers; {dtype} images are 0 to 1")
        array = (array * 255).astype(np.uint8)  # as upstream's server does
    if array.ndim == 2 or array.shape[2] == 1:
        array = np.repeat(array.reshape(*shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(array[:, :, :3], np.uint8)


def file_image(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Return a JPEG or PNG as (H, W, 3) uint8 RGB; its size is known before anything is decoded.

    Raises:
        BadImage: it is neither, cut off, damaged, or too large.
    """
    try:
        return decode(data, "", max_pixels)
    except ValueError as error:
        raise BadImage(str(error)) from error


def shared_image(name: str, offset: int, shape: Sequence[int], max_pixels: int) -> NDArray[np.uint8]:
    """Return a uint8 image that a program of this machine has put into shared memory; a copy.

    Args:
        name: of the segment, as ``multiprocessing.shared_memory`` has it; begins with ``lrm_``.
        offset: where it begins [bytes].
        shape: (H, W, 3).
        max_pixels: refuse more.

    Raises:
        BadImage: no such segment, or it ends before the image does.
    """
    name = name.removeprefix("/")
    if not name.startswith(SHARED_PREFIX) or "/" in name or "\0" in name:
        raise BadImage(f"shared memory '{name}' is not read: its name must begin with '{SHARED_PREFIX}'")
    if len(shape) != 3 or shape[2] != 3 or min(shape) < 1 or offset < 0:
        raise BadImage(f"its shape is {list(shape)} at offset {offset}; give [height, width, 3] and where it begins")
    _check_size(shape[1], shape[0], max_pixels)
    try:
        with open(SHARED_MEMORY / name, "rb") as file:
            file.seek(offset)
            data = file.read(math.prod(shape))
    except OSError as error:
        raise BadImage(f"shared memory '{name}' cannot be read: {error.strerror}") from error
    return raw_image(data, shape, "uint8", max_pixels)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise BadImage(f"it has {width} x {height} pixels, {max_pixels} is the most (--max-pixels)")
