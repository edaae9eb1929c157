# SPDX-License-Identifier: Apache-2.0
"""LoRA training of the reward heads with TRL on an untrained tiny Qwen3-VL: its loss, what is learned, resuming."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from brightness import FAST, TASK, Example, examples_of, light, write_untrained  # type: ignore[import-not-found]

from lrm_ros.reward.heads import HEADS
from lrm_ros.reward.qwen.model import QwenRewardModel
from lrm_ros.training.reward.train.examples.reasoning import template
from lrm_ros.training.reward.train.rows import make_dataset, query_of
from lrm_ros.training.reward.train.run import load_base_model, train_head
from lrm_ros.types import Reward


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    return write_untrained(tmp_path_factory.mktemp("base"))


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


# ---- loss ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["progress", "completion"])
def test_only_the_assistants_tokens_count_in_the_loss(head, base, tmp_path):
    pytest.importorskip("trl")
    from lrm_ros.training.reward.train.sft import sft_trainer

    model, processor = load_base_model(base, "cpu")
    data = make_dataset(examples_of(head), head, processor, template)
    trainer = sft_trainer(model, processor, data, None, head, FAST, tmp_path, "cpu")
    batch = next(iter(trainer.get_train_dataloader()))
    counted = batch["labels"] != -100
    said = {processor.tokenizer.decode(ids[row]) for ids, row in zip(batch["input_ids"], counted, strict=True)}
    assert said == {row["completion"] for row in data}
    assert (batch["input_ids"][counted] == batch["labels"][counted]).all()
    assert int((batch["input_ids"] == model.config.image_token_id).sum()) == 36 * len(batch["image_grid_thw"])


def test_the_first_preference_loss_is_the_logarithm_of_two_and_the_prompt_does_not_count(base, tmp_path):
    pytest.importorskip("trl")
    from lrm_ros.training.reward.train.dpo import dpo_trainer

    model, processor = load_base_model(base, "cpu")
    data = make_dataset(examples_of("contrastive"), "contrastive", processor, None)
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
    model, _ = load_base_model(base, "cpu")
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


def test_validation_examples_are_measured_at_every_checkpoint(base, tmp_path):
    pytest.importorskip("trl")
    config = dataclasses.replace(FAST, max_steps=2, save_steps=2, eval_examples=1)
    data = examples_of("contrastive")
    figures = train_head("contrastive", base, data, tmp_path, config, eval_examples=data, device="cpu")
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
    with pytest.raises(ValueError, match="'progress' with reasoning 'template' needs a source of the text"):
        train_head("progress", base, data, tmp_path, reasoned)
    (tmp_path / "progress").mkdir()
    with pytest.raises(ValueError, match="is no finished training"):
        train_head("progress", base, data, tmp_path, FAST, device="cpu")
