# SPDX-License-Identifier: Apache-2.0
"""Folders of models and adapters to damage, and the line that refuses them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lrm_ros.reward.load import load_model
from lrm_ros.reward.models import TINY_FOLDER
from lrm_ros.types import Frame

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 17000000\n"
WEIGHTS = "model.safetensors"
ADAPTER = "adapter_model.safetensors"
FRAME = Frame(0, "front", np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8))


def refusal(folder: Path, message: str, mode: str = "completion") -> str:
    """Return the one line that refuses a folder."""
    with pytest.raises((ValueError, FileNotFoundError), match=message) as refused:
        load_model(str(folder), "cpu", mode)
    line = str(refused.value)
    assert "\n" not in line and str(folder) in line
    return line


def edit(file: Path, drop=(), **values) -> None:
    settings = json.loads(file.read_text()) | values
    file.write_text(json.dumps({key: value for key, value in settings.items() if key not in drop}))


def rewrite(file: Path, change) -> None:
    """Change the tensors of a file; ``change`` takes and returns names and tensors."""
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def without(part: str):
    return lambda tensors: {name: value for name, value in tensors.items() if part not in name}


def write(folder: Path, seed: int = 0, **options) -> Path:
    """A LoRA adapter on the tiny model with made-up weights."""
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen3VLForConditionalGeneration

    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration.from_pretrained(TINY_FOLDER, dtype=torch.float32)
    options = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "qkv"], **options}
    peft = get_peft_model(model, LoraConfig(**options))
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_B" in name or "magnitude" in name:
                parameter.normal_(std=0.2)
            elif "modules_to_save" in name:
                parameter.mul_(1.1)
    peft.save_pretrained(folder)
    edit(folder / "adapter_config.json", base_model_name_or_path="tiny")
    return folder
