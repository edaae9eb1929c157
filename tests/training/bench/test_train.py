# SPDX-License-Identifier: Apache-2.0
"""The speed of the reward model's training: parameters, counted operations, peak rates, the benchmark itself."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from brightness import FAST, examples_of, write_untrained  # type: ignore[import-not-found]

from lrm_ros.training.bench.flops import peak_tflops, step_flops
from lrm_ros.training.bench.train import main as bench
from lrm_ros.training.reward.train.qwen_sizes import full_size_processor, random_model
from lrm_ros.training.reward.train.rows import make_dataset
from lrm_ros.training.reward.train.run import load_base_model


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    return write_untrained(tmp_path_factory.mktemp("base"))


def test_the_published_sizes_have_the_published_numbers_of_parameters():
    processor = full_size_processor()
    billions = {}
    for size in ("2b", "4b", "8b"):
        model = random_model(size, processor, "meta")
        billions[size] = sum(p.numel() for p in model.parameters()) / 1e9
    assert billions == pytest.approx({"2b": 2.13, "4b": 4.44, "8b": 8.77}, abs=0.01)


@pytest.mark.parametrize(("head", "vision"), [("progress", ()), ("progress", ("progress",)), ("contrastive", ())])
def test_counted_operations_are_those_that_run(head, vision, base, tmp_path):
    pytest.importorskip("trl")
    from torch.utils.flop_counter import FlopCounterMode

    from lrm_ros.training.reward.train.dpo import dpo_trainer
    from lrm_ros.training.reward.train.sft import sft_trainer

    model, processor = load_base_model(base, "cpu")
    config = dataclasses.replace(FAST, train_vision=vision, gradient_checkpointing=False)
    make = dpo_trainer if head == "contrastive" else sft_trainer
    data = make_dataset(examples_of(head), head, processor, None)
    trainer = make(model, processor, data, None, head, config, tmp_path, "cpu")
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.enable_input_require_grads()  # as with gradient checkpointing
    # On a CPU the head's products are computed at every token, not only at the answer's.
    every = {name: torch.ones_like(batch["input_ids"]) for name in ("labels", "completion_mask")}
    expected = step_flops(trainer.model, {**batch, **every}, head == "contrastive")
    with FlopCounterMode(display=False) as counter:
        trainer.compute_loss(trainer.model.train(), batch).backward()
    # Of the first layer of a tower that is trained no gradient of its input is computed: much of so small a model.
    assert expected == pytest.approx(counter.get_total_flops(), rel=0.08)


def test_peak_rates_are_found_by_the_devices_name():
    assert peak_tflops("NVIDIA H100 80GB HBM3") == 989.0 and peak_tflops("NVIDIA H100 PCIe") == 756.0
    assert peak_tflops("Some other GPU") is None


def test_the_benchmark_runs_tiny_on_a_cpu_and_refuses_the_full_size_there(tmp_path, capsys):
    pytest.importorskip("trl")
    file = tmp_path / "bench.json"
    arguments = ["--size", "tiny", "--device", "cpu", "--steps", "2", "--batch-size", "1", "--json", str(file)]
    assert bench([*arguments, "--height", "96", "--width", "96", "--prompt-tokens", "60"]) == 0
    sft, dpo = json.loads(file.read_text())["rows"]
    assert (sft["sequences"], dpo["sequences"]) == (1, 2) and sft["image_tokens"] == 18
    assert sft["samples_per_s"] == pytest.approx(1 / sft["seconds_per_step"])
    assert sft["tokens_per_s"] > 0 and sft["mfu"] is None and dpo["tflop_per_step"] > 2 * sft["tflop_per_step"] * 0.9
    with pytest.raises(SystemExit) as stop:
        bench(["--size", "8b", "--device", "cpu"])
    assert stop.value.code == 1 and "run it on a machine with a GPU" in capsys.readouterr().err
