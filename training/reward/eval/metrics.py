# SPDX-License-Identifier: Apache-2.0
"""Figures of merit of a reward model: the paper's Tables I and II, Figure 2, completion, calibration, intervals.

Kendall's tau (tau-b) of the contrastive head compares the answer's sign with the truth's over pairs shown in both
orders. Where no answer is 0, tau-b and Spearman's rho of signs are one number, as in the paper's Table I (0.257 and
0.257, 0.296 and 0.296).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.floating]

TOLERANCES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # Figure 2
GAPS = (0.1, 0.2, 0.4, 0.7, 1.01)  # edges of the classes of |progress difference|
_EPS = 1e-6


def spearman(a: Values, b: Values) -> float:
    """Return Spearman's rank correlation, 0 where one of the two is constant (it then orders nothing)."""
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic) if _both_vary(a, b) else 0.0


def kendall(a: Values, b: Values) -> float:
    """Return Kendall's tau-b, 0 where one of the two is constant."""
    from scipy.stats import kendalltau

    return float(kendalltau(a, b).statistic) if _both_vary(a, b) else 0.0


def _both_vary(a: Values, b: Values) -> bool:
    return len(a) > 1 and bool(np.ptp(a) != 0 and np.ptp(b) != 0)


def roc_auc(positive: NDArray[np.bool_], score: Values) -> float | None:
    """Return the area under the ROC curve (ties count half); ``None`` with one class only."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive, score)) if 0 < np.count_nonzero(positive) < len(positive) else None


def progress_figures(truth: Values, answer: Values) -> dict[str, float]:
    """Return mae, rmse, exact (nearest tenth right), acc_at_0_2 (within 0.2) and spearman (paper Table II).

    Args:
        truth: (N,) labels in [0, 1].
        answer: (N,) progress read from the model, in [0, 1].
    """
    error = np.abs(answer - truth)
    exact = np.round(10 * answer) == np.round(10 * truth)
    return {
        "mae": float(error.mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "exact": float(exact.mean()),
        "acc_at_0_2": float((error <= 0.2 + _EPS).mean()),
        "spearman": spearman(truth, answer),
    }


def cumulative_accuracy(truth: Values, answer: Values) -> list[float]:
    """Return the share of answers within each of ``TOLERANCES``, both rounded to tenths first (paper Figure 2)."""
    error = np.abs(np.round(10 * answer) - np.round(10 * truth)) / 10
    return [float((error <= tolerance + _EPS).mean()) for tolerance in TOLERANCES]


def contrastive_figures(gain: Values, answer: Values) -> dict[str, Any]:
    """Return accuracy, kendall (see the module) and by_gap of pairs.

    Args:
        gain: (N,) progress of the second image minus that of the first, never 0.
        answer: (N,) in [-1, 1], positive for the second; 0 is wrong.
    """
    truth, sign = np.sign(gain), np.sign(answer)
    right = sign == truth
    by_gap = {}
    for low, high in itertools.pairwise(GAPS):
        inside = (np.abs(gain) >= low - _EPS) & (np.abs(gain) < high - _EPS)
        if inside.any():
            by_gap[f"{low:g} to {min(high, 1):g}"] = {"accuracy": float(right[inside].mean()), "n": int(inside.sum())}
    return {"accuracy": float(right.mean()), "kendall": kendall(truth, sign), "by_gap": by_gap}


def completion_figures(done: NDArray[np.bool_], answer: Values) -> dict[str, float | None]:
    """Return roc_auc, accuracy, precision, recall at 0.5, and ece of p(done)."""
    said = answer >= 0.5
    both = int((done & said).sum())
    return {
        "roc_auc": roc_auc(done, answer),
        "accuracy": float((done == said).mean()),
        "precision": both / int(said.sum()) if said.any() else None,
        "recall": both / int(done.sum()) if done.any() else None,
        "ece": calibration_error(done, answer),
    }


def reliability(done: NDArray[np.bool_], answer: Values, bins: int = 10) -> list[dict[str, float]]:
    """Return mean p(done), share that was done, and count of each class of p(done) of equal width."""
    from scipy.stats import binned_statistic

    edges = np.arange(bins + 1) / bins
    (said, was), _, place = binned_statistic(np.clip(answer, 0, 1), [answer, done], bins=edges)
    count = np.bincount(place, minlength=bins + 1)[1:]
    return [{"said": float(said[b]), "was": float(was[b]), "n": int(count[b])} for b in np.flatnonzero(count)]


def calibration_error(done: NDArray[np.bool_], answer: Values, bins: int = 10) -> float:
    """Return the expected calibration error: mean |said - was| over the classes, weighted by their counts."""
    rows = reliability(done, answer, bins)
    return float(sum(row["n"] * abs(row["said"] - row["was"]) for row in rows) / len(answer))


def bootstrap(
    episode: NDArray, figure: Callable[[NDArray[np.int64]], float | None], seed: int = 0, rounds: int = 1000
) -> list[float] | None:
    """Return the 95 % interval of a figure, resampling whole episodes (their frames are not independent).

    Args:
        episode: (N,) which episode each row belongs to.
        figure: rows drawn, some of them many times -> figure; ``None`` where it cannot be said.
        seed: of the resampling.
        rounds: number of resamples.

    Returns:
        [low, high]; ``None`` if there are fewer than two episodes or the figure could never be said.
    """
    return interval(figure(rows) for rows in resamples(episode, seed, rounds))


def resamples(episode: NDArray, seed: int = 0, rounds: int = 1000) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of as many episodes drawn with replacement, ``rounds`` times; nothing of fewer than two episodes.

    Args:
        episode: (N,) which episode each row belongs to.
        seed: of the drawing.
        rounds: number of resamples.
    """
    order = np.argsort(episode, kind="stable")
    names, starts = np.unique(episode[order], return_index=True)
    if len(names) < 2:
        return
    groups = np.split(order, starts[1:])
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        yield np.concatenate([groups[g] for g in rng.integers(len(groups), size=len(groups))])


def interval(drawn: Iterable[float | None]) -> list[float] | None:
    """Return the 95 % interval of a figure's values on resamples; ``None`` if it could never be said."""
    said = [value for value in drawn if value is not None]
    return [float(bound) for bound in np.quantile(said, [0.025, 0.975])] if said else None
