# SPDX-License-Identifier: Apache-2.0
"""Statistics of yes/no outcomes: intervals of a rate, comparisons paired and not, precision, recall, agreement.

Rates and tests are closed form or exact, so that they hold for twenty episodes as well as for two hundred.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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


def unpaired_interval(count1: int, n1: int, count2: int, n2: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the interval of rate(first) - rate(second) measured on different cases.

    Newcombe 1998, Statistics in Medicine 17:873, method 10: Wilson's intervals of the two rates, joined.

    Returns:
        Lower and upper bound in [-1, 1].

    Raises:
        ValueError: no cases, or a count outside 0 to n.
    """
    (low1, high1), (low2, high2) = wilson(count1, n1, level), wilson(count2, n2, level)
    rate1, rate2 = count1 / n1, count2 / n2
    difference = rate1 - rate2
    lower = difference - sqrt((rate1 - low1) ** 2 + (high2 - rate2) ** 2)
    upper = difference + sqrt((high1 - rate1) ** 2 + (rate2 - low2) ** 2)
    return max(lower, -1.0), min(upper, 1.0)


def unpaired(count1: int, n1: int, count2: int, n2: int) -> dict[str, Any]:
    """Compare two rates that were measured on different cases.

    Args:
        count1: successes of the one in question.
        n1: its trials.
        count2: successes of the one that it is compared with.
        n2: its trials.

    Returns:
        ``{difference, ci95, p_fisher, p_barnard}``: rate(first) - rate(second), and the two-sided p of Fisher's exact
        test (1935) and of Barnard's (1945, with the pooled score statistic), which is the more powerful one for two
        groups of a fixed size.

    Raises:
        ValueError: no trials, or a count outside 0 to n.
    """
    from scipy.stats import barnard_exact, fisher_exact

    interval = unpaired_interval(count1, n1, count2, n2)
    table = [[count1, count2], [n1 - count1, n2 - count2]]
    # All or none of them succeeded: nothing differs, and Barnard's statistic is 0 / 0.
    same = count1 + count2 in (0, n1 + n2)
    return {
        "difference": count1 / n1 - count2 / n2,
        "ci95": list(interval),
        "p_fisher": 1.0 if same else float(fisher_exact(table).pvalue),
        "p_barnard": 1.0 if same else min(1.0, float(barnard_exact(table, pooled=True).pvalue)),
    }


def kappa(both: int, only_first: int, only_second: int, neither: int) -> dict[str, Any]:
    """Return Cohen's kappa of two raters' yes and no (Cohen 1960), with its large-sample interval.

    Its standard error is that of Fleiss, Cohen and Everitt 1969 (Psychological Bulletin 72:323); with few cases the
    interval is too narrow.

    Returns:
        ``{kappa, ci95, agreement, n}``; kappa and ci95 are None where both raters said the same of all cases, or there
        are none.

    Raises:
        ValueError: negative counts.
    """
    from scipy.stats import norm

    table = ((both, only_first), (only_second, neither))
    n = sum(map(sum, table))
    if min(map(min, table)) < 0:
        raise ValueError(f"cases must be counted from 0 up, got {table}")
    found: dict[str, Any] = {"kappa": None, "ci95": None, "agreement": proportion(both + neither, n), "n": n}
    rows = [sum(row) / n for row in table] if n else []
    columns = [(both + only_second) / n, (only_first + neither) / n] if n else []
    chance = sum(a * b for a, b in zip(rows, columns, strict=True))
    if n == 0 or chance > 1 - 1e-12:
        return found
    observed = (both + neither) / n
    value = (observed - chance) / (1 - chance)
    spread = sum(table[i][i] / n * (1 - (rows[i] + columns[i]) * (1 - value)) ** 2 for i in (0, 1))
    spread += (1 - value) ** 2 * sum(table[i][1 - i] / n * (columns[i] + rows[1 - i]) ** 2 for i in (0, 1))
    spread -= (value - chance * (1 - value)) ** 2
    half = float(norm.ppf((1 + LEVEL) / 2)) * sqrt(max(spread, 0.0) / n) / (1 - chance)
    return found | {"kappa": value, "ci95": [max(value - half, -1.0), min(value + half, 1.0)]}


def precision_threshold(
    scores: Sequence[float], success: Sequence[bool], wanted: float, draws: int = 2000
) -> dict[str, Any]:
    """Return the lowest threshold whose kept cases have a wanted precision.

    Args:
        scores: of each case; it is kept where its score is at least the threshold.
        success: whether it really succeeded, in the same order.
        wanted: precision, in (0, 1].
        draws: of the bootstrap.

    Returns:
        ``{wanted, threshold, threshold_ci95, precision, recall, n, reached}``: the threshold, 2.5 and 97.5 % of what
        it is in bootstrap samples of the cases (of those in which there is one; ``reached`` is their share), and
        precision and recall at it, ``proportion``s of the same cases that chose it: a little too good. All but n and
        wanted are None where no threshold has the precision.
    """
    import numpy as np

    score, good = np.asarray(scores, float), np.asarray(success, bool)

    def lowest(score: Any, good: Any) -> float | None:
        order = np.argsort(-score, kind="stable")
        values, hits = score[order], np.cumsum(good[order])
        ends = np.flatnonzero(np.append(np.diff(values) < 0, True))  # ties are kept together
        fits = [end for end in ends if hits[end] >= wanted * (end + 1) - 1e-9]
        return float(values[fits[-1]]) if fits else None

    threshold = lowest(score, good) if len(score) else None
    found: dict[str, Any] = {"wanted": wanted, "n": len(score)}
    if threshold is None:
        return found | dict.fromkeys(("threshold", "threshold_ci95", "precision", "recall", "reached"))
    rng = np.random.default_rng(0)
    samples = [lowest(score[at], good[at]) for at in rng.integers(0, len(score), (draws, len(score)))]
    reached = [value for value in samples if value is not None]
    kept = score >= threshold
    hits = int((kept & good).sum())
    return found | {
        "threshold": threshold,
        "threshold_ci95": [float(np.quantile(reached, q)) for q in (0.025, 0.975)],
        "precision": proportion(hits, int(kept.sum())),
        "recall": proportion(hits, int(good.sum())),
        "reached": len(reached) / draws,
    }


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
