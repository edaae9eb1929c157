# SPDX-License-Identifier: Apache-2.0
"""The evaluator's record of the simulator's truth: of the episode's last step, however late it comes."""

import json
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from lrm_ros import messages
from lrm_ros.nodes.evaluator import EvaluatorNode


def truth(seed: int, steps: int, success: bool = False) -> DiagnosticStatus:
    values = {"success": str(success).lower(), "progress": "0.0", "seed": seed, "steps": steps}
    return messages.status(DiagnosticStatus.OK, "truth", "put the toy in the bowl", values)


def ended(run: Path, name: str, sent: int) -> DiagnosticStatus:
    values = {"path": run / "episodes" / f"{name}.mcap", "joint_command_sent": sent}
    return messages.status(DiagnosticStatus.OK, name, "ended", values)


def rows(run: Path) -> list[dict]:
    path = run / "truth.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def node(spin):
    return spin.add(EvaluatorNode())


def test_the_truth_of_the_last_step_is_written_at_once_or_when_it_comes(node, tmp_path):
    node._on_truth(truth(7, 0))
    node._on_truth(truth(7, 34, True))
    node._on_episode(ended(tmp_path, "a", 34))
    assert rows(tmp_path) == [{"episode_id": "a", "seed": 7, "success": True, "steps": 34}]
    node._on_truth(truth(8, 0))
    node._on_episode(ended(tmp_path, "b", 34))
    node._on_truth(truth(8, 16))
    assert len(rows(tmp_path)) == 1, "step 16 is not the end of an episode of 34 steps"
    node._on_truth(truth(8, 34, True))
    assert rows(tmp_path)[1:] == [{"episode_id": "b", "seed": 8, "success": True, "steps": 34}]


def test_an_episode_whose_truth_never_came_is_left_out_and_named(node, tmp_path, capfd):
    node._on_truth(truth(7, 0))
    node._on_episode(ended(tmp_path, "lost", 34))
    node._on_truth(truth(7, 16))
    node._on_truth(truth(8, 0))
    node._on_truth(truth(8, 40, True))
    assert rows(tmp_path) == []
    assert "the simulator said nothing of the end of lost" in capfd.readouterr().err
