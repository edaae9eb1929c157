# SPDX-License-Identifier: Apache-2.0
"""Load a Qwen3-VL from a folder: whole, or as LoRA adapters (one a head) on a base model.

Three layouts are understood::

    FOLDER/config.json, *.safetensors, tokenizer and processor files      a whole model, used for every head
    FOLDER/{contrastive,progress,completion}/adapter_config.json, ...     one adapter a head (USC-PSI-Lab/LRM-models)
    FOLDER/adapter_config.json, adapter_model.safetensors                 one adapter for every head

Half a model is refused (``lrm_ros.reward.qwen.weights``, ``lrm_ros.reward.qwen.adapters``), never judged with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lrm_ros.reward.heads import HEADS
from lrm_ros.reward.models import find_model, not_an_lrm
from lrm_ros.reward.qwen.adapters import CONFIG, SHARED, attach, read_adapter
from lrm_ros.reward.qwen.folder import (
    check_processor,
    differing_processors,
    has_processor,
    has_robometer_heads,
    load_processor,
    qwen_config,
)
from lrm_ros.reward.qwen.lora import cast
from lrm_ros.reward.qwen.quantized import QUANTISED, dtype_of, quantised_options
from lrm_ros.reward.qwen.weights import again, load_checked, read_json

_ORDER = ("progress", "contrastive", "completion")


def find_adapters(folder: Path) -> dict[str, Path]:
    """Return the adapter folder of each head, empty for a whole model."""
    if (folder / CONFIG).is_file():
        return dict.fromkeys(HEADS, folder)
    return {head: folder / head for head in _ORDER if (folder / head / CONFIG).is_file()}


def load_qwen(folder: Path, device: str, load: str = "") -> tuple[Any, Any, dict[str, str]]:
    """Load model and processor for inference.

    Args:
        folder: one of the layouts above.
        device: torch device. On a CPU weights are float32 (bfloat16 is slower there), elsewhere bfloat16.
        load: ``bf16``, ``bf16-lora``, ``8bit`` or ``4bit`` instead (``lrm_ros.reward.qwen.quantized``).

    Returns:
        The model (a PeftModel if there are adapters), its processor, and the adapter name of each head (empty for a
        whole model).

    Raises:
        FileNotFoundError: files are missing.
        ValueError: not a Qwen3-VL, the weights of a Robometer, half a model or adapter, or a processor that is not the
            model's; one line with folder, example and cure.
    """
    dtype, quantise = dtype_of(load, device), quantised_options(load, device)
    heads = find_adapters(folder)
    _check_layout(folder, heads)
    if not heads:
        check_folder(folder)
        config = qwen_config(folder)
        processor = _processor(folder, config)
        model = load_checked(folder, config, dtype, **quantise)
        return _moved(model, device, load).eval(), processor, {}
    base_folder = _base_folder(heads)
    check_folder(base_folder)
    shared = len(set(heads.values())) == 1 and len(heads) == len(HEADS)
    names = dict.fromkeys(heads, SHARED) if shared else {head: head for head in heads}
    folders = {names[head]: path for head, path in heads.items()}
    adapters = [read_adapter(name, path, len(folders) == 1) for name, path in folders.items()]
    config = qwen_config(base_folder)
    processor = _shared_processor(base_folder, list(folders.values()), config)
    base = load_checked(base_folder, config, dtype, **quantise)
    model = attach(base, adapters)
    if load == "bf16-lora":
        cast(model, dtype)
    return _moved(model, device, load).eval(), processor, names


def _moved(model: Any, device: str, load: str) -> Any:
    """Return a model on its device; what is quantised is there already, and may not be moved."""
    return model if load in QUANTISED else model.to(device)


def _shared_processor(base: Path, adapters: list[Path], config: Any) -> Any:
    """Return the processor beside the first adapter, the base model's without one; the other adapters' must agree."""
    place = adapters[0] if has_processor(adapters[0]) else base
    processor = _processor(place, config)
    for path in adapters[1:]:
        differs = differing_processors(processor, _processor(path, config)) if has_processor(path) else ""
        if differs:
            raise ValueError(
                f"'{path}' and '{place}' hold processors that differ in {differs}, but all heads share one; remove the "
                "files of the one that the adapters were not trained with"
            )
    return processor


def _processor(folder: Path, config: Any) -> Any:
    """Return the processor of a folder after a check that it is the model's."""
    try:
        processor = load_processor(folder)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"'{folder}' has no usable processor ({error}); copy tokenizer*.json, *processor_config.json "
            "and chat_template.* from the model's download into it"
        ) from error
    check_processor(processor, config, folder)
    return processor


def _check_layout(folder: Path, heads: dict[str, Path]) -> None:
    """Raise ValueError for weights that would be passed over: of a head without settings, or of a second layout."""
    single = (folder / CONFIG).is_file()
    for head in _ORDER:
        weights = sorted((folder / head).glob("adapter_model.*"))
        if weights and head not in heads:
            raise ValueError(
                f"'{weights[0]}' has no adapter_config.json beside it, so head '{head}' would have no adapter; "
                f"{again(folder)}"
            )
        if single and weights:
            raise ValueError(
                f"'{folder}' holds an adapter for every head and another for '{head}'; move one of them elsewhere"
            )
    whole = bool(heads) and any(folder.glob("model*.safetensors"))
    if single and whole:
        raise ValueError(f"'{folder}' holds a whole model and an adapter; move one of them to a folder of its own")
    if whole and folder.resolve() != _base_folder(heads).resolve():
        raise ValueError(
            f"'{folder}' holds a whole model and adapters on another, '{_base_folder(heads)}'; move one elsewhere"
        )


def check_folder(folder: Path) -> None:
    """Check what kind of model a folder of a whole one holds; reads no weights.

    Raises:
        FileNotFoundError: no config.json, or no weights.
        ValueError: another kind of model.
    """
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise FileNotFoundError(
            f"'{folder}' is no model folder: neither config.json nor {{{','.join(_ORDER)}}}/adapter_config.json in it; "
            "download one with 'hf download Qwen/Qwen3-VL-8B-Instruct --local-dir FOLDER' on a machine with network"
        )
    if (folder / CONFIG).is_file():  # transformers would attach it
        raise ValueError(
            f"'{folder}' holds an adapter beside the whole model that others were trained on; move it elsewhere"
        )
    settings = read_json(config_file)
    kind = settings.get("model_type")
    if kind != "qwen3_vl":
        raise ValueError(f"'{config_file}' describes a '{kind}' model; the reward heads need a 'qwen3_vl'")
    if settings.get("quantization_config"):
        raise ValueError(
            f"'{config_file}' has a quantization_config; quantised weights are not supported: give the model in "
            "bfloat16, float16 or float32"
        )
    if (folder / "generation_config.json").is_file():
        read_json(folder / "generation_config.json")
    if has_robometer_heads(folder):
        raise not_an_lrm(str(folder), "the weights of a Robometer (progress_head.*)", "robometer")


def _base_folder(heads: dict[str, Path]) -> Path:
    """Return the folder of the model that the adapters were trained on."""
    first, base = "", ""
    for adapter in dict.fromkeys(heads.values()):
        name = read_json(adapter / CONFIG).get("base_model_name_or_path")
        if not isinstance(name, str) or not name:
            raise ValueError(
                f"'{adapter / CONFIG}': base_model_name_or_path is {name!r}; write the name or folder of the model "
                "that the adapter was trained on, such as 'Qwen/Qwen3-VL-8B-Instruct'"
            )
        if base and Path(name).name != Path(base).name:
            raise ValueError(
                f"the adapters '{first}' and '{adapter}' were trained on different models, '{base}' and '{name}' "
                "(base_model_name_or_path in adapter_config.json); all heads share one: write the same if it is"
            )
        first, base = first or str(adapter), base or name
    try:
        return find_model(base)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"the adapter '{first}' was trained on '{base}', which is not here: {error}; or set "
            "'base_model_name_or_path' in its adapter_config.json to the base model's folder"
        ) from None
