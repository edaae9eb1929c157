# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters on a base model, one a head or one for all: every weight used, every module filled, or refused.

PEFT leaves out weights that have no place and keeps fresh ones where there are none, for the second and third adapter
without a word. So what PEFT would save of each loaded adapter is compared with its file, name by name and bit by bit.

The order and the zero check follow upstream (Large-Reward-Models:vlm_reward/vlm_reward_server.py,
load_vlm_multi_adapter): with a ``device_map`` PEFT leaves lora_B at zero without a word, so the base is loaded on the
CPU and moved afterwards; ``progress`` comes first because it saves the vision tower as a whole module.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrm_ros.errors import one_line
from lrm_ros.reward.models import not_an_lrm
from lrm_ros.reward.qwen.folder import has_robometer_heads
from lrm_ros.reward.qwen.weights import header, quiet, read_json, refuse_pointer

SHARED = "shared"
CONFIG = "adapter_config.json"
_FILES = ("adapter_model.safetensors", "adapter_model.bin")
# Settings that change what an adapter computes and that this program, or the batch of several adapters, cannot do; if
# the installed PEFT does not know one it would be ignored. Unknown ones that are not here are ignored with a note.
_REFUSED = {
    "use_dora": "DoRA",
    "use_qalora": "QA-LoRA",
    "use_bdlora": "block-diagonal LoRA",
    "alora_invocation_tokens": "activated LoRA",
    "arrow_config": "Arrow routing",
    "kasa_config": "KaSA",
    "velora_config": "VeLoRA",
    "monteclora_config": "MonteCLoRA",
    "layer_replication": "replicated layers",
    "target_parameters": "LoRA on bare parameters",
    "trainable_token_indices": "trained tokens",
}
# Settings that change the computation and that PEFT does as long as it knows them.
_PEFTS_OWN = ("use_rslora", "lora_bias", "rank_pattern", "alpha_pattern", "exclude_modules", "layers_to_transform")
# Ways to draw the first weights that also change the base model's, for every adapter on it.
_CHANGE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Adapter:
    """An adapter that can be attached.

    Attributes:
        name: PEFT's name of it: the head's, or ``SHARED``.
        folder: where it is.
        file: its weights.
        config: PEFT's LoraConfig.
        nested: modules that are saved inside another saved one.
    """

    name: str
    folder: Path
    file: Path
    config: Any
    nested: tuple[str, ...]

    def __str__(self) -> str:
        """Say which adapter it is, for an error."""
        return f"adapter '{self.name}' in '{self.folder}'" if self.name != SHARED else f"the adapter in '{self.folder}'"


def read_adapter(name: str, folder: Path, alone: bool) -> Adapter:
    """Read the settings of an adapter and find its weights.

    Args:
        name: the head's, or ``SHARED``.
        folder: holds adapter_config.json.
        alone: there is no other adapter.

    Raises:
        FileNotFoundError: no weights.
        ValueError: the weights of a Robometer, damaged files, another kind of adapter, or settings that cannot be done.
    """
    if has_robometer_heads(folder):
        raise not_an_lrm(str(folder), "the weights of a Robometer (progress_head.*)", "robometer")
    files = [folder / name for name in _FILES if (folder / name).is_file()]
    if not files:
        raise FileNotFoundError(
            f"'{folder}' has an adapter_config.json but no adapter_model.safetensors; on a machine with network run "
            f"'hf download USC-PSI-Lab/LRM-models --local-dir {folder.parent}'"
        )
    settings = read_json(folder / CONFIG)
    nested: tuple[str, ...] = ()
    saved = settings.get("modules_to_save")
    if isinstance(saved, list) and "visual" in saved:
        # The published progress adapter lists `visual` and the `merger` inside it; PEFT cannot wrap both, and `visual`
        # holds the merger's weights. PEFT 0.15 also stored copies of the merger.
        nested = tuple(other for other in saved if other == "merger")
        settings["modules_to_save"] = [other for other in saved if other not in nested]
    return Adapter(name, folder, files[0], _config(settings, folder / CONFIG, alone), nested)


def _config(settings: dict[str, Any], file: Path, alone: bool) -> Any:
    """Return PEFT's configuration of the settings in a file."""
    import peft

    kind = settings.get("peft_type")
    if kind != "LORA":
        raise ValueError(
            f"'{file}': peft_type is {kind!r}; only 'LORA' can be read: if it is one, write \"peft_type\": \"LORA\" "
            "into it, else merge the adapter into its base with PEFT's merge_and_unload and give the whole model"
        )
    known = set(peft.LoraConfig.__dataclass_fields__)
    for key in ("r", "lora_alpha", "target_modules"):
        if settings.get(key) is None:
            raise ValueError(f"'{file}' has no {key}, which PEFT writes; download or copy it again")
    for key, what in _REFUSED.items():
        if settings.get(key):
            raise ValueError(
                f"'{file}': {key} is {settings[key]!r}; {what} is not supported: train without it, or merge the "
                "adapter into its base with PEFT's merge_and_unload and give the whole model"
            )
    for key in _PEFTS_OWN:
        if settings.get(key) and key not in known:
            raise ValueError(
                f"'{file}': {key} is {settings[key]!r}, which the installed PEFT {peft.__version__} does not know; "
                f"install PEFT {settings.get('peft_version', 'of the version that wrote it')}"
            )
    start = settings.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGE_BASE):
        raise ValueError(
            f"'{file}': init_lora_weights is {start!r}, which changes the base model; save the adapter again with "
            "PEFT's path_initial_model_for_weight_conversion, or merge it into its base"
        )
    if settings.get("bias", "none") != "none" and not alone:
        raise ValueError(
            f"'{file}': bias is {settings['bias']!r}, so it carries biases of the base model, which the other heads "
            "share; train with bias 'none'"
        )
    unknown = sorted(settings.keys() - known)
    told = [key for key in unknown if key != "peft_version" and settings[key] not in (None, False, "", [], {})]
    if told:
        _log.warning(
            "'%s': ignored %s, which PEFT %s does not know (written by PEFT %s)",
            file, ", ".join(told), peft.__version__, settings.get("peft_version", "of another version"),
        )  # fmt: skip
    try:
        return peft.LoraConfig.from_peft_type(**{key: value for key, value in settings.items() if key in known})
    except Exception as error:  # PEFT raises any
        raise ValueError(f"'{file}': PEFT cannot use the settings ({one_line(error)}); copy the file again") from error


def attach(base: Any, adapters: list[Adapter]) -> Any:
    """Attach adapters to the base model.

    Args:
        base: on the CPU; it is changed.
        adapters: at least one.

    Returns:
        A PeftModel.

    Raises:
        ValueError: an adapter that does not fit the base model, that is not whole, without an effect, or that shares
            weights with others.
    """
    from peft import PeftModel

    stored = {adapter.name: _weights(adapter) for adapter in adapters}
    model: Any = None
    for adapter in adapters:
        options = {"adapter_name": adapter.name, "is_trainable": False, "torch_device": "cpu"}
        try:
            with quiet():
                if model is None:
                    model = PeftModel.from_pretrained(
                        base, str(adapter.folder), config=adapter.config, ignore_mismatched_sizes=True, **options
                    )
                else:
                    adapter.config.inference_mode = True
                    model.add_adapter(adapter.name, adapter.config)
                    model.load_adapter(str(adapter.folder), ignore_mismatched_sizes=True, **options)
        except KeyError as error:
            raise ValueError(f"{adapter} lacks the weight {error}, {_CURE}") from error
        except Exception as error:  # PEFT and torch raise any
            raise ValueError(f"{adapter} cannot be attached to its base model ({one_line(error)}), {_CURE}") from error
    for adapter in adapters:
        _check_whole(model, adapter, stored[adapter.name], alone=len(adapters) == 1)
        if len(adapters) > 1:
            _check_apart(model, adapter)
    return model


_CURE = (
    "so it is not whole or of another base model or version: download or copy it again, check "
    "base_model_name_or_path in its adapter_config.json, or save it again with the transformers and PEFT installed here"
)


def _weights(adapter: Adapter) -> dict[str, Any]:
    """Return the tensors of an adapter by name."""
    import torch
    from safetensors.torch import load_file

    refuse_pointer(adapter.file)
    if adapter.file.suffix == ".safetensors":
        header(adapter.file)
        return load_file(adapter.file)
    try:
        found = torch.load(adapter.file, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is cut off or not of weights alone
        raise ValueError(f"'{adapter.file}' holds no whole weights ({one_line(error)}); download it again") from error
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ValueError(f"'{adapter.file}' holds something else than weights; download or copy it again")
    return found


def _check_whole(model: Any, adapter: Adapter, stored: dict[str, Any], alone: bool) -> None:
    """Raise ValueError unless what was loaded of an adapter is what its file holds, and has an effect."""
    import torch
    from peft import get_peft_model_state_dict

    with quiet():
        loaded = get_peft_model_state_dict(model, adapter_name=adapter.name, save_embedding_layers=False)
    copies = {name for name in stored if _is_copy(name, adapter.nested) and _plain(name) in stored}
    stored = {name: value for name, value in stored.items() if name not in copies}
    # An adapter may carry weights of the base model, as PEFT saves embeddings of new tokens.
    base = {name: value for name, value in model.state_dict().items() if name in stored.keys() - loaded.keys()}
    wrong = _half({name: value for name, value in stored.items() if name not in base}, loaded)
    if wrong:
        raise ValueError(f"{adapter}: {wrong}, {_CURE}")
    if base and not alone:
        raise ValueError(
            f"{adapter} carries weights of the base model itself, which the other heads share ({next(iter(base))}); "
            "use it in a folder of its own, or train without them"
        )
    for name, value in stored.items():
        place = base[name] if name in base else loaded[name]
        if not bool(value.isfinite().all()):
            raise ValueError(f"{adapter}: {name} is not finite; train or download it again")
        if place.shape != value.shape or not torch.equal(place.cpu(), value.to(place.dtype)):
            raise ValueError(f"{adapter}: {name} was not loaded as it is stored, {_CURE}")
    if not any(bool(value.any()) for name, value in loaded.items() if ".lora_B." in name):
        raise ValueError(
            f"{adapter} has an all-zero lora_B: its weights were not applied and the plain base model would answer; "
            "check that the adapter fits this base model and is not untrained"
        )
    for module in model.modules():
        scale = getattr(module, "scaling", None)
        if isinstance(scale, dict) and adapter.name in scale and not (
            math.isfinite(scale[adapter.name]) and scale[adapter.name]
        ):  # fmt: skip
            raise ValueError(
                f"{adapter}: lora_alpha {adapter.config.lora_alpha} with r {adapter.config.r} scales its weights by "
                f"{scale[adapter.name]}; write the lora_alpha that it was trained with"
            )


def _half(stored: dict[str, Any], loaded: dict[str, Any]) -> str:
    """Return how the weights in a file differ from those that the model has for an adapter, empty if they fit."""
    parts = []
    for what, names, count in (
        ("of its {} weights have no place in the model", stored.keys() - loaded.keys(), len(stored)),
        (
            "of the {} weights that its modules have in the model are missing",
            loaded.keys() - stored.keys(),
            len(loaded),
        ),
    ):
        if names:
            parts.append(f"{len(names)} {what.format(count)} (e.g. {min(names)})")
    odd = [name for name in sorted(stored.keys() & loaded.keys()) if stored[name].shape != loaded[name].shape]
    if odd:
        shapes = f"{list(stored[odd[0]].shape)} instead of {list(loaded[odd[0]].shape)}"
        parts.append(f"{len(odd)} of its {len(stored)} weights are of another shape (e.g. {odd[0]}: {shapes})")
    return " and ".join(parts)


def _check_apart(model: Any, adapter: Adapter) -> None:
    """Raise ValueError for a module that can only be one adapter's at a time; the batch of a few runs without it."""
    from peft.utils.other import ModulesToSaveWrapper

    outside = [
        name
        for name, _ in model.named_parameters()
        if f".{adapter.name}." in name and (".embed_tokens." in name or ".lm_head." in name)
    ]
    outside += [
        name
        for name, module in model.named_modules()
        if isinstance(module, ModulesToSaveWrapper)
        and ".visual" not in name
        and adapter.name in module.modules_to_save
        and any(True for _ in module.original_module.children())
    ]
    if outside:
        raise ValueError(
            f"{adapter} changes {outside[0]}, which adapters of several heads cannot have each for itself; use it in a "
            "folder of its own, or train without it"
        )


def _is_copy(name: str, nested: tuple[str, ...]) -> bool:
    """Return whether a stored weight is another copy of a saved module inside a saved module."""
    parts = name.split(".")
    return bool({"modules_to_save", "original_module"} & set(parts)) and any(module in parts for module in nested)


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in ("modules_to_save", "original_module"))
