# SPDX-License-Identifier: Apache-2.0
"""LoRA training of the reward heads with TRL on an untrained tiny Qwen3-VL."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from lrm_ros.config_files import load_yaml
from lrm_ros.reward.heads import HEADS
from lrm_ros.reward.qwen.model import QwenRewardModel
from lrm_ros.training.bench.flops import peak_tflops, step_flops
from lrm_ros.training.bench.train import main as bench
from lrm_ros.training.reward.train.config import LrmTrainConfig
from lrm_ros.training.reward.train.examples.reasoning import template
from lrm_ros.training.reward.train.qwen_sizes import full_size_processor, random_model
from lrm_ros.training.reward.train.rows import answer_of, dpo_row, prompt_of, query_of, rows, sft_row
from lrm_ros.training.reward.train.run import load_base, train_head
from lrm_ros.training.reward.train.tiny.model import build_model, build_processor
from lrm_ros.types import Reward

TOP = Path(__file__).resolve().parents[4]
TASK = "put the red toy pig in the bowl"
FAST = LrmTrainConfig(
    lora_r=8, lora_alpha=16, lora_dropout=0.0, train_vision=(), sft_learning_rate=5e-3, dpo_learning_rate=2e-3,
    warmup_ratio=0.0, schedule="constant", batch_size=2, gradient_accumulation=1, max_steps=16, reasoning="none",
    save_steps=100, eval_examples=0, workers=0,
)  # fmt: skip


@dataclass(frozen=True)
class Example:
    head: str
    task: str
    images: tuple[np.ndarray, ...]
    value: float
    kind: str = "demonstration"


def light(brightness: float, size: int = 96) -> np.ndarray:
    return np.full((size, size, 3), round(40 + 170 * brightness), np.uint8)


def examples_of(head: str) -> list[Example]:
    """The brighter the further: two examples whose answers differ."""
    if head == "contrastive":
        return [Example(head, TASK, (light(0.5 - v / 2), light(0.5 + v / 2)), v) for v in (-1.0, 1.0)]
    if head == "progress":
        return [Example(head, TASK, (light(0), light(v)), v) for v in (0.0, 1.0)]
    return [Example(head, TASK, (light(v),), v) for v in (0.0, 1.0)]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    """An untrained model whose answers depend on what it sees."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("base")
    processor = build_processor()
    model = build_model(processor)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def processor():
    return build_processor()


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


# ---- configuration ---------------------------------------------------------------------------------------------------


def test_the_file_of_hyper_parameters_holds_every_default_and_no_other_value():
    text = (TOP / "config/lrm_train.yaml").read_text()
    assert load_yaml(TOP / "config/lrm_train.yaml", LrmTrainConfig) == LrmTrainConfig()
    for field in dataclasses.fields(LrmTrainConfig):
        assert f"\n{field.name}:" in text, field.name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reasoning": "guess"}, "reasoning must be one of none, template, teacher, got 'guess'"),
        ({"train_vision": ("speed",)}, "unknown head 'speed'"),
        ({"lora_targets": ()}, "lora_targets is empty"),
        ({"lora_r": 0}, "lora_r must be above 0, got 0"),
        ({"dpo_beta": -1.0}, "dpo_beta must be above 0"),
        ({"reasoning_share": 1.5}, "reasoning_share must be between 0 and 1"),
        ({"max_steps": 0}, "max_steps must be -1"),
    ],
)
def test_a_hyper_parameter_out_of_range_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(LrmTrainConfig(), **change)


def test_the_multi_gpu_file_is_one_that_accelerate_reads():
    from accelerate.commands.config.config_args import load_config_from_file
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLForConditionalGeneration

    config = load_config_from_file(str(TOP / "config/lrm_fsdp.yaml"))
    assert config.distributed_type == "FSDP" and config.mixed_precision == "bf16"
    layers = config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"].split(",")
    assert layers == Qwen3VLForConditionalGeneration._no_split_modules


# ---- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
def test_a_prompt_is_what_the_reward_model_is_asked_and_the_answer_ends_the_turn(head, processor):
    example = examples_of(head)[1]
    messages = HEADS[head].messages(query_of(example))
    assert prompt_of(example, processor) == processor.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    answer = answer_of(example, 1.0, None, processor)
    messages.append({"role": "assistant", "content": HEADS[head].answer(1.0)})
    whole = processor.apply_chat_template(messages, tokenize=False)
    assert prompt_of(example, processor) + answer + "\n" == whole


def test_a_label_that_is_no_answer_of_the_head_is_refused(processor):
    with pytest.raises(ValueError, match=r"label 0.25 is none of head 'progress'"):
        sft_row(Example("progress", TASK, (light(0), light(1)), 0.25), None, processor)


def test_reasoning_comes_before_the_label_and_must_not_say_another_one(processor):
    example = examples_of("progress")[1]
    text = sft_row(example, template, processor)["completion"]
    assert text == 'The current observation shows the finished task.\n\n{ "completion_progress": 1.0 }<|im_end|>'
    with pytest.raises(ValueError, match=r"reads as 0\.2, not as 1\.0"):
        sft_row(example, lambda example, value: 'I say { "completion_progress": 0.2 }.', processor)


def test_reasoning_that_is_longer_than_the_head_may_generate_loses_its_last_sentences(processor):
    example = examples_of("progress")[1]
    text = sft_row(example, lambda example, value: "First. " + "And so on. " * 60, processor)["completion"]
    tokens = len(processor.tokenizer(text)["input_ids"])
    assert 100 < tokens <= HEADS["progress"].max_new_tokens
    assert text.startswith("First. And so on.") and 'on.\n\n{ "completion' in text


def test_both_answers_of_a_preference_end_with_the_label_and_reason_for_it(processor):
    first, second = (dpo_row(example, template, processor) for example in examples_of("contrastive"))
    assert first["chosen"] == second["rejected"]
    assert first["chosen"].startswith("The scene in Image A is closer")
    assert first["chosen"].endswith('{ "more_complete_image": "ImageA')
    with pytest.raises(ValueError, match="11 answers; a preference needs two"):
        dpo_row(examples_of("progress")[0], None, processor)


def test_half_of_the_rows_get_reasoning_and_always_the_same_half(processor):
    examples = examples_of("progress") * 50
    runs = [rows(examples, "progress", processor, template, 0.5, seed) for seed in (0, 0, 1)]
    reasoned = [["observation" in row["completion"] for row in data] for data in runs]
    assert 30 < sum(reasoned[0]) < 70 and reasoned[0] == reasoned[1] != reasoned[2]


def test_examples_of_another_head_and_no_examples_are_refused(processor):
    with pytest.raises(ValueError, match="no examples for head 'progress'"):
        rows([], "progress", processor, None)
    with pytest.raises(ValueError, match="for head 'completion', the training is for 'progress'"):
        rows(examples_of("completion"), "progress", processor, None)[0]


# ---- loss ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["progress", "completion"])
def test_only_the_assistants_tokens_count_in_the_loss(head, base, tmp_path):
    pytest.importorskip("trl")
    from lrm_ros.training.reward.train.sft import sft_trainer

    model, processor = load_base(base, "cpu")
    data = rows(examples_of(head), head, processor, template)
    trainer = sft_trainer(model, processor, data, None, head, FAST, tmp_path, "cpu")
    batch = next(iter(trainer.get_train_dataloader()))
    counted = batch["labels"] != -100
    said = {processor.tokenizer.decode(ids[row]) for ids, row in zip(batch["input_ids"], counted, strict=True)}
    assert said == {row["completion"] for row in data}
    assert (batch["input_ids"][counted] == batch["labels"][counted]).all()
    assert int((batch["input_ids"] == model.config.image_token_id).sum()) == 9 * len(batch["image_grid_thw"])


def test_the_first_preference_loss_is_the_logarithm_of_two_and_the_prompt_does_not_count(base, tmp_path):
    pytest.importorskip("trl")
    from lrm_ros.training.reward.train.dpo import dpo_trainer

    model, processor = load_base(base, "cpu")
    data = rows(examples_of("contrastive"), "contrastive", processor, None)
    config = dataclasses.replace(FAST, max_steps=1)
    trainer = dpo_trainer(model, processor, data, None, "contrastive", config, tmp_path, "cpu")
    batch = next(iter(trainer.get_train_dataloader()))
    counted = batch["completion_mask"] == 1
    said = {processor.tokenizer.decode(ids[row]) for ids, row in zip(batch["input_ids"], counted, strict=True)}
    assert said == {f'{{ "more_complete_image": "Image{name}' for name in "AB"}
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)


# ---- training --------------------------------------------------------------------------------------------------------


def test_three_trained_heads_load_together_and_have_learned_their_labels(base, tmp_path):
    pytest.importorskip("trl")
    for head, steps in {"contrastive": 20, "progress": 30, "completion": 16}.items():
        config = dataclasses.replace(FAST, max_steps=steps)
        figures = train_head(head, base, examples_of(head), tmp_path, config, device="cpu", data="brightness")
        assert figures["steps"] == steps and figures["loss_last"] < figures["loss_first"]
    queries = [query_of(example) for head in HEADS for example in examples_of(head)]
    truth = [example.value for head in HEADS for example in examples_of(head)]
    before, after = (QwenRewardModel(Path(folder), device="cpu").score(queries) for folder in (base, tmp_path))
    for value, old, new in zip(truth, before, after, strict=True):
        assert isinstance(old, Reward) and isinstance(new, Reward)
        assert abs(new.value - value) < 0.3, (new, value)
        assert abs(new.value - value) <= abs(old.value - value) + 0.02, (old, new, value)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(HEADS)
    for head in HEADS:
        assert {"adapter_config.json", "adapter_model.safetensors"} <= {p.name for p in (tmp_path / head).iterdir()}
        config = json.loads((tmp_path / head / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == base and (config["r"], config["lora_alpha"]) == (8, 16)
        assert "on 2 examples (brightness)" in (tmp_path / head / "README.md").read_text()


def test_the_vision_tower_is_trained_at_its_own_rate_and_saved_as_upstreams_progress_adapter_has_it(base, tmp_path):
    pytest.importorskip("trl")
    config = dataclasses.replace(FAST, train_vision=("progress",), vision_learning_rate=1e-5, max_steps=3)
    train_head("progress", base, examples_of("progress"), tmp_path, config, device="cpu")
    saved = json.loads((tmp_path / "progress" / "adapter_config.json").read_text())
    assert saved["modules_to_save"] == ["visual"]
    model, _ = load_base(base, "cpu")
    name = "model.visual.blocks.0.mlp.linear_fc1.weight"
    trained = weights_of(tmp_path / "progress")[f"base_model.model.{name}"]
    change = (trained - model.state_dict()[name]).abs().max()
    assert 1e-6 < change <= 3.5e-5  # AdamW moves a weight by at most about the rate a step
    answer = QwenRewardModel(tmp_path, device="cpu").score([query_of(examples_of("progress")[0])])[0]
    assert isinstance(answer, Reward)


class Killed(Exception):
    pass


def killer(at: int):
    """End a training in step ``at``, or when it is over and before its result is in place (0)."""
    from transformers import TrainerCallback

    class Killer(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == at:
                raise Killed

        def on_train_end(self, args, state, control, **kwargs):
            if not at:
                raise Killed

    return Killer()


def test_a_killed_training_goes_on_and_ends_with_the_same_weights(base, tmp_path):
    pytest.importorskip("trl")
    examples = [Example("completion", TASK, (light(i / 8),), float(i % 2)) for i in range(8)]
    config = dataclasses.replace(FAST, max_steps=6, save_steps=2, lora_dropout=0.2, schedule="cosine")
    once = train_head("completion", base, examples, tmp_path / "once", config, device="cpu")
    with pytest.raises(Killed):
        train_head("completion", base, examples, tmp_path / "twice", config, device="cpu", callbacks=[killer(5)])
    part = tmp_path / "twice" / "completion.part"
    half = part / "checkpoint-6"  # as a kill during its writing leaves it
    shutil.copytree(part / "checkpoint-4", half)
    (half / "trainer_state.json").write_text('{"epo')
    with pytest.raises(ValueError, match=r"belongs to another training \(lora_r 8 instead of 4\)"):
        train_head(
            "completion", base, examples, tmp_path / "twice", dataclasses.replace(config, lora_r=4), device="cpu"
        )
    config = dataclasses.replace(config, logging_steps=1)  # changes no weight
    twice = train_head("completion", base, examples, tmp_path / "twice", config, device="cpu")
    assert (once["resumed_at"], twice["resumed_at"]) == (0, 4)
    first, second = (weights_of(tmp_path / run / "completion") for run in ("once", "twice"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    again = train_head("completion", base, examples, tmp_path / "twice", config, device="cpu")
    assert again == twice  # a finished training is not repeated
    with pytest.raises(ValueError, match=r"belongs to another training \(seed 0 instead of 1\)"):
        train_head("completion", base, examples, tmp_path / "twice", dataclasses.replace(config, seed=1), device="cpu")


def test_a_training_that_was_killed_at_its_very_end_only_saves_its_result(base, tmp_path):
    pytest.importorskip("trl")
    examples, config = examples_of("completion"), dataclasses.replace(FAST, max_steps=2)
    with pytest.raises(Killed):
        train_head("completion", base, examples, tmp_path, config, device="cpu", callbacks=[killer(0)])
    (tmp_path / "completion.part" / "ready").mkdir()
    (tmp_path / "completion.part" / "ready" / "half").touch()
    figures = train_head("completion", base, examples, tmp_path, config, device="cpu")
    assert (figures["resumed_at"], figures["steps"]) == (2, 2) and figures["loss_last"] is not None
    assert not (tmp_path / "completion" / "half").exists() and not (tmp_path / "completion.part").exists()


def test_a_training_whose_loss_is_not_finite_stops_and_names_the_cure(base, tmp_path):
    pytest.importorskip("trl")
    config = dataclasses.replace(FAST, sft_learning_rate=1e30, max_steps=4)
    with pytest.raises(FloatingPointError, match=r"(loss|grad_norm) is (nan|inf) at step \d; lower the learning rate"):
        train_head("completion", base, examples_of("completion"), tmp_path, config, device="cpu")
    assert not (tmp_path / "completion").exists()


def test_validation_examples_are_measured_at_every_resume_point(base, tmp_path):
    pytest.importorskip("trl")
    config = dataclasses.replace(FAST, max_steps=2, save_steps=2, eval_examples=1)
    data = examples_of("contrastive")
    figures = train_head("contrastive", base, data, tmp_path, config, held_out=data, device="cpu")
    assert 0 < figures["evaluation"]["eval_loss"] < math.log(2) + 1


def test_tensorboard_logs_come_with_the_adapter(base, tmp_path):
    pytest.importorskip("trl")
    pytest.importorskip("tensorboard")
    config = dataclasses.replace(FAST, max_steps=1, tensorboard=True)
    train_head("completion", base, examples_of("completion"), tmp_path, config, device="cpu")
    assert list((tmp_path / "completion" / "logs").glob("events.out.tfevents.*"))


def test_a_training_that_learned_nothing_is_refused(base, tmp_path):
    pytest.importorskip("trl")
    config = dataclasses.replace(FAST, max_steps=1, warmup_ratio=1.0, schedule="linear")
    with pytest.raises(RuntimeError, match="every lora_B is zero: nothing was learned"):
        train_head("completion", base, examples_of("completion"), tmp_path, config, device="cpu")
    assert not (tmp_path / "completion").exists()


def test_what_cannot_be_trained_is_said_before_anything_is_loaded(base, tmp_path):
    data = examples_of("progress")
    with pytest.raises(ValueError, match="unknown head 'speed'"):
        train_head("speed", base, data, tmp_path, FAST)
    reasoned = dataclasses.replace(FAST, reasoning="template")
    with pytest.raises(ValueError, match="'progress' with reasoning 'template' needs a writer of the text"):
        train_head("progress", base, data, tmp_path, reasoned)
    (tmp_path / "progress").mkdir()
    with pytest.raises(ValueError, match="is no finished training"):
        train_head("progress", base, data, tmp_path, FAST, device="cpu")


# ---- speed -----------------------------------------------------------------------------------------------------------


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

    model, processor = load_base(base, "cpu")
    config = dataclasses.replace(FAST, train_vision=vision, gradient_checkpointing=False)
    make = dpo_trainer if head == "contrastive" else sft_trainer
    data = rows(examples_of(head), head, processor, None)
    trainer = make(model, processor, data, None, head, config, tmp_path, "cpu")
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.enable_input_require_grads()  # as with gradient checkpointing
    # On a CPU the head's products are computed at every token, not only at the answer's.
    every = {name: torch.ones_like(batch["input_ids"]) for name in ("labels", "completion_mask")}
    expected = step_flops(trainer.model, {**batch, **every}, head == "contrastive")
    with FlopCounterMode(display=False) as counter:
        trainer.compute_loss(trainer.model.train(), batch).backward()
    assert expected == pytest.approx(counter.get_total_flops(), rel=0.07)


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
    assert sft["tokens_per_s"] > 0 and sft["mfu"] is None and dpo["tflop_per_step"] > 2 * sft["tflop_per_step"] * 0.9
    with pytest.raises(SystemExit) as stop:
        bench(["--size", "8b", "--device", "cpu"])
    assert stop.value.code == 1 and "run it on a machine with a GPU" in capsys.readouterr().err
