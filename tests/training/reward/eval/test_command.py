# SPDX-License-Identifier: Apache-2.0
"""Evaluation of a reward model: eval set, trivial baselines, metrics and page."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from lrm_ros.reward.models import TINY_FOLDER
from lrm_ros.reward.qwen.model import QwenRewardModel
from lrm_ros.training.reward.eval.command import compute_metrics, evaluate_set, metrics_by_kind, metrics_of, table
from lrm_ros.training.reward.eval.eval_set import (
    MIN_GAP,
    PAIRS_PER_EPISODE,
    Predictions,
    make_eval_set,
    predict,
    trivial_baselines,
    untrained,
)
from lrm_ros.training.reward.eval.metrics import contrastive_metrics, place_metrics
from lrm_ros.training.reward.eval.page import page


def keyframes(episode_id, kind, progress, done, source="twin"):
    """Return the rows of one episode of noise."""
    rng = np.random.default_rng(abs(hash((episode_id, kind))) % 2**32)
    rows = []
    for position, (p, d) in enumerate(zip(progress, done, strict=True)):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)).save(stream, "JPEG", quality=95)
        rows.append(
            {
                "source": source, "episode_id": episode_id, "task": "put the red toy in the bowl", "kind": kind,
                "position": position, "progress": p, "done": d, "jpeg": stream.getvalue(),
            }
        )  # fmt: skip
    return rows


TENTHS = [k / 10 for k in range(11)]
RISING = keyframes("a", "success", TENTHS, [False] * 10 + [True])
FALLING = keyframes("b", "reversed", TENTHS[::-1], [True] + [False] * 10)
STILL = keyframes("c", "random", [0.05] * 11, [False] * 11)
UNKNOWN = keyframes("d", "demonstration", [None] * 11, [None] * 11, source="film")


def perfect(eval_set):
    delta = eval_set.progress[eval_set.pairs[:, 1]] - eval_set.progress[eval_set.pairs[:, 0]]
    return Predictions(np.nan_to_num(eval_set.progress), (eval_set.done == 1).astype(float), np.sign(delta))


def test_pairs_are_of_one_episode_clearly_different_and_in_both_orders():
    eval_set = make_eval_set(RISING + FALLING + STILL + UNKNOWN)
    first, second = eval_set.pairs.T
    assert (eval_set.episode[first] == eval_set.episode[second]).all()
    assert (np.abs(eval_set.progress[first] - eval_set.progress[second]) >= MIN_GAP - 1e-6).all()
    assert {tuple(pair) for pair in eval_set.pairs} == {(b, a) for a, b in eval_set.pairs}
    assert np.bincount(eval_set.episode[second], minlength=4).tolist() == [
        2 * PAIRS_PER_EPISODE,
        2 * PAIRS_PER_EPISODE,
        0,
        0,
    ]
    assert (make_eval_set(RISING, seed=1).pairs != make_eval_set(RISING, seed=2).pairs).any()


def test_the_time_index_is_perfect_on_success_and_loses_where_episodes_fail():
    eval_set = make_eval_set(RISING + FALLING + STILL)
    clock = trivial_baselines(eval_set)["time_index"]
    success = compute_metrics(eval_set, clock, eval_set.kinds == "success")
    assert success["progress"]["mae"] == 0 and success["contrastive"]["kendall"] == pytest.approx(1)
    backwards = compute_metrics(eval_set, clock, eval_set.kinds == "reversed")
    assert backwards["progress"]["spearman"] == pytest.approx(-1)
    assert backwards["contrastive"]["kendall"] == pytest.approx(-1)
    assert metrics_by_kind(eval_set, clock)["random"]["end_progress"] == 1.0


def test_a_constant_predictor_predicts_the_mean_of_the_training_labels():
    constant = trivial_baselines(make_eval_set(RISING), make_eval_set(STILL))["constant"]
    assert constant.progress == pytest.approx(np.full(11, 0.05))
    assert constant.done == pytest.approx(np.zeros(11))
    assert compute_metrics(make_eval_set(RISING), constant)["contrastive"]["kendall"] == 0.0


def test_frames_without_a_label_are_predicted_but_not_counted():
    eval_set = make_eval_set(RISING + UNKNOWN)
    found = compute_metrics(eval_set, perfect(eval_set))
    assert (found["progress"]["n"], found["completion"]["n"]) == (11, 11)
    assert compute_metrics(eval_set, perfect(eval_set), eval_set.sources == "film") == {}


def test_every_head_of_a_real_model_is_asked_and_the_page_shows_it(tmp_path):
    eval_set = make_eval_set(RISING + FALLING + STILL)
    model = QwenRewardModel(TINY_FOLDER, "tiny", "cpu")
    predicted = predict(model, eval_set)
    assert predicted.progress.shape == predicted.done.shape == (33,)
    assert predicted.contrastive.shape == (len(eval_set.pairs),)
    assert ((predicted.progress >= 0) & (predicted.progress <= 1)).all() and np.ptp(predicted.progress) > 0
    assert (predict(model, eval_set, initial=True).progress != predicted.progress).any()
    base = predict(untrained(lambda: QwenRewardModel(TINY_FOLDER, "tiny", "cpu")), eval_set)
    assert np.ptp(base.progress) < np.ptp(predicted.progress), "an untrained model hardly tells frames apart"
    part = evaluate_set(
        eval_set, {"model": perfect(eval_set), "untrained": base, **trivial_baselines(eval_set)}, rounds=20
    )
    metrics = metrics_of({"in_domain": part}, {"model": "tiny", "base": "weights drawn anew"})
    assert metrics["in_domain"]["progress"]["ci95"]["mae"] == [0.0, 0.0]
    assert set(metrics["failures"]["in_domain"]) == {"reversed", "random"}
    assert metrics["place"]["in_domain"] is None, "nobody was asked about equal frames"
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert table(metrics, "in_domain").count("\n") == 4
    html = page(metrics)
    assert html.count("<svg") == 3 and "time index" in html and "equal frames" not in html
    assert predicted.equal.shape == (33,) and np.ptp(predicted.equal) > 0
    part = evaluate_set(eval_set, {"model": predicted, **trivial_baselines(eval_set)}, rounds=0)
    asked = metrics_of({"in_domain": part}, {"model": "tiny", "base": "none"})
    assert asked["place"]["in_domain"]["equal"]["n"] == 33 and "two equal frames" in page(asked)
    assert not re.search(r"\bnan\b|<script|<link|<img|src=", html.split("<main>")[1])


def test_what_a_place_is_given_whatever_the_frames_show_is_measured_and_gone_in_both_orders():
    eval_set = make_eval_set(RISING)
    first, second = eval_set.progress[eval_set.pairs].T
    delta = second - first
    leaning = np.clip(delta + 0.35, -1, 1)  # takes the second frame of a pair that is up to 0.35 worse
    found = place_metrics(delta, leaning, np.full(11, 0.35))
    assert found["equal"] == {"mean": pytest.approx(0.35), "deviation": pytest.approx(0), "n": 11}
    assert 0.2 < found["second"]["mean"] <= 0.35 and found["second"]["n"] == len(delta) // 2
    assert contrastive_metrics(delta, leaning)["accuracy"] < 1 == found["accuracy_in_both_orders"]
    fair = place_metrics(delta, delta / 2, np.zeros(3))
    assert fair["second"] == {"mean": pytest.approx(0), "deviation": pytest.approx(0), "n": len(delta) // 2}


def test_an_evaluation_without_keyframes_says_how_to_make_them():
    with pytest.raises(ValueError, match="lrm reward data"):
        make_eval_set([])
