# SPDX-License-Identifier: Apache-2.0
"""The evaluator's record of the simulator's truth: of the episode's last step, however late it comes."""

import json
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from lrm_ros import messages
from lrm_ros.config import EvaluatorConfig
from lrm_ros.nodes.evaluator import EvaluatorNode
from lrm_ros.ros.control import EpisodeError


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


class Desk:
    """The other nodes, which do what they are told."""

    def wait_ready(self, names) -> None:
        pass

    def get(self, node: str, name: str) -> int:
        return 16

    def set(self, node: str, values: dict) -> None:
        pass

    def trigger(self, name: str) -> str:
        return ""

    def stop(self) -> None:
        pass


def test_an_evaluation_whose_record_was_cut_by_a_kill_goes_on_and_ends_the_same(node, tmp_path, monkeypatch):
    node._control, played = Desk(), []

    def play(seed, config):
        if seed == 12 and len(played) == 2:
            raise EpisodeError("killed here")
        played.append(seed)
        return {"seed": seed, "success": seed % 2 == 0, "steps": seed, "seconds": 1.0}

    monkeypatch.setattr(node, "_episode", play)
    monkeypatch.setattr(node, "_publish", lambda *_, **__: None)  # the node is not configured
    path = tmp_path / "eval" / "final.json"
    config = EvaluatorConfig(checkpoint="policy", file=str(path), first_seed=10, episodes=4)
    with pytest.raises(EpisodeError):
        node._evaluate(config)
    part = path.with_name("final.json.part")
    whole = part.read_bytes()
    assert whole.count(b"\n") == 2 and not path.exists()
    part.write_bytes(whole[:-9])
    node._evaluate(config)
    assert played == [10, 11, 11, 12, 13], "only the seed whose line was cut is played again"
    result = json.loads(path.read_text())
    assert result["seeds"] == [10, 11, 12, 13] and result["success"] == [1, 0, 1, 0]
    assert [one.name for one in path.parent.iterdir()] == ["final.json"]


def test_a_damaged_line_of_an_evaluations_record_is_named(node, tmp_path):
    node._control = Desk()
    (tmp_path / "final.json.part").write_text('{"seed": 1{"seed": 2}\n{"seed": 3}\n')
    config = EvaluatorConfig(checkpoint="policy", file=str(tmp_path / "final.json"), episodes=1)
    with pytest.raises(ValueError, match=r"final\.json\.part' line 1 is no valid JSON object; delete that line"):
        node._evaluate(config)


def test_the_truth_after_a_cut_line_is_not_joined_with_it(node, tmp_path):
    (tmp_path / "truth.jsonl").write_text('{"episode_id": "a", "se')
    node._on_truth(truth(7, 34, True))
    node._on_episode(ended(tmp_path, "b", 34))
    assert rows(tmp_path) == [{"episode_id": "b", "seed": 7, "success": True, "steps": 34}]
