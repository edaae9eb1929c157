# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the published sizes, on a size of two layers that goes the same way."""

import itertools
import json

import pytest
import torch

from lrm_ros.reward.heads import HEADS
from lrm_ros.reward.models import TINY_FOLDER
from lrm_ros.reward.qwen.model import QwenRewardModel
from lrm_ros.training.bench import full_size, parity
from lrm_ros.training.bench.flops import query_flops
from lrm_ros.training.bench.reward import main
from lrm_ros.training.reward.train import qwen_sizes
from lrm_ros.types import Frame, Reward

TASK = "put the red toy giraffe in the bowl"


@pytest.fixture(autouse=True)
def small(monkeypatch) -> None:
    """A size "test" like 8b, with two layers of 128 channels, and a tower of two with a DeepStack level."""
    vision, text = qwen_sizes.SIZES["8b"]
    vision = {**vision, "depth": 2, "hidden_size": 64, "intermediate_size": 96, "num_heads": 2}
    vision["deepstack_visual_indexes"] = [0]
    text = {**text, "hidden_size": 128, "num_hidden_layers": 2, "intermediate_size": 192, "num_attention_heads": 4}
    text |= {"num_key_value_heads": 2, "vocab_size": 2048}
    monkeypatch.setitem(qwen_sizes.SIZES, "test", (vision, text))


def test_the_bench_writes_every_figure_of_a_size(tmp_path, capsys):
    out = tmp_path / "bench.json"
    options = ["--size", "test", "--device", "cpu", "--batch", "1", "3", "--seconds", "0", "--generate-tokens", "4"]
    options += ["--height", "256", "--width", "288", "--parity", "6", "--peak-tflops", "0.1", "--json", str(out)]
    assert main(options) == 0
    figures = json.loads(out.read_text())
    assert figures["size"] == "test" and figures["visual_tokens"] == {
        "contrastive": 144,
        "progress": 72,
        "completion": 72,
    }
    rows = {(row["way"], row["head"], row["readout"], row["batch"]) for row in figures["rows"]}
    assert rows == {
        *(("batched", head, "forward", n) for head in HEADS for n in (1, 3)),
        ("batched", "all", "forward", 3),
        *(("serial", head, readout, 1) for head in HEADS for readout in ("forward", "generate 4")),
        *(("batched", "completion", "generate 128", n) for n in (1, 3)),
    }
    for row in figures["rows"]:
        assert 0 < row["ms_p50"] <= row["ms_p95"]
        assert row["queries_per_s"] == pytest.approx(1e3 * row["batch"] / row["ms_p50"])
        if row["readout"] == "forward":
            assert row["mfu"] == pytest.approx(row["tflop_per_query"] * row["queries_per_s"] / 0.1)
    for head, found in figures["against_serial"].items():
        forward, written = (_rate(figures, "serial", head, readout) for readout in ("forward", "generate 4"))
        best = max(_rate(figures, "batched", head, "forward", count) for count in (1, 3))
        assert (found["forward"], found["generate"]) == pytest.approx((best / forward, best / written))
    assert all(value > 0 for value in figures["stages_ms_per_image"].values())
    assert {name: found["queries"] for name, found in figures["parity"].items()} == dict.fromkeys(HEADS, 2)
    assert "tokens of a query (text + visual): contrastive " in capsys.readouterr().out


def test_adapters_in_several_types_are_measured_in_one_run_of_batches_alone(tmp_path, monkeypatch):
    def broken(*_args):
        raise RuntimeError("no profiler here")

    monkeypatch.setattr("lrm_ros.training.bench.size_course.kernels", broken)
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    out = tmp_path / "bench.json"
    options = ["--size", "test", "--device", "cpu", "--batch", "1", "2", "--seconds", "0", "--quick", "--experiments"]
    options += ["--height", "256", "--width", "256", "--parity", "6", "--adapters", "float32", "bfloat16"]
    assert main([*options, "--json", str(out)]) == 0
    figures = json.loads(out.read_text())
    assert [(row["adapters"], row["head"], row["batch"]) for row in figures["rows"]] == [
        *((adapters, head, n) for adapters in ("float32", "bfloat16") for n in (1, 2) for head in HEADS),
        ("bfloat16, compiled", "progress", 2),
    ]
    assert {(row["way"], row["readout"]) for row in figures["rows"]} == {("batched", "forward")}
    assert (
        figures["kernels_failed"] == "RuntimeError: no profiler here" and figures["stages_ms_per_image"]["patches"] > 0
    )
    assert all(found["max_difference"] < 0.02 for found in figures["one_head_against_serial"].values())
    gaps = {adapters: found["progress"]["max_difference"] for adapters, found in figures["agreement"].items()}
    assert gaps["float32"] == 0 < gaps["bfloat16"] < 0.1


def _rate(figures: dict, way: str, head: str, readout: str, batch: int = 1) -> float:
    asked = (way, head, readout, batch)
    (row,) = (r for r in figures["rows"] if (r["way"], r["head"], r["readout"], r["batch"]) == asked)
    return row["queries_per_s"]


def test_a_size_is_refused_without_a_gpu_unless_it_is_asked_for(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA device here for size '8b'"):
        main(["--size", "8b"])


def test_a_built_model_has_three_adapters_that_change_its_answers():
    model = full_size.build("test", "cpu")
    names = dict(model.model.named_parameters())
    assert {value.dtype for name, value in names.items() if ".lora_" in name} == {torch.float32}
    assert {value.dtype for name, value in names.items() if ".lora_" not in name} == {torch.bfloat16}
    assert any(".visual.modules_to_save.progress." in name for name in names)
    query = full_size.prompts_of(model.processor, 256, 256, TASK).query("completion", *_frames())
    (with_adapter,) = model.score([query])
    with torch.no_grad():
        for name, value in names.items():
            if ".lora_B.completion." in name:
                value.zero_()
    (without,) = model.score([query])
    assert isinstance(with_adapter, Reward) and isinstance(without, Reward) and with_adapter.value != without.value


def _frames() -> tuple[Frame, Frame]:
    before, after = (Frame(seed, "front", parity.blocks(seed, 256, 256)) for seed in range(2))
    return before, after


def test_prompts_are_as_long_as_their_words():
    processor = qwen_sizes.full_size_processor()
    prompts = full_size.prompts_of(processor, 480, 640, TASK)
    assert prompts.grid == (1, 30, 40)
    assert prompts.visual == {"contrastive": 600, "progress": 300, "completion": 300}
    # Pieces of Qwen's pre-tokenisation in text, marks and the answer's start.
    assert prompts.text == {"contrastive": 123, "progress": 196, "completion": 74}


@pytest.mark.parametrize("head", HEADS)
def test_counted_operations_of_a_query_are_those_that_run(head):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    model = full_size.build("test", "cpu")
    prompts = full_size.prompts_of(model.processor, 256, 256, TASK)
    model.score([prompts.query(head, *_frames())])  # the constant part of the prompt
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.score([prompts.query(head, *_frames())])
    length = prompts.text[head] + prompts.visual[head]
    grids = [prompts.grid] * (2 if head == "contrastive" else 1)
    # The half of causal attention that is not needed: 4 heads, the first of 2 layers.
    unseen = 2 * (length - prompts.constant[head]) ** 2 * 4 * 128
    counted = query_flops(model.model, head, length, grids, prompts.constant[head]) + unseen
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_parity_is_told_by_head_and_a_query_without_an_answer_is_an_error():
    model = QwenRewardModel(TINY_FOLDER, device="cpu")
    queries = parity.queries_of(dict.fromkeys(HEADS, TASK), 9, 96, 96)
    assert [query.head for query in queries] == list(itertools.islice(itertools.cycle(HEADS), 9))
    found = parity.compare(model, queries, QwenRewardModel(TINY_FOLDER, device="cpu"))
    for head in HEADS:
        assert found[head]["batched_against_serial"]["max_difference"] < 2e-5
        assert found[head]["batched_against_serial"]["same_answer"] == 1.0
        assert found[head]["batched_against_float32"]["max_difference"] == 0.0
    other = QwenRewardModel(TINY_FOLDER, device="cpu")
    other.qwen.lm_head.weight.data[:, ::2] *= -1
    assert parity.compare(model, queries, other)["progress"]["batched_against_float32"]["max_difference"] > 1e-3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["tiny", "test"])
def test_on_a_gpu_batches_answer_as_single_calls_do(name):
    model = QwenRewardModel(TINY_FOLDER, device="cuda") if name == "tiny" else full_size.build("test", "cuda")
    queries = parity.queries_of(dict.fromkeys(HEADS, TASK), 48, 256, 256)
    for found in parity.compare(model, queries).values():
        assert found["batched_against_serial"]["max_difference"] < 0.1
        assert found["batched_against_serial"]["mean_difference"] < 0.01
    written = model.score(queries[:3], "generate")
    assert [answer.head for answer in written] == list(HEADS)
