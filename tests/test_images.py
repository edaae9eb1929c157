# SPDX-License-Identifier: Apache-2.0
"""Every encoding becomes the RGB that it means, by arithmetic done here; cv_bridge is used only where it is right."""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import pytest

from lrm_ros import images

RED, BLUE, GREY = (81, 90, 240), (41, 240, 110), (126, 128, 128)  # Y, U, V of BT.601, limited range
COLOUR = np.array([200, 100, 50], np.uint8)


@pytest.fixture(autouse=True)
def look_anew():
    images.bridge.cache_clear()
    yield
    images.bridge.cache_clear()


def yuv(order: str, colours) -> bytes:
    """One row of two pixels for each colour."""
    return bytes(dict(zip("YUV", colour, strict=True))[letter] for colour in colours for letter in order)


@pytest.mark.parametrize(
    ("encoding", "order"), [("yuv422", "UYVY"), ("uyvy", "UYVY"), ("yuv422_yuy2", "YUYV"), ("yuyv", "YUYV")]
)
def test_yuv_is_unpacked_in_its_order(encoding, order):
    row = yuv(order, (RED, BLUE, GREY))
    image = images.to_rgb(row + b"\0\0" + row, encoding, (6, 2), step=len(row) + 1)
    assert image.shape == (2, 6, 3)
    expected = np.repeat([[255, 0, 0], [0, 0, 255], [128, 128, 128]], 2, axis=0)
    np.testing.assert_allclose(image[0], expected, atol=2)


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("size", [(16, 12), (17, 13)])
def test_a_mosaic_of_one_colour_is_that_colour_again(pattern, size):
    width, height = size
    mosaic = np.zeros((height, width), np.uint8)
    for at, letter in enumerate(pattern):  # the letters are the first two rows' first two pixels
        mosaic[at // 2 :: 2, at % 2 :: 2] = COLOUR["rgb".index(letter)]
    padded = np.pad(mosaic, ((0, 0), (0, 3)), constant_values=255)
    image = images.to_rgb(padded.tobytes(), f"bayer_{pattern}8", size, step=width + 3)
    assert (image[1:-1, 1:-1] == COLOUR).all()


@pytest.mark.parametrize("big_endian", [False, True])
def test_sixteen_bits_of_grey_are_divided_by_257_and_rounded(big_endian):
    values = np.array([[0, 128, 129, 256], [257, 32768, 65406, 65535]], ">u2" if big_endian else "<u2")
    rows = np.pad(values.view(np.uint8).reshape(2, 8), ((0, 0), (0, 3)))  # a padding that is no whole pixel
    image = images.to_rgb(rows.tobytes(), "mono16", (4, 2), step=11, big_endian=big_endian)
    assert image[..., 0].tolist() == [[0, 0, 1, 1], [1, 128, 254, 255]]
    assert (image == image[..., :1]).all()


def test_encodings_that_name_no_colours_are_bgr_and_grey():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert np.array_equal(images.to_rgb(pixels.tobytes(), "8UC3", (4, 2)), pixels[..., ::-1])
    assert "taken as BGR" in images.NOTES["8UC3"]
    grey = images.to_rgb(pixels[..., 0].tobytes(), "8UC1", (4, 2))
    assert np.array_equal(grey, np.repeat(pixels[..., :1], 3, axis=2))


@pytest.mark.parametrize(
    ("encoding", "size", "says"),
    [
        ("16UC1", (4, 4), "'16UC1' is a depth image, not colour; give the colour topic"),
        ("32FC1", (4, 4), "'32FC1' is a depth image, not colour; give the colour topic"),
        ("bayer_gbrg16", (4, 4), "'bayer_gbrg16' has 16 bits a pixel; set the driver to bayer_gbrg8"),
        ("nv12", (4, 4), "'nv12' is not supported; set the driver to one of rgb8, bgr8, "),
        ("", (4, 4), "encoding '' is not supported"),
        ("yuyv", (3, 4), "a width of 3 is odd; set the driver to an even width"),
        ("bayer_rggb8", (2, 4), "2x4 is too small for colours"),
        ("mono16", (0, 4), "no pixels"),
        ("mono16", (40, 4), "64 bytes with step 80 cannot hold 40x4 mono16"),
        ("uyvy", (8, 5), "64 bytes with step 16 cannot hold 8x5 uyvy"),
        ("bayer_rggb8", (8, 9), "64 bytes with step 8 cannot hold 8x9"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_the_cure(encoding, size, says):
    with pytest.raises(ValueError, match=says.replace("(", r"\(")):
        images.to_rgb(bytes(64), encoding, size)


@pytest.mark.parametrize(
    ("encoding", "step", "size", "says"),
    [
        ("rgb8", 4 * 96, 4 * 96 * 96, "step 384 is that of 4 bytes a pixel, rgb8 of 96x96 has 3; the driver names"),
        ("mono8", 3 * 96, 3 * 96 * 96, "step 288 is that of 3 bytes a pixel, mono8 of 96x96 has 1"),
        ("bgra8", 8 * 96, 8 * 96 * 96, "step 768 is that of 8 bytes a pixel"),
        ("mono8", 96, 3 * 96 * 96, "27648 bytes with step 96 are more than 96x96 mono8 has; the driver names another"),
        ("rgb8", 0, 4 * 96 * 96, "36864 bytes with step 288 are more than"),
    ],
)
def test_pixels_of_another_encoding_than_the_message_names_are_no_picture(encoding, step, size, says):
    with pytest.raises(ValueError, match=says):
        images.to_rgb(bytes([100]) * size, encoding, (96, 96), step)


def test_what_a_driver_aligns_behind_the_rows_is_left_out():
    rows = bytes([7]) * (104 * 3 * 96) + bytes([9]) * (8 * 3 * 96)  # 104 rows, in memory 112
    image = images.to_rgb(rows, "rgb8", (96, 104), 3 * 96)
    assert image.shape == (104, 96, 3) and (image == 7).all()


def test_rows_that_are_filled_up_with_zeros_are_a_picture_however_long_they_are():
    rows = np.zeros((4, 64, 4), np.uint8)  # 64 pixels of 3 bytes, filled up to 256 as GPUs do
    rows.reshape(4, 256)[:, : 3 * 64] = 7
    assert (images.to_rgb(rows.tobytes(), "rgb8", (64, 4), step=256) == 7).all()


# -- cv_bridge --------------------------------------------------------------------------------------------------------

OWN = {name: code for name, _, _, code in images._ENCODINGS.values() if code}
BRIDGE = """
import cv2, numpy
OWN = {own!r}
class CvBridge:
    calls = []
    def imgmsg_to_cv2(self, message, wanted):
        assert wanted == "rgb8" and not message.is_bigendian
        self.calls.append(message.encoding)
        depth = 2 if message.encoding == "mono16" else 1
        channels = message.step // message.width // depth
        assert message.step == message.width * channels * depth and len(message.data) == message.step * message.height
        image = numpy.frombuffer(message.data, numpy.uint16 if depth == 2 else numpy.uint8)
        image = image.reshape(message.height, message.width, *([channels] if channels > 1 else []))
        if depth == 2:
            image = ((image.astype(int) + 128) // 257).astype(numpy.uint8)
        image = cv2.cvtColor(image, getattr(cv2, "COLOR_" + OWN[message.encoding]))
        {also}
        return image
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a cv_bridge of the given source, for this process and its children."""

    def install(source: str) -> None:
        (tmp_path / "cv_bridge").mkdir()
        (tmp_path / "cv_bridge/__init__.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(__import__("sys").modules, "cv_bridge", raising=False)
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")

    return install


def convert_bgr() -> np.ndarray:
    return images.to_rgb(bytes(range(6)), "bgr8", (2, 1))


def test_a_good_cv_bridge_converts_all_but_rgb_without_padding_and_byte_order(installed, tmp_path):
    installed(BRIDGE.format(own=OWN, also=""))
    found = images.bridge()
    assert found.encodings == OWN.keys() and not found.fault and found.origin == str(tmp_path / "cv_bridge")
    assert convert_bgr().tolist() == [[[2, 1, 0], [5, 4, 3]]]
    values = np.array([[257, 514]], ">u2").tobytes() + b"\0"
    assert images.to_rgb(values, "mono16", (2, 1), step=5, big_endian=True)[..., 0].tolist() == [[1, 2]]
    images.to_rgb(bytes(6), "rgb8", (2, 1))
    assert found.converter.calls == ["bgr8", "mono16"]


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("raise ImportError('no module named cv_bridge_boost')", "no module named cv_bridge_boost"),
        ("import os; os.abort()", "it ended with signal 6"),  # as one that was built for another NumPy
        ("import os; os._exit(3)", "exit code 3"),
        (BRIDGE.format(own=OWN, also="raise TypeError('buffer is too small')"), "buffer is too small"),  # as PyPI's
        (BRIDGE.format(own=OWN, also="image[:] = 7"), "not the same pixels as OpenCV's of bayer_bggr8, "),
    ],
    ids=["import", "signal", "exit", "raises", "pixels"],
)
def test_a_cv_bridge_that_does_not_work_is_not_used_and_the_reason_is_known(installed, source, fault):
    installed(source)
    found = images.bridge()
    assert fault in found.fault and found.converter is None and not found.encodings
    assert convert_bgr().tolist() == [[[2, 1, 0], [5, 4, 3]]]


def test_an_older_cv_bridge_converts_what_it_knows(installed):
    installed(BRIDGE.format(own=OWN, also="if 'yuv' in message.encoding: raise TypeError('unknown')"))
    found = images.bridge()
    assert found.encodings == OWN.keys() - {"yuv422", "yuv422_yuy2"}
    assert found.fault == "not the same pixels as OpenCV's of yuv422, yuv422_yuy2"
    assert images.to_rgb(yuv("UYVY", (RED,)), "yuv422", (2, 1))[0, 0].tolist() == pytest.approx([255, 0, 0], abs=2)


@pytest.mark.skipif(importlib.util.find_spec("cv_bridge") is None, reason="no cv_bridge is installed")
@pytest.mark.parametrize("size", [(64, 48), (66, 47), (640, 480)])
def test_the_installed_cv_bridge_makes_the_same_pixels(size):
    found = images.bridge()
    if found.converter is None:
        pytest.skip(f"cv_bridge in {found.origin} does not work: {found.fault}")
    width, height = size
    for encoding, (name, channels, depth, code) in images._ENCODINGS.items():
        if name in found.encodings:
            data = np.random.default_rng(1).integers(0, 256, (height, width * channels * depth + 5), np.uint8)
            through = images.to_rgb(data.tobytes(), encoding, size, step=data.shape[1])
            pixels = np.ascontiguousarray(data[:, :-5]).view(np.uint16 if depth == 2 else np.uint8)
            ours = images._by_opencv(pixels.reshape(height, width, *([channels] if channels > 1 else [])), code)
            assert np.array_equal(through, ours), encoding


def test_without_cv_bridge_opencv_converts():
    if importlib.util.find_spec("cv_bridge") is None:
        assert images.bridge() == images.Bridge()
    assert convert_bgr().tolist() == [[[2, 1, 0], [5, 4, 3]]]
