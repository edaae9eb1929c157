# SPDX-License-Identifier: Apache-2.0
"""What the HDF5 files of LIBERO, robomimic and RoboCasa share: one group ``data/demo_N`` an episode.

Layout: https://robomimic.github.io/docs/datasets/overview.html. A file is open only while something is read from it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.training.reward.data.sources.episode import BadEpisode, Entry, Reader, SourceEpisode, bad_entry

BLACK_SHARE = 0.99  # RoboCasa has episodes that are black but for a few pixels (robocasa/robocasa issue 49)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a file to read.

    Raises:
        BadEpisode: it cannot be read.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, RuntimeError) as error:
        raise BadEpisode(f"unreadable HDF5 file: {type(error).__name__}") from error


def hdf5_files(folder: Path) -> list[Path]:
    """Return all HDF5 files below a folder, or the one file itself, in order.

    Raises:
        FileNotFoundError: there is none.
    """
    paths = [folder] if folder.is_file() else sorted(folder.rglob("*.hdf5"))
    if not paths:
        raise FileNotFoundError(f"'{folder}' holds no HDF5 files (*.hdf5)")
    return paths


def demo_entries(
    path: Path, source: str, name: str, open_demo: Callable[..., SourceEpisode], mask: str | None = None
) -> Iterator[Entry]:
    """Yield the episodes of one file by number; a file that cannot be listed is one bad entry.

    Args:
        path: the file.
        source: name of the source.
        name: what the ids of the file's episodes begin with.
        open_demo: called with ``path, demo, source, episode_id``, e.g. ``demo = "demo_3"``.
        mask: filter key: only the episodes that ``mask/KEY`` lists.

    Raises:
        ValueError: the file has no such filter key.
    """
    try:
        demos, masks = _demos(path, mask)
    except BadEpisode as error:
        yield bad_entry(source, name, str(error))
        return
    if demos is None:
        raise ValueError(f"'{path}' has no filter key '{mask}', only: {', '.join(masks) or 'none'}")
    if not demos:
        yield bad_entry(source, name, "a file without episodes")
    for demo in sorted(demos, key=lambda demo: (len(demo), demo)):  # demo_2 before demo_10
        episode_id = f"{name}/{demo}"
        yield Entry(source, episode_id, partial(open_demo, path, demo, source, episode_id))


def _demos(path: Path, mask: str | None) -> tuple[list[str] | None, list[str]]:
    """Return the names of the episodes (``None``: no such filter key) and of the filter keys."""
    with opened(path) as file:
        masks = list(file.get("mask", {}))
        if mask is None:
            return list(file.get("data", {})), masks
        return [text_of(demo) for demo in file["mask"][mask][()]] if mask in masks else None, masks


def demo_in(file: Any, demo: str) -> Any:
    """Return the group of an episode.

    Raises:
        BadEpisode: there is none.
    """
    if f"data/{demo}" not in file:
        raise BadEpisode("an episode that is listed but not there")
    return file["data"][demo]


def images_in(demo: Any, group: str, key: str) -> Any:
    """Return the images of a camera (T, H, W, 3) uint8, not read yet but for one that must not be black.

    Raises:
        BadEpisode: there are none, or of another kind.
    """
    observations = demo.get(group, {})
    if key not in observations:
        cameras = sorted(name for name, item in observations.items() if getattr(item, "ndim", 0) == 4)
        raise BadEpisode(f"no camera '{key}', only: {', '.join(cameras) or 'none'}")
    images = observations[key]
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise BadEpisode(f"camera '{key}' gives {images.dtype} {images.shape[1:]}, not colour images")
    if len(images) == 0:
        raise BadEpisode("no frames")
    if np.mean(images[len(images) // 2] == 0) > BLACK_SHARE:
        raise BadEpisode(f"camera '{key}' is black")
    return images


def image_reader(path: Path, name: str, last: str | None = None, upside_down: bool = False) -> Reader:
    """Return the reader of the images that a file has under ``name``, and then of the final image of ``last``."""

    def read(indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        with opened(path) as file:
            images = file[name]  # (T, H, W, 3)
            for index in indices:
                image = file[last][-1] if last and index == len(images) else images[index]
                yield np.ascontiguousarray(image[::-1]) if upside_down else image

    return read


def per_step(demo: Any, name: str, steps: int) -> NDArray[np.float64] | None:
    """Return ``rewards`` or ``dones`` (T,), or ``None`` if the episode has none.

    Raises:
        BadEpisode: not one finite number a step.
    """
    if name not in demo:
        return None
    values = np.asarray(demo[name][()], np.float64).reshape(-1)
    if len(values) != steps or not np.isfinite(values).all():
        raise BadEpisode(f"{name} that are not one finite number a frame")
    return values


def json_attribute(group: Any, name: str) -> dict[str, Any]:
    """Return an attribute that holds a JSON object; empty if it is not there.

    Raises:
        BadEpisode: it is something else.
    """
    try:
        value = json.loads(text_of(group.attrs.get(name, "{}")))
    except ValueError as error:
        raise BadEpisode(f"attribute '{name}' is not JSON") from error
    if not isinstance(value, dict):
        raise BadEpisode(f"attribute '{name}' is not a JSON object")
    return value


def control_hz(file: Any) -> float | None:
    """Return the control rate of the environment that a file was recorded in [Hz], or ``None``."""
    arguments = json_attribute(file["data"], "env_args").get("env_kwargs", {})
    rate = arguments.get("control_freq") if isinstance(arguments, dict) else None
    return float(rate) if isinstance(rate, int | float) else None


def text_of(value: Any) -> str:
    """Return a string of HDF5, which comes as text or as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)
