# SPDX-License-Identifier: Apache-2.0
"""Statistics of several trainings on the same start poses: rates, differences, how much of a gap is closed.

Intervals are percentiles of a bootstrap over start poses: all trainings meet the same poses, so these, and not the
episodes, are what was drawn independently. The luck of training is shown by the trainings side by side, not by the
interval.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
_CHUNK = 500  # bootstrap draws at once

Outcomes = NDArray[np.bool_]


def pooled_rate(outcomes: Outcomes) -> dict[str, Any]:
    """Return the success rate over all trainings and poses with its interval.

    Args:
        outcomes: (S, P) success of training s on pose p.

    Returns:
        ``{rate, ci95, n, trainings, sd}``; sd is that of the trainings' rates (None for one).

    Raises:
        ValueError: nothing to count.
    """
    if outcomes.ndim != 2 or not outcomes.size:
        raise ValueError(f"outcomes must be (trainings, poses), at least one of each, got shape {outcomes.shape}")
    rates = outcomes.mean(1)
    return {
        "rate": float(outcomes.mean()),
        "ci95": _interval(_means(outcomes.mean(0))),
        "n": int(outcomes.size),
        "trainings": len(outcomes),
        "sd": float(rates.std(ddof=1)) if len(rates) > 1 else None,
    }


def compare_with(outcomes: Outcomes, base: Outcomes) -> dict[str, Any]:
    """Compare trainings with one policy on the same poses.

    Args:
        outcomes: (S, P).
        base: (P,) success of the policy they are compared with.

    Returns:
        ``{difference, ci95, p}``; p of the two-sided sign-flip test: under equality each pose's mean difference could
        as well have the other sign. All signs are tried if there are at most ``RESAMPLES`` ways, else so many random
        ones.
    """
    from scipy.stats import permutation_test

    change = outcomes.mean(0) - base
    wins = outcomes.sum(0) - len(outcomes) * base  # whole numbers: equal sums are equal to the bit
    moved = wins[wins != 0]
    p = 1.0  # of fewer than two poses that differ: either sign is as extreme
    if len(moved) > 1:
        p = permutation_test(
            (moved,), lambda values, axis: np.abs(values.sum(axis)), permutation_type="samples", alternative="greater",
            n_resamples=RESAMPLES, batch=_CHUNK, vectorized=True, rng=np.random.default_rng(1),
        ).pvalue  # fmt: skip
    return {"difference": float(change.mean()), "ci95": _interval(_means(change)), "p": float(p)}


def gap_closed(outcomes: Outcomes, base: Outcomes, top: Outcomes) -> dict[str, Any] | None:
    """Return how much of the gap between a policy and the best reward is closed: (rate - base) / (top - base).

    Args:
        outcomes: (S, P).
        base: (P,).
        top: (S', P) with the reward that knows most.

    Returns:
        ``{value, ci95, left_out}``; ``None`` when the gap may be nothing (its interval holds 0), for then a share of
        it has no meaning. ``left_out`` is the number of bootstrap samples without a gap (2.5 % at most), of which the
        interval knows nothing.
    """
    gain, gap = outcomes.mean(0) - base, top.mean(0) - base
    gains, gaps = _means(np.stack([gain, gap], axis=1)).T
    if _interval(gaps)[0] <= 0:
        return None
    there = gaps > 0
    return {
        "value": float(gain.mean() / gap.mean()),
        "ci95": _interval(gains[there] / gaps[there]),
        "left_out": int((~there).sum()),
    }


def _means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the means of bootstrap samples over the first axis, the same samples for every call of that length."""
    rng, count = np.random.default_rng(0), len(values)
    return np.concatenate(
        [values[rng.integers(count, size=(_CHUNK, count))].mean(1) for _ in range(RESAMPLES // _CHUNK)]
    )


def _interval(draws: NDArray[np.float64]) -> list[float]:
    return [float(bound) for bound in np.percentile(draws, [2.5, 97.5])]
