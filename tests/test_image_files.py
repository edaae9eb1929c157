# SPDX-License-Identifier: Apache-2.0
"""JPEG and PNG of compressed image messages: what they show, and what is refused before or after it is decoded."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from lrm_ros import image_files

RNG = np.random.default_rng(0)
PICTURE = cv2.GaussianBlur(RNG.integers(0, 256, (32, 48, 3), np.uint8), (0, 0), 5)  # RGB
RED = np.full((24, 40, 3), (250, 10, 20), np.uint8)


def png(pixels) -> bytes:
    ok, data = cv2.imencode(".png", pixels)
    assert ok
    return data.tobytes()


def with_segment(jpeg: bytes, body: bytes) -> bytes:
    """A JPEG with one more APP1 segment behind its first marker."""
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def turned(jpeg: bytes) -> bytes:
    """The same, saying in EXIF that it lies on its side (orientation 6)."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    return with_segment(jpeg, b"Exif\0\0MM\0\x2a" + struct.pack(">IH", 8, 1) + entry + bytes(4))


def header(width: int, height: int) -> bytes:
    """A small PNG that claims a size."""
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))  # noqa: E731
    ihdr = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + ihdr + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def claims(jpeg: bytes, width: int, height: int) -> bytes:
    """A small JPEG that claims a size."""
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


@pytest.mark.parametrize("description", ["png", "rgb8; png compressed bgr8", "bgr8; png compressed bgr8", ""])
def test_a_png_is_lossless_whatever_its_format_says(description):
    assert np.array_equal(image_files.decode(image_files.encode(PICTURE, "png"), description), PICTURE)


@pytest.mark.parametrize("description", ["jpeg", "rgb8; jpeg compressed bgr8", "bgr8; jpeg compressed bgr8"])
def test_a_jpeg_has_its_own_colours(description):
    data = image_files.encode(RED, "jpeg", 95)
    np.testing.assert_allclose(image_files.decode(data, description), RED, atol=4)
    assert image_files.kind_of(data) == "jpeg" and image_files.kind_of(image_files.encode(RED, "png")) == "png"
    assert not image_files.kind_of(b"GIF89a") and not image_files.kind_of(b"")
    np.testing.assert_allclose(image_files.decode(data + bytes(100), description), RED, atol=4)  # drivers pad


def test_the_quality_is_that_of_jpeg():
    noise = RNG.integers(0, 256, (64, 64, 3), np.uint8)
    sizes = [len(image_files.encode(noise, "jpeg", quality)) for quality in (30, 95)]
    assert sizes[0] < sizes[1] / 2


def test_what_exif_says_of_orientation_turns_nothing():
    data = turned(image_files.encode(PICTURE, "jpeg", 95))
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (48, 32, 3), "it does say that"
    np.testing.assert_allclose(image_files.decode(data, "jpeg").astype(int), PICTURE, atol=12)


def test_grey_and_transparent_files_are_rgb():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(image_files.decode(png(grey), "mono8; png compressed "), np.repeat(grey[..., None], 3, 2))
    clear = np.dstack([PICTURE[..., ::-1], np.zeros((32, 48), np.uint8)])
    assert np.array_equal(image_files.decode(png(clear), "rgba8; png compressed bgr8"), PICTURE)


def test_mono16_is_divided_as_a_raw_one():
    values = np.array([[0, 129, 32768, 65535]], np.uint16)
    assert image_files.decode(png(values), "mono16; png compressed ")[0, :, 0].tolist() == [0, 1, 128, 255]


def test_a_mosaic_that_was_stored_as_it_is_becomes_colour():
    mosaic = np.zeros((12, 16), np.uint8)
    for at, value in enumerate((200, 100, 100, 50)):  # rggb
        mosaic[at // 2 :: 2, at % 2 :: 2] = value
    image = image_files.decode(png(mosaic), "bayer_rggb8; png compressed ")
    assert (image[1:-1, 1:-1] == (200, 100, 50)).all()


JPEG, PNG = image_files.encode(PICTURE, "jpeg", 95), image_files.encode(PICTURE, "png")
DEEP = np.zeros((4, 4), np.uint16)


@pytest.mark.parametrize(
    ("data", "description", "says"),
    [
        (JPEG[: len(JPEG) * 3 // 4], "jpeg", "before its end"),
        (JPEG[:-2], "jpeg", "before its end"),
        (with_segment(JPEG, JPEG)[: len(JPEG) + 300], "jpeg", "before its end"),  # its thumbnail has an end
        (JPEG[:20], "jpeg", "ends after 20 bytes, before its end; look at the camera and the network"),
        (JPEG[:2] + JPEG[40:], "jpeg", "before its end|damaged"),
        (PNG[:-20], "png", "before its end"),
        (PNG[:10], "png", "before its end"),
        (PNG[:1000] + bytes([PNG[1000] ^ 255]) + PNG[1001:], "png", "is damaged"),
        (header(20_000, 20_000), "png", "says that it has 20000x20000 pixels; up to 50 million"),
        (header(0, 5), "png", "says that it has 0x5 pixels"),
        (claims(JPEG, 65_000, 65_000), "jpeg", "says that it has 65000x65000 pixels"),
        (claims(JPEG, 48, 0), "jpeg", "says that it has 48x0 pixels"),
        (PNG[:8] + PNG[-12:], "png", "of 20 bytes is damaged"),  # its end alone
        (b"", "jpeg", "0 bytes of format 'jpeg' are neither JPEG nor PNG"),
        (bytes(500), "h264", "500 bytes of format 'h264' are neither JPEG nor PNG; let the camera"),
        (PNG, "16UC1; compressedDepth", "'16UC1; compressedDepth' is a depth image, not colour; give the colour topic"),
        (PNG, "32FC1; compressedDepth png", "is a depth image"),
        (png(DEEP), "16UC1; png compressed ", "is a depth image"),
        (png(DEEP), "png", "16 bits a channel and may be depth; set the camera to 8 bits"),
        (png(DEEP), "bayer_rggb16; png compressed ", "16 bits a channel"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_the_cure(data, description, says):
    with pytest.raises(ValueError, match=says):
        image_files.decode(data, description)
