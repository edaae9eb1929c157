# SPDX-License-Identifier: Apache-2.0
"""LeRobotDataset v3, written by LeRobot, and v2.0 or v2.1, written by hand: the same numbered episodes in each."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numbered import number_in, numbered, write_video  # type: ignore[import-not-found]
from PIL import Image

from lrm_ros.training.reward.data.sources.episode import BadEpisode
from lrm_ros.training.reward.data.sources.lerobot import read_lerobot
from lrm_ros.versions import create_dataset, make_scalars

FPS = 20
TASKS = ["put the cup on the shelf", "close the drawer", "put the cup on the shelf"]
LENGTHS = [12, 9, 15]
FRONT, WRIST = "observation.images.front", "observation.images.wrist"


def number(episode: int, frame: int, camera: str = FRONT) -> int:
    """What the image of a camera shows in these data sets."""
    return 200 * episode + frame + (100 if camera == WRIST else 0)


def write_v3(root: Path, successes=None, one_file: bool = True) -> Path:
    """Write a data set of two cameras with LeRobot."""
    image = {"dtype": "video", "shape": (48, 64, 3), "names": ["height", "width", "channels"]}
    features = {FRONT: image, WRIST: dict(image), "action": {"dtype": "float32", "shape": (2,), "names": None}}
    if successes is not None:
        features["next.success"] = {"dtype": "bool", "shape": (1,), "names": None}
    dataset = create_dataset("local/v3", FPS, features, root=root, video_backend="pyav")
    if not one_file:
        dataset.meta.update_chunk_settings(data_files_size_in_mb=1e-5, video_files_size_in_mb=1e-5)
    for episode, length in enumerate(LENGTHS):
        for k in range(length):
            row = {key: numbered(number(episode, k, key)) for key in (FRONT, WRIST)}
            row |= {"action": np.zeros(2, np.float32), "task": TASKS[episode]}
            if successes is not None:
                row["next.success"] = np.array([successes[episode][k]])
            dataset.add_frame(row)
        make_scalars(dataset, ["next.success"])
        dataset.save_episode(parallel_encoding=False)
    dataset.finalize()
    return root


def encoded(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def write_v21(root: Path, storage: str = "video", cameras=(FRONT, WRIST), columns=None, version: str = "v2.1") -> Path:
    """Write the same episodes as LeRobot 0.1 to 0.3 did; ``columns`` are further ones by name, a list an episode."""
    names = ["height", "width", "channels"]
    features = {key: {"dtype": storage, "shape": [48, 64, 3], "names": names} for key in cameras}
    for key in cameras if storage == "video" else ():
        about = {"fps": float(FPS), "codec": "h264", "pix_fmt": "yuv420p", "is_depth_map": False}
        features[key]["info"] = {f"video.{name}": value for name, value in about.items()} | {"has_audio": False}
    features["action"] = {"dtype": "float32", "shape": [2], "names": None}
    for name in ("frame_index", "episode_index", "index", "task_index"):
        features[name] = {"dtype": "int64", "shape": [1], "names": None}
    features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    tasks = list(dict.fromkeys(TASKS))
    info = {"codebase_version": version, "robot_type": "so100", "total_episodes": 3, "total_frames": sum(LENGTHS)}
    info |= {"total_tasks": 2, "total_videos": 6, "total_chunks": 1, "chunks_size": 1000, "fps": FPS}
    info |= {"splits": {"train": "0:3"}, "features": features}
    info["data_path"] = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    info["video_path"] = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    (root / "meta").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info, indent=4))
    rows = [{"task_index": index, "task": task} for index, task in enumerate(tasks)]
    (root / "meta/tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"episode_index": e, "tasks": [TASKS[e]], "length": length} for e, length in enumerate(LENGTHS)]
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stats = {name: [0.0, 0.0] for name in ("min", "max", "mean", "std")} | {"count": [1]}
    rows = [{"episode_index": e, "stats": {"action": stats}} for e in range(3)]
    (root / "meta/episodes_stats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    start = 0
    for episode, length in enumerate(LENGTHS):
        table = {
            "action": pa.array(np.zeros((length, 2), np.float32).tolist(), pa.list_(pa.float32(), 2)),
            "timestamp": pa.array(np.arange(length, dtype=np.float32) / FPS),
            "frame_index": pa.array(range(length), pa.int64()),
            "episode_index": pa.array([episode] * length, pa.int64()),
            "index": pa.array(range(start, start + length), pa.int64()),
            "task_index": pa.array([tasks.index(TASKS[episode])] * length, pa.int64()),
        }
        for key in cameras:
            numbers = [number(episode, k, key) for k in range(length)]
            if storage == "video":
                name = info["video_path"].format(episode_chunk=0, video_key=key, episode_index=episode)
                write_video(root / name, numbers, FPS, g=2, crf=30)
            else:
                images = [{"bytes": encoded(numbered(n)), "path": f"frame_{n}.png"} for n in numbers]
                table[key] = pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
        table |= {name: values[episode] for name, values in (columns or {}).items()}
        pq.write_table(pa.table(table), root / f"data/chunk-000/episode_{episode:06d}.parquet")
        start += length
    return root


def opened(root: Path, **options):
    return [entry.open() for entry in read_lerobot(root, **options)]


def reasons(entries) -> dict[str, str]:
    """The ids of the entries that cannot be used, and why."""
    found = {}
    for entry in entries:
        try:
            list(entry.open().frames())
        except BadEpisode as error:
            found[entry.episode_id] = str(error)
    return found


def check_frames(episodes, camera: str = FRONT) -> None:
    """Every frame, and a few of them, are those of the right episode and camera."""
    assert [episode.length for episode in episodes] == LENGTHS
    for index, episode in enumerate(episodes):
        wanted = [number(index, k, camera) for k in range(LENGTHS[index])]
        assert [number_in(frame) for frame in episode.frames()] == wanted
        some = [0, 4, LENGTHS[index] - 1]
        assert [number_in(frame) for frame in episode.read(some)] == [wanted[k] for k in some]
        assert [number_in(frame) for frame in episode.read([LENGTHS[index] - 1])] == wanted[-1:]
