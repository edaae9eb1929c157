# SPDX-License-Identifier: Apache-2.0
"""Open-loop analysis of video heads: what they are asked about a recording, and what the command writes."""

import json

import numpy as np
import pytest
from video_models import CLIPS, ROBO_CLIPS, TASK, asks, values

from lrm_ros.config import RewardConfig, RobotContract
from lrm_ros.contract import save_contract
from lrm_ros.reward.engine import RewardEngine
from lrm_ros.training.reward.eval.openloop import main
from lrm_ros.training.reward.eval.trajectories import record
from lrm_ros.training.reward.eval.trajectories.record import RecordedEpisode, _write
from lrm_ros.training.reward.eval.trajectories.score import read_recording, score
from lrm_ros.types import VIDEO_HEADS, Frame


def recorded(folder, *clips):
    """A recording of frames whose progress is their place."""
    for n, clip in enumerate(clips):
        progress = np.linspace(0, 1, len(clip) + 1).tolist()
        _write(
            RecordedEpisode(n, TASK, list(clip), progress, [n == 0] * len(clip)),
            folder / "worker_0" / "trajectories" / f"traj_{n:04d}_00",
        )
    return read_recording(folder, control_hz=5.0)


def timed(clip):
    """The frames at 5 Hz."""
    return [Frame(n * 200_000_000, "front", frame.image) for n, frame in enumerate(clip)]


@pytest.mark.parametrize("head", VIDEO_HEADS)
def test_scores_are_those_of_the_episode_so_far_as_the_engine_judges_it_live(head, baselines, tmp_path):
    clips = [CLIPS[3][1][:9], ROBO_CLIPS[0][1]]
    found = recorded(tmp_path, *clips)
    files = score(RewardEngine(RewardConfig(mode=head), baselines[head]), found, [head], interval=3)
    assert list(files) == [head] and files[head]["mode"] == head
    live = RewardEngine(RewardConfig(mode=head, interval=3), baselines[head])
    for n, clip in enumerate(clips):
        asked = [t for t in range(len(clip)) if t % 3 == 0 or t == len(clip) - 1]
        entries = files[head]["trajectories"][n]["completion_scores"]
        assert [entry["t"] for entry in entries] == asked and all(entry["success"] for entry in entries)
        offline = [
            values(baselines[head].score(asks(head, (TASK, [timed(clip)[i] for i in asked if i <= t])))) for t in asked
        ]
        assert [entry["vlm_completion_score"] for entry in entries] == pytest.approx(np.ravel(offline), abs=1e-4)
        live.reset("front")
        helds = [
            live.step({"front": f}, TASK, ["front"][t < len(clip) - 1 :])["front"] for t, f in enumerate(timed(clip))
        ]
        assert np.ravel(offline) == pytest.approx([helds[t].signal for t in asked], abs=1e-6)


def test_the_command_asks_a_baseline_by_its_own_weights(baseline_folders, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(record, "record", lambda *args, **settings: 0)  # what is on disk is kept
    recorded(tmp_path / "out" / "p", CLIPS[0][1], CLIPS[2][1])
    policy = tmp_path / "policy"
    policy.mkdir()
    save_contract(RobotContract(), policy)
    model = str(baseline_folders["robometer"])
    words = ["--policy", f"p={policy}", "--out", str(tmp_path / "out"), "--device", "cpu", "--rounds", "5"]
    assert main([*words, "--model", model, "--modes", "robometer"]) == 0
    assert "Table V, absolute rewards" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "openloop.json").read_text())
    part = report["policies"]["p"]["modes"]["robometer"]
    assert part["counts"]["scores"] == 7 and part["counts"]["unanswered"] == 0
    assert (tmp_path / "out" / "p" / "robometer" / "vlm_scores.json").is_file()
    for more, reason in (
        (["--modes", "robometer", "progress"], "mode 'robometer' needs its own model; ask for it alone"),
        (["--modes", "robometer", "--answers", "nearest"], "mode 'robometer' has one answer; leave out --answers"),
        (["--modes", "topreward"], "holds the weights of a Robometer (progress_head.*), not an LRM; use it in mode"),
    ):
        with pytest.raises(SystemExit):
            main([*words, "--model", model, *more])
        assert reason in capsys.readouterr().err
