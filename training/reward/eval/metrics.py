# SPDX-License-Identifier: Apache-2.0
"""Metrics of a reward model: the paper's Tables I and II, Figure 2, completion, calibration, intervals.

Kendall's tau (tau-b) of the contrastive head compares the sign of the prediction with that of the label over pairs in
both orders. Where no prediction is 0, tau-b and Spearman's rho of signs are one number, as in the paper's Table I
(0.257 and 0.257, 0.296 and 0.296).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.floating]

TOLERANCES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # Figure 2
GAPS = (0.1, 0.2, 0.4, 0.7, 1.01)  # bin edges of |progress difference|
_EPS = 1e-6


def spearman(a: Values, b: Values) -> float:
    """Return Spearman's rank correlation, 0 where one of the two is constant."""
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


def progress_metrics(label: Values, prediction: Values) -> dict[str, float]:
    """Return mae, rmse, exact (nearest tenth right), acc_at_0_2 (within 0.2) and spearman (paper Table II).

    Args:
        label: (N,) labels in [0, 1].
        prediction: (N,) progress read from the model, in [0, 1].
    """
    error = np.abs(prediction - label)
    exact = np.round(10 * prediction) == np.round(10 * label)
    return {
        "mae": float(error.mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "exact": float(exact.mean()),
        "acc_at_0_2": float((error <= 0.2 + _EPS).mean()),
        "spearman": spearman(label, prediction),
    }


def cumulative_accuracy(label: Values, prediction: Values) -> list[float]:
    """Return the share of predictions within each of ``TOLERANCES``, both rounded to tenths first (paper Figure 2)."""
    error = np.abs(np.round(10 * prediction) - np.round(10 * label)) / 10
    return [float((error <= tolerance + _EPS).mean()) for tolerance in TOLERANCES]


def contrastive_metrics(delta: Values, prediction: Values) -> dict[str, Any]:
    """Return accuracy, kendall (see the module) and by_gap of pairs.

    Args:
        delta: (N,) progress of the second image minus that of the first, never 0.
        prediction: (N,) in [-1, 1], positive for the second; 0 is wrong.
    """
    label, sign = np.sign(delta), np.sign(prediction)
    right = sign == label
    by_gap = {}
    for low, high in itertools.pairwise(GAPS):
        inside = (np.abs(delta) >= low - _EPS) & (np.abs(delta) < high - _EPS)
        if inside.any():
            by_gap[f"{low:g} to {min(high, 1):g}"] = {"accuracy": float(right[inside].mean()), "n": int(inside.sum())}
    return {"accuracy": float(right.mean()), "kendall": kendall(label, sign), "by_gap": by_gap}


def place_metrics(delta: Values, prediction: Values, equal: Values) -> dict[str, Any]:
    """Return how much the contrastive head's answer is about the place of a frame, and what asking twice would give.

    Args:
        delta: (2P,) progress of the second image minus that of the first; pairs in both orders, one after the other.
        prediction: (2P,) in [-1, 1].
        equal: (K,) in [-1, 1], of frames beside themselves.

    Returns:
        ``second``: mean and deviation over pairs of half the sum of the answers in both orders, what the second place
        is given whatever the frames show; ``equal``: mean and deviation of the answers about equal frames (in both
        orders they are 0); ``accuracy_in_both_orders``: of half the difference.
    """
    sums, halves = prediction[::2] + prediction[1::2], (prediction[::2] - prediction[1::2]) / 2
    return {
        "second": {"mean": float(sums.mean() / 2), "deviation": float(sums.std() / 2), "n": len(sums)},
        "equal": {"mean": float(equal.mean()), "deviation": float(equal.std()), "n": len(equal)},
        "accuracy_in_both_orders": float((np.sign(halves) == np.sign(delta[::2])).mean()),
    }


def place_line(accuracy: float, place: Mapping[str, Any]) -> str:
    """Return what :func:`place_metrics` found, beside the accuracy of pairs that are asked once, in a line."""
    second, equal, both = place["second"], place["equal"], place["accuracy_in_both_orders"]
    given, alike = (f"{part['mean']:+.3f} (deviation {part['deviation']:.3f})" for part in (second, equal))
    return (
        f"contrastive: the second place is given {given}, two equal frames {alike}; "
        f"right are {100 * accuracy:.1f} % of the pairs, asked in both orders {100 * both:.1f} %"
    )


def completion_metrics(done: NDArray[np.bool_], prediction: Values) -> dict[str, float | None]:
    """Return roc_auc, accuracy, precision, recall at 0.5, and ece of p(done)."""
    predicted = prediction >= 0.5
    both = int((done & predicted).sum())
    return {
        "roc_auc": roc_auc(done, prediction),
        "accuracy": float((done == predicted).mean()),
        "precision": both / int(predicted.sum()) if predicted.any() else None,
        "recall": both / int(done.sum()) if done.any() else None,
        "ece": expected_calibration_error(done, prediction),
    }


def reliability(done: NDArray[np.bool_], prediction: Values, bins: int = 10) -> list[dict[str, float]]:
    """Return the reliability diagram: mean p(done), share of done labels and count of each bin of equal width."""
    from scipy.stats import binned_statistic

    edges = np.arange(bins + 1) / bins
    (confidence, rate), _, place = binned_statistic(np.clip(prediction, 0, 1), [prediction, done], bins=edges)
    count = np.bincount(place, minlength=bins + 1)[1:]
    return [{"said": float(confidence[b]), "was": float(rate[b]), "n": int(count[b])} for b in np.flatnonzero(count)]


def expected_calibration_error(done: NDArray[np.bool_], prediction: Values, bins: int = 10) -> float:
    """Return the expected calibration error: mean |confidence - rate| over the bins, weighted by their counts."""
    rows = reliability(done, prediction, bins)
    return float(sum(row["n"] * abs(row["said"] - row["was"]) for row in rows) / len(prediction))


def bootstrap(
    episode: NDArray, metric: Callable[[NDArray[np.int64]], float | None], seed: int = 0, rounds: int = 1000
) -> list[float] | None:
    """Return the 95 % bootstrap interval of a metric, resampling whole episodes (their frames are not independent).

    Args:
        episode: (N,) which episode each row belongs to.
        metric: resampled rows -> value; ``None`` where it is undefined.
        seed: of the resampling.
        rounds: number of resamples.

    Returns:
        [low, high]; ``None`` if there are fewer than two episodes or the metric is undefined on every resample.
    """
    return percentile_interval(metric(rows) for rows in bootstrap_samples(episode, seed, rounds))


def bootstrap_samples(episode: NDArray, seed: int = 0, rounds: int = 1000) -> Iterator[NDArray[np.int64]]:
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


def percentile_interval(values: Iterable[float | None]) -> list[float] | None:
    """Return the 95 % percentile interval of a metric's values on resamples; ``None`` if there are none."""
    known = [value for value in values if value is not None]
    return [float(bound) for bound in np.quantile(known, [0.025, 0.975])] if known else None
