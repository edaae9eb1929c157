# SPDX-License-Identifier: Apache-2.0
"""Measure the throughput of keyframes from video, from opening a file to the finished shard: ``lrm bench keyframes``.

The videos are made for it, 256x256, coded as LeRobot does it when vcodec is h264 (libx264, crf 30; GOP 2: lerobot 0.4.4
datasets/video_utils.py) or by its default libsvtav1, and with longer GOPs; as LeRobot v3 lays them out (all episodes in
one file) and as v2.1 does (a file an episode). They show a blurred random background, a moving patch and a little
noise: the more detail, the slower. The files come from the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lrm_ros.options import whole
from lrm_ros.training.reward.data.keyframes import write_keyframes
from lrm_ros.training.reward.data.shards import read_rows
from lrm_ros.training.reward.data.sources.episode import Entry, SourceEpisode
from lrm_ros.training.reward.data.sources.video import Video

FPS = 30


def scene(seed: int, frames: int, size: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the images of an episode, (size, size, 3) uint8 RGB."""
    rng = np.random.default_rng(seed)
    random = rng.integers(0, 256, (size, size, 3), np.uint8).astype(np.float32)
    ground = cv2.normalize(cv2.GaussianBlur(random, (0, 0), size / 48), None, 20, 220, cv2.NORM_MINMAX)
    side = size // 5
    patch = cv2.GaussianBlur(rng.integers(0, 256, (side, side, 3), np.uint8), (0, 0), 1)
    noise = rng.normal(0, 2, (8, size, size, 3)).astype(np.float32)
    for number in range(frames):
        image = ground + noise[number % len(noise)]
        x = round((size - side) * number / frames)
        y = round((size - side) * (0.5 + 0.4 * np.sin(number / 9)))
        image[y : y + side, x : x + side] = patch
        yield np.clip(image, 0, 255).astype(np.uint8)


def write_videos(
    folder: Path, episodes: int, frames: int, size: int, gop: int, one_file: bool, codec: str = "libx264"
) -> list[Video]:
    """Write episodes as videos and return them.

    Args:
        folder: where to.
        episodes: how many.
        frames: frames an episode.
        size: width and height [pixels].
        gop: frames from one key frame to the next.
        one_file: all episodes in one file.
        codec: FFmpeg's name of the encoder.
    """
    import av

    groups = [range(episodes)] if one_file else [range(number, number + 1) for number in range(episodes)]
    videos: list[Video] = []
    for group in groups:
        path = folder / f"episode_{group[0]:06d}.mp4"
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream(codec, rate=FPS, options={"g": str(gop), "crf": "30"})
            stream.width = stream.height = size
            stream.pix_fmt = "yuv420p"
            for seed in group:
                videos.append(Video(path, len(videos) * frames if one_file else 0, frames))
                for image in scene(seed, frames, size):
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
            container.mux(stream.encode())
    return videos


def entries(videos: list[Video]) -> Iterator[Entry]:
    """Yield an entry for each video."""

    def opened(number: int, video: Video) -> SourceEpisode:
        return SourceEpisode("bench", str(number), "move the patch", FPS, video.length, video.read)

    for number, video in enumerate(videos):
        yield Entry("bench", str(number), partial(opened, number, video))


def measure(
    episodes: int, frames: int, size: int, gop: int, one_file: bool, rounds: int, codec: str = "libx264"
) -> dict[str, Any]:
    """Return figures of one kind of video.

    Returns:
        ``keyframes_per_s`` of the wall clock and ``keyframes_per_cpu_s`` of the processor, both of the best round,
        ``median_per_cpu_s``, and the mean size of an image in ``jpeg_bytes``.
    """
    with tempfile.TemporaryDirectory() as scratch:
        top = Path(scratch)
        videos = write_videos(top, episodes, frames, size, gop, one_file, codec)
        wall, processor, out = [], [], top
        for number in range(rounds + 1):  # the first one loads libraries
            out = top / f"out{number}"
            for path in {video.path for video in videos}:
                os.utime(path)  # a changed file is indexed again
            begun, begun_cpu = time.perf_counter(), time.process_time()
            manifest = write_keyframes({"bench": entries(videos)}, out)
            keyframes = manifest["counts"]["bench"]["keyframes"]
            if number:
                wall.append(keyframes / (time.perf_counter() - begun))
                processor.append(keyframes / (time.process_time() - begun_cpu))
        bytes_each = np.mean([len(row["jpeg"]) for row in read_rows(out)])
    return {
        "codec": codec,
        "gop": gop,
        "layout": "one file" if one_file else "a file an episode",
        "keyframes_per_s": max(wall),
        "keyframes_per_cpu_s": max(processor),
        "median_per_cpu_s": float(np.median(processor)),
        "keyframes": keyframes,
        "jpeg_bytes": float(bytes_each),
    }


def main(argv: list[str] | None = None) -> int:
    """Run ``lrm bench keyframes``."""
    parser = argparse.ArgumentParser(prog="lrm bench keyframes", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--episodes", type=whole(1), default=20, help="episodes of each kind of video")
    parser.add_argument("--frames", type=whole(1), default=100, help="frames an episode, 30 a second")
    parser.add_argument("--size", type=whole(1), default=256, help="width and height of the frames [pixels]")
    parser.add_argument("--gop", type=whole(1), nargs="+", default=[2, 12, 250], help="frames between key frames")
    parser.add_argument("--codec", choices=("libx264", "libsvtav1"), default="libx264")
    parser.add_argument(
        "--rounds", type=whole(1), default=5, help="rounds of each; the best and the median are reported"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the metrics to this file")
    args = parser.parse_args(argv)
    cv2.setNumThreads(1)
    rows = []
    for gop in args.gop:
        for one_file in (True, False):
            row = measure(args.episodes, args.frames, args.size, gop, one_file, args.rounds, args.codec)
            rows.append(row)
            print(
                f"GOP {gop:3d}, {row['layout']:17s} {row['keyframes_per_s']:6.0f} keyframes/s, one core alone "
                f"{row['keyframes_per_cpu_s']:6.0f} (median {row['median_per_cpu_s']:.0f})",
                flush=True,
            )
    figures = {"size": args.size, "frames": args.frames, "episodes": args.episodes, "rounds": args.rounds, "rows": rows}
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
