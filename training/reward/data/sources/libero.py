# SPDX-License-Identifier: Apache-2.0
"""LIBERO's demonstrations: one HDF5 file a task (Lifelong-Robot-Learning/LIBERO:scripts/create_dataset.py)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from lrm_ros.training.reward.data.sources.episode import Entry, SourceEpisode
from lrm_ros.training.reward.data.sources.hdf5 import (
    control_hz,
    demo_entries,
    demo_in,
    hdf5_files,
    image_reader,
    images_in,
    json_attribute,
    opened,
    per_step,
    text_of,
)

CONTROL_HZ = 20.0  # of LIBERO's environments


def read_libero(folder: Path, camera: str = "agentview_rgb") -> Iterator[Entry]:
    """Return the episodes of all files below a folder, or of one file.

    The source is named after the folder a file lies in, e.g. ``"libero_goal"``. Images are turned the right way up
    unless the file says that they are (``macros_image_convention``: robosuite's "opencv"). The reward is 1 in the last
    step only, whenever the task was done (people held the success for ten steps), so frames before have no label.

    Args:
        folder: e.g. the one of LIBERO's suites, or a file ``*_demo.hdf5``.
        camera: ``"agentview_rgb"`` or ``"eye_in_hand_rgb"``.

    Raises:
        FileNotFoundError: no files.
    """
    return _entries(hdf5_files(folder), camera)


def _entries(paths: list[Path], camera: str) -> Iterator[Entry]:
    for path in paths:
        yield from demo_entries(path, path.resolve().parent.name, path.stem, partial(_open, camera=camera))


def _open(path: Path, demo: str, source: str, episode_id: str, camera: str) -> SourceEpisode:
    with opened(path) as file:
        group = demo_in(file, demo)
        length = len(images_in(group, "obs", camera))
        rewards = per_step(group, "rewards", length)
        success = None if rewards is None else bool(rewards[-1] > 0)
        upside_down = text_of(file["data"].attrs.get("macros_image_convention", "opengl")) != "opencv"
        return SourceEpisode(
            source,
            episode_id,
            instruction(path, file),
            control_hz(file) or CONTROL_HZ,
            length,
            image_reader(path, f"data/{demo}/obs/{camera}", upside_down=upside_down),
            success,
            "failure" if success is False else "demonstration",
        )


def instruction(path: Path, file: Any) -> str:
    """Return the instruction that a file tells, else its name after ``SCENE<n>_``."""
    told = json_attribute(file["data"], "problem_info").get("language_instruction", "")
    text = " ".join(told) if isinstance(told, list) else str(told)
    text = text.strip().strip('"').strip()  # the BDDL files quote it
    return text or re.split(r"SCENE\d+_", path.stem.removesuffix("_demo"))[-1].replace("_", " ")
