# SPDX-License-Identifier: Apache-2.0
"""Evaluation of a reward model: what is asked, what trivial predictors say, figures and page."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from lrm_ros.reward.models import TINY_FOLDER
from lrm_ros.reward.qwen.model import QwenRewardModel
from lrm_ros.training.reward.eval.command import by_kind, figures, metrics_of, report_on, table
from lrm_ros.training.reward.eval.exam import CLEARLY, PAIRS, Answers, ask, make_exam, trivial, untrained
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


def perfect(exam):
    gain = exam.progress[exam.pairs[:, 1]] - exam.progress[exam.pairs[:, 0]]
    return Answers(np.nan_to_num(exam.progress), (exam.done == 1).astype(float), np.sign(gain))


def test_pairs_are_of_one_episode_clearly_different_and_in_both_orders():
    exam = make_exam(RISING + FALLING + STILL + UNKNOWN)
    first, second = exam.pairs.T
    assert (exam.episode[first] == exam.episode[second]).all()
    assert (np.abs(exam.progress[first] - exam.progress[second]) >= CLEARLY - 1e-6).all()
    assert {tuple(pair) for pair in exam.pairs} == {(b, a) for a, b in exam.pairs}
    assert np.bincount(exam.episode[second], minlength=4).tolist() == [2 * PAIRS, 2 * PAIRS, 0, 0]
    assert (make_exam(RISING, seed=1).pairs != make_exam(RISING, seed=2).pairs).any()


def test_the_time_index_is_perfect_on_success_and_loses_where_episodes_fail():
    exam = make_exam(RISING + FALLING + STILL)
    clock = trivial(exam)["time_index"]
    success = figures(exam, clock, exam.kinds == "success")
    assert success["progress"]["mae"] == 0 and success["contrastive"]["kendall"] == pytest.approx(1)
    backwards = figures(exam, clock, exam.kinds == "reversed")
    assert backwards["progress"]["spearman"] == pytest.approx(-1)
    assert backwards["contrastive"]["kendall"] == pytest.approx(-1)
    assert by_kind(exam, clock)["random"]["end_progress"] == 1.0


def test_a_constant_predictor_says_the_mean_of_the_training_labels():
    constant = trivial(make_exam(RISING), make_exam(STILL))["constant"]
    assert constant.progress == pytest.approx(np.full(11, 0.05))
    assert constant.done == pytest.approx(np.zeros(11))
    assert figures(make_exam(RISING), constant)["contrastive"]["kendall"] == 0.0


def test_frames_without_a_label_are_asked_but_not_counted():
    exam = make_exam(RISING + UNKNOWN)
    found = figures(exam, perfect(exam))
    assert (found["progress"]["n"], found["completion"]["n"]) == (11, 11)
    assert figures(exam, perfect(exam), exam.sources == "film") == {}


def test_every_head_of_a_real_model_is_asked_and_the_page_shows_it(tmp_path):
    exam = make_exam(RISING + FALLING + STILL)
    model = QwenRewardModel(TINY_FOLDER, "tiny", "cpu")
    said = ask(model, exam)
    assert said.progress.shape == said.done.shape == (33,)
    assert said.contrastive.shape == (len(exam.pairs),)
    assert ((said.progress >= 0) & (said.progress <= 1)).all() and np.ptp(said.progress) > 0
    assert (ask(model, exam, initial=True).progress != said.progress).any()
    base = ask(untrained(lambda: QwenRewardModel(TINY_FOLDER, "tiny", "cpu")), exam)
    assert np.ptp(base.progress) < np.ptp(said.progress), "an untrained model hardly tells frames apart"
    part = report_on(exam, {"model": perfect(exam), "untrained": base, **trivial(exam)}, rounds=20)
    metrics = metrics_of({"in_domain": part}, {"model": "tiny", "base": "weights drawn anew"})
    assert metrics["in_domain"]["progress"]["ci95"]["mae"] == [0.0, 0.0]
    assert set(metrics["failures"]["in_domain"]) == {"reversed", "random"}
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert table(metrics, "in_domain").count("\n") == 4
    html = page(metrics)
    assert html.count("<svg") == 3 and "time index" in html
    assert not re.search(r"\bnan\b|<script|<link|<img|src=", html.split("<main>")[1])


def test_an_evaluation_without_keyframes_says_how_to_make_them():
    with pytest.raises(ValueError, match="lrm reward data"):
        make_exam([])
