# SPDX-License-Identifier: Apache-2.0
"""Read scores of recorded trajectories, ours or upstream's (Large-Reward-Models:eval/score_with_vlm.py, 5845ab0)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

COMPARISON = "comparison"
FIRST = "first_frame"  # upstream's result where there is nothing to compare with yet


@dataclass(frozen=True)
class ScoredTrajectory:
    """A recorded trajectory of T control steps with N scores.

    Attributes:
        name: its folder.
        success: the simulator saw success at any time.
        total: sum of the simulator's rewards.
        time: (T,) number of each control step.
        reward: (T,) the simulator's reward of each.
        cumulative: (T,) its running sum.
        at: (N,) time of each score, ascending.
        written: (N,) what the file says; NaN where it says null.
        score: (N,) the same; NaN also where nothing was asked or the query failed.
        unanswered: how many queries failed.
    """

    name: str
    success: bool
    total: float
    time: NDArray[np.int64]
    reward: NDArray[np.float64]
    cumulative: NDArray[np.float64]
    at: NDArray[np.int64]
    written: NDArray[np.float64]
    score: NDArray[np.float64]
    unanswered: int


def read_scores(paths: Sequence[Path]) -> tuple[str, list[ScoredTrajectory]]:
    """Read score files, which are taken together as one set.

    Args:
        paths: files of one mode.

    Returns:
        The mode, and the trajectories in the order of the files.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: not such a file, files of different modes, no trajectory, or something missing in one; says where.
    """
    modes, trajectories = {}, []
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"score file '{path}' does not exist")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            modes[str(path)] = content["mode"]
            found = content["trajectories"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"'{path}' is no vlm_scores.json with 'mode' and 'trajectories': {error!r}") from None
        trajectories += [_trajectory(one, content["mode"], f"'{path}'") for one in found]
    if len(set(modes.values())) != 1:
        raise ValueError(f"score files of one mode belong together, got {modes or 'none'}")
    if not trajectories:
        raise ValueError(f"{', '.join(modes)}: no trajectory in it; record some and score them")
    return next(iter(modes.values())), trajectories


def _trajectory(one: Mapping[str, Any], mode: str, where: str) -> ScoredTrajectory:
    """Return a trajectory of a score file."""
    where = f"{where}, trajectory '{one.get('traj_dir', '?')}'"
    steps, summary = one.get("oracle_steps", []), one.get("summary", {})
    if not steps:
        raise ValueError(f"{where}: it has no 'oracle_steps'; record it again")
    time = [_number(step, "t", where) for step in steps]
    reward = np.array([_number(step, "oracle_reward", where) for step in steps])
    cumulative = np.array([step.get("cumulative_reward", 0.0) for step in steps], float)
    if not cumulative.any():
        cumulative = np.cumsum(reward)
    success = summary.get("success_once", any(step.get("success", False) for step in steps))
    kind = COMPARISON if mode == COMPARISON else "completion"
    at, written, score, unanswered = [], [], [], 0
    for entry in one.get(f"{kind}_scores") or []:
        at.append(_number(entry, "t", where))
        value = entry.get(f"vlm_{kind}_score")
        written.append(math.nan if value is None else _number(entry, f"vlm_{kind}_score", where))
        failed = entry.get("result") is None if kind == COMPARISON else not entry.get("success", True)
        score.append(math.nan if failed or entry.get("result") == FIRST else written[-1])
        unanswered += failed or value is None
    for what, times in (("oracle_steps", time), (f"{kind}_scores", at)):
        if np.any(np.diff(times) <= 0):
            raise ValueError(f"{where}: the times of its {what} do not ascend")
    strange = sorted(set(at) - set(time))
    if strange:
        raise ValueError(f"{where}: scores at t = {strange[:5]}, where it has no control step")
    return ScoredTrajectory(
        str(one.get("traj_dir", "?")),
        bool(success),
        float(summary.get("total_oracle_reward", cumulative[-1])),
        np.array(time, np.int64),
        reward,
        cumulative,
        np.array(at, np.int64),
        np.array(written, float),
        np.array(score, float),
        unanswered,
    )


def _number(entry: Mapping[str, Any], key: str, where: str) -> float:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{where}: '{key}' must be a number, got {value!r} in {dict(entry)}")
    return value
