# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from lrm_ros.reward.bench import main, plain_call, queries_for
from lrm_ros.reward.models import TINY_FOLDER
from lrm_ros.reward.qwen import QwenRewardModel
from lrm_ros.types import Reward


def test_the_bench_writes_every_figure(tmp_path):
    out = tmp_path / "bench.json"
    assert main(["--batch", "3", "--seconds", "0", "--no-generate", "--device", "cpu", "--json", str(out)]) == 0
    figures = json.loads(out.read_text())
    assert (figures["device"], figures["model"]) == ("cpu", "tiny")
    rows = {(row["head"], row["readout"], row["batch"]) for row in figures["rows"]}
    heads = ("contrastive", "progress", "completion")
    assert rows == {(head, "forward", n) for head in heads for n in (1, 3)} | {("all", "forward", 3)}
    assert all(row["ms_per_frame"] > 0 for row in figures["rows"])
    assert figures["serial_frames_per_s"] > 0 and figures["batched_frames_per_s"] > 0


def test_serial_and_batched_measure_the_same_answers(frame):
    model = QwenRewardModel(TINY_FOLDER, device="cpu")
    for asked in queries_for([frame, frame]).values():
        (answer,) = model.score(asked)
        assert isinstance(answer, Reward)
        assert answer.value == pytest.approx(plain_call(model, asked[0]), abs=2e-5)
