# SPDX-License-Identifier: Apache-2.0
"""Metrics of reward scores on recorded trajectories: the paper's Tables V and VI, from a ``vlm_scores.json``.

Each metric comes in two forms:

- *Index-paired*, to the digit what upstream computes (Large-Reward-Models:eval/compute_openloop_metrics.py, 5845ab0):
  the k-th number among the scores meets the k-th control step. That is right only if every step has a score.
  Contrastive scores begin with a 0 for the first frame, about which nothing was asked. A sum of scores shrinks where
  some are missing, and one trajectory without any score leaves all metrics undefined.
- *Time-aligned*: the score at time t meets the reward that the simulator gave from the scored frame before (exclusive)
  to t, whatever the interval. A score that nothing was asked for, or that upstream wrote down for a failed query, does
  not count; in a sum each score stands for the steps since the one before, and gaps for the mean. Trajectories without
  any score are left out; :func:`counts` says how many.

Ties: a success must score strictly higher than a failure in ``pairwise_acc_pct``; in ``roc_auc`` equal scores count
half. A direction is right if the signs agree, and 0 agrees only with 0. A correlation needs three trajectories (or
scores) and both series to vary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.training.reward.eval.metrics import bootstrap, roc_auc
from lrm_ros.training.reward.eval.trajectories.read import COMPARISON, ScoredTrajectory

FORMS = ("index_paired", "time_aligned")
_MIN_STD = 1e-8  # a series with a smaller standard deviation has no correlation (upstream's bound)
_NO_CHANGE = 1e-9  # a sum of rewards nearer to 0 is rounding

Columns = Mapping[str, NDArray[np.float64]]


# ---- columns: a value of each trajectory -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Paired:
    """The scores of a trajectory, each with the reward it is compared with.

    Attributes:
        score: (n,).
        reward: (m,) of the simulator; where m differs from n, the longer of the two is cut.
        cumulative: (m,) its running sum.
        total: sum of the scores.
        increments: by which the summed scores grow.
    """

    score: NDArray[np.float64]
    reward: NDArray[np.float64]
    cumulative: NDArray[np.float64]
    total: float
    increments: NDArray[np.float64]


def trajectory_columns(trajectories: Sequence[ScoredTrajectory], mode: str, form: str) -> Columns:
    """Return the values that the metrics are computed from, one of each trajectory in each column.

    Args:
        trajectories: with their scores.
        mode: of the scores; ``comparison`` is relative, all others are absolute.
        form: ``index_paired`` or ``time_aligned``.

    Returns:
        Empty if no metric is defined, see the module.
    """
    if form == FORMS[0]:
        if any(np.isnan(one.written).all() for one in trajectories):
            return {}
        pairs = [_by_index(one) for one in trajectories]
    else:
        trajectories = [one for one in trajectories if np.isfinite(one.score).any()]
        pairs = [_by_time(one) for one in trajectories]
    add = _relative if mode == COMPARISON else _absolute
    rows = [add(one, pair) for one, pair in zip(trajectories, pairs, strict=True)]
    return {name: np.array([row[name] for row in rows], float) for name in rows[0]} if rows else {}


def _by_index(one: ScoredTrajectory) -> _Paired:
    """Pair scores with steps as upstream does: by their places in the lists."""
    score = one.written[np.isfinite(one.written)]
    n = len(score)
    return _Paired(score, one.reward[:n], one.cumulative[:n], float(sum(score.tolist())), np.diff(np.cumsum(score)))


def _by_time(one: ScoredTrajectory) -> _Paired:
    """Pair each score with what happened since the scored frame before."""
    answered = np.isfinite(one.score)
    places = np.searchsorted(one.time, one.at)
    starts = np.append(0, places[:-1] + 1)
    reward = np.array([one.reward[a : b + 1].sum() for a, b in zip(starts, places, strict=True)])
    reward[np.abs(reward) < _NO_CHANGE] = 0.0
    score, steps = one.score[answered], (places + 1 - starts)[answered]
    total = float(score @ steps / steps.sum() * len(one.time))
    return _Paired(score, reward[answered], one.cumulative[places[answered]], total, score)


def _absolute(one: ScoredTrajectory, pair: _Paired) -> dict[str, float]:
    """Return success, last score, sum of scores, sum of rewards, and the correlation in time (NaN: none)."""
    n = min(len(pair.score), len(pair.cumulative))
    enough = min(len(pair.score), len(one.cumulative)) >= 3
    return {
        "success": one.success,
        "last": pair.score[-1],
        "sum": pair.total,
        "reward": one.total,
        "r": _pearson(pair.score[:n], pair.cumulative[:n]) if enough else math.nan,
    }


def _relative(one: ScoredTrajectory, pair: _Paired) -> dict[str, float]:
    """Return counts of steps, right signs, no change, rises, predicted rises; share of increments >= 0 (NaN: none)."""
    n = min(len(pair.score), len(pair.reward))
    predicted, actual = np.sign(pair.score[:n]), np.sign(pair.reward[:n])
    return {
        "steps": n,
        "right": (predicted == actual).sum(),
        "no_change": (actual == 0).sum(),
        "rises": (actual > 0).sum(),
        "rises_predicted": ((actual > 0) & (predicted > 0)).sum(),
        "monotonic": (pair.increments >= 0).mean() if one.success and len(pair.increments) else math.nan,
    }


def _pearson(a: NDArray, b: NDArray) -> float:
    """Return Pearson's correlation, NaN where one of the two does not vary."""
    from scipy.stats import pearsonr

    if np.std(a) < _MIN_STD or np.std(b) < _MIN_STD:
        return math.nan
    return float(pearsonr(a, b).statistic)


# ---- metrics ---------------------------------------------------------------------------------------------------------


def _pairwise(c: Columns) -> float | None:
    won, lost = c["last"][c["success"] == 1], c["last"][c["success"] == 0]
    return float(100 * (won[:, None] > lost).mean()) if len(won) and len(lost) else None


def _global(c: Columns) -> float | None:
    varies = len(c["sum"]) >= 3 and np.std(c["sum"]) > _MIN_STD and np.std(c["reward"]) > _MIN_STD
    return _pearson(c["sum"], c["reward"]) if varies else None


def _mean(values: NDArray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _share(part: NDArray, whole: NDArray) -> float | None:
    return float(100 * part.sum() / whole.sum()) if whole.sum() else None


ABSOLUTE: dict[str, Callable[[Columns], float | None]] = {
    "roc_auc": lambda c: roc_auc(c["success"] == 1, c["last"]),
    "pairwise_acc_pct": _pairwise,
    "global_pearson": _global,
    "per_traj_pearson": lambda c: _mean(c["r"]),
}
RELATIVE: dict[str, Callable[[Columns], float | None]] = {
    "direction_acc_pct": lambda c: _share(c["right"], c["steps"]),
    "progress_recall_pct": lambda c: _share(c["rises_predicted"], c["rises"]),
    "monotonicity_success": lambda c: _mean(c["monotonic"]),
}


def compute_metrics(
    trajectories: Sequence[ScoredTrajectory], mode: str, form: str, rounds: int = 0
) -> dict[str, dict[str, Any]]:
    """Return the metrics of a set of trajectories; an undefined one is left out.

    Args:
        trajectories: with their scores.
        mode: of the scores; see :func:`trajectory_columns`.
        form: ``index_paired`` or ``time_aligned``.
        rounds: of the bootstrap over trajectories; 0: no intervals.

    Returns:
        name -> ``{value, ci95}``; ci95 is None if it was not asked for or is undefined.
    """
    columns = trajectory_columns(trajectories, mode, form)
    if not columns:
        return {}
    rows = np.arange(len(next(iter(columns.values()))))
    found: dict[str, dict[str, Any]] = {}
    for name, metric in (RELATIVE if mode == COMPARISON else ABSOLUTE).items():
        value = metric(columns)
        if value is not None:
            again = partial(_resampled, metric, columns)
            found[name] = {"value": value, "ci95": bootstrap(rows, again, rounds=rounds) if rounds else None}
    return found


def _resampled(metric: Callable[[Columns], float | None], columns: Columns, draw: NDArray[np.int64]) -> float | None:
    """Return a metric of resampled trajectories."""
    return metric({name: column[draw] for name, column in columns.items()})


def blind_predictions(trajectories: Sequence[ScoredTrajectory], mode: str) -> list[ScoredTrajectory]:
    """Return the trajectories with the scores of a baseline that looks at no image: the time, or +1 for every pair."""
    predicted = (lambda at: np.ones(len(at))) if mode == COMPARISON else (lambda at: at.astype(float))
    return [replace(one, score=np.where(np.isfinite(one.score), predicted(one.at), np.nan)) for one in trajectories]


def no_change_pct(trajectories: Sequence[ScoredTrajectory]) -> float | None:
    """Return the percentage of compared pairs without any change: there no +1 or -1 is right."""
    columns = trajectory_columns(trajectories, COMPARISON, FORMS[1])
    return _share(columns["no_change"], columns["steps"]) if columns else None


def counts(trajectories: Sequence[ScoredTrajectory]) -> dict[str, int]:
    """Return how many trajectories there are, of success and failure, without any score; scores, and those missing."""
    success = sum(one.success for one in trajectories)
    answered = [int(np.isfinite(one.score).sum()) for one in trajectories]
    return {
        "trajectories": len(trajectories),
        "success": success,
        "failure": len(trajectories) - success,
        "without_score": answered.count(0),
        "scores": sum(answered),
        "unanswered": sum(one.unanswered for one in trajectories),
    }


def upstream_metrics(trajectories: Sequence[ScoredTrajectory], mode: str, paths: Sequence[str]) -> dict[str, Any]:
    """Return the content of upstream's ``openloop_metrics.json``: the index-paired metrics."""
    n = counts(trajectories)
    return {
        "mode": mode,
        "metrics": {name: part["value"] for name, part in compute_metrics(trajectories, mode, FORMS[0]).items()},
        "meta": {
            "scores_paths": list(paths),
            "n_trajectories": n["trajectories"],
            "n_success": n["success"],
            "n_failure": n["failure"],
        },
    }
