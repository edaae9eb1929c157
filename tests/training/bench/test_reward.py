# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
from torch.nn import Linear

from lrm_ros.image_files import encode
from lrm_ros.reward.heads import HEADS
from lrm_ros.reward.models import TINY_FOLDER
from lrm_ros.reward.qwen.model import QwenRewardModel
from lrm_ros.training.bench.parity import pictures
from lrm_ros.training.bench.reward import bare_forward, main, pairs_of, query_about, reference_call
from lrm_ros.types import Reward


def test_the_bench_writes_every_figure(tmp_path):
    out = tmp_path / "bench.json"
    assert main(["--batch", "3", "--seconds", "0", "--no-generate", "--device", "cpu", "--json", str(out)]) == 0
    figures = json.loads(out.read_text())
    assert (figures["device"], figures["model"]) == ("cpu", "tiny")
    rows = {(row["head"], row["readout"], row["batch"]) for row in figures["rows"]}
    singles = {(head, "forward", n) for head in HEADS for n in (1, 3)}
    assert rows == singles | {("contrastive first pair", "forward", 1), ("all", "forward", 3)}
    assert all(row["ms_per_frame"] > 0 for row in figures["rows"])
    assert figures["serial_frames_per_s"] > 0 and figures["batched_frames_per_s"] > 0
    assert len(figures["overhead"]) == 2 and min(figures["overhead"]) > -1
    assert figures["times_as_fast_in_cpu_time"] > 0 and "upstream_frames_per_s" not in figures


def test_the_bare_forward_is_all_the_arithmetic_of_a_call_and_no_more(frame, monkeypatch):
    model = QwenRewardModel(TINY_FOLDER, device="cpu")
    pairs = pairs_of([frame.image, frame.image[::-1].copy()])
    run: list[str] = []
    for name, module in model.qwen.named_modules():
        if isinstance(module, Linear):
            module.register_forward_hook(lambda *_, name=name: run.append(name))

    def ask() -> None:
        model.score([query_about(head, *next(pairs)) for head in HEADS])

    ask()  # constant parts of prompts are kept from here on
    run.clear()
    again = bare_forward(model, ask)
    asked = sorted(run)
    run.clear()
    monkeypatch.setattr("lrm_ros.reward.qwen.model.patches_by_grid", None)
    again()
    again()
    assert "lm_head" in asked and any("visual" in name for name in asked)
    assert sorted(run) == sorted(asked * 2)


def test_serial_and_batched_measure_the_same_answers(frame):
    model = QwenRewardModel(TINY_FOLDER, device="cpu")
    pairs = pairs_of([frame.image, frame.image[::-1].copy()])
    for head in [*HEADS, "contrastive"]:  # once more, with a frame that the model has seen
        query = query_about(head, *next(pairs))
        (answer,) = model.score([query])
        assert isinstance(answer, Reward)
        assert answer.value == pytest.approx(reference_call(model, query), abs=2e-5)
    assert model.score([query_about("progress", *next(pairs))])[0].stamp_ns == 5, "every call brings a new frame"


def test_what_answers_lose_when_the_weights_are_held_otherwise_is_measured(tmp_path, frame, capsys):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(encode(np.roll(frame.image, 9 * number, 0), "png"))
    words = ["--loads", "bf16", "--parity", "6", "--images", str(tmp_path), "--json", str(tmp_path / "loss.json")]
    assert main([*words, "--device", "cpu"]) == 0
    found = json.loads((tmp_path / "loss.json").read_text())["loads"]["bf16"]
    assert {head: row["queries"] for head, row in found.items()} == dict.fromkeys(HEADS, 2)
    assert all(0 <= row["mean_difference"] <= row["max_difference"] < 0.1 for row in found.values())
    assert any(row["max_difference"] > 0 for row in found.values()), "bfloat16 is not float32"
    assert capsys.readouterr().out.count("same answer") == 3
    with pytest.raises(ValueError, match="has 1 pictures"):
        pictures(one_picture(tmp_path))


def one_picture(folder):
    for file in sorted(folder.glob("*.png"))[1:]:
        file.unlink()
    return folder
