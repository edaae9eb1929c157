# SPDX-License-Identifier: Apache-2.0
"""Open-loop analysis: recordings that go on, scores that are never made up, the command."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from lrm_ros.config import RewardConfig
from lrm_ros.config_refine import RefineConfig
from lrm_ros.reward.engine import RewardEngine
from lrm_ros.reward.fake import FakeModel
from lrm_ros.reward.load import load_model
from lrm_ros.sim.vector.rewards import WorldRewards
from lrm_ros.sim.vector.worlds import ChunkResult
from lrm_ros.training.reward.eval.openloop import main, policy_name
from lrm_ros.training.reward.eval.trajectories.record import RecordedEpisode, _write, oracle_rewards, record
from lrm_ros.training.reward.eval.trajectories.score import progress_pairs, read_recording, score
from lrm_ros.training.reward.eval.trajectory_metrics import FORMS
from lrm_ros.types import Frame, Observation, RewardQuery

INDEX, TIME = FORMS


# ---- scores ----------------------------------------------------------------------------------------------------------


def film(levels, seed=0, task="put the toy in the bowl", success=False):
    """An episode of frames as bright as said, which the fake model takes for progress."""
    frames = [Frame(t, "front", np.full((8, 8, 3), level, np.uint8)) for t, level in enumerate(levels)]
    progress = [0.0, *(level / 255 for level in levels)]
    return RecordedEpisode(seed, task, frames, progress, [success and t == len(levels) - 1 for t in range(len(levels))])


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
    found = recorded(tmp_path, RecordedEpisode(0, "put the red toy in the bowl", frames, [0.0] * 4, [False] * 3))
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
    assert "give a whole number from 1 on" in error("--policy", str(small_policy), "--episodes", "0", *out)
    assert (
        policy_name(f"a={small_policy}") == ("a", small_policy)
        and policy_name(str(small_policy))[0] == small_policy.parent.name
    )
