# SPDX-License-Identifier: Apache-2.0
"""Data sets that know nothing of this package: v3 written by LeRobot's own API, v2.1 by hand; the same episodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lerobot_sets import encoded  # type: ignore[import-not-found]

from lrm_ros.versions import create_dataset

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
NAMES = [f"{joint}.pos" for joint in JOINTS]
CAMERAS = ("front", "wrist")
LENGTHS = (8, 6, 7)
TASKS = ("put the cup on the shelf", "close the drawer", "put the cup on the shelf")
FPS = 30


def number(episode: int, frame: int) -> int:
    """What a frame shows: unlike any other's, and it survives a video."""
    return 40 + 60 * episode + 5 * frame


def image(episode: int, frame: int, camera: str, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) of one grey, darker at the wrist."""
    return np.full((*size, 3), number(episode, frame) - 20 * (camera == "wrist"), np.uint8)


def numbers(episode: int, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """State and action in LeRobot's units: degrees, the gripper 0 to 100."""
    state = np.array([10 * episode + frame, -20.0, 30.0, 5.0 * frame, 0.0, 50.0], np.float32)
    return state, state + np.float32(1.0)


def features(storage: str, size: tuple[int, int], names: Any = NAMES) -> dict[str, dict[str, Any]]:
    """LeRobot's description of an SO-101 with two cameras."""
    about = {"dtype": storage, "shape": (*size, 3), "names": ["height", "width", "channels"]}
    found: dict[str, dict[str, Any]] = {f"observation.images.{camera}": dict(about) for camera in CAMERAS}
    return found | {key: {"dtype": "float32", "shape": (6,), "names": names} for key in ("observation.state", "action")}


def write_v3(
    root: Path,
    storage: str = "video",
    size: tuple[int, int] = (48, 64),
    more: dict[str, dict[str, Any]] | None = None,
    names: Any = NAMES,
    robot: str = "so101_follower",
) -> Path:
    """Write the episodes with LeRobot; ``more`` are further features, zeros in every row."""
    more = more or {}
    described = features(storage, size, names) | more
    dataset = create_dataset(
        "someone/cups", FPS, described, root=root, robot_type=robot, use_videos=storage == "video",
        video_backend="pyav",
    )  # fmt: skip
    for episode, length in enumerate(LENGTHS):
        for frame in range(length):
            state, action = numbers(episode, frame)
            row: dict[str, Any] = {"observation.state": state, "action": action, "task": TASKS[episode]}
            row |= {f"observation.images.{camera}": image(episode, frame, camera, size) for camera in CAMERAS}
            row |= {key: np.zeros(about["shape"], about.get("zeros", about["dtype"])) for key, about in more.items()}
            dataset.add_frame(row)
        dataset.save_episode(parallel_encoding=False)
    dataset.finalize()
    return root


def write_v21(root: Path, storage: str = "video", size: tuple[int, int] = (48, 64)) -> Path:
    """Write the episodes as LeRobot 0.1 to 0.3 did."""
    import av

    described = json.loads(json.dumps(features(storage, size)))
    for key, about in described.items():
        if storage == "video" and "images" in key:
            about["info"] = {"video.fps": float(FPS), "video.codec": "h264", "video.is_depth_map": False}
    for key in ("frame_index", "episode_index", "index", "task_index"):
        described[key] = {"dtype": "int64", "shape": [1], "names": None}
    described["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    tasks = list(dict.fromkeys(TASKS))
    info = {"codebase_version": "v2.1", "robot_type": "so101", "total_episodes": len(LENGTHS)}
    info |= {"total_frames": sum(LENGTHS), "total_tasks": len(tasks), "total_videos": 6, "total_chunks": 1}
    info |= {"chunks_size": 1000, "fps": FPS, "splits": {"train": "0:3"}, "features": described}
    info["data_path"] = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    info["video_path"] = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    (root / "meta").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    stats = {name: [0.0] * 6 for name in ("min", "max", "mean", "std")} | {"count": [1]}
    lines = {
        "tasks": [{"task_index": index, "task": task} for index, task in enumerate(tasks)],
        "episodes": [{"episode_index": e, "tasks": [TASKS[e]], "length": n} for e, n in enumerate(LENGTHS)],
        "episodes_stats": [{"episode_index": e, "stats": {"action": stats}} for e in range(len(LENGTHS))],
    }
    for name, rows in lines.items():
        (root / f"meta/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    start = 0
    for episode, length in enumerate(LENGTHS):
        both = [numbers(episode, frame) for frame in range(length)]
        table = {
            "observation.state": pa.array([state.tolist() for state, _ in both], pa.list_(pa.float32(), 6)),
            "action": pa.array([action.tolist() for _, action in both], pa.list_(pa.float32(), 6)),
            "timestamp": pa.array(np.arange(length, dtype=np.float32) / FPS),
            "frame_index": pa.array(range(length), pa.int64()),
            "episode_index": pa.array([episode] * length, pa.int64()),
            "index": pa.array(range(start, start + length), pa.int64()),
            "task_index": pa.array([tasks.index(TASKS[episode])] * length, pa.int64()),
        }
        for camera in CAMERAS:
            key, images = f"observation.images.{camera}", [image(episode, k, camera, size) for k in range(length)]
            if storage == "image":
                cells = [{"bytes": encoded(one), "path": f"frame_{k}.png"} for k, one in enumerate(images)]
                table[key] = pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
                continue
            path = root / info["video_path"].format(episode_chunk=0, video_key=key, episode_index=episode)
            path.parent.mkdir(parents=True, exist_ok=True)
            with av.open(str(path), "w") as container:
                stream = container.add_stream(
                    "libx264", rate=FPS, options={"g": "2", "crf": "20", "x264-params": "log-level=none"}
                )
                stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
                for one in images:
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(one, format="rgb24")))
                container.mux(stream.encode(None))
        pq.write_table(pa.table(table), root / f"data/chunk-000/episode_{episode:06d}.parquet")
        start += length
    return root
