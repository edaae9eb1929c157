# SPDX-License-Identifier: Apache-2.0
"""The episodes of a LeRobotDataset v2.0 to v3.0: rows, and images decoded once; without LeRobot, hub or cache."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.errors import one_line
from lrm_ros.image_files import decode
from lrm_ros.record.checksums import check_files
from lrm_ros.record.lerobot_files import INFO_FILE, EpisodeFiles, is_text, metadata_of, tasks_of
from lrm_ros.record.lerobot_set import ACTION, INTERVENTION, STATE, WISH, LeRobotSet, open_set
from lrm_ros.record.video_process import VideoProcess
from lrm_ros.types import Episode, Frame, Observation, Step

EPISODES_FILE = "episodes.json"
ORDER = "frame_index"


@dataclass(frozen=True)
class EpisodeRows:
    """The rows of an episode, without images.

    Attributes:
        files: where it lies.
        states: (T, D) of the contract's joints, in its units.
        actions: (T, D) sent to the arm.
        wishes: (T, D) asked for; the actions where the data set does not tell them.
        tasks: T instructions.
        interventions: (T,) bool, whether a person led; ``None``: the data set does not say.
        success: whether it ended with success; ``None``: nobody said.
        images: image feature -> T encoded images, of those that lie in the rows, if asked for.
    """

    files: EpisodeFiles
    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    wishes: NDArray[np.float32]
    tasks: Sequence[str]
    interventions: NDArray[np.bool_] | None
    success: bool | None
    images: Mapping[str, Sequence[bytes]]


def load_into_ram(root: str | Path) -> list[Episode]:
    """Read a data set of this package or of LeRobot, every frame decoded once.

    Reads the files directly: no hub call, no copy in a cache.

    Returns:
        Episodes in order; stamps count from one control period, rewards are not restored.

    Raises:
        FileNotFoundError: no data set there, or an unfinished one.
        ValueError: the files are damaged, or contradict each other; names the data set or the file.
    """
    root = Path(root)
    if not (root / INFO_FILE).is_file():
        half = root.with_name(root.name + ".writing")
        why = f"; '{half}' was interrupted: build it again from the journals" if half.exists() else ""
        raise FileNotFoundError(f"'{root}' is no finished data set ({INFO_FILE}){why}")
    return read_episodes(open_set(root))


def read_episodes(dataset: LeRobotSet) -> list[Episode]:
    """Read an opened data set, every frame decoded once; see :func:`load_into_ram`."""
    check_files(dataset.root)
    with _damage_named(dataset.root):
        return _episodes(dataset, list(_rows(dataset, dataset.episodes(), images=True)))


def read_rows(dataset: LeRobotSet) -> list[EpisodeRows]:
    """Read an opened data set without its images.

    Raises:
        FileNotFoundError: a file of it is missing.
        ValueError: the files are damaged; names the data set or the file.
    """
    with _damage_named(dataset.root):
        return list(_rows(dataset, dataset.episodes(), images=False))


@contextmanager
def _damage_named(root: Path) -> Iterator[None]:
    """Name the data set whose files raise what nobody expects."""
    try:
        yield
    except (FileNotFoundError, ImportError):
        raise
    except Exception as error:  # Arrow, OpenCV and PyAV meet damage with any
        what = one_line(error)
        if str(root) in what:
            raise ValueError(what) from error
        raise ValueError(
            f"data set '{root}' is damaged ({what}); write it again from its journals, or fetch it again"
        ) from error


def _rows(dataset: LeRobotSet, places: Sequence[EpisodeFiles], images: bool) -> Iterator[EpisodeRows]:
    """Yield the rows of each episode; a file with many episodes is read once."""
    import pyarrow.parquet as pq

    with metadata_of(dataset.root):
        tasks = {index: text for index, text in tasks_of(dataset.root, dataset.info).items() if is_text(text)}
    encoded = [key for key in dataset.cameras.values() if key not in dataset.in_video] if images else []
    names = [STATE, ACTION, "episode_index", "task_index", *encoded]
    names += [ORDER] if ORDER in dataset.features else []
    names += [WISH] if dataset.has_wish else []
    names += [dataset.success] if dataset.success else []
    names += [INTERVENTION] if dataset.has_intervention else []
    path: Path | None = None
    table: Any = None
    numbers: dict[str, NDArray[Any]] = {}
    for files in places:
        if files.rows != path:
            path, table = files.rows, pq.read_table(files.rows, columns=names)
            numbers = {name: _numbers(table[name]) for name in names if name not in encoded}
        at = np.flatnonzero(numbers["episode_index"][:, 0] == files.index)
        if len(at) == 0:
            raise ValueError(f"'{files.rows}' has no rows of episode {files.index}, which is listed")
        # Images are numbered from the episode's first on, whatever the order of the rows.
        if ORDER in numbers and not np.array_equal(numbers[ORDER][at, 0], np.arange(len(at))):
            raise ValueError(f"'{files.rows}': rows of episode {files.index} are missing or out of order ({ORDER})")
        if files.length not in (None, len(at)):
            raise ValueError(
                f"'{files.rows}' has {len(at)} rows of episode {files.index}, which is listed with {files.length}; "
                "fetch the data set again"
            )
        indices = numbers["task_index"][at, 0].tolist()
        if unknown := [index for index in indices if index not in tasks]:
            raise ValueError(
                f"'{files.rows}': episode {files.index} has a task of number {unknown[0]}, of which the table of tasks "
                f"has no text (it has {', '.join(map(str, tasks)) or 'none'}); fetch the data set again"
            )
        success = None if dataset.success is None else bool(numbers[dataset.success][at[-1], 0])
        wishes = numbers[WISH if dataset.has_wish else ACTION][at]
        yield EpisodeRows(
            files,
            _converted(dataset, STATE, numbers[STATE][at][:, list(dataset.joints)]),
            _converted(dataset, ACTION, numbers[ACTION][at]),
            _converted(dataset, WISH, wishes),
            [tasks[index] for index in indices],
            numbers[INTERVENTION][at, 0].astype(bool) if dataset.has_intervention else None,
            success,
            {key: [image["bytes"] for image in table[key].take(at).to_pylist()] for key in encoded},
        )


def _numbers(column: Any) -> NDArray[Any]:
    """Return a column (T, N); LeRobot writes numbers plain or as lists."""
    values = column.to_numpy(zero_copy_only=False)
    return np.stack(values) if values.dtype == object else values[:, None]


def _converted(dataset: LeRobotSet, name: str, values: NDArray[Any]) -> NDArray[np.float32]:
    """Return numbers of a file (T, D) in the contract's units.

    Raises:
        ValueError: one is not finite, or there are more or fewer than joints.
    """
    count = len(dataset.contract.joints)
    if values.shape[1:] != (count,) or not np.isfinite(values).all():
        raise ValueError(f"{name} holds other than a finite number for each of {count} joints")
    if dataset.scale is None or dataset.offset is None:
        return np.asarray(values, np.float32)
    return (values * dataset.scale + dataset.offset).astype(np.float32)


def _episodes(dataset: LeRobotSet, rows: Sequence[EpisodeRows]) -> list[Episode]:
    """Return episodes with their images."""
    root, contract = dataset.root, dataset.contract
    origins: list[dict[str, Any]] = [
        {"id": f"episode_{one.files.index:06d}", "source": "lerobot", "outcome": one.success} for one in rows
    ]
    if (root / EPISODES_FILE).is_file():
        origins = json.loads((root / EPISODES_FILE).read_text(encoding="utf-8"))
        if len(origins) != len(rows):
            raise ValueError(f"'{root}': {EPISODES_FILE} names {len(origins)} episodes, the rows {len(rows)}")
    with VideoProcess() as decoder:
        images = {name: _images(dataset, name, key, rows, decoder) for name, key in dataset.cameras.items()}
    dt_ns = round(1e9 * contract.dt_s)
    episodes = []
    for place, (origin, one) in enumerate(zip(origins, rows, strict=True)):
        kinds = [type(origin[key]) for key in ("id", "source", "outcome")]
        if kinds not in ([str, str, bool], [str, str, type(None)]):
            raise ValueError(f"{EPISODES_FILE} does not say id, source and outcome of an episode, but {origin}")
        steps = []
        for k, (state, action, wish) in enumerate(zip(one.states, one.actions, one.wishes, strict=True)):
            stamp_ns = (k + 1) * dt_ns
            frames = {name: Frame(stamp_ns, name, stacks[place][k]) for name, stacks in images.items()}
            led = one.interventions is not None and bool(one.interventions[k])
            steps.append(Step(Observation(stamp_ns, frames, state, one.tasks[k]), action, wish, intervention=led))
        episodes.append(
            Episode(origin["id"], one.tasks[0], steps, contract.control_hz, origin["outcome"], origin["source"])
        )
    return episodes


def _images(
    dataset: LeRobotSet, camera: str, key: str, rows: Sequence[EpisodeRows], decoder: VideoProcess
) -> list[list[NDArray[np.uint8]]]:
    """Return a camera's images of each episode; every video is decoded once, from its start."""
    if key not in dataset.in_video:
        return [[decode(data, "png") for data in one.images[key]] for one in rows]
    found: list[list[NDArray[np.uint8]]] = [[] for _ in rows]
    videos: dict[Path, list[tuple[int, int]]] = {}  # -> (first frame, episode's place) of each
    for place, one in enumerate(rows):
        path, first = one.files.videos[key]
        videos.setdefault(path, []).append((first, place))
    for path, parts in videos.items():
        wanted = {first + k: (place, k) for first, place in parts for k in range(len(rows[place].states))}
        for number, image in enumerate(decoder.frames(path, max(wanted) + 1)):
            if number in wanted:
                found[wanted[number][0]].append(image)
    there, wanted_rows = sum(map(len, found)), sum(len(one.states) for one in rows)
    if there != wanted_rows:
        raise ValueError(
            f"'{dataset.root}': camera '{camera}' has {there} images for {wanted_rows} rows; write or fetch it again"
        )
    return found


def first_images(dataset: LeRobotSet, camera: str) -> list[NDArray[np.uint8]]:
    """Return the first image (H, W, 3) of a camera in each episode, holding no others.

    Raises:
        ValueError: the files are damaged; names the data set or the file.
    """
    import pyarrow.parquet as pq

    key = dataset.cameras[camera]
    found: dict[int, NDArray[np.uint8]] = {}
    with _damage_named(dataset.root):
        places = dataset.episodes()
        if key not in dataset.in_video:
            for path in dict.fromkeys(files.rows for files in places):
                with pq.ParquetFile(path) as file:  # a few rows at a time: images are large
                    for batch in file.iter_batches(64, columns=["episode_index", key]):
                        for row in batch.to_pylist():
                            index = int(np.ravel(row["episode_index"])[0])
                            if index not in found:
                                found[index] = decode(row[key]["bytes"], "png")
        else:
            videos: dict[Path, dict[int, int]] = {}  # -> first frame: episode's index
            for files in places:
                path, first = files.videos[key]
                videos.setdefault(path, {})[first] = files.index
            with VideoProcess() as decoder:
                for path, wanted in videos.items():
                    for number, image in enumerate(decoder.frames(path, max(wanted) + 1)):
                        if number in wanted:
                            found[wanted[number]] = image
        return [found[files.index] for files in places]
