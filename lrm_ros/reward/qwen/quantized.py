# SPDX-License-Identifier: Apache-2.0
"""How the weights of a Qwen3-VL are held: as the device likes it, in bfloat16, or the language model in 8 or 4 bits.

bitsandbytes, through transformers, replaces the linear layers of the language model: ``8bit`` by LLM.int8() (a scale a
row, outlying features apart), ``4bit`` by NF4 (a scale for 64 weights). The vision tower, the embedding and the output
layer stay as they are, and LoRA adapters on top are not quantised.

LoRA matrices are float32 on any base, as PEFT loads them, but for ``bf16-lora``: ``bf16``, and they, too. A GPU
multiplies so several times as fast; it rounds otherwise.
"""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

LOADS = ("", "bf16", "bf16-lora", "8bit", "4bit")
QUANTISED = ("8bit", "4bit")
_KEPT = ["model.visual", "lm_head"]


def dtype_of(load: str, device: str) -> Any:
    """Return the torch dtype of all that is not quantised: float32 on a CPU (bfloat16 is slower there), unless asked.

    Raises:
        ValueError: unknown ``load``.
    """
    import torch

    if load not in LOADS:
        raise ValueError(f"load '{load}' is unknown; choose one of {', '.join(LOADS[1:])}, or leave it away")
    return torch.float32 if device == "cpu" and load not in ("bf16", "bf16-lora") else torch.bfloat16


def quantised_options(load: str, device: str) -> dict[str, Any]:
    """Return what ``from_pretrained`` takes to quantise while it loads, onto the device at once; empty if not.

    Raises:
        ValueError: bitsandbytes is not installed.
    """
    if load not in QUANTISED:
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(f"load '{load}' needs bitsandbytes: pip install 'lrm_ros[quantize]', or load bf16")
    from transformers import BitsAndBytesConfig

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # 8 bits: it warns at every product that it rounds
    kind: dict[str, Any] = {"load_in_8bit": True}
    if load == "4bit":
        kind = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_compute_dtype": dtype_of(load, device),
        }
    return {
        "quantization_config": BitsAndBytesConfig(llm_int8_skip_modules=_KEPT, **kind),
        "device_map": {"": device},
    }
