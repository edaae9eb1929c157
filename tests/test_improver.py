# SPDX-License-Identifier: Apache-2.0
"""What the improver does when a training fails."""

import sys
import time

import pytest

from lrm_ros.nodes.improver import ImproverNode
from lrm_ros.ros.episodes import EpisodeError


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
