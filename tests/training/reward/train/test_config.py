# SPDX-License-Identifier: Apache-2.0
"""The hyper-parameters of the reward model's training: the files hold the defaults, wrong values are named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from lrm_ros.config_files import load_yaml
from lrm_ros.training.reward.train.config import LrmTrainConfig

TOP = Path(__file__).resolve().parents[4]


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
