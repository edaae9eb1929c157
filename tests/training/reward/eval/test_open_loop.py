# SPDX-License-Identifier: Apache-2.0
"""Open-loop analysis: the seven figures in both forms, recordings that go on, scores that are never made up."""

import json
import math
import random
import shutil
import statistics

import numpy as np
import pytest
from PIL import Image

from lrm_ros.config import RefineConfig, RewardConfig
from lrm_ros.reward.engine import RewardEngine
from lrm_ros.reward.fake import FakeModel
from lrm_ros.reward.load import load_model
from lrm_ros.sim.vector.rewards import WorldRewards
from lrm_ros.sim.vector.worlds import ChunkResult
from lrm_ros.training.reward.eval.openloop import main, name_of
from lrm_ros.training.reward.eval.trajectories.read import read_scores
from lrm_ros.training.reward.eval.trajectories.record import Played, _write, oracle_rewards, record
from lrm_ros.training.reward.eval.trajectories.score import progress_pairs, read_recording, score
from lrm_ros.training.reward.eval.trajectory_figures import FORMS, blind, counts, figures, still_pct, upstream_metrics
from lrm_ros.types import Frame, Observation, RewardQuery

INDEX, TIME = FORMS


# ---- figures ---------------------------------------------------------------------------------------------------------


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
    return {name: part["value"] for name, part in figures(trajectories, mode, form).items()}


def test_absolute_figures_are_those_worked_out_by_hand(tmp_path):
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


def test_relative_figures_are_those_worked_out_by_hand(tmp_path):
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
    assert still_pct(found) == 25.0
    later = {"direction_acc_pct": 50.0, "progress_recall_pct": 100.0, "monotonicity_success": 1.0}
    assert values(blind(found, "comparison"), "comparison", TIME) == pytest.approx(later)


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


def test_figures_that_cannot_be_said_are_left_out(tmp_path):
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
    assert values(none, "progress", TIME) == {} and figures(none, "progress", TIME, rounds=10) == {}


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


def test_figures_are_those_of_plain_loops(tmp_path):
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
    part = figures(found, "comparison", TIME, rounds=300)["direction_acc_pct"]
    low, high = part["ci95"]
    assert low < part["value"] < high and 5 < high - low < 12  # 600 coin flips with p = .62: +-3.9 points
    assert figures(found, "comparison", TIME, rounds=300)["direction_acc_pct"] == part
    assert figures(found[:1], "comparison", TIME, rounds=300)["direction_acc_pct"]["ci95"] is None


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


# ---- scores ----------------------------------------------------------------------------------------------------------


def film(levels, seed=0, task="put the toy in the bowl", success=False):
    """An episode of frames as bright as said, which the fake model takes for progress."""
    frames = [Frame(t, "front", np.full((8, 8, 3), level, np.uint8)) for t, level in enumerate(levels)]
    progress = [0.0, *(level / 255 for level in levels)]
    return Played(seed, task, frames, progress, [success and t == len(levels) - 1 for t in range(len(levels))])


def recorded(folder, *films):
    for n, one in enumerate(films):
        _write(one, folder / "worker_0" / "trajectories" / f"traj_{n:04d}_00")
    return read_recording(folder)


FAKE = RewardEngine(RewardConfig("fake"))


def test_every_frame_is_scored_in_upstreams_format(tmp_path):
    found = recorded(tmp_path, film([0, 51, 51, 102], success=True), film([255, 204], task="lift it"))
    files = score(FAKE, found)
    assert set(files) == {"progress", "completion", "comparison"}
    content = files["comparison"]
    assert list(content)[:4] == ["vlm_url", "mode", "task_description", "num_trajectories"]
    first, second = content["trajectories"]
    assert first["summary"] == {
        "success_once": True,
        "total_oracle_reward": pytest.approx(1.4),
        "task_description": "put the toy in the bowl",
    }
    assert [step["t"] for step in first["oracle_steps"]] == [0, 1, 2, 3]
    assert first["comparison_scores"] == [
        {"t": 0, "vlm_comparison_score": 0.0, "result": "first_frame"},
        {"t": 1, "vlm_comparison_score": 1.0, "result": "ImageB", "response": ""},
        {"t": 2, "vlm_comparison_score": None, "result": None,
         "response": "the fake model sees two equally bright frames"},
        {"t": 3, "vlm_comparison_score": 1.0, "result": "ImageB", "response": ""},
    ]  # fmt: skip
    assert second["comparison_scores"][1]["result"] == "ImageA"
    said = files["progress"]["trajectories"][0]["completion_scores"]
    assert said[1] == {"t": 1, "vlm_completion_score": pytest.approx(0.2), "response": "", "success": True}
    assert [e["vlm_completion_score"] for e in files["completion"]["trajectories"][1]["completion_scores"]] == [1, 1]
    pairs = progress_pairs(found, files["progress"])
    np.testing.assert_allclose(pairs[:, 0], pairs[:, 1])
    np.testing.assert_allclose(pairs[:, 2], [0.25, 0.5, 0.75, 1, 0.5, 1])


def test_an_interval_takes_the_frames_that_upstream_takes(tmp_path):
    found = recorded(tmp_path, film(range(0, 240, 3)))  # 80 frames: more than a batch
    files = score(FAKE, found, interval=2)
    asked = files["progress"]["trajectories"][0]["completion_scores"]
    assert [entry["t"] for entry in asked] == [*range(0, 80, 2), 79]  # and the last
    pairs = files["comparison"]["trajectories"][0]["comparison_scores"]
    assert [entry["t"] for entry in pairs] == list(range(0, 80, 2))
    assert all(entry["vlm_comparison_score"] == 1.0 for entry in pairs[1:])
    one = RewardQuery("put the toy in the bowl", "contrastive", (found[0].frame(62), found[0].frame(64)))
    assert FAKE.score([one])[0].value == pairs[32]["vlm_comparison_score"] and pairs[32]["t"] == 64


def test_a_query_that_fails_is_null_with_its_reason_and_never_a_number(tmp_path):
    class Broken(FakeModel):
        def score(self, queries, readout="forward"):
            raise RuntimeError("out of memory")

    found = recorded(tmp_path, film([1, 2, 3]))
    files = score(RewardEngine(RewardConfig("fake"), Broken()), found)
    for mode, kind in (("progress", "completion"), ("comparison", "comparison")):
        entries = files[mode]["trajectories"][0][f"{kind}_scores"]
        assert [entry[f"vlm_{kind}_score"] for entry in entries[1:]] == [None, None]
        assert all("out of memory" in entry["response"] for entry in entries[1:])
    assert progress_pairs(found, files["progress"]) is None


def test_a_real_models_scores_are_its_answers_and_answers_choose_what_is_written(tmp_path):
    tiny = load_model("tiny", "cpu")
    rng = np.random.default_rng(0)
    frames = [Frame(t, "front", rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)) for t in range(3)]
    found = recorded(tmp_path, Played(0, "put the red toy in the bowl", frames, [0.0] * 4, [False] * 3))
    queries = [RewardQuery("put the red toy in the bowl", "progress", (frame,)) for frame in frames]

    def said(answers, readout, mode="progress", kind="completion"):
        engine = RewardEngine(RewardConfig("tiny", readout=readout), tiny)
        entries = score(engine, found, [mode], answers=answers)[mode]["trajectories"][0][f"{kind}_scores"]
        return [entry[f"vlm_{kind}_score"] for entry in entries]

    mean = said("mean", "forward")
    assert mean == pytest.approx([answer.value for answer in tiny.score(queries)], abs=1e-6)
    assert said("nearest", "forward") == pytest.approx(np.round(mean, 1))
    written = said("written", "generate")
    assert written == [getattr(answer, "value", None) for answer in tiny.score(queries, "generate")]
    assert set(said("mean", "forward", "comparison", "comparison")[1:]) <= {-1.0, 1.0}
    with pytest.raises(ValueError, match="need the read-out 'generate'"):
        said("written", "forward")


def test_damaged_recordings_are_refused_with_their_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no trajectories in .*lrm reward openloop --policy"):
        read_recording(tmp_path)
    (tmp_path / "worker_0" / "trajectories").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no trajectories in"):
        read_recording(tmp_path)
    found = recorded(tmp_path, film([10, 20, 30]))
    folder = found[0].folder
    lines = (folder / "metadata.jsonl").read_text().splitlines(keepends=True)
    (folder / "metadata.jsonl").write_text(lines[0] + lines[2])
    with pytest.raises(ValueError, match="has 2 lines of metadata for 3 frames"):
        read_recording(tmp_path)
    (folder / "metadata.jsonl").write_text(lines[0] + "{")
    with pytest.raises(ValueError, match="traj_0000_00' is damaged"):
        read_recording(tmp_path)
    (folder / "metadata.jsonl").write_text("".join(lines))
    (folder / "frame_001.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"frame_001.png' cannot be read"):
        score(FAKE, read_recording(tmp_path))
    Image.fromarray(found[0].frame(0).image).save(folder / "frame_001.png")
    (folder / "summary.json").unlink()
    with pytest.raises(ValueError, match=r"has no summary.json"):
        read_recording(tmp_path)


# ---- recordings and the command --------------------------------------------------------------------------------------


def test_the_oracle_pays_what_reward_env_of_a_refinement_pays():
    progress = [0.1, 0.3, 0.2, 0.9, 1.0]
    success = [False, True, True, False]
    assert oracle_rewards(progress, success) == pytest.approx([0.2, 0.9, 0.7, 0.1])
    frame = Frame(0, "front", np.zeros((8, 8, 3), np.uint8))
    seen = Observation(0, {"front": frame}, np.zeros(6, np.float32), "do it")
    rewards = WorldRewards(RefineConfig(reward="env"), FakeModel())
    rewards.begin([seen])
    result = ChunkResult(
        np.zeros((4, 6), np.float32), np.array(progress, np.float32), np.array(success), (), False, False, None, seen, 0
    )
    np.testing.assert_allclose(rewards.score([result])[0], oracle_rewards(progress, success), atol=1e-6)


SETTINGS = {"seeds": [20000, 20001, 20002], "worlds": 2, "max_steps": 11, "noise_std": 0.03, "processes": 1}
WORDS = ["--episodes", "3", "--first-seed", "20000", "--worlds", "2", "--max-steps", "11", "--noise-std", "0.03"]


@pytest.fixture(scope="module")
def recording(small_policy, tmp_path_factory):
    out = tmp_path_factory.mktemp("openloop")
    assert record(small_policy, out=out / "squares", **SETTINGS) == 3
    return out


def test_a_recording_has_a_frame_and_a_line_for_every_step(recording):
    folders = sorted((recording / "squares" / "worker_0" / "trajectories").iterdir())
    assert [folder.name for folder in folders] == ["traj_0000_00", "traj_0000_01", "traj_0001_00"]
    for folder, seed in zip(folders, (20000, 20002, 20001), strict=True):
        lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
        assert [list(line) for line in lines] == [["t", "oracle_reward", "cumulative_reward", "success"]] * 11
        assert len(list(folder.glob("frame_0??.png"))) == 11 and [line["t"] for line in lines] == list(range(11))
        about = json.loads((folder / "simulator.json").read_text())
        assert about["seed"] == seed and len(about["progress"]) == 12
        gained = about["progress"][-1] - about["progress"][0]
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["total_oracle_reward"] == pytest.approx(gained + summary["success_once"], abs=1e-6)
        assert summary["task_description"].startswith("put the")
        assert Image.open(folder / "frame_010.png").size == (96, 96)


def test_a_recording_that_was_cut_short_goes_on_the_same_to_the_bit(small_policy, recording, tmp_path):
    copy = shutil.copytree(recording / "squares", tmp_path / "copy")
    lost = copy / "worker_0" / "trajectories" / "traj_0001_00"
    shutil.rmtree(lost)
    kept = copy / "worker_0" / "trajectories" / "traj_0000_00" / "frame_000.png"
    before = kept.stat().st_mtime_ns
    assert record(small_policy, out=copy, **SETTINGS) == 1
    whole = recording / "squares" / "worker_0" / "trajectories" / "traj_0001_00"
    for file in sorted(whole.iterdir()):
        assert (lost / file.name).read_bytes() == file.read_bytes(), file.name
    assert kept.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="holds a recording with other max_steps, noise_std"):
        record(small_policy, out=copy, **SETTINGS | {"max_steps": 12, "noise_std": 0.0})
    (copy / "recording.json").unlink()
    with pytest.raises(ValueError, match=r"no recording.json that says of what"):
        record(small_policy, out=copy, **SETTINGS)


def test_the_command_scores_what_is_recorded_and_writes_tables_figure_and_upstreams_files(
    small_policy, recording, tmp_path, capsys
):
    out = shutil.copytree(recording, tmp_path / "out")
    words = ["--policy", f"squares={small_policy}", "--out", str(out), "--model", "fake", "--rounds", "20", *WORDS]
    assert main([*words, "--json", str(tmp_path / "report.json")]) == 0
    said = capsys.readouterr().out
    assert "Table V, absolute rewards (index-paired" in said and "Table VI, contrastive reward (time-aligned)" in said
    report = json.loads((tmp_path / "report.json").read_text())
    assert report == json.loads((out / "openloop.json").read_text())
    part = report["policies"]["squares"]
    assert part["modes"]["progress"]["counts"]["scores"] == 33 and part["success"]["n"] == 3
    assert part["figure_2"]["model"][-1] == 1.0 and 0 <= part["progress"]["mae"] <= 1
    html = (out / "openloop.html").read_text()
    assert html.count("<svg") == 1 and "http" not in html.replace("http://www.w3.org", "")
    for mode, name in (("progress", "per_traj_pearson"), ("comparison", "direction_acc_pct")):
        metrics = json.loads((out / "squares" / mode / "metrics" / "openloop_metrics.json").read_text())
        assert metrics["metrics"][name] == part["modes"][mode]["index_paired"][name]["value"]
        scores = out / "squares" / mode / "vlm_scores.json"
        assert main(["--scores", str(scores), "--rounds", "0", "--out", str(tmp_path / mode)]) == 0
        again = json.loads((tmp_path / mode / "openloop_metrics.json").read_text())
        assert again == metrics | {"meta": metrics["meta"] | {"scores_paths": [str(scores)]}}


def test_what_the_command_cannot_do_it_says(small_policy, tmp_path, capsys):
    def error(*words):
        with pytest.raises(SystemExit) as stop:
            main([*words, "--model", "fake"])
        assert stop.value.code != 0
        return capsys.readouterr().err

    out = ["--out", str(tmp_path)]
    assert "holds no policy" in error("--policy", str(tmp_path / "none"), *out)
    assert "--policy needs --out" in error("--policy", str(small_policy))
    assert "give NAME=FOLDER" in error("--policy", str(small_policy), "--policy", str(small_policy), *out)
    assert "does not exist" in error("--scores", str(tmp_path / "none.json"))
    assert "different seeds, got 0" in error("--policy", str(small_policy), "--episodes", "0", *out)
    assert (
        name_of(f"a={small_policy}") == ("a", small_policy)
        and name_of(str(small_policy))[0] == small_policy.parent.name
    )
