# SPDX-License-Identifier: Apache-2.0
"""``lrm evaluate``: as many actions of a chunk as asked for, told in the result, and only like compared with like."""

import json
from pathlib import Path
from typing import Any

import pytest

from lrm_ros.training.policy.evaluate import main


@pytest.fixture
def asked(monkeypatch) -> list[int]:
    """How many actions of a chunk were asked for; nothing is simulated."""
    found: list[int] = []

    def evaluate(checkpoint: str, seeds: list[int], worlds: int, max_steps: int, execute_steps: int, **_: Any) -> Any:
        found.append(execute_steps)
        return dict.fromkeys(seeds, True)

    monkeypatch.setattr("lrm_ros.training.ppo.play.evaluate_in_worlds", evaluate)
    return found


def command(file: Path, *more: str) -> list[str]:
    return ["policy", "--worlds", "2", "--episodes", "4", "--json", str(file), *more]


def test_a_policy_is_measured_with_as_many_steps_a_look_as_asked_and_the_result_tells(asked, tmp_path, capsys):
    short, long = tmp_path / "short.json", tmp_path / "long.json"
    assert main(command(long)) == 0
    assert main(command(short, "--execute-steps", "4")) == 0
    assert asked == [8, 4]
    assert [json.loads(file.read_text())["execute_steps"] for file in (long, short)] == [8, 4]
    before = json.loads(long.read_text())
    del before["execute_steps"]  # written before results told it
    long.write_text(json.dumps(before))
    assert main(command(tmp_path / "again.json", "--against", str(long))) == 0
    capsys.readouterr()
    assert main(command(short, "--execute-steps", "4", "--against", str(long))) == 2
    assert "execute_steps is 8 there and 4 here; compare like evaluations" in capsys.readouterr().err


def test_through_the_nodes_the_policy_executes_as_many_and_the_result_tells(small_policy, tmp_path):
    file = tmp_path / "nodes.json"
    words = [str(small_policy), "--episodes", "1", "--max-steps", "6", "--execute-steps", "3", "--json", str(file)]
    assert main(words) == 0
    found = json.loads(file.read_text())
    assert found["execute_steps"] == 3 and found["steps"] == [6]
