# SPDX-License-Identifier: Apache-2.0
"""The comparison of refinements: its statistics, what it refuses, its report, and that nothing is measured twice."""

import contextlib
import json
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from episodes import square_episodes  # type: ignore[import-not-found]

from lrm_ros.config import FinetuneConfig
from lrm_ros.config_files import to_dict
from lrm_ros.config_refine import RefineConfig
from lrm_ros.training.policy.finetune import finetune
from lrm_ros.training.ppo.evaluate import WAYS, RefinedRun, evaluate_all, read_runs
from lrm_ros.training.ppo.report import figures, main, table, write_report
from lrm_ros.training.ppo.weights import weights_of
from lrm_ros.training.report.stats import mcnemar
from lrm_ros.training.report.trainings import compare_with, gap_closed, pooled_rate


def outcomes(*rates: float, poses: int = 200, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.random(poses) < rate for rate in rates])


# ---- statistics ------------------------------------------------------------------------------------------------------


def test_the_sign_flip_test_is_that_over_all_signs():
    base = np.array([0, 0, 1, 0, 1, 1, 0, 0], bool)
    trained = np.array([[1, 1, 1, 0, 0, 1, 1, 1], [1, 0, 1, 0, 1, 1, 1, 0]], bool)
    change = trained.mean(0) - base
    sums = [abs(np.dot(signs, change)) for signs in product((-1, 1), repeat=len(change))]
    exact = np.mean([value >= abs(change.sum()) - 1e-9 for value in sums])
    found = compare_with(trained, base)
    assert found["difference"] == pytest.approx(change.mean())
    assert found["p"] == pytest.approx(exact, abs=0.02)


def test_with_one_training_the_sign_flip_test_is_mcnemars():
    base, trained = outcomes(0.4, 0.5, poses=60, seed=3)
    exact = mcnemar(int((trained & ~base).sum()), int((base & ~trained).sum()))
    assert compare_with(trained[None], base)["p"] == pytest.approx(exact, abs=0.02)


def test_with_at_most_one_pose_that_differs_nothing_is_shown():
    base = np.array([0, 1, 0, 1], bool)
    assert compare_with(base[None], base)["p"] == 1.0
    assert compare_with(np.array([[1, 1, 0, 1]], bool), base)["p"] == 1.0


def test_the_interval_of_a_pooled_rate_holds_it_as_often_as_it_says():
    hits = 0
    for seed in range(100):
        found = pooled_rate(outcomes(0.3, poses=150, seed=seed))
        hits += found["ci95"][0] <= 0.3 <= found["ci95"][1]
    assert 88 <= hits <= 100


def test_trainings_that_agree_pose_by_pose_are_no_more_evidence_than_one():
    one = outcomes(0.5)
    alone, thrice = pooled_rate(one), pooled_rate(np.repeat(one, 3, axis=0))
    assert thrice["ci95"] == alone["ci95"] and thrice["n"] == 3 * alone["n"] and thrice["sd"] == 0


def test_a_share_of_a_gap_needs_a_gap():
    base, half, top = outcomes(0.3, 0.5, 0.7, poses=2000)
    found = gap_closed(half[None], base, top[None])
    assert found is not None and found["value"] == pytest.approx(0.5, abs=0.1)
    assert found["ci95"][0] < found["value"] < found["ci95"][1]
    assert found["left_out"] == 0 and gap_closed(half[None], base, base[None]) is None


def test_bootstrap_samples_without_a_gap_do_not_count_in_a_share_of_it():
    base = np.zeros(40, bool)
    top = base.copy()
    top[:4] = True  # about one sample in seventy holds none of these poses: gap 0, gain 0
    found = gap_closed(top[None], base, top[None])
    assert found is not None and found["ci95"] == [1, 1] and 0 < found["left_out"] <= 250
    base[30:32] = True  # in some samples the gap is negative, and so is the share
    top[:10] = True
    half = top.copy()
    half[:3] = False
    found = gap_closed(half[None], base, top[None])
    assert found is not None and 0 < found["left_out"] <= 250
    assert json.dumps(found, allow_nan=False) and found["ci95"][1] <= 1


def test_nothing_to_count_is_an_error():
    with pytest.raises(ValueError, match=r"at least one of each, got shape \(0, 3\)"):
        pooled_rate(np.zeros((0, 3), bool))


# ---- the report ------------------------------------------------------------------------------------------------------


def run(reward: str, seed: int, **settings) -> RefinedRun:
    config = to_dict(replace(RefineConfig("policy", reward=reward, seed=seed, iterations=2), **settings))
    seconds = {"all": 3.0, "worlds": 2.0, "reward": 0.5, "update": 0.5}
    history = [{"success": 0.4 + 0.1 * i, "episodes": 8, "seconds": seconds, "warnings": []} for i in range(2)]
    return RefinedRun(Path(f"{reward}_s{seed}"), config, "abc1234", history)


def test_the_report_says_who_improved_and_what_did_not_run(tmp_path):
    runs = [run(reward, seed) for reward in ("progress", "env") for seed in (0, 1)]
    runs.append(run("progress", 0, model="models/blind"))
    rates = {"sft": (0.4,), "env": (0.7, 0.72), "progress": (0.6, 0.62), "progress (blind)": (0.4,)}
    found = {
        way: {
            reward: {seed: outcomes(rate, poses=320, seed=number)[0] for seed, rate in enumerate(own)}
            for number, (reward, own) in enumerate(rates.items())
        }
        for way in ("deterministic", "sampled")
    }
    report = write_report(runs, found, range(1000, 1320), tmp_path)
    assert report == json.loads((tmp_path / "ppo_report.json").read_text(), object_hook=numbered)
    assert report["episodes"] == 320 and report["seeds"] == [0, 1] and report["first_seed"] == 1000
    success = report["success"]
    assert list(success)[:3] == ["sft", "env", "contrastive"] and success["contrastive"] is None
    assert success["env"]["p_vs_sft"] < 0.001 and success["progress (blind)"]["p_vs_sft"] > 0.05
    assert success["env"]["gap_closed"] is None and 0.4 < success["progress"]["gap_closed"]["value"] < 1
    assert [one["seed"] for one in success["progress"]["by_seed"]] == [0, 1]
    assert report["seconds_per_iteration"]["env"] == 3.0
    assert {"contrastive", "completion", "tri", "roboreward"} <= set(report["missing"])
    text, html = table(report), (tmp_path / "ppo_report.html").read_text()
    assert "| progress (blind) |" in text and "not run: contrastive, completion, tri" in text
    assert "1 of 2 rewards from frames improved the policy" in html and html.count("<svg") == 3
    assert "http" not in html.replace("http://www.w3.org", "")  # nothing is loaded from elsewhere


def test_the_simulators_row_stands_whatever_model_judged_how_episodes_ended():
    runs = [run(reward, 0, model="models/big") for reward in ("env", "progress")]
    assert [one.reward for one in runs] == ["env", "progress (big)"]
    rates = {"sft": 0.3, "env": 0.8, "progress (big)": 0.6}
    found = {way: {reward: {0: outcomes(rate)[0]} for reward, rate in rates.items()} for way in WAYS}
    report = figures(runs, found, range(200))
    assert report["success"]["progress (big)"]["gap_closed"] is not None
    assert not {"env", "progress"} & set(report["missing"]) and "robometer" in report["missing"]


def numbered(found: dict) -> dict:
    """JSON has no integer keys; those of the learning curves are training seeds."""
    return {int(key) if key.isdigit() else key: value for key, value in found.items()}


def test_no_clear_gain_is_called_that(tmp_path):
    found = {
        way: {"sft": {0: outcomes(0.4)[0]}, "progress": {0: outcomes(0.42)[0]}} for way in ("deterministic", "sampled")
    }
    report = figures([run("progress", 0)], found, range(200))
    assert report["success"]["progress"]["p_vs_sft"] > 0.05
    write_report([run("progress", 0)], found, range(200), tmp_path)
    assert "No reward model clearly improved the policy" in (tmp_path / "ppo_report.html").read_text()


# ---- runs on disk ----------------------------------------------------------------------------------------------------


def finished(
    folder: Path, checkpoint: Path, reward: str = "env", seed: int = 0, iterations: int = 2, **settings
) -> Path:
    """A run folder as ``lrm ppo`` leaves it; the policy is the one before."""
    config = RefineConfig(str(checkpoint), str(folder), reward, seed=seed, iterations=2, **settings)
    folder.mkdir(parents=True)
    shutil.copytree(checkpoint, folder / "policy")
    lines = run(reward, seed).history[:iterations]
    (folder / "config.json").write_text(json.dumps({"config": to_dict(config), "commit": "abc1234"}))
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_runs_that_cannot_be_compared_are_refused(small_policy, tmp_path):
    one = finished(tmp_path / "one", small_policy)
    with pytest.raises(FileNotFoundError, match=r"has no config.json; give run folders of 'lrm ppo'"):
        read_runs([tmp_path])
    with pytest.raises(ValueError, match="has 1 of 2 iterations; run 'lrm ppo' again to finish it"):
        read_runs([finished(tmp_path / "half", small_policy, iterations=1)])
    with pytest.raises(ValueError, match="are both reward 'env' with seed 0; give one"):
        read_runs([one, finished(tmp_path / "again", small_policy)])
    with pytest.raises(ValueError, match=r"differs from .* in worlds; compare like runs"):
        read_runs([one, finished(tmp_path / "wide", small_policy, seed=1, worlds=5)])
    other = tmp_path / "other"
    training = FinetuneConfig(steps=1, batch_size=8, warmup=0, init=str(small_policy))
    finetune([square_episodes(3)], other, training)
    with pytest.raises(ValueError, match="does not start from the policy that"):
        read_runs([one, finished(tmp_path / "else", other, reward="tri")])


def test_baselines_are_compared_with_the_others_and_with_other_weights_of_their_own(small_policy, tmp_path):
    folders = [
        finished(tmp_path / "env", small_policy),
        finished(tmp_path / "r4", small_policy, reward="robometer", baseline="robometer/Robometer-4B"),
        finished(tmp_path / "r8", small_policy, reward="robometer", baseline="models/own", model="fake"),
    ]
    names = [found.reward for found in read_runs(folders)]
    assert names == ["env", "robometer (Robometer-4B)", "robometer (own)"]
    twice = finished(tmp_path / "r", small_policy, reward="robometer", baseline="models/own")
    with pytest.raises(ValueError, match=r"are both reward 'robometer \(own\)' with seed 0; give one"):
        read_runs([*folders, twice])


def test_runs_whose_folders_are_called_alike_keep_their_measurements(small_policy, tmp_path, monkeypatch):
    played: list[str] = []

    def play(vector, policy, seeds, noise):
        played.append(str(policy))
        return dict.fromkeys(seeds, policy.parent.parent.name == "a")

    monkeypatch.setattr("lrm_ros.training.ppo.evaluate.play_seeds", play)
    monkeypatch.setattr("lrm_ros.training.ppo.evaluate.VectorWorlds", lambda *_, **__: contextlib.nullcontext())
    folders = [
        finished(tmp_path / "a" / "sft", small_policy),
        finished(tmp_path / "b" / "sft", small_policy, reward="tri"),
    ]
    for folder in folders:
        (folder / "policy" / "model.safetensors").write_text(str(folder))
    for _ in range(2):
        found = evaluate_all(read_runs(folders), [7, 8], tmp_path / "out")["sampled"]
        assert found["env"][0].all() and not found["tri"][0].any() and not found["sft"][0].any()
    assert len(played) == 6


def test_policies_are_measured_once_and_again_when_they_have_changed(small_policy, tmp_path, capsys):
    folder = finished(tmp_path / "env_s0", small_policy)
    out = tmp_path / "report" / "evaluations"
    said: list[str] = []
    found = evaluate_all(read_runs([folder]), [7, 8], out, worlds=2, max_steps=8, say=said.append)
    assert found["deterministic"]["env"][0].shape == (2,) and len(said) == 4
    files = sorted(out.iterdir())
    weights = weights_of(small_policy)[:8]
    assert [file.name for file in files] == [
        f"{name}-{weights}.{way}.json" for name in ("env_s0", "sft") for way in ("deterministic", "sampled")
    ]
    kept = json.loads(files[0].read_text())
    assert kept["seeds"] == [7, 8] and kept["noise_std"] == 0 and json.loads(files[1].read_text())["noise_std"] > 0
    # What is on disk is believed, as long as it is about these weights and these poses.
    files[0].write_text(json.dumps(kept | {"success": [True, True]}))
    again = evaluate_all(read_runs([folder]), [7, 8], out, worlds=2, max_steps=8)
    assert again["deterministic"]["env"][0].all()
    before = files[0].rename(out / "env_s0.deterministic.json")  # a name without the weights counts, too
    again = evaluate_all(read_runs([folder]), [7, 8], out, worlds=2, max_steps=8)
    assert again["deterministic"]["env"][0].all() and not files[0].exists()
    before.unlink()
    files[0].write_text(json.dumps(kept | {"success": [True, True], "weights": "of another policy"}))
    anew = evaluate_all(read_runs([folder]), [7, 8], out, worlds=2, max_steps=8)
    assert anew["deterministic"]["env"][0].tolist() == found["deterministic"]["env"][0].tolist()
    words = [str(folder), "--out", str(out.parent), "--first-seed", "7", "--episodes", "2", "--worlds", "2"]
    assert main([*words, "--max-steps", "8"]) == 0
    assert "deterministic, 2 held-out start poses from seed 7" in capsys.readouterr().out
    assert (out.parent / "ppo_report.html").is_file()


def test_a_policy_that_is_gone_is_named(small_policy, tmp_path, capsys):
    folder = finished(tmp_path / "gone", small_policy)
    (folder / "policy" / "model.safetensors").unlink()
    with pytest.raises(SystemExit):
        main([str(folder), "--out", str(tmp_path / "out"), "--episodes", "1", "--worlds", "1", "--max-steps", "8"])
    assert "has no model.safetensors" in capsys.readouterr().err
