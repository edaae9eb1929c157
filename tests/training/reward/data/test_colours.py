# SPDX-License-Identifier: Apache-2.0
"""Colours of a video, or of arrays, in the JPEG of a keyframe: matrices, ranges, subsampling, depths and odd sizes."""

import io
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from PIL import Image

from lrm_ros.training.reward.data.rows import keyframes_of
from lrm_ros.training.reward.data.sources.episode import Entry, SourceEpisode, array_reader
from lrm_ros.training.reward.data.sources.video import Video

MATRICES = {"BT.601": (6, 0.299, 0.114), "BT.709": (1, 0.2126, 0.0722), "BT.2020": (9, 0.2627, 0.0593)}
TV, FULL = 1, 2  # as FFmpeg counts the ranges
CODINGS = {  # codec, pixel format, suffix, options, width, height
    "h264": ("libx264", "yuv420p", "mp4", {"qp": "1"}, 128, 96),
    "h264 4:4:4, odd": ("libx264", "yuv444p", "mp4", {"qp": "1"}, 131, 97),
    "HEVC": ("libx265", "yuv420p", "mp4", {"crf": "1", "x265-params": "log-level=error"}, 128, 96),
    "VP9, odd": ("libvpx-vp9", "yuv420p", "webm", {"crf": "2", "b": "0"}, 131, 97),
    "AV1": ("libsvtav1", "yuv420p", "mp4", {"crf": "2"}, 128, 96),
    "AV1, 10 bits": ("libsvtav1", "yuv420p10le", "mp4", {"crf": "2"}, 128, 96),
}


def scene(width: int, height: int) -> np.ndarray:
    """Smooth and colourful, (height, width, 3) uint8 RGB."""
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    red, green, blue = 20 + 215 * across, 235 - 215 * across * down, 20 + 215 * down
    return np.round(np.stack([red, green, blue], 2)).astype(np.uint8)


def planes(rgb: np.ndarray, matrix: str, full: bool, bits: int, halved: bool) -> list[np.ndarray]:
    """Y, Cb and Cr of an image by the standards' equations."""
    _, of_red, of_blue = MATRICES[matrix]
    red, green, blue = (rgb / 255.0).transpose(2, 0, 1)
    y = of_red * red + (1 - of_red - of_blue) * green + of_blue * blue
    chroma = [(blue - y) / (2 - 2 * of_blue), (red - y) / (2 - 2 * of_red)]
    if halved:
        even = [np.pad(c, ((0, c.shape[0] % 2), (0, c.shape[1] % 2)), "edge") for c in chroma]
        chroma = [c.reshape(c.shape[0] // 2, 2, c.shape[1] // 2, 2).mean((1, 3)) for c in even]
    top, unit = 2**bits - 1, 2 ** (bits - 8)
    values = [y * top if full else (16 + 219 * y) * unit]
    values += [c * top + 128 * unit if full else (128 + 224 * c) * unit for c in chroma]
    return [np.clip(np.round(value), 0, top).astype(np.uint8 if bits == 8 else np.uint16) for value in values]


def film(folder: Path, coding: str, matrix: str = "BT.601", full: bool = False, told: bool = True) -> Video:
    """A video of three frames that all show the scene; ``told``: it says its matrix and its range."""
    codec, kind, suffix, options, width, height = CODINGS[coding]
    path = folder / f"a.{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options, width=width, height=height, pix_fmt=kind)
        context = stream.codec_context
        if told:
            context.colorspace, context.color_range = MATRICES[matrix][0], FULL if full else TV
        bits, halved = 10 if kind.endswith("10le") else 8, "420" in kind
        for number in range(3):
            frame = av.VideoFrame(width, height, kind)
            for plane, values in zip(
                frame.planes, planes(scene(width, height), matrix, full, bits, halved), strict=True
            ):
                lines = np.zeros((plane.height, plane.line_size // values.itemsize), values.dtype)
                lines[:, : values.shape[1]] = values
                plane.update(lines.tobytes())
            frame.pts = number
            if told:
                frame.colorspace, frame.color_range = context.colorspace, context.color_range
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return Video(path)


def off(image: np.ndarray, truth: np.ndarray) -> float:
    """Mean error of an image in the channel where it is largest."""
    assert image.shape == truth.shape
    return float(np.abs(image.astype(float) - truth).mean((0, 1)).max())


def from_jpeg(episode: SourceEpisode) -> list[list[np.ndarray]]:
    """The keyframes of an episode as Pillow and as OpenCV read them, RGB."""
    columns = keyframes_of(Entry("colours", "0", lambda: episode))
    for jpeg, height, width in zip(columns["jpeg"], columns["height"], columns["width"], strict=True):
        assert Image.open(io.BytesIO(jpeg)).size == (width, height)
    pillow = [np.asarray(Image.open(io.BytesIO(jpeg))) for jpeg in columns["jpeg"]]
    opencv = [cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1] for jpeg in columns["jpeg"]]
    return [pillow, opencv]


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("coding", CODINGS)
def test_colours_of_a_video_are_those_that_were_filmed(tmp_path, coding, matrix, full):
    video = film(tmp_path, coding, matrix, full)
    truth = scene(*CODINGS[coding][-2:])
    frames = list(video.read(range(3)))
    assert len(frames) == 3 and all(off(frame, truth) < 4 for frame in frames)
    episode = SourceEpisode("colours", "0", "look", video.fps, 3, video.read)
    for images in from_jpeg(episode):
        assert len(images) == 3 and all(off(image, truth) < 4.5 for image in images)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_video_that_tells_no_matrix_is_read_as_ffmpeg_does(tmp_path, coding):
    video = film(tmp_path, coding, told=False)
    with av.open(str(video.path)) as container:
        frames = [VideoReformatter().reformat(frame, format="rgb24") for frame in container.decode(video=0)]
    for found, frame in zip(video.read(range(3)), frames, strict=True):
        np.testing.assert_array_equal(found, frame.to_ndarray())
        assert off(found, scene(*CODINGS[coding][-2:])) < 4


def coded(path: Path, codec: str, kind: str) -> tuple[Video, np.ndarray]:
    """A video in RGB, or of grey alone, and what it shows."""
    shown = scene(128, 96) if kind != "gray" else scene(128, 96)[..., :1].repeat(3, 2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, width=128, height=96, pix_fmt=kind)
        for _ in range(2):
            frame = av.VideoFrame.from_ndarray(shown if kind != "gray" else shown[..., 0].copy(), kind)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return Video(path), shown


@pytest.mark.parametrize(
    ("suffix", "codec", "kind"), [("a.mov", "png", "rgb24"), ("a.mov", "png", "gray"), ("a.mkv", "ffv1", "gray")]
)
def test_rgb_and_grey_videos_are_read_as_they_are(tmp_path, suffix, codec, kind):
    video, shown = coded(tmp_path / suffix, codec, kind)
    for frame in video.read(range(2)):
        np.testing.assert_array_equal(frame, shown)


@pytest.mark.parametrize(("width", "height"), [(128, 96), (131, 97), (65, 1), (1, 1)])
def test_colours_of_arrays_outlast_the_jpeg_whatever_their_size(width, height):
    shown = scene(width, height)
    images = np.stack([shown, shown])
    upside_down = np.ascontiguousarray(images[:, ::-1])
    for kept in (images, upside_down[:, ::-1]):  # the second one is the same seen through a view
        for found in from_jpeg(SourceEpisode("colours", "0", "look", 10.0, 2, array_reader(kept))):
            assert all(off(image, shown) < 2.5 for image in found)


@pytest.mark.parametrize(("coding", "decibels"), [("h264", 44), ("VP9, odd", 47.5), ("AV1, 10 bits", 46)])
def test_the_jpeg_is_close_to_its_frame(tmp_path, coding, decibels):
    video = film(tmp_path, coding)
    frames = list(video.read(range(3)))
    for images in from_jpeg(SourceEpisode("colours", "0", "look", video.fps, 3, video.read)):
        for image, frame in zip(images, frames, strict=True):
            assert 10 * np.log10(255**2 / np.mean((image.astype(float) - frame) ** 2)) > decibels
