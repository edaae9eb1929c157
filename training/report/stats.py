# SPDX-License-Identifier: Apache-2.0
"""Statistics of yes/no outcomes: intervals of a rate, paired comparison on the same seeds, precision and recall.

Everything is closed form or exact, so that it holds for twenty episodes as well as for two hundred.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import sqrt
from typing import Any

LEVEL = 0.95


def wilson(count: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Return Wilson's score interval of a rate (Wilson 1927, JASA 22:209).

    Args:
        count: how many of ``n`` were hits, 0 to n.
        n: trials, >= 1.
        level: confidence, in (0, 1).

    Returns:
        Lower and upper bound in [0, 1].

    Raises:
        ValueError: no trials, or a count outside 0 to n.
    """
    from scipy.stats import binomtest

    if n < 1 or not 0 <= count <= n:
        raise ValueError(f"a rate needs 0 <= count <= n and n >= 1, got {count} of {n}")
    low, high = binomtest(count, n).proportion_ci(level, method="wilson")
    return float(low), float(high)


def proportion(count: int, n: int) -> dict[str, Any]:
    """Return ``{rate, count, n, ci95}``; rate and ci95 are None when there were no trials."""
    if n == 0:
        return {"rate": None, "count": 0, "n": 0, "ci95": None}
    return {"rate": count / n, "count": count, "n": n, "ci95": list(wilson(count, n))}


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p of McNemar's exact test (McNemar 1947, Psychometrika 12:153; binomial form).

    Args:
        only_first: pairs in which only the first succeeded.
        only_second: pairs in which only the second did.

    Returns:
        Probability of a split at least this uneven if both were equally good; 1 when no pair differs.
    """
    from scipy.stats import binomtest

    n = only_first + only_second
    return float(binomtest(only_first, n).pvalue) if n else 1.0


def difference_interval(
    both: int, only_first: int, only_second: int, neither: int, level: float = LEVEL
) -> tuple[float, float]:
    """Return the interval of rate(first) - rate(second) measured on the same cases.

    Newcombe 1998, Statistics in Medicine 17:2635, method 10: Wilson's intervals of the two rates, joined with the
    correlation of the pairs (with its continuity correction).

    Returns:
        Lower and upper bound in [-1, 1].

    Raises:
        ValueError: no pairs or negative counts.
    """
    n = both + only_first + only_second + neither
    if n < 1 or min(both, only_first, only_second, neither) < 0:
        raise ValueError(f"pairs must be counted from 0 up and be at least one, got {n}")
    first, second = both + only_first, both + only_second
    rate1, rate2 = first / n, second / n
    low1, high1 = wilson(first, n, level)
    low2, high2 = wilson(second, n, level)
    spread = first * (n - first) * second * (n - second)
    product = float(both * neither - only_first * only_second)
    if product > 0:
        product = max(product - n / 2, 0.0)
    phi = 0.0 if spread == 0 else product / sqrt(spread)

    def joined(a: float, b: float) -> float:
        return sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))

    difference = rate1 - rate2
    lower = difference - joined(rate1 - low1, high2 - rate2)
    upper = difference + joined(high1 - rate1, rate2 - low2)
    return max(lower, -1.0), min(upper, 1.0)


def paired(first: Mapping[int, bool], second: Mapping[int, bool]) -> dict[str, Any]:
    """Compare two policies on the seeds of both.

    Args:
        first: seed -> success of the one in question.
        second: seed -> success of the one it is compared with.

    Returns:
        ``{difference, ci95, p, n, both, only_first, only_second, neither}``; the difference is rate(first) -
        rate(second) over the common seeds.

    Raises:
        ValueError: no seed in common.
    """
    seeds = first.keys() & second.keys()
    if not seeds:
        raise ValueError("the two evaluations have no seed in common; evaluate both on the same seeds")
    pairs = [(bool(first[seed]), bool(second[seed])) for seed in seeds]
    both, neither = pairs.count((True, True)), pairs.count((False, False))
    only_first, only_second = pairs.count((True, False)), pairs.count((False, True))
    return {
        "difference": (only_first - only_second) / len(pairs),
        "ci95": list(difference_interval(both, only_first, only_second, neither)),
        "p": mcnemar(only_first, only_second),
        "n": len(pairs),
        "both": both,
        "only_first": only_first,
        "only_second": only_second,
        "neither": neither,
    }


def precision_recall(kept: Iterable[bool], success: Iterable[bool]) -> dict[str, Any]:
    """Return precision and recall of a filter.

    Args:
        kept: whether the filter kept each episode.
        success: whether the episode really succeeded, in the same order.

    Returns:
        ``{precision, precision_ci95, recall, recall_ci95, n, kept, successes, kept_successes}``. Precision: how many
        of the kept succeeded. Recall: how many of the successes were kept. None where there is nothing to divide by.

    Raises:
        ValueError: the two have different lengths.
    """
    pairs = [(bool(keep), bool(good)) for keep, good in zip(kept, success, strict=True)]
    hits = pairs.count((True, True))
    precision, recall = (proportion(hits, sum(pair[side] for pair in pairs)) for side in (0, 1))
    return {
        "precision": precision["rate"],
        "precision_ci95": precision["ci95"],
        "recall": recall["rate"],
        "recall_ci95": recall["ci95"],
        "n": len(pairs),
        "kept": precision["n"],
        "successes": recall["n"],
        "kept_successes": hits,
    }
