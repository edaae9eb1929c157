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
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract
from lrm_ros.contract import (
    CONTRACT_FILE,
    load_contract,
    save_contract,
)
from lrm_ros.errors import one_line
from lrm_ros.record.checksums import check_files, write_checksums
from lrm_ros.record.rows import features_of, rows_of
from lrm_ros.types import Episode, Frame, Observation, Step
from lrm_ros.versions import create_dataset, make_scalars

EPISODES_FILE = "episodes.json"


@dataclass
class Omissions:
    """What a data set lacks of the episodes that it was made of.

    Attributes:
        left_out: (journal or episode, reason) of each that is not in it.
        held: episode -> how many of its steps have the frame of an earlier step, for theirs was lost or came late.
    """

    left_out: list[tuple[str, str]] = field(default_factory=list)
    held: dict[str, int] = field(default_factory=dict)


def is_complete(root: str | Path) -> bool:
    """Return whether a folder is a finished data set of this package."""
    return (Path(root) / "meta/info.json").is_file() and (Path(root) / EPISODES_FILE).is_file()


def leave_out(omissions: Omissions | None, what: str, error: ValueError) -> None:
    """Note what is left out; raise the error where nobody wants to know."""
    if omissions is None:
        raise error
    omissions.left_out.append((what, str(error)))
    omissions.held.pop(what, None)


def write_dataset(
    episodes: Iterable[Episode],
    root: str | Path,
    contract: RobotContract,
    storage: str = "image",
    reward_head: str | None = None,
    judged: bool | None = None,
    progress: Callable[[int], None] | None = None,
    omissions: Omissions | None = None,
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
        omissions: filled with what is left out and why; without it, an episode that cannot be used is an error.

    Returns:
        ``root``.

    Raises:
        FileExistsError: ``root`` exists.
        ValueError: no episode that can be used; without ``omissions`` one that does not fit the contract, has a blank
            task, or lacks an image or a reward; names episode and step.
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
        features=features_of(contract, storage, reward_head is not None, judged),
        root=writing,
        robot_type=contract.name,
        use_videos=storage == "video",
        video_backend="pyav",
    )
    about = []
    moments: dict[str, list[NDArray[np.float64]]] = {}
    rewards: list[float] = []
    for episode in episodes:
        try:
            rows = list(rows_of(episode, contract, reward_head, judged))
        except ValueError as error:
            leave_out(omissions, episode.episode_id, error)
            continue
        for row in rows:
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
        shutil.rmtree(writing, ignore_errors=True)
        why = f": {omissions.left_out[0][1]}" if omissions and omissions.left_out else ""
        raise ValueError(f"no episodes for data set '{root}'{why}")
    dataset.finalize()
    shutil.rmtree(writing / "images", ignore_errors=True)  # LeRobot's own temporary files
    _fix_statistics(writing / "meta/stats.json", moments, rewards)
    save_contract(contract, writing)
    (writing / EPISODES_FILE).write_text(json.dumps(about, indent=0))
    write_checksums(writing)
    os.rename(writing, root)
    return root


@contextlib.contextmanager
def _quiet_bars() -> Iterator[None]:
    """Disable the datasets library's progress bar of every episode, and LeRobot 0.4's warning of each bool column."""
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

    before = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Converting input from bool", RuntimeWarning)
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


def load_into_ram(root: str | Path) -> list[Episode]:
    """Read a data set written by :func:`write_dataset`, every frame decoded once.

    Reads the files directly: no hub call, no copy in a cache.

    Returns:
        Episodes in order; stamps count from one control period, rewards are not restored.

    Raises:
        FileNotFoundError: no data set there, or an unfinished one.
        ValueError: the files are damaged, or contradict each other; names the data set or the file.
    """
    root = Path(root)
    if not is_complete(root):
        half = root.with_name(root.name + ".writing")
        why = f"; '{half}' was interrupted: build it again from the journals" if half.exists() else ""
        raise FileNotFoundError(
            f"'{root}' is no finished data set (meta/info.json, {EPISODES_FILE}, {CONTRACT_FILE}){why}"
        )
    check_files(root)
    try:
        return _load(root)
    except FileNotFoundError:
        raise
    except Exception as error:  # Arrow, OpenCV and PyAV meet damage with any
        what = one_line(error)
        if str(root) in what:
            raise ValueError(what) from error
        raise ValueError(f"data set '{root}' is damaged ({what}); write it again from its journals") from error


def _load(root: Path) -> list[Episode]:
    """Read the files of a finished data set; what is wrong with them may raise anything."""
    import pyarrow.parquet as pq

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
    for name, numbers in (("observation.state", state), ("action", action), ("wish", wish)):
        if numbers.shape != (len(episode_index), len(contract.joints)) or not np.isfinite(numbers).all():
            raise ValueError(f"{name} holds other than a finite number for each of {len(contract.joints)} joints")
    dt_ns = round(1e9 * contract.dt_s)
    episodes = []
    for index, origin in enumerate(about):
        kinds = [type(origin[key]) for key in ("id", "source", "outcome")]
        if kinds not in ([str, str, bool], [str, str, type(None)]):
            raise ValueError(f"{EPISODES_FILE} does not say id, source and outcome of an episode, but {origin}")
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
