# SPDX-License-Identifier: Apache-2.0
"""RoboReward: robot videos, each with a score of its end from 1 to 5 (a lower one also for a swapped instruction)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from lrm_ros.training.reward.data.sources.episode import BadEpisode, Entry, SourceEpisode
from lrm_ros.training.reward.data.sources.video import Video


def read_roboreward(folder: Path) -> Iterator[Entry]:
    """Yield the examples of one split in the order of its table; success is a score of 5.

    Layout (robometer/robometer:dataset_upload/dataset_guides/RoboReward.md, dataset_loaders/roboreward_loader.py):
    ``metadata.jsonl`` with file_name, task and reward, and the MP4 files that it names. The source of an example is the
    first folder of its file, e.g. ``roboreward_bridge``. One video can be in several lines, with other instructions.

    Args:
        folder: the folder of a split: ``train``, ``val`` or ``test`` (RoboRewardBench: never train on it).

    Raises:
        FileNotFoundError: no table.
    """
    table = folder / "metadata.jsonl"
    if not table.is_file():
        raise FileNotFoundError(f"'{folder}' holds no metadata.jsonl; give the folder of one split: train, val or test")
    with table.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            name = row.get("file_name") if isinstance(row, dict) else None
            source = f"roboreward_{name.split('/')[0]}" if isinstance(name, str) and "/" in name else "roboreward"
            video = name if isinstance(name, str) else "?"
            episode_id = f"{video.replace('@', '_')}@{number:06d}"  # all lines about one video are in one split
            yield Entry(source, episode_id, partial(_open, folder, row, source, episode_id))


def _open(folder: Path, row: Any, source: str, episode_id: str) -> SourceEpisode:
    if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
        raise BadEpisode("unreadable line in metadata.jsonl")
    task, reward = row.get("task"), row.get("reward")
    if not isinstance(task, str):
        raise BadEpisode("no language instruction")
    if isinstance(reward, bool) or reward not in (1, 2, 3, 4, 5):
        raise BadEpisode("the reward is not 1, 2, 3, 4 or 5")
    path = folder / row["file_name"]
    if not path.is_file():
        raise BadEpisode("no video")
    video = Video(path)
    success = reward == 5
    kind = "demonstration" if success else "failure"
    return SourceEpisode(
        source,
        episode_id,
        task.strip(),
        video.fps,
        video.length,
        video.read,
        success,
        kind,
        end_progress=(reward - 1) / 4,
    )
