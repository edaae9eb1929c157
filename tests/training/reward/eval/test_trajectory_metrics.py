# SPDX-License-Identifier: Apache-2.0
"""The seven metrics of the open-loop analysis in both forms, worked out by hand and by plain loops."""

import json
import math
import random
import statistics

import numpy as np
import pytest

from lrm_ros.training.reward.eval.trajectories.read import read_scores
from lrm_ros.training.reward.eval.trajectory_metrics import (
    FORMS,
    blind_predictions,
    compute_metrics,
    counts,
    no_change_pct,
    upstream_metrics,
)

INDEX, TIME = FORMS


def trajectory(scores, rewards, success=None, kind="completion", interval=1, name="t"):
    """A trajectory of a score file as upstream writes it; the first comparison is the one of the first frame."""
    cumulative = np.cumsum(rewards).tolist()
    entries = [{"t": k * interval, f"vlm_{kind}_score": value, "response": ""} for k, value in enumerate(scores)]
    for k, entry in enumerate(entries):
        if kind == "comparison":
            value = entry["vlm_comparison_score"]
            entry["result"] = {None: None, 1.0: "ImageB", -1.0: "ImageA", 0.0: None}[value] if k else "first_frame"
        else:
            entry["success"] = entry["vlm_completion_score"] is not None
    return {
        "traj_dir": name,
        "summary": {"success_once": bool(success), "total_oracle_reward": cumulative[-1], "task_description": "do it"},
        "oracle_steps": [
            {"t": t, "oracle_reward": reward, "cumulative_reward": so_far, "success": False}
            for t, (reward, so_far) in enumerate(zip(rewards, cumulative, strict=True))
        ],
        f"{kind}_scores": entries,
    }


def read(tmp_path, trajectories, mode="progress", name="vlm_scores.json"):
    content = {"vlm_url": "", "mode": mode, "task_description": "", "num_trajectories": len(trajectories)}
    path = tmp_path / name
    path.write_text(json.dumps(content | {"trajectories": trajectories}))
    return read_scores([path])[1]


def values(trajectories, mode, form):
    return {name: part["value"] for name, part in compute_metrics(trajectories, mode, form).items()}


def test_absolute_metrics_are_those_worked_out_by_hand(tmp_path):
    found = read(
        tmp_path,
        [
            trajectory([0.1, 0.5, 0.9], [0.0, 0.5, 1.5], success=True),
            trajectory([0.2, 0.2, 0.2], [0.1, -0.1, 0.0]),  # constant: no correlation in time
            trajectory([0.3, None, 0.9], [0.5, 0.25, 0.25]),  # two scores: too few for one
            trajectory([0.4, 0.3, 0.2], [0.0, 0.5, 0.5], success=True),
        ],
    )
    # Last scores: successes .9 and .2, failures .2 and .9: one pair right, two ties, one wrong.
    # Sums 1.5, .6, 1.2, .9 against 2, 0, 1, 1. In time: .8 / sqrt(.32 * 13/6) and -1.
    expected = {
        "roc_auc": 0.5,
        "pairwise_acc_pct": 25.0,
        "global_pearson": 0.9 / math.sqrt(0.45 * 2),
        "per_traj_pearson": (0.8 / math.sqrt(0.32 * 13 / 6) - 1) / 2,
    }
    assert values(found, "progress", INDEX) == pytest.approx(expected, abs=1e-9)
    # In time the score that is missing in the third does not lower its sum: mean .7 over three steps is 2.1 (.9 covers
    # one step, .3 one). Sums 1.5, .6, 1.8, .9 against 2, 0, 1, 1.
    aligned = expected | {"global_pearson": 0.9 / math.sqrt((0.3**2 + 0.6**2 + 0.6**2 + 0.3**2) * 2)}
    assert values(found, "progress", TIME) == pytest.approx(aligned, abs=1e-9)
    assert counts(found) == {
        "trajectories": 4, "success": 2, "failure": 2, "without_score": 0, "scores": 11, "unanswered": 1,
    }  # fmt: skip


def test_relative_metrics_are_those_worked_out_by_hand(tmp_path):
    found = read(
        tmp_path,
        [
            trajectory([0.0, 1.0, -1.0, 1.0], [0.0, 0.2, -0.1, 0.0], success=True, kind="comparison"),
            trajectory([0.0, -1.0], [0.1, 0.3], kind="comparison"),
        ],
        "comparison",
    )
    # With the 0 of the first frame: right, right, right, wrong; wrong, wrong. Of three rises one is found.
    index = {"direction_acc_pct": 50.0, "progress_recall_pct": 100 / 3, "monotonicity_success": 2 / 3}
    assert values(found, "comparison", INDEX) == pytest.approx(index)
    # Nothing was asked about the first frames: right, right, wrong; wrong. Of two rises one is found.
    aligned = {"direction_acc_pct": 50.0, "progress_recall_pct": 50.0, "monotonicity_success": 2 / 3}
    assert values(found, "comparison", TIME) == pytest.approx(aligned)
    assert no_change_pct(found) == 25.0
    later = {"direction_acc_pct": 50.0, "progress_recall_pct": 100.0, "monotonicity_success": 1.0}
    assert values(blind_predictions(found, "comparison"), "comparison", TIME) == pytest.approx(later)


def test_a_missing_score_shifts_what_upstream_pairs_and_not_what_belongs_together(tmp_path):
    rewards = [0.0, 5.0, -5.0, 1.0, 0.0]  # running sum 0, 5, 0, 1, 1
    found = read(tmp_path, [trajectory([0.0, None, 0.0, 1.0, 1.0], rewards)])
    assert values(found, "progress", TIME)["per_traj_pearson"] == pytest.approx(1.0)
    shifted = statistics.correlation([0, 0, 1, 1], [0, 5, 0, 1])
    assert values(found, "progress", INDEX)["per_traj_pearson"] == pytest.approx(shifted)
    moves = [0.0, 0.1, -0.1, 0.1]
    pairs = read(tmp_path, [trajectory([0.0, None, -1.0, 1.0], moves, kind="comparison")], "comparison")
    assert values(pairs, "comparison", INDEX)["direction_acc_pct"] == pytest.approx(100 / 3)
    assert values(pairs, "comparison", TIME)["direction_acc_pct"] == 100.0


def test_a_perfect_predictor_is_perfect_at_any_interval_once_time_is_aligned(tmp_path):
    rewards = np.diff(np.sin(np.arange(81) / 12)).tolist()
    total = np.cumsum(rewards)
    for interval in (1, 10):
        seen = total[::interval]
        absolute = read(tmp_path, [trajectory(seen.tolist(), rewards, interval=interval)])
        signs = [0.0, *np.sign(np.diff(seen)).tolist()]
        relative = read(tmp_path, [trajectory(signs, rewards, kind="comparison", interval=interval)], "comparison")
        assert values(absolute, "progress", TIME)["per_traj_pearson"] == pytest.approx(1.0)
        assert values(relative, "comparison", TIME)["direction_acc_pct"] == 100.0
        perfect = interval == 1
        assert (values(absolute, "progress", INDEX)["per_traj_pearson"] > 0.999) == perfect
        assert (values(relative, "comparison", INDEX)["direction_acc_pct"] > 98) == perfect


def test_metrics_that_are_undefined_are_left_out(tmp_path):
    rising = [0.0, 0.1, 0.2]
    alike = read(tmp_path, [trajectory(rising, rising, success=True, name=str(n)) for n in range(2)])
    assert set(values(alike, "progress", INDEX)) == {"per_traj_pearson"}  # one class, two trajectories
    constant = read(tmp_path, [trajectory([0.5] * 3, rising, success=n == 0) for n in range(3)])
    assert values(constant, "progress", INDEX) == {"roc_auc": 0.5, "pairwise_acc_pct": 0.0}
    still = read(tmp_path, [trajectory([0.0, 1.0], [0.0, 0.0], kind="comparison")], "comparison")
    assert values(still, "comparison", INDEX) == {"direction_acc_pct": 50.0}  # no rise, no success


def test_one_trajectory_without_scores_silences_upstream_and_is_left_out_in_time(tmp_path):
    rising, said = [0.0, 0.1, 0.2], [0.0, 0.1, 0.3]
    found = read(tmp_path, [trajectory(said, rising, True), trajectory(said, rising), trajectory([None] * 3, rising)])
    assert values(found, "progress", INDEX) == {}
    assert upstream_metrics(found, "progress", ["f"]) == {
        "mode": "progress",
        "metrics": {},
        "meta": {"scores_paths": ["f"], "n_trajectories": 3, "n_success": 1, "n_failure": 2},
    }
    assert values(found, "progress", TIME)["per_traj_pearson"] == pytest.approx(1.0)
    assert counts(found)["without_score"] == 1
    none = read(tmp_path, [trajectory([None] * 3, rising)])
    assert values(none, "progress", TIME) == {} and compute_metrics(none, "progress", TIME, rounds=10) == {}


def test_what_upstream_wrote_for_a_failed_query_counts_in_its_form_only(tmp_path):
    rewards = [0.0, 0.1, 0.1]
    pairs = read(tmp_path, [trajectory([0.0, 0.0, 1.0], rewards, True, "comparison")], "comparison")
    assert values(pairs, "comparison", INDEX)["direction_acc_pct"] == pytest.approx(200 / 3)
    assert values(pairs, "comparison", TIME)["direction_acc_pct"] == 100.0
    one = trajectory([0.0, 0.5, 0.0, 1.0], [0.0, 0.5, 0.25, 0.25])
    one["completion_scores"][2]["success"] = False
    found = read(tmp_path, [one])
    assert values(found, "progress", TIME)["per_traj_pearson"] == pytest.approx(1.0)
    assert values(found, "progress", INDEX)["per_traj_pearson"] < 0.9
    assert counts(found)["unanswered"] == counts(pairs)["unanswered"] == 1


def test_metrics_are_those_of_plain_loops(tmp_path):
    draw = random.Random(4)
    some = []
    for n in range(25):
        length = draw.randint(3, 30)
        scores = [draw.choice([None, 0.0, 0.2, 0.4, 1.0]) for _ in range(length)]
        scores[-1] = draw.choice([0.3, 0.6, 0.9])
        some.append(trajectory(scores, [draw.choice([0.0, draw.gauss(0, 1)]) for _ in range(length)], n % 3 == 0))
    found = values(read(tmp_path, some), "progress", INDEX)
    said = [[e["vlm_completion_score"] for e in t["completion_scores"] if e["success"]] for t in some]
    won = [t["summary"]["success_once"] for t in some]
    pairs = [(said[i][-1], said[j][-1]) for i in range(25) for j in range(25) if won[i] and not won[j]]
    assert found["pairwise_acc_pct"] == pytest.approx(100 * sum(a > b for a, b in pairs) / len(pairs))
    assert found["roc_auc"] == pytest.approx(sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs))
    totals = [t["summary"]["total_oracle_reward"] for t in some]
    assert found["global_pearson"] == pytest.approx(statistics.correlation(list(map(sum, said)), totals))
    each = [
        statistics.correlation(own, [s["cumulative_reward"] for s in t["oracle_steps"]][: len(own)])
        for t, own in zip(some, said, strict=True)
        if len(own) >= 3 and len(set(own)) > 1
    ]
    assert len(each) > 15 and found["per_traj_pearson"] == pytest.approx(statistics.mean(each))


def test_intervals_are_of_whole_trajectories_and_hold_the_value(tmp_path):
    rng = np.random.default_rng(0)
    rises = [[0.0, *np.sign(rng.normal(0.3, 1, 20)).tolist()] for _ in range(30)]
    found = read(tmp_path, [trajectory(r, [0.1] * 21, True, "comparison") for r in rises], "comparison")
    part = compute_metrics(found, "comparison", TIME, rounds=300)["direction_acc_pct"]
    low, high = part["ci95"]
    assert low < part["value"] < high and 5 < high - low < 12  # 600 coin flips with p = .62: +-3.9 points
    assert compute_metrics(found, "comparison", TIME, rounds=300)["direction_acc_pct"] == part
    assert compute_metrics(found[:1], "comparison", TIME, rounds=300)["direction_acc_pct"]["ci95"] is None


def test_files_that_are_no_scores_say_where_and_why(tmp_path):
    rising = [0.0, 0.1, 0.2]
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_scores([tmp_path / "none.json"])
    (tmp_path / "odd.json").write_text("[]")
    with pytest.raises(ValueError, match=r"no vlm_scores.json with 'mode' and 'trajectories'"):
        read_scores([tmp_path / "odd.json"])
    with pytest.raises(ValueError, match="no trajectory in it"):
        read(tmp_path, [])
    for change, words in (
        ({"oracle_steps": []}, "trajectory 't': it has no 'oracle_steps'"),
        ({"oracle_steps": [{"t": 0, "cumulative_reward": 0.0}]}, "'oracle_reward' must be a number, got None"),
        ({"completion_scores": [{"t": 0, "vlm_completion_score": math.nan}]}, "must be a number, got nan"),
        ({"completion_scores": [{"t": 7, "vlm_completion_score": 0.5}]}, r"scores at t = \[7\], where it has no"),
        ({"completion_scores": [{"t": 1, "vlm_completion_score": 0.5}] * 2}, "the times of its completion_scores"),
    ):
        with pytest.raises(ValueError, match=words):
            read(tmp_path, [trajectory(rising, rising) | change])
    read(tmp_path, [trajectory(rising, rising)], "progress", "a.json")
    read(tmp_path, [trajectory([0.0, 1.0], [0.0, 0.1], kind="comparison")], "comparison", "b.json")
    with pytest.raises(ValueError, match="one mode belong together"):
        read_scores([tmp_path / "a.json", tmp_path / "b.json"])
