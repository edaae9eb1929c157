# SPDX-License-Identifier: Apache-2.0
"""Statistics against figures worked out by hand or printed in the papers they come from."""

from __future__ import annotations

from itertools import product
from math import comb

import pytest

from lrm_ros.training.report.stats import (
    difference_interval,
    kappa,
    mcnemar,
    paired,
    precision_recall,
    precision_threshold,
    proportion,
    unpaired,
    unpaired_interval,
    wilson,
)


def test_wilson_gives_the_intervals_printed_by_newcombe() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_wilson_stays_within_0_and_1_and_around_the_rate() -> None:
    for n in (1, 2, 7, 200):
        for count in range(n + 1):
            low, high = wilson(count, n)
            assert 0 <= low <= count / n <= high <= 1
            assert wilson(n - count, n) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize("count, n", [(0, 0), (-1, 5), (6, 5)])
def test_a_rate_of_no_trials_or_of_too_many_hits_is_refused(count: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"got {count} of {n}"):
        wilson(count, n)


def test_a_proportion_of_nothing_has_no_rate() -> None:
    assert proportion(0, 0) == {"rate": None, "count": 0, "n": 0, "ci95": None}
    assert proportion(3, 4)["rate"] == 0.75


def test_mcnemar_is_the_sign_test_on_the_pairs_that_differ() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(4, 4) == 1.0
    assert mcnemar(5, 0) == pytest.approx(2 / 32)
    assert mcnemar(1, 7) == pytest.approx(2 * (1 + 8) / 256)
    by_hand = 2 * sum(comb(20, k) for k in range(6)) / 2**20
    assert mcnemar(5, 15) == mcnemar(15, 5) == pytest.approx(by_hand)


def test_difference_of_pairs_gives_the_interval_printed_by_fagerland() -> None:
    # Fagerland, Lydersen, Laake 2014, Statistics in Medicine 33:2850: airway hyper-responsiveness, 1/21 against 7/21.
    assert difference_interval(1, 1, 7, 12) == pytest.approx((-0.507, -0.026), abs=5e-4)


def test_difference_of_pairs_is_antisymmetric_and_holds_the_difference() -> None:
    for both, first, second, neither in product((0, 1, 9), repeat=4):
        n = both + first + second + neither
        if n == 0:
            continue
        low, high = difference_interval(both, first, second, neither)
        assert -1 <= low <= (first - second) / n <= high <= 1
        assert difference_interval(both, second, first, neither) == pytest.approx((-high, -low))


def test_pairing_narrows_the_interval_of_policies_that_agree() -> None:
    agree = difference_interval(90, 10, 10, 90)
    differ = difference_interval(50, 50, 50, 50)
    assert agree[1] - agree[0] < 0.6 * (differ[1] - differ[0])


def test_policies_are_compared_seed_by_seed_on_the_common_seeds() -> None:
    result = {1: True, 2: True, 3: True, 4: False, 5: True}
    control = {5: True, 4: True, 3: False, 2: False, 9: True}  # another order, one seed of its own
    found = paired(result, control)
    assert (found["both"], found["only_first"], found["only_second"], found["neither"], found["n"]) == (1, 2, 1, 0, 4)
    assert found["difference"] == 0.25 and found["p"] == 1.0
    assert found["ci95"][0] < 0.25 < found["ci95"][1]


def test_policies_without_a_common_seed_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="no seed in common"):
        paired({1: True}, {2: True})


def test_precision_and_recall_are_counted_against_the_truth() -> None:
    kept = [True, True, True, False, False, False, False]
    real = [True, True, False, True, True, False, False]
    found = precision_recall(kept, real)
    assert (found["precision"], found["recall"], found["n"]) == (pytest.approx(2 / 3), 0.5, 7)
    assert (found["kept"], found["successes"], found["kept_successes"]) == (3, 4, 2)
    assert found["precision_ci95"] == list(wilson(2, 3)) and found["recall_ci95"] == list(wilson(2, 4))


def test_a_filter_that_kept_nothing_has_no_precision() -> None:
    found = precision_recall([False, False], [True, False])
    assert found["precision"] is None and found["precision_ci95"] is None and found["recall"] == 0.0


def test_verdicts_without_their_truth_are_refused() -> None:
    with pytest.raises(ValueError):
        precision_recall([True], [True, False])


def test_unpaired_rates_have_the_interval_printed_by_newcombe_and_the_exact_tests() -> None:
    # Newcombe 1998, Statistics in Medicine 17:873, table II, method 10: 56/70 - 48/80.
    assert unpaired_interval(56, 70, 48, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    # Fisher's exact test by hand: of 6 people, 3 and 3; all of one group and none of the other: 2 / C(6, 3).
    found = unpaired(3, 3, 0, 3)
    assert found["p_fisher"] == pytest.approx(2 / comb(6, 3)) and found["difference"] == 1
    # Barnard's: 2 * max over p of p^3 (1 - p)^3, at p = 1/2.
    assert found["p_barnard"] == pytest.approx(2 / 2**6, abs=1e-6)
    assert unpaired(0, 5, 0, 7)["p_barnard"] == unpaired(5, 5, 7, 7)["p_fisher"] == 1.0
    with pytest.raises(ValueError, match="got 0 of 0"):
        unpaired(0, 0, 1, 2)


def test_kappa_is_that_of_the_field_and_its_interval_holds_what_samples_do() -> None:
    import numpy as np
    from sklearn.metrics import cohen_kappa_score

    first = [True] * 25 + [False] * 25
    second = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15
    found = kappa(20, 5, 10, 15)
    assert found["kappa"] == pytest.approx(0.4) == pytest.approx(cohen_kappa_score(first, second))
    rng = np.random.default_rng(0)
    pairs = np.array([first, second]).T
    samples = [cohen_kappa_score(*pairs[rng.integers(0, 50, 50)].T) for _ in range(400)]
    assert found["ci95"] == pytest.approx(np.quantile(samples, (0.025, 0.975)), abs=0.06)
    assert kappa(7, 0, 0, 3)["kappa"] == 1 and kappa(7, 0, 0, 3)["ci95"] == [1, 1]
    assert kappa(10, 0, 0, 0)["kappa"] is None and kappa(0, 0, 0, 0)["ci95"] is None


def test_the_threshold_of_a_precision_is_the_lowest_that_has_it() -> None:
    scores = [0.9, 0.8, 0.8, 0.7, 0.6, 0.5, 0.4]
    success = [True, True, False, True, True, True, False]
    found = precision_threshold(scores, success, 0.8)
    assert found["threshold"] == 0.5, "5 of 6 at 0.5; 2 of 3 at 0.8 are fewer, and a tie is never cut"
    assert (found["precision"]["count"], found["precision"]["n"], found["recall"]["count"]) == (5, 6, 5)
    low, high = found["threshold_ci95"]
    assert low <= 0.5 <= high and 0 < found["reached"] <= 1
    none = precision_threshold([0.9, 0.1], [False, True], 0.9)
    assert none["threshold"] is None and none["precision"] is None and none["n"] == 2
    assert precision_threshold([], [], 0.9)["threshold"] is None
