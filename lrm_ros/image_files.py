# SPDX-License-Identifier: Apache-2.0
"""JPEG and PNG, as they come in compressed image messages and lie in journals <-> (H, W, 3) uint8 RGB; needs no ROS."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from lrm_ros.images import DEPTH, Rgb, depth_fault, to_rgb

MAX_PIXELS = 50_000_000  # a small file can claim any size

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"


def decode(data: Any, description: str, max_pixels: int = MAX_PIXELS) -> Rgb:
    """Decode the JPEG or PNG of a compressed image message; like image_transport, ignore what EXIF says of orientation.

    Args:
        data: the file.
        description: the message's ``format``: ``"jpeg"``, ``"png"``, or as image_transport writes it, e.g. ``"rgb8;
            jpeg compressed bgr8"``. The colours are those of the file. mono16 as in :func:`lrm_ros.images.to_rgb`.

        max_pixels: refuse more; what the file says is looked at before anything is decoded.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: a depth image, neither JPEG nor PNG, cut off, damaged, larger than ``max_pixels``, or of 16 bits
            without being mono16; with the cure.
    """
    import cv2

    raw = bytes(data)
    encoding, separator, _ = description.partition(";")
    encoding = encoding.strip() if separator else ""
    if "compresseddepth" in description.lower() or encoding in DEPTH:
        raise ValueError(depth_fault(description))
    if raw.startswith(_PNG):
        width, height, bits, grey = _png_header(raw)
    elif raw.startswith(_JPEG):
        (width, height), bits, grey = _jpeg_size(raw), 8, False
    else:
        raise ValueError(
            f"{len(raw)} bytes of format '{description}' are neither JPEG nor PNG; let the camera publish one of them, "
            "or set image_transport:=raw"
        )
    if not 0 < width * height <= max_pixels:
        raise ValueError(
            f"the compressed image says that it has {width}x{height} pixels; up to {max_pixels / 1e6:g} million are "
            "decoded: set the camera to a smaller size"
        )
    if bits == 16 and (encoding != "mono16" or not grey):
        raise ValueError(
            f"the compressed image of format '{description}' has 16 bits a channel and may be depth; set the camera to "
            "8 bits, or give the colour topic"
        )
    # A mosaic that image_transport has stored as it is, and a mono16 image.
    stored = grey and (bits == 16 or ("bayer" in encoding and "mono8" not in description))
    flags = cv2.IMREAD_UNCHANGED if stored else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(raw, np.uint8), flags)
    if image is None:
        raise ValueError(_damaged(raw))
    if stored:
        little = sys.byteorder == "little"
        return to_rgb(np.ascontiguousarray(image).view(np.uint8), encoding, (width, height), big_endian=not little)
    rgb: Rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)  # type: ignore[assignment]
    return rgb


def encode(image: Rgb, kind: str, quality: int = 95) -> bytes:
    """Return an image as a file.

    Args:
        image: (H, W, 3) uint8 RGB.
        kind: ``"jpeg"`` or ``"png"`` (lossless).
        quality: of JPEG, 1 to 100.

    Raises:
        RuntimeError: OpenCV does not encode it.
    """
    import cv2

    options: list[int] = []
    if kind == "jpeg":
        # Full colour resolution: at 96x96 the usual 4:2:0 smears a small coloured object over its background.
        options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
    ok, encoded = cv2.imencode("." + kind, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not ok:
        raise RuntimeError(f"cannot encode the image as {kind}")
    return encoded.tobytes()


def kind_of(data: Any) -> str:
    """Return what a file is by its first bytes: ``"jpeg"``, ``"png"``, or empty for anything else."""
    first = bytes(data[: len(_PNG)])
    return "png" if first == _PNG else "jpeg" if first.startswith(_JPEG) else ""


def _png_header(raw: bytes) -> tuple[int, int, int, bool]:
    """Return width, height, bits a channel, and whether it is grey without alpha.

    Raises:
        ValueError: it is cut off, or does not begin with its header.
    """
    at = len(_PNG)
    while raw[at + 4 : at + 8] != b"IEND":
        length = int.from_bytes(raw[at : at + 4], "big")
        if (at := at + 12 + length) > len(raw) - 12:
            raise ValueError(_cut(raw))
    if raw[12:16] != b"IHDR":
        raise ValueError(_damaged(raw))
    return int.from_bytes(raw[16:20], "big"), int.from_bytes(raw[20:24], "big"), raw[24], raw[25] == 0


def _jpeg_size(raw: bytes) -> tuple[int, int]:
    """Return width and height.

    Raises:
        ValueError: it is cut off: no size, no pixels, or no end marker, without which OpenCV fills up with grey.
    """
    at, size = 2, (0, 0)
    while at + 4 <= len(raw) and raw[at] == 0xFF:
        marker = raw[at + 1]
        if marker == 0xFF:  # filling
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            size = int.from_bytes(raw[at + 7 : at + 9], "big"), int.from_bytes(raw[at + 5 : at + 7], "big")
        elif marker == 0xDA:  # the pixels begin; before it, a thumbnail may have its own end
            if raw.find(b"\xff\xd9", at) < 0:
                break
            return size
        at += 2 + int.from_bytes(raw[at + 2 : at + 4], "big")
    raise ValueError(_cut(raw))


def _damaged(raw: bytes) -> str:
    return f"the compressed image of {len(raw)} bytes is damaged; look at the camera and the network"


def _cut(raw: bytes) -> str:
    return f"the compressed image ends after {len(raw)} bytes, before its end; look at the camera and the network"
