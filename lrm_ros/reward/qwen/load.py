# SPDX-License-Identifier: Apache-2.0
"""Load a Qwen3-VL from a folder: whole, or as LoRA adapters (one a head) on a base model.

Three layouts are understood::

    FOLDER/config.json, *.safetensors, tokenizer and processor files      a whole model, used for every head
    FOLDER/{contrastive,progress,completion}/adapter_config.json, ...     one adapter a head (USC-PSI-Lab/LRM-models)
    FOLDER/adapter_config.json, adapter_model.safetensors                 one adapter for every head

The adapters' order and the zero check follow upstream (Large-Reward-Models:vlm_reward/vlm_reward_server.py,
load_vlm_multi_adapter): with a ``device_map`` PEFT leaves lora_B at zero without a word, so the base is loaded on the
CPU and moved afterwards; ``progress`` comes first because it saves the vision tower as a whole module.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lrm_ros.reward.heads import HEADS
from lrm_ros.reward.models import find_model, not_an_lrm
from lrm_ros.reward.qwen.folder import has_processor, has_robometer_heads, load_processor, qwen_config

_ORDER = ("progress", "contrastive", "completion")
SHARED = "shared"


def find_adapters(folder: Path) -> dict[str, Path]:
    """Return the adapter folder of each head, empty for a whole model."""
    if (folder / "adapter_config.json").is_file():
        return dict.fromkeys(HEADS, folder)
    return {head: folder / head for head in _ORDER if (folder / head / "adapter_config.json").is_file()}


def load_qwen(folder: Path, device: str) -> tuple[Any, Any, dict[str, str]]:
    """Load model and processor for inference.

    Args:
        folder: one of the layouts above.
        device: torch device. On a CPU weights are float32 (bfloat16 is slower there), elsewhere bfloat16.

    Returns:
        The model (a PeftModel if there are adapters), its processor, and the adapter name of each head (empty for a
        whole model).

    Raises:
        FileNotFoundError: files are missing.
        ValueError: not a Qwen3-VL, or the weights of a Robometer.
        RuntimeError: an adapter whose weights were not applied.
    """
    import torch

    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    adapters = find_adapters(folder)
    if not adapters:
        model, processor_folder = _load_whole(folder, dtype), folder
        names: dict[str, str] = {}
    else:
        base_folder = _base_folder(next(iter(adapters.values())))
        model, names = _attach(_load_whole(base_folder, dtype), adapters)
        own = next(iter(adapters.values()))
        processor_folder = own if has_processor(own) else base_folder
    try:
        processor = load_processor(processor_folder)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"'{processor_folder}' has no usable processor ({error}); copy tokenizer*.json, *processor_config.json "
            "and chat_template.* from the model's download into it"
        ) from error
    return model.to(device).eval(), processor, names


def _load_whole(folder: Path, dtype: Any) -> Any:
    from transformers import Qwen3VLForConditionalGeneration

    config_file = folder / "config.json"
    if not config_file.is_file():
        raise FileNotFoundError(
            f"'{folder}' is no model folder: neither config.json nor {{{','.join(_ORDER)}}}/adapter_config.json in it; "
            "download one with 'hf download Qwen/Qwen3-VL-8B-Instruct --local-dir FOLDER' on a machine with network"
        )
    kind = json.loads(config_file.read_text()).get("model_type")
    if kind != "qwen3_vl":
        raise ValueError(f"'{config_file}' describes a '{kind}' model; the reward heads need a 'qwen3_vl'")
    if not any(folder.glob("*.safetensors")):
        raise FileNotFoundError(
            f"'{folder}' has a config.json but no *.safetensors weights; the download is incomplete: run "
            f"'hf download NAME --local-dir {folder}' again on a machine with network"
        )
    _refuse_robometer(folder)
    return Qwen3VLForConditionalGeneration.from_pretrained(folder, config=qwen_config(folder), dtype=dtype)


def _refuse_robometer(folder: Path) -> None:
    """Raise ValueError for weights of a Robometer; transformers would load them without its heads and only warn."""
    if has_robometer_heads(folder):
        raise not_an_lrm(str(folder), "the weights of a Robometer (progress_head.*)", "robometer")


def _base_folder(adapter: Path) -> Path:
    """Return the folder of the model an adapter was trained on."""
    base = json.loads((adapter / "adapter_config.json").read_text()).get("base_model_name_or_path") or ""
    try:
        return find_model(base)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"the adapter '{adapter}' was trained on '{base}', which is not here: {error}; or set "
            "'base_model_name_or_path' in its adapter_config.json to the base model's folder"
        ) from None


def _attach(base: Any, adapters: dict[str, Path]) -> tuple[Any, dict[str, str]]:
    """Attach every adapter to the base model and check that each has an effect."""
    from peft import PeftConfig, PeftModel

    shared = len(set(adapters.values())) == 1 and len(adapters) == len(HEADS)
    names = dict.fromkeys(adapters, SHARED) if shared else {head: head for head in adapters}
    folders = {names[head]: path for head, path in adapters.items()}
    model: Any = None
    for name, path in folders.items():
        _refuse_robometer(path)
        if not any((path / file).is_file() for file in ("adapter_model.safetensors", "adapter_model.bin")):
            raise FileNotFoundError(
                f"'{path}' has an adapter_config.json but no adapter_model.safetensors; on a machine with network run "
                f"'hf download USC-PSI-Lab/LRM-models --local-dir {path.parent}'"
            )
        if model is None:
            config = PeftConfig.from_pretrained(str(path))
            if "visual" in (getattr(config, "modules_to_save", None) or []):
                # The published progress adapter lists `visual` and the `merger` inside it; PEFT cannot wrap both, and
                # `visual` holds the merger's weights.
                config.modules_to_save = ["visual"]
            model = PeftModel.from_pretrained(
                base, str(path), adapter_name=name, is_trainable=False, config=config, torch_device="cpu"
            )
        else:
            model.load_adapter(str(path), adapter_name=name, is_trainable=False, torch_device="cpu")
    for name, path in folders.items():
        weights = [p for key, p in model.named_parameters() if f"lora_B.{name}." in key]
        if not any(bool(p.any()) for p in weights):
            raise RuntimeError(
                f"adapter '{name}' from '{path}' has an all-zero lora_B: its weights were not applied and the plain "
                "base model would answer; check that the adapter fits this base model and is not untrained"
            )
    return model, names
