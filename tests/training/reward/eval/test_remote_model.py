# SPDX-License-Identifier: Apache-2.0
"""``lrm reward eval`` of a model on another machine: a reward server, an OpenAI-compatible one, and one that fails."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import pytest
from played_server import playing  # type: ignore[import-not-found]
from served import grey, serving  # type: ignore[import-not-found]

from lrm_ros.training.reward.data.shards import COLUMNS, ShardWriter
from lrm_ros.training.reward.eval.command import main


@pytest.fixture(scope="module")
def keyframes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An episode that grows brighter as it goes on, as the fake model takes for progress."""
    folder = tmp_path_factory.mktemp("keyframes")
    writer = ShardWriter(folder, 0)
    rows: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for k in range(11):
        _, jpeg = cv2.imencode(".jpg", grey(round(255 * k / 10), 32, 32))
        values = {
            "source": "twin", "episode_id": "e", "task": "t", "kind": "success", "success": True, "position": k,
            "frame": k, "fps": 10.0, "progress": k / 10, "by_state": True, "done": k >= 5, "split": "val",
            "height": 32, "width": 32, "jpeg": jpeg.tobytes(),
        }  # fmt: skip
        for name, value in values.items():
            rows[name].append(value)
    writer.write(rows)
    writer.finish({})
    return folder


def measured(keyframes: Path, out: Path, *more: str) -> dict[str, Any]:
    words = ["--data", str(keyframes), "--split", "all", "--out", str(out), "--rounds", "5", *more]
    assert main(words) == 0
    return json.loads((out / "metrics.json").read_text())


def test_a_reward_server_is_measured_and_has_no_untrained_twin(keyframes: Path, tmp_path: Path) -> None:
    with serving() as url:
        found = measured(keyframes, tmp_path, "--model", f"{url}?timeout=20")
    assert (found["model"], found["base"], found["mass"]) == (url, "none", {"in_domain": {}})
    assert set(found["baselines"]["in_domain"]) == {"constant", "time_index"}
    assert found["in_domain"]["progress"]["mae"] < 0.01 and found["in_domain"]["contrastive"]["accuracy"] == 1.0
    assert "time index" in (tmp_path / "report.html").read_text()


def test_an_openai_server_is_measured_with_the_mass_of_its_answers(
    keyframes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def replies(path: str, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        begun = body["messages"][-1]["content"]
        found = {"5": 1.0} if begun.endswith("0.") else {"0": 0.25, "yes": 0.25, "A": 0.25}
        top = [{"token": token, "logprob": math.log(p)} for token, p in found.items()]
        return 200, {"choices": [{"message": {}, "logprobs": {"content": [{"top_logprobs": top}]}}]}, {}

    with playing(replies) as url:
        found = measured(keyframes, tmp_path, "--model", f"openai:lrm-{{head}}@{url}/v1")
    assert found["in_domain"]["progress"]["mae"] == pytest.approx(sum(abs(k / 10 - 0.5) for k in range(11)) / 11)
    mass = found["mass"]["in_domain"]
    assert {head: part["median"] for head, part in mass.items()} == pytest.approx(dict.fromkeys(mass, 0.25))
    assert len(mass) == 3 and "would say something else" not in capsys.readouterr().out


def test_a_query_without_an_answer_ends_it_with_the_reason(
    keyframes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        playing(lambda path, body: (404, {"error": {"message": "no model m"}}, {})) as url,
        pytest.raises(SystemExit) as ended,
    ):
        measured(keyframes, tmp_path, "--model", f"openai:m@{url}")
    assert ended.value.code == 1
    assert "lrm reward eval: head 'progress' gave no answer: openai:m@" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        measured(keyframes, tmp_path, "--model", "http://127.0.0.1:1")
    assert ended.value.code == 1 and "no reward server answers at" in capsys.readouterr().err
