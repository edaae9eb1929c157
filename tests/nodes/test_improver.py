# SPDX-License-Identifier: Apache-2.0
"""What the improver does when a training fails, and with what a kill left behind."""

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import yaml
from rclpy.lifecycle import TransitionCallbackReturn

from lrm_ros.config import FinetuneConfig, RobotContract
from lrm_ros.config_files import to_dict
from lrm_ros.nodes import improver
from lrm_ros.nodes.improver import ImproverNode
from lrm_ros.ros.control import EpisodeError
from lrm_ros.training.policy import finetune

FIGURES = {"steps": 10, "episodes": 1, "loss_first": 1.0, "loss_last": 0.5, "ms_per_step": 1.0}


def test_a_training_that_fails_stops_the_one_beside_it_at_once(spin, tmp_path, monkeypatch):
    program = tmp_path / "train"  # in the place of Python: the control fails, the policy would take a minute
    program.write_text('#!/bin/sh\ncase "$*" in */control*) exit 3 ;; esac\nexec sleep 60\n')
    program.chmod(0o755)
    monkeypatch.setattr(improver, "sys", SimpleNamespace(executable=str(program)))
    node = spin.add(ImproverNode(run=str(tmp_path)))
    node._run = tmp_path
    trainings = [node._training(1, name, [tmp_path], 10, None) for name in ("policy", "control")]
    started = time.monotonic()
    with pytest.raises(EpisodeError, match=r"iter_001/control' ended with code 3"):
        node._train("finetune", 1, trainings)
    assert time.monotonic() - started < 30
    assert node._children == []
    assert not (tmp_path / "stages.jsonl").exists(), "a stage that failed is not done"


def test_the_words_of_a_training_are_the_loops_settings(spin, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(finetune, "finetune", lambda *arguments, **_: seen.append(arguments) or FIGURES)
    node = spin.add(ImproverNode(run=str(tmp_path), learning_rate=1e-5, batch_size=4, seed=2))
    node._run = tmp_path
    assert finetune.main(node._training(3, "policy", [Path("a"), Path("b c")], 10, Path("d")).words) == 0
    config = FinetuneConfig(steps=10, init="d", seed=2, lr=1e-5, batch_size=4, colour=1.0, state_noise=0.1)
    assert seen == [(["a", "b c"], str(tmp_path / "iter_003/policy"), config)]


def test_a_stage_after_a_cut_line_is_not_joined_with_it(spin, tmp_path):
    node = spin.add(ImproverNode(run=str(tmp_path)))
    node._run = tmp_path
    with node._stage("sft", 0):
        pass
    path = tmp_path / "stages.jsonl"
    whole = path.read_text()
    path.write_text(whole + whole[:-9])
    with node._stage("rollout", 1) as row:
        row["kept"] = 3
    first, second = map(json.loads, path.read_text().splitlines())
    assert (first["stage"], second["stage"], second["iteration"], second["kept"]) == ("sft", "rollout", 1, 3)


def test_exploration_with_an_arm_it_does_not_know_is_refused_before_anything_runs(spin, tmp_path):
    file = tmp_path / "koch.yaml"
    file.write_text(yaml.safe_dump(to_dict(RobotContract(name="koch"))))
    node = spin.add(ImproverNode(run=str(tmp_path / "run"), contract=str(file), model="fake"))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "explore_std to 0" in node.diagnostics.faults["configure"] and not (tmp_path / "run").exists()


def test_a_camera_that_the_judge_cannot_have_is_refused_before_anything_runs(spin, tmp_path):
    node = spin.add(ImproverNode(run=str(tmp_path / "run"), judge_camera="front,wrist", model="fake"))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "has no camera 'wrist', only: front" in node.diagnostics.faults["configure"]
    assert not (tmp_path / "run").exists()


def test_a_run_from_before_a_setting_was_there_goes_on_with_its_default_only(spin, tmp_path):
    node = spin.add(ImproverNode(run=str(tmp_path)))
    node._run = tmp_path
    node._remember_config()
    kept = json.loads((tmp_path / "config.json").read_text())
    del kept["improver"]["judge_frames"]
    kept["improver"]["was_there_once"] = 3
    (tmp_path / "config.json").write_text(json.dumps(kept))
    node._remember_config()
    other = spin.add(ImproverNode(run=str(tmp_path), judge_frames=7))
    other._run = tmp_path
    with pytest.raises(ValueError, match="was started with judge_frames=4, now it is 7"):
        other._remember_config()


def test_a_run_keeps_the_model_of_its_judge(spin, tmp_path):
    node = spin.add(ImproverNode(run=str(tmp_path)))
    node._run = tmp_path
    node._remember_config()
    other = spin.add(ImproverNode(run=str(tmp_path), model="my/LRM"))
    other._run = tmp_path
    with pytest.raises(ValueError, match="was started with model='tiny', now it is 'my/LRM'"):
        other._remember_config()


def test_a_loop_whose_judge_cannot_judge_ends_before_it_does_anything(spin, tmp_path):
    class Ready:
        asked: ClassVar[list[tuple]] = []
        load_s = 600.0  # as long as a large model may take

        def wait_ready(self, services, timeout_s):
            self.asked.append(("reward/reset" in services, timeout_s))

        def wait_state(self, *state):
            self.asked.append(state)

        def begin(self, frame):
            self.asked.append((frame.camera, frame.image.shape))
            raise EpisodeError("model 'tiny' cannot judge episodes")

    node = spin.add(ImproverNode(run=str(tmp_path)))
    node._run, node._control, node._judge = tmp_path, Ready(), Ready()
    codes: list[int] = []
    node.on_exit = codes.append
    node._guard()
    assert codes == [1] and Ready.asked == [(True, 600), ("reward", 3, 600), ("front", (96, 96, 3))]
    assert not list(tmp_path.iterdir())
    node._control = None


def test_the_improver_loads_no_model_of_its_own(tmp_path):
    """Another 16 GB at full size: the reward node has it already."""
    program = (
        "import sys, rclpy\n"
        "from rclpy.lifecycle import TransitionCallbackReturn\n"
        "from lrm_ros.nodes.improver import ImproverNode\n"
        "rclpy.init()\n"
        f"node = ImproverNode(run={str(tmp_path / 'run')!r})\n"
        "assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS\n"
        "heavy = ('torch', 'transformers', 'peft', 'lerobot', 'lrm_ros.reward.qwen.model')\n"
        "print([name for name in heavy if name in sys.modules])\n"
        "node.close()\n"
        "rclpy.shutdown()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_a_run_of_other_settings_or_with_a_damaged_record_is_refused(spin, tmp_path):
    node = spin.add(ImproverNode(run=str(tmp_path)))
    node._run = tmp_path
    node._remember_config()
    node._remember_config()
    other = spin.add(ImproverNode(run=str(tmp_path), episodes=7))
    other._run = tmp_path
    with pytest.raises(ValueError, match=r"was started with episodes=80, now it is 7; use another run folder"):
        other._remember_config()
    (tmp_path / "config.json").write_text('{"improver": ')
    with pytest.raises(ValueError, match=r"config\.json' is no valid JSON .*; use another run folder"):
        node._remember_config()
