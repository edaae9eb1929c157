# SPDX-License-Identifier: Apache-2.0
"""What the improver does when a training fails."""

import sys
import time
from pathlib import Path

import pytest

from lrm_ros.config import FinetuneConfig
from lrm_ros.nodes.improver import ImproverNode
from lrm_ros.ros.episodes import EpisodeError
from lrm_ros.training.policy import finetune

FIGURES = {"steps": 10, "episodes": 1, "loss_first": 1.0, "loss_last": 0.5, "ms_per_step": 1.0}


def test_a_training_that_fails_stops_the_one_beside_it_at_once(spin, tmp_path, monkeypatch):
    program = tmp_path / "train"  # in the place of Python: the control fails, the policy would take a minute
    program.write_text('#!/bin/sh\ncase "$*" in */control*) exit 3 ;; esac\nexec sleep 60\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
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
