# SPDX-License-Identifier: Apache-2.0
"""Episodes -> LeRobotDataset v3 -> episodes in RAM. Journals are the truth; a data set is derived and never extended.

A data set is written into ``<root>.writing`` and renamed when LeRobot has finalised it, so that a folder under its
final name is always complete. Beside LeRobot's files it has ``contract.json`` (the robot) and ``episodes.json``
(where each episode came from).

Columns: ``observation.images.<camera>``, ``observation.state``, ``action`` (what was sent to the arm after limits),
``wish`` (what was asked for; a name starting with "action" would make LeRobot's policies predict it), ``next.reward``
and ``next.success`` where known.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract
from lrm_ros.contract import (
    CONTRACT_FILE,
    check_episode,
    contract_differences,
    has_images,
    load_contract,
    save_contract,
)
from lrm_ros.types import Episode, Frame, Observation, Step, Unscored
from lrm_ros.versions import create_dataset, make_scalars

EPISODES_FILE = "episodes.json"


def is_complete(root: str | Path) -> bool:
    """Return whether a folder is a finished data set of this package."""
    return (Path(root) / "meta/info.json").is_file() and (Path(root) / EPISODES_FILE).is_file()


def journals_to_dataset(
    journals: Sequence[str | Path],
    root: str | Path,
    storage: str = "image",
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Convert journals of one robot into a LeRobotDataset; see :func:`write_dataset`.

    Raises:
        ValueError: no journals, a corrupt one, or journals of different robots; names the file.
    """
    from lrm_ros.record.journal import read_info, read_journal

    if not journals:
        raise ValueError(f"no journals for data set '{root}'; record episodes first")
    about = [read_info(path) for path in journals]
    contract = about[0].contract
    for path, info in zip(journals, about, strict=True):
        if differences := contract_differences(info.contract, contract):
            raise ValueError(f"journal '{path}' is of another robot than '{journals[0]}': {'; '.join(differences)}")
    judged = all(info.outcome is not None for info in about)
    episodes = (read_journal(path) for path in journals)  # one in memory at a time
    return write_dataset(episodes, root, contract, storage, judged=judged, progress=progress)


def write_dataset(
    episodes: Iterable[Episode],
    root: str | Path,
    contract: RobotContract,
    storage: str = "image",
    reward_head: str | None = None,
    judged: bool | None = None,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Write episodes as a LeRobotDataset v3.

    Args:
        episodes: at least one; every step needs an image of every camera.
        root: folder of the data set; must not exist.
        contract: robot contract of all episodes.
        storage: ``"image"`` (PNG in parquet: exact, 3 KB for a 96x96 frame of the twin, and faster to write) or
            ``"video"`` (h264: 0.8 KB, but only 33 dB, and a small red toy loses its colour first).
        reward_head: write this head's answers as ``next.reward``, NaN for Unscored; every step must have one. The last
            one is about the episode's final frame.
        judged: write ``next.success``; every episode must have an outcome. ``None``: if they all have one, for which
            all of them are held in memory.
        progress: called with the number of episodes written.

    Returns:
        ``root``.

    Raises:
        FileExistsError: ``root`` exists.
        ValueError: an episode does not fit the contract, or lacks an image or a reward; names episode and step.
    """
    root = Path(root)
    if root.exists():
        raise FileExistsError(
            f"data set folder '{root}' exists; remove it or choose another: data sets are never extended"
        )
    if storage not in ("image", "video"):
        raise ValueError(f"storage must be 'image' or 'video', got '{storage}'")
    writing = root.with_name(root.name + ".writing")
    shutil.rmtree(writing, ignore_errors=True)
    writing.parent.mkdir(parents=True, exist_ok=True)
    if judged is None:
        episodes = list(episodes)
        judged = bool(episodes) and all(episode.outcome is not None for episode in episodes)
    dataset = create_dataset(
        repo_id=f"local/{root.name}",
        fps=round(contract.control_hz),
        features=_features(contract, storage, reward_head is not None, judged),
        root=writing,
        robot_type=contract.name,
        use_videos=storage == "video",
        video_backend="pyav",
    )
    about = []
    moments: dict[str, list[NDArray[np.float64]]] = {}
    rewards: list[float] = []
    for episode in episodes:
        for row in _rows(episode, contract, reward_head, judged):
            for key in (key for key in row if key.startswith("observation.images.")):
                pixels = row[key].reshape(-1, 3) / 255.0  # (H W, 3)
                moments.setdefault(key, []).append(np.stack([pixels.mean(axis=0), (pixels**2).mean(axis=0)]))
            rewards.extend(row.get("next.reward", ()))
            dataset.add_frame(row)
        make_scalars(dataset, ("next.reward", "next.success"))
        with _quiet_bars():
            dataset.save_episode(parallel_encoding=False)  # else LeRobot forks, and with it the locks of our threads
        about.append({"id": episode.episode_id, "source": episode.source, "outcome": episode.outcome})
        if progress:
            progress(len(about))
    if not about:
        raise ValueError(f"no episodes for data set '{root}'")
    dataset.finalize()
    shutil.rmtree(writing / "images", ignore_errors=True)  # LeRobot's own temporary files
    _fix_statistics(writing / "meta/stats.json", moments, rewards)
    save_contract(contract, writing)
    (writing / EPISODES_FILE).write_text(json.dumps(about, indent=0))
    os.rename(writing, root)
    return root


@contextlib.contextmanager
def _quiet_bars() -> Iterator[None]:
    """Disable the datasets library's progress bar of every episode."""
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

    before = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if before:
            enable_progress_bar()


def _fix_statistics(path: Path, moments: dict[str, list[NDArray[np.float64]]], rewards: list[float]) -> None:
    """Write the exact mean and deviation of the images, the same whichever LeRobot wrote the data set.

    LeRobot 0.4.4 squares uint8 numbers, overflows and writes a deviation of nearly 0; 0.6.1 estimates it from samples.
    One NaN among the rewards would make all their figures NaN: these are of the others.
    """
    stats = json.loads(path.read_text())
    for key, pairs in moments.items():
        mean, square = np.mean(pairs, axis=0)  # (3,), (3,)
        stats[key]["mean"] = mean.reshape(3, 1, 1).tolist()
        stats[key]["std"] = np.sqrt(np.maximum(square - mean**2, 0)).reshape(3, 1, 1).tolist()
    scored = np.asarray(rewards)[np.isfinite(rewards)]
    if 0 < len(scored) < len(rewards):
        for name in stats["next.reward"]:
            if name == "count":
                stats["next.reward"][name] = [len(scored)]
            elif name in ("min", "max", "mean", "std"):
                stats["next.reward"][name] = [float(getattr(scored, name)())]
            else:  # q01 to q99
                stats["next.reward"][name] = [float(np.quantile(scored, int(name[1:]) / 100))]
    path.write_text(json.dumps(stats, indent=4))


def _features(contract: RobotContract, storage: str, rewarded: bool, judged: bool) -> dict[str, dict[str, Any]]:
    """Return LeRobot's feature description."""
    joints = {"dtype": "float32", "shape": (len(contract.joints),), "names": list(contract.joints)}
    features: dict[str, dict[str, Any]] = {
        f"observation.images.{camera.name}": {
            "dtype": storage,
            "shape": (camera.height, camera.width, 3),
            "names": ["height", "width", "channels"],
        }
        for camera in contract.cameras
    }
    features |= {"observation.state": joints, "action": dict(joints), "wish": dict(joints)}
    if rewarded:
        features["next.reward"] = {"dtype": "float32", "shape": (1,), "names": None}
    if judged:
        features["next.success"] = {"dtype": "bool", "shape": (1,), "names": None}
    return features


def _rows(episode: Episode, contract: RobotContract, reward_head: str | None, judged: bool) -> Iterable[dict[str, Any]]:
    """Yield LeRobot's frames of one episode."""
    check_episode(episode, contract)
    for index, step in enumerate(episode.steps):
        if not has_images(step, contract):
            raise ValueError(
                f"episode '{episode.episode_id}', step {index} has no image of every camera; a LeRobotDataset needs"
                " one in each row: record with frame_every=1, or train on the journals in RAM"
            )
        row: dict[str, Any] = {
            f"observation.images.{camera.name}": step.observation.frames[camera.name].image
            for camera in contract.cameras
        }
        row["observation.state"] = np.asarray(step.observation.state)
        row["action"] = np.asarray(step.action, np.float32)
        row["wish"] = np.asarray(step.wish, np.float32)
        row["task"] = episode.task
        last = index == len(episode.steps) - 1
        if reward_head is not None:
            row["next.reward"] = np.array([_next_reward(episode, index, reward_head)], np.float32)
        if judged:
            row["next.success"] = np.array([last and episode.outcome is True])
        yield row


def _next_reward(episode: Episode, index: int, head: str) -> float:
    """Return the reward of what followed a step; NaN if that is Unscored.

    What followed the last step is the final frame: an answer about an earlier one is none.

    Raises:
        ValueError: nobody asked this head.
    """
    last = index == len(episode.steps) - 1
    if last and episode.final is not None:
        answer = episode.final_rewards.get(head)
    else:
        answer = episode.steps[index if last else index + 1].rewards.get(head)
    if answer is None:
        raise ValueError(
            f"episode '{episode.episode_id}', step {index} has no answer of head '{head}'; leave the episode out, "
            "score it again, or write the data set without rewards"
        )
    if isinstance(answer, Unscored) or (last and answer.stamp_ns not in _last_frames(episode)):
        return float("nan")
    return answer.value


def _last_frames(episode: Episode) -> set[int]:
    """Return the stamps of each camera's last frame [ns]."""
    observations = [step.observation for step in episode.steps] + ([episode.final] if episode.final else [])
    return set({name: frame.stamp_ns for seen in observations for name, frame in seen.frames.items()}.values())


def load_into_ram(root: str | Path) -> list[Episode]:
    """Read a data set written by :func:`write_dataset`, every frame decoded once.

    Reads the files directly: no hub call, no copy in a cache.

    Returns:
        Episodes in order; stamps count from one control period, rewards are not restored.

    Raises:
        FileNotFoundError: no data set there, or an unfinished one.
        ValueError: the files contradict each other.
    """
    import pyarrow.parquet as pq

    root = Path(root)
    if not is_complete(root):
        half = root.with_name(root.name + ".writing")
        why = f"; '{half}' was interrupted: build it again from the journals" if half.exists() else ""
        raise FileNotFoundError(
            f"'{root}' is no finished data set (meta/info.json, {EPISODES_FILE}, {CONTRACT_FILE}){why}"
        )
    contract = load_contract(root)
    about = json.loads((root / EPISODES_FILE).read_text())
    features = json.loads((root / "meta/info.json").read_text())["features"]
    tasks = pq.read_table(root / "meta/tasks.parquet").to_pandas()
    task_of = {int(row.task_index): str(name) for name, row in tasks.iterrows()}
    rows: dict[str, list[Any]] = {
        name: [] for name in ("observation.state", "action", "wish", "episode_index", "task_index")
    }
    images: dict[str, list[Any]] = {camera.name: [] for camera in contract.cameras}
    for path in sorted((root / "data").glob("*/*.parquet")):
        table = pq.read_table(path)
        for name, values in rows.items():
            values.extend(table[name].to_pylist())
        for name, stack in images.items():
            if features[f"observation.images.{name}"]["dtype"] == "image":
                stack.extend(_decode_png(item["bytes"]) for item in table[f"observation.images.{name}"].to_pylist())
    for name, stack in images.items():
        key = f"observation.images.{name}"
        if features[key]["dtype"] == "video":
            for path in sorted((root / "videos" / key).glob("*/*.mp4")):
                stack.extend(_decode_video(path))
        if len(stack) != len(rows["action"]):
            raise ValueError(
                f"'{root}': camera '{name}' has {len(stack)} images for {len(rows['action'])} rows; write it again"
            )
    episode_index = np.asarray(rows["episode_index"])
    if len(about) != len(np.unique(episode_index)):
        raise ValueError(
            f"'{root}': {EPISODES_FILE} names {len(about)} episodes, the rows {len(np.unique(episode_index))}"
        )
    state, action, wish = (np.asarray(rows[name], np.float32) for name in ("observation.state", "action", "wish"))
    dt_ns = round(1e9 * contract.dt_s)
    episodes = []
    for index, origin in enumerate(about):
        steps = []
        picked = np.flatnonzero(episode_index == index)
        task = task_of[rows["task_index"][picked[0]]]
        for k, row in enumerate(picked):
            stamp_ns = (k + 1) * dt_ns
            frames = {name: Frame(stamp_ns, name, stack[row]) for name, stack in images.items()}
            steps.append(Step(Observation(stamp_ns, frames, state[row], task), action[row], wish[row]))
        episodes.append(Episode(origin["id"], task, steps, contract.control_hz, origin["outcome"], origin["source"]))
    return episodes


def _decode_png(data: bytes) -> NDArray[np.uint8]:
    """Return an encoded image as (H, W, 3) uint8 RGB."""
    import cv2

    return np.ascontiguousarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1])


def _decode_video(path: Path) -> list[NDArray[np.uint8]]:
    """Return every frame of a video in order."""
    import av

    container = av.open(str(path))
    try:
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(video=0)]
    finally:
        container.close()
