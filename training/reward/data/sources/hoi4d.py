# SPDX-License-Identifier: Apache-2.0
"""HOI4D: people handling objects, first person; task text from the official table, cut to the annotated action."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lrm_ros.training.reward.data.sources.episode import BadEpisode, Entry, SourceEpisode
from lrm_ros.training.reward.data.sources.video import Video

SEQUENCES = "ZY*/H*/C*/N*/S*/s*/T*"
IDLE = "rest"  # the event before and after the action


def read_hoi4d(folder: Path, annotations: Path | None = None, tasks: Path | None = None) -> Iterator[Entry]:
    """Yield the sequences in the order of their paths; the data set says nothing about success.

    Layout (leolyliu/HOI4D-Instructions:release.txt, utils/decode.py): ``ZY2021080000*/H*/C*/N*/S*/s*/T*/`` with
    ``align_rgb/image.mp4`` (15 frames a second) and ``action/color.json``. An episode is the part of the video from the
    first to the last annotated event that is not "rest".

    Args:
        folder: the folder of ``ZY2021080000*``.
        annotations: the same, where the annotations were unpacked; default: ``folder``.
        tasks: HOI4D-Instructions' ``definitions/task/task_definitions.csv``; default: a copy of it in ``folder``.

    Raises:
        FileNotFoundError: no videos, or no table of tasks.
    """
    table_path = tasks or folder / "task_definitions.csv"
    if not table_path.is_file():
        raise FileNotFoundError(
            f"'{table_path}' is not there; it is definitions/task/task_definitions.csv of HOI4D-Instructions"
        )
    with table_path.open(encoding="utf-8-sig", newline="") as file:
        table = {row["Category ID"]: row for row in csv.DictReader(file)}
    paths = sorted(folder.glob(f"{SEQUENCES}/align_rgb/image.mp4"))
    if not paths:
        raise FileNotFoundError(
            f"'{folder}' holds no {SEQUENCES}/align_rgb/image.mp4; give the folder of ZY2021080000*"
        )
    for path in paths:
        sequence = path.parent.parent.relative_to(folder)
        annotation = (annotations or folder) / sequence / "action" / "color.json"
        yield Entry("hoi4d", sequence.as_posix(), partial(_open, path, annotation, sequence.as_posix(), table))


def _open(path: Path, annotation: Path, episode_id: str, table: Mapping[str, Mapping[str, str]]) -> SourceEpisode:
    parts = episode_id.split("/")
    task = task_text(table, parts[2], parts[6])
    try:
        content = json.loads(annotation.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadEpisode("no action annotation") from error
    except ValueError as error:
        raise BadEpisode("unreadable action annotation") from error
    start, end = action_span(content)
    video = Video(path)
    first, after = math.floor(start * video.length), math.ceil(end * video.length)
    part = Video(path, first, after - first)
    return SourceEpisode("hoi4d", episode_id, task, part.fps, part.length, part.read)


def task_text(table: Mapping[str, Mapping[str, str]], category: str, task: str) -> str:
    """Return the text of a category ``C*`` and a task ``T*``, with the object that many texts do not name.

    Raises:
        BadEpisode: the table has none ("N/A").
    """
    row = table.get(category, {})
    text = row.get(task) or "N/A"
    if text == "N/A":
        raise BadEpisode("no text for this category and task")
    return f"{row['Category']}: {text}"


def action_span(annotation: Mapping[str, Any]) -> tuple[float, float]:
    """Return start and end of the action as shares of the video, 0 <= start < end <= 1.

    Two forms are in the release: ``events`` with startTime and endTime, ``markResult.marks`` with hdTimeStart and
    hdTimeEnd. Some run on a clock of 10 s beside a video of 20 s, so times count in shares of ``info.duration`` (or
    ``Duration``).

    Raises:
        BadEpisode: no duration, no action, or times that make no sense.
    """
    try:
        if "events" in annotation:
            events = [(e["event"], float(e["startTime"]), float(e["endTime"])) for e in annotation["events"]]
        else:
            marks = annotation["markResult"]["marks"]
            events = [(m["event"], float(m["hdTimeStart"]), float(m["hdTimeEnd"])) for m in marks]
        info = annotation.get("info") or {}
        duration = float(info.get("duration") or info.get("Duration") or 0)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadEpisode("unreadable action annotation") from error
    if not 0 < duration < math.inf:
        raise BadEpisode("no duration in the action annotation")
    times = [time for name, *pair in events if name.strip().lower() != IDLE for time in pair]
    if not times:
        raise BadEpisode("no action annotated")
    start, end = max(0.0, min(times) / duration), min(1.0, max(times) / duration)
    if not all(map(math.isfinite, times)) or not start < end:
        raise BadEpisode("the action lies outside the video")
    return start, end
