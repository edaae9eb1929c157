# SPDX-License-Identifier: Apache-2.0
"""The reward model's metrics against scipy and against cases worked out by hand."""

import warnings

import numpy as np
import pytest
from scipy import stats

from lrm_ros.training.reward.eval.metrics import (
    bootstrap,
    completion_metrics,
    contrastive_metrics,
    cumulative_accuracy,
    expected_calibration_error,
    kendall,
    progress_metrics,
    reliability,
    roc_auc,
    spearman,
)


def test_progress_metrics_are_those_of_the_paper():
    label, prediction = np.array([0.0, 0.5, 1.0, 0.2]), np.array([0.04, 0.7, 0.5, 0.2])
    metrics = progress_metrics(label, prediction)
    assert metrics["mae"] == pytest.approx((0.04 + 0.2 + 0.5 + 0.0) / 4)
    assert metrics["rmse"] == pytest.approx(np.sqrt((0.0016 + 0.04 + 0.25) / 4))
    assert metrics["exact"] == 0.5
    assert metrics["acc_at_0_2"] == 0.75
    assert metrics["spearman"] == pytest.approx(stats.spearmanr(label, prediction).statistic)


def test_cumulative_accuracy_counts_whole_tenths_and_ends_at_one():
    curve = cumulative_accuracy(np.array([0.0, 0.5, 1.0]), np.array([0.04, 0.8, 0.0]))
    assert curve == pytest.approx([1 / 3] * 3 + [2 / 3] * 7 + [1.0])


def test_rank_metrics_agree_with_scipy_with_ties():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 200) / 4, rng.random(200)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    positive = a > 0.5
    wins = [(p > n) + 0.5 * (p == n) for p in a[positive] for n in a[~positive]]
    assert roc_auc(positive, a) == pytest.approx(np.mean(wins)) == 1.0
    wins = [(p > n) + 0.5 * (p == n) for p in np.round(b, 1)[positive] for n in np.round(b, 1)[~positive]]
    assert roc_auc(positive, np.round(b, 1)) == pytest.approx(np.mean(wins))


def test_a_constant_predictor_orders_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert spearman(np.array([0.0, 0.5, 1.0]), np.full(3, 0.5)) == 0.0
        assert kendall(np.array([-1.0, 1.0, 1.0]), np.full(3, 1.0)) == 0.0
        assert spearman(np.ones(1), np.ones(1)) == kendall(np.ones(1), np.ones(1)) == 0.0
        assert roc_auc(np.array([True, False]), np.full(2, 0.5)) == 0.5
        assert roc_auc(np.array([True, True]), np.array([0.1, 0.9])) is None


def test_the_area_of_32_bit_scores_is_as_exact_as_that_of_64():
    rng = np.random.default_rng(4)
    positive, score = rng.random(20_000) < 0.4, rng.random(20_000).astype(np.float32)
    ranks = stats.rankdata(score.astype(float))[positive]
    won = ranks.sum() - len(ranks) * (len(ranks) + 1) / 2
    area = roc_auc(positive, score)
    assert area is not None and abs(area - won / (len(ranks) * (len(positive) - len(ranks)))) < 1e-12


def test_a_prediction_of_0_is_a_tie_to_kendall():
    # Of six pairs four are ordered alike and none otherwise; two are ties of the label, one of the prediction.
    found = contrastive_metrics(np.array([0.5, 0.2, -0.2, -0.5]), np.array([0.9, 0.0, -0.1, -0.9]))
    assert found["kendall"] == pytest.approx(4 / np.sqrt((6 - 2) * (6 - 1))) and found["accuracy"] == 0.75


def test_kendall_of_signs_is_scipys_tau_b_and_spearman():
    rng = np.random.default_rng(1)
    delta = rng.choice([-0.9, -0.15, 0.15, 0.5], 300)
    prediction = np.where(rng.random(300) < 0.7, delta, -delta) * rng.random(300)
    metrics = contrastive_metrics(delta, prediction)
    tau = stats.kendalltau(np.sign(delta), np.sign(prediction)).statistic
    assert metrics["kendall"] == pytest.approx(tau)
    assert tau == pytest.approx(stats.spearmanr(np.sign(delta), np.sign(prediction)).statistic)
    assert {name: row["n"] for name, row in metrics["by_gap"].items()} == {
        "0.1 to 0.2": int((np.abs(delta) < 0.2).sum()),
        "0.4 to 0.7": int((delta == 0.5).sum()),
        "0.7 to 1": int((delta == -0.9).sum()),
    }
    assert contrastive_metrics(np.array([0.5]), np.array([0.0]))["accuracy"] == 0.0


def test_completion_metrics_and_calibration():
    done = np.array([True, True, False, False])
    metrics = completion_metrics(done, np.array([0.9, 0.4, 0.6, 0.1]))
    assert (metrics["accuracy"], metrics["precision"], metrics["recall"]) == (0.5, 0.5, 0.5)
    assert metrics["roc_auc"] == 0.75
    assert metrics["ece"] == pytest.approx((0.1 + 0.6 + 0.6 + 0.1) / 4)
    assert completion_metrics(done, np.zeros(4))["precision"] is None
    rng = np.random.default_rng(2)
    predicted = rng.random(20_000)
    honest = rng.random(20_000) < predicted
    assert expected_calibration_error(honest, predicted) < 0.02
    assert sum(row["n"] for row in reliability(honest, predicted)) == 20_000


def test_the_interval_draws_whole_episodes():
    rng = np.random.default_rng(3)
    level = rng.normal(size=40)
    episode = np.repeat(np.arange(40), 50)
    values = level[episode] + 0.01 * rng.normal(size=2000)
    low, high = bootstrap(episode, lambda rows: float(values[rows].mean()))
    expected = 1.96 * level.std() / np.sqrt(40)
    assert (high - low) / 2 == pytest.approx(expected, rel=0.15), "as wide as 40 draws, not as 2000"
    assert low < values.mean() < high
    assert bootstrap(np.zeros(5), lambda rows: 1.0) is None
    assert bootstrap(np.arange(5), lambda rows: None) is None
