# SPDX-License-Identifier: Apache-2.0
"""The command ``lrm reward train``: from keyframes to adapters that the reward model loads."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from lrm_ros.reward.load import load_model
from lrm_ros.training.reward.data.shards import COLUMNS, ShardWriter
from lrm_ros.training.reward.train.command import main
from lrm_ros.types import HEADS, Frame, Reward, RewardQuery

SMALL = ("max_steps=2", "batch_size=2", "gradient_accumulation=1", "eval_examples=2", "workers=0", "train_vision=[]")
TASKS = ("put the red toy pig in the bowl", "push the blue cube to the left")


def scene(way: float) -> np.ndarray:
    y, x = np.mgrid[:96, :96]
    image = np.full((96, 96, 3), 120, np.uint8)
    image[np.hypot(x - (15 + 60 * way), y - 50) < 9] = (220, 40, 40)
    return image


@pytest.fixture(scope="module")
def keyframes(tmp_path_factory) -> Path:
    """Eight demonstrations of two tasks; two of them for validation."""
    folder = tmp_path_factory.mktemp("keyframes")
    writer = ShardWriter(folder, 0)
    for episode in range(8):
        rows: dict[str, list] = {name: [] for name in COLUMNS}
        for k in range(11):
            _, jpeg = cv2.imencode(".jpg", scene(k / 10)[..., ::-1])
            values = {
                "source": "twin", "episode_id": str(episode), "task": TASKS[episode % 2], "kind": "demonstration",
                "success": True, "position": k, "frame": 3 * k, "fps": 10.0, "progress": k / 10, "by_state": False,
                "done": {8: None, 9: None, 10: True}.get(k, False), "split": "val" if episode > 5 else "train",
                "height": 96, "width": 96, "jpeg": jpeg.tobytes(),
            }  # fmt: skip
            for name, value in values.items():
                rows[name].append(value)
        writer.write(rows)
    writer.finish({})
    return folder


def options(keyframes: Path, out: Path, *more: str) -> list[str]:
    settings = [word for pair in SMALL for word in ("--set", pair)]
    return ["--model", "tiny", "--data", str(keyframes), "--out", str(out), "--device", "cpu", *settings, *more]


def test_three_heads_are_trained_from_keyframes_on_the_tiny_model_and_load(keyframes, tmp_path):
    pytest.importorskip("trl")
    assert main(options(keyframes, tmp_path / "lrm", "--json", str(tmp_path / "figures.json"))) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert list(figures) == list(HEADS)
    assert all(found["steps"] == 2 and found["evaluation"]["eval_loss"] > 0 for found in figures.values())
    model = load_model(str(tmp_path / "lrm"), "cpu")
    shown = [Frame(i, "front", scene(i / 2)) for i in range(3)]
    asked = [RewardQuery(TASKS[0], head, tuple(shown[:2]) if head == "contrastive" else (shown[2],)) for head in HEADS]
    assert all(isinstance(answer, Reward) for answer in model.score(asked))


def test_a_teacher_writes_the_reasoning_first_and_is_not_asked_again_for_the_training(keyframes, tmp_path):
    pytest.importorskip("trl")
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"choices": [{"message": {"content": "The disc is there."}}]}).encode())

        def log_message(self, *args) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    words = options(keyframes, tmp_path / "lrm", "--head", "progress", "--reasoning", "teacher")
    words += ["--set", "reasoning_share=0.2", "--teacher-url", f"http://127.0.0.1:{server.server_address[1]}/v1"]
    words += ["--teacher-model", "large-vlm"]
    assert main([*words, "--reasoning-only"]) == 0
    assert not (tmp_path / "lrm" / "progress").exists()
    texts = list((tmp_path / "lrm" / "teacher").rglob("*.json"))
    assert 0 < len(texts) <= len(asked) < 60
    before = len(asked)
    assert main(words) == 0
    assert len(asked) == before
    server.shutdown()
    thread.join()
    server.server_close()
    assert (tmp_path / "lrm" / "progress" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--set", "lora_rank=4"), "unknown key 'lora_rank'; did you mean 'lora_r'"),
        (("--set", "max_steps=012"), "max_steps=012: 012 is the number 10 to YAML (base 8); write 10 or 12"),
        (("--set", "max_steps=[1"), "max_steps=[1: while parsing"),
        (("--set", "epochs"), "--set takes NAME=VALUE, got 'epochs'"),
        (("--reasoning", "teacher"), "'teacher' needs --teacher-url and --teacher-model"),
        (("--data", "./none"), "'none' holds no keyframes"),
        (("--model", "some/model"), "hf download some/model"),
    ],
)
def test_what_is_wrong_is_said_with_its_cure(keyframes, tmp_path, capsys, more, message):
    pytest.importorskip("trl")
    with pytest.raises(SystemExit) as stop:
        main(options(keyframes, tmp_path, "--head", "progress", *more))
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and error.startswith("lrm reward train: ")


def test_without_trl_it_says_what_to_install(keyframes, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main(options(keyframes, tmp_path))
    assert "package 'trl' is not installed; run: pip install 'lrm_ros[train]'" in capsys.readouterr().err


def test_keyframes_without_a_validation_split_are_refused_with_the_cure(keyframes, tmp_path, capsys):
    pytest.importorskip("trl")
    import pyarrow.parquet as pq

    table = pq.read_table(keyframes / "shard-00000.parquet")
    pq.write_table(table.slice(0, 66), tmp_path / "shard-00000.parquet")  # six episodes, all for training
    with pytest.raises(SystemExit):
        main(options(tmp_path, tmp_path / "out", "--head", "completion"))
    error = capsys.readouterr().err
    assert "no validation examples for head 'completion'" in error and "--set eval_examples=0" in error


def test_without_a_model_the_tiny_one_is_trained_as_before(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert stop.value.code == 2 and "holds no shards (*.npz); make them" in capsys.readouterr().err


def test_help_tells_of_both_ways(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and "--head" in text and "--scale" in text
