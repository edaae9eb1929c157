# SPDX-License-Identifier: Apache-2.0
"""Pixels as ROS encodes them -> (H, W, 3) uint8 RGB; needs no ROS.

Where a working cv_bridge is installed it converts the colours, elsewhere OpenCV does. The pixels are the same:
cv_bridge is used for the encodings of which a check, in a process of its own, has found that (``python -m
lrm_ros.images``).
"""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]  # (H, W, 3)

# Encoding -> (cv_bridge's name, channels, bytes a channel, OpenCV's conversion to RGB). OpenCV names a Bayer pattern by
# its second row, from the second column on.
_ENCODINGS = {
    "rgb8": ("rgb8", 3, 1, ""),
    "bgr8": ("bgr8", 3, 1, "BGR2RGB"),
    "8UC3": ("bgr8", 3, 1, "BGR2RGB"),
    "rgba8": ("rgba8", 4, 1, "RGBA2RGB"),
    "bgra8": ("bgra8", 4, 1, "BGRA2RGB"),
    "mono8": ("mono8", 1, 1, "GRAY2RGB"),
    "8UC1": ("mono8", 1, 1, "GRAY2RGB"),
    "mono16": ("mono16", 1, 2, "GRAY2RGB"),
    "yuv422": ("yuv422", 2, 1, "YUV2RGB_UYVY"),
    "uyvy": ("yuv422", 2, 1, "YUV2RGB_UYVY"),
    "yuv422_yuy2": ("yuv422_yuy2", 2, 1, "YUV2RGB_YUY2"),
    "yuyv": ("yuv422_yuy2", 2, 1, "YUV2RGB_YUY2"),
    "bayer_rggb8": ("bayer_rggb8", 1, 1, "BayerBG2RGB"),
    "bayer_bggr8": ("bayer_bggr8", 1, 1, "BayerRG2RGB"),
    "bayer_gbrg8": ("bayer_gbrg8", 1, 1, "BayerGR2RGB"),
    "bayer_grbg8": ("bayer_grbg8", 1, 1, "BayerGB2RGB"),
}
_PIXEL_BYTES = (1, 2, 3, 4, 6, 8, 12, 16)  # that a pixel has in some encoding
DEPTH = ("16UC1", "16SC1", "32FC1", "64FC1")
# What an encoding does not say itself, and is therefore told once.
NOTES = {
    "8UC3": "encoding '8UC3' does not say its colours: they are taken as BGR, as OpenCV has them; if red and blue are "
    "swapped, set the driver to rgb8",
}
_CHECK_S = 60.0  # the check of cv_bridge must have ended after so long [s]


def to_rgb(data: Any, encoding: str, size: tuple[int, int], step: int = 0, big_endian: bool = False) -> Rgb:
    """Convert the pixels of an image message; rgb8 without row padding is not copied.

    Args:
        data: its bytes, height x step; what a driver aligns behind them is left out.
        encoding: as ``sensor_msgs`` names it, one of ``_ENCODINGS``. mono16 becomes round(value / 257), so that 65535
            is 255; YUV is BT.601 of limited range.
        size: (width, height) [pixels].
        step: bytes from one row to the next; 0: no padding.
        big_endian: of mono16.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: no pixels, a depth image, another encoding, a size it cannot have, too few bytes, or bytes
            or a step that are of pixels of another encoding; with the cure.
    """
    width, height = size
    if not height or not width:
        raise ValueError(f"the image has no pixels ({width}x{height}); check the camera driver")
    if encoding not in _ENCODINGS:
        raise ValueError(_unsupported(encoding))
    name, channels, depth, code = _ENCODINGS[encoding]
    if channels == 2 and width % 2:
        raise ValueError(
            f"image encoding '{encoding}' has two pixels in one, a width of {width} is odd; set the driver to an even "
            "width, or to rgb8"
        )
    if "bayer" in encoding and min(size) < 3:
        raise ValueError(f"a {encoding} image of {width}x{height} is too small for colours; set the driver to rgb8")
    row = width * channels * depth
    step = step or row
    flat = np.frombuffer(data, np.uint8)
    if step < row or flat.size < height * step:
        raise ValueError(
            f"{flat.size} bytes with step {step} cannot hold {width}x{height} {encoding}; "
            "the driver fills the message wrongly"
        )
    others = [each for each in _PIXEL_BYTES if each != channels * depth]
    if flat.size > height * step and (
        flat.size % (height * step) == 0 or flat.size in [height * width * each for each in others]
    ):
        raise ValueError(
            f"{flat.size} bytes with step {step} are more than {width}x{height} {encoding} has; the driver names "
            "another encoding or size than it sends, set it to rgb8"
        )
    whole = flat[: height * step].reshape(height, step)  # (H, bytes)
    pixels: NDArray[Any] = whole[:, :row]
    if step in [width * each for each in others] and whole[:, row:].any():
        raise ValueError(
            f"step {step} is that of {step // width} bytes a pixel, {encoding} of {width}x{height} has "
            f"{channels * depth}; the driver names another encoding than it sends, set it to rgb8"
        )
    if depth == 2:
        pixels = pixels.view(">u2" if big_endian else "<u2")
    elif channels > 1:
        pixels = pixels.reshape(height, width, channels)
    return np.ascontiguousarray(pixels) if name == "rgb8" else _convert(pixels, name, code)


def depth_fault(encoding: str) -> str:
    """Return why a depth image is refused."""
    return f"'{encoding}' is a depth image, not colour; give the colour topic"


def _unsupported(encoding: str) -> str:
    """Return why an encoding is not taken, and what to do."""
    if encoding in DEPTH:
        return depth_fault(encoding)
    if encoding.startswith("bayer_") and encoding.endswith("16"):
        return f"image encoding '{encoding}' has 16 bits a pixel; set the driver to {encoding[:-2]}8, or to rgb8"
    return f"image encoding '{encoding}' is not supported; set the driver to one of {', '.join(_ENCODINGS)}"


# -- cv_bridge --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bridge:
    """What cv_bridge is on this machine.

    Attributes:
        converter: a ``cv_bridge.CvBridge``; ``None``: OpenCV converts.
        encodings: that it converts, by its own names.
        origin: folder of an installed cv_bridge; empty: there is none.
        fault: why an installed one is not used, or of which encodings; empty: it is.
    """

    converter: Any = None
    encodings: frozenset[str] = frozenset()
    origin: str = ""
    fault: str = ""


@functools.cache
def bridge() -> Bridge:
    """Look for cv_bridge, once a process.

    One that was built for another NumPy ends the process that uses it, and PyPI's (ROS 1's) fails: so another process
    tries it first, which takes about half a second.
    """
    spec = importlib.util.find_spec("cv_bridge")
    if spec is None:
        return Bridge()
    origin = str(Path(spec.origin).parent) if spec.origin else str(spec.submodule_search_locations)
    try:
        command = [sys.executable, "-m", "lrm_ros.images"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CHECK_S, check=False)
    except subprocess.TimeoutExpired:
        return Bridge(origin=origin, fault=f"no answer within {_CHECK_S:.0f} s")
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        ended = f"it ended with signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        return Bridge(origin=origin, fault=ended if done.returncode < 0 or not lines else lines[-1])
    good = frozenset(done.stdout.split())
    wrong = sorted({name for name, *_ in _ENCODINGS.values()} - {"rgb8"} - good)
    fault = f"not the same pixels as OpenCV's of {', '.join(wrong)}" if wrong else ""
    if not good:
        return Bridge(origin=origin, fault=(done.stderr.strip().splitlines() or [fault])[-1])
    from cv_bridge import CvBridge

    return Bridge(CvBridge(), good, origin, fault)


def _convert(pixels: NDArray[Any], name: str, code: str) -> Rgb:
    """Return pixels, (H, W) or (H, W, C), as RGB; ``name`` and ``code`` as in ``_ENCODINGS``."""
    found = bridge()
    return _by_bridge(found.converter, pixels, name) if name in found.encodings else _by_opencv(pixels, code)


def _by_opencv(pixels: NDArray[Any], code: str) -> Rgb:
    import cv2

    if pixels.dtype.itemsize == 2:
        pixels = _eight_bits()[pixels]
    return cv2.cvtColor(pixels, getattr(cv2, f"COLOR_{code}"))  # type: ignore[return-value]


@functools.cache
def _eight_bits() -> NDArray[np.uint8]:
    """Return the value of 8 bits for each of 16 bits."""
    return ((np.arange(65536) + 128) // 257).astype(np.uint8)


def _by_bridge(converter: Any, pixels: NDArray[Any], name: str) -> Rgb:
    """Convert by cv_bridge, which gets no padding and no foreign byte order: it takes both wrongly with NumPy 2."""
    tidy = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))
    height, width = tidy.shape[:2]
    message = SimpleNamespace(
        height=height,
        width=width,
        encoding=name,
        step=tidy.nbytes // height,
        is_bigendian=int(sys.byteorder == "big"),
        data=tidy.view(np.uint8).data.cast("B"),
    )
    image: Rgb = converter.imgmsg_to_cv2(message, "rgb8")
    return image


def main(_: Sequence[str] | None = None) -> int:
    """Print the encodings that cv_bridge converts to the pixels that OpenCV makes."""
    from cv_bridge import CvBridge

    converter, random = CvBridge(), np.random.default_rng(0)
    for name, channels, depth, code in dict.fromkeys(_ENCODINGS.values()):
        shape = (48, 64, channels) if channels > 1 else (48, 64)
        pixels = random.integers(0, 256**depth, shape, np.uint16 if depth == 2 else np.uint8)
        if not code:
            continue
        try:
            same = np.array_equal(_by_bridge(converter, pixels, name), _by_opencv(pixels, code))
        except TypeError as error:  # CvBridgeError is one: an older cv_bridge does not know all
            print(f"{name}: {error}", file=sys.stderr)
            continue
        if same:
            print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
