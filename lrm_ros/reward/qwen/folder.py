# SPDX-License-Identifier: Apache-2.0
"""Configuration and processor of a Qwen3-VL's folder, the same whichever version of transformers wrote or reads it.

What cannot be the same is refused: settings by two versions that contradict each other never become other scores.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from lrm_ros.versions import processor_options, rope_settings

_MROPE = (24, 20, 20)  # both versions' default sections


def rope_of(text: dict[str, Any], file: Path) -> dict[str, Any]:
    """Return all rotary settings of a ``text_config`` in one dictionary, ``rope_theta`` among them.

    4.57 saves ``rope_scaling`` and, beside it, ``rope_theta``; 5 saves both as ``rope_parameters``. 4.57 does not see
    the latter, 5 does not see it where there is a ``rope_scaling`` too: each then takes its own default theta (5e6 and
    5e5) without a word. So every place is read here.

    Raises:
        ValueError: two places disagree, or theta is missing or no positive number.
    """
    found: dict[str, Any] = {}
    place_of: dict[str, str] = {}
    for place in ("rope_theta", "rope_scaling", "rope_parameters"):
        part = {place: text.get(place)} if place == "rope_theta" else text.get(place)
        if part is not None and not isinstance(part, dict):
            raise ValueError(f"'{file}': text_config.{place} is {part!r}, not a dictionary; copy the file again")
        for key, value in (part or {}).items():
            if value is None:
                continue
            key = "rope_type" if key == "type" else key  # the older name, with the older value "mrope"
            value = "default" if key == "rope_type" and value == "mrope" else value
            name = f"text_config.{place}" if key == place else f"text_config.{place}.{key}"
            if found.setdefault(key, value) != value:
                raise ValueError(
                    f"'{file}': {name} is {value!r}, but {place_of[key]} is {found[key]!r}; keep the one that the "
                    "model was trained with and remove the other"
                )
            place_of.setdefault(key, name)
    theta = found.get("rope_theta")
    if isinstance(theta, bool) or not isinstance(theta, int | float) or not 0 < theta < math.inf:
        raise ValueError(
            f"'{file}': rope_theta in text_config or its rope_parameters is {theta!r}, not a positive number; write "
            "the one that the model was trained with (Qwen3-VL's own is 5000000)"
        )
    return {"rope_type": "default", **found}


def qwen_config(folder: Path) -> Any:
    """Return the ``Qwen3VLConfig`` of a model folder, the same whichever of the two versions wrote it.

    Rotary settings: ``rope_of``. 4.57 ties the output layer to the embedding if ``text_config.tie_word_embeddings``
    says so, 5 if the one outside of it does, which is all that 5 saves; here either will do, and an output layer that
    is stored is used as it is.

    Raises:
        ValueError: a setting is contradictory or cannot be used; names the file, the value and the cure.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import Qwen3VLConfig
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextRotaryEmbedding

    file = folder / "config.json"
    settings = json.loads(file.read_text())
    text = settings.get("text_config")
    if not isinstance(text, dict):
        raise ValueError(f"'{file}': text_config is {text!r}, not a dictionary; download or copy the file again")
    rope = rope_of(text, file)
    tied = bool(settings.get("tie_word_embeddings") or text.get("tie_word_embeddings")) and not _has_output(folder)
    text = {**text_settings(text, file), "tie_word_embeddings": tied}
    try:
        config = Qwen3VLConfig.from_dict({**settings, "text_config": text, "tie_word_embeddings": tied})
        Qwen3VLTextRotaryEmbedding(config.text_config)
    except (AttributeError, KeyError, TypeError, ValueError, StrictDataclassError) as error:
        raise ValueError(
            f"'{file}': transformers cannot use the settings, those of rotary positions are {rope} "
            f"({type(error).__name__}: {' '.join(str(error).split())}); write those that the model was trained with"
        ) from error
    size, sections = config.text_config.head_dim, rope.get("mrope_section", _MROPE)
    whole = isinstance(sections, list | tuple) and all(isinstance(section, int) for section in sections)
    if not whole or len(sections) != 3 or 2 * sum(sections) != size:
        raise ValueError(
            f"'{file}': mrope_section is {sections!r}; it must be three whole numbers that add up to half of head_dim "
            f"{size}; write those that the model was trained with"
        )
    share = text.get("partial_rotary_factor", rope.get("partial_rotary_factor"))
    if share not in (None, 1):  # 4.57 counts with it, 5 does not
        raise ValueError(f"'{file}': partial_rotary_factor is {share!r}; a Qwen3-VL has none: remove it")
    return config


def text_settings(text: dict[str, Any], file: Path) -> dict[str, Any]:
    """Return a ``text_config`` with its rotary settings as the installed transformers takes them.

    5 also writes into the dictionary that it is given; this one is a new one.

    Args:
        text: settings in the form of either version.
        file: where they are from, for the error.

    Raises:
        ValueError: as ``rope_of``.
    """
    rope = rope_settings(rope_of(text, file))
    rest = {key: value for key, value in text.items() if key not in ("rope_theta", "rope_scaling", "rope_parameters")}
    return {**rest, **rope}


def _has_output(folder: Path) -> bool:
    """Return whether a checkpoint stores an output layer.

    Raises:
        ValueError: a file of weights is cut off or none.
    """
    return "lm_head.weight" in _tensors(folder, "model*.safetensors")


def has_robometer_heads(folder: Path) -> bool:
    """Return whether a whole checkpoint or an adapter stores the progress head of a Robometer.

    Raises:
        ValueError: a file of weights is cut off or none.
    """
    return any(".progress_head." in f".{name}" for name in _tensors(folder, "*.safetensors"))


def _tensors(folder: Path, pattern: str) -> set[str]:
    """Return the names of the tensors in the files of a pattern; reads no values."""
    from safetensors import SafetensorError, safe_open

    names: set[str] = set()
    for file in sorted(folder.glob(pattern)):
        try:
            with safe_open(file, framework="pt") as tensors:
                names.update(tensors.keys())
        except SafetensorError as error:
            raise ValueError(f"'{file}' holds no whole weights ({error}); download or copy it again") from error
    return names


def has_processor(folder: Path) -> bool:
    """Return whether a folder holds a processor's settings.

    4.57 saves preprocessor_config.json and video_preprocessor_config.json, 5 both in processor_config.json.
    """
    return (folder / "preprocessor_config.json").is_file() or "image_processor" in _json(
        folder, "processor_config.json"
    )


def load_processor(folder: Path) -> Any:
    """Return the ``AutoProcessor`` of a folder, the same whichever of the two versions wrote it.

    Where a folder has image settings by both versions, 4.57 reads the one file and 5 the other: they must agree.

    Raises:
        OSError: files are missing.
        ValueError: files that cannot be read, or settings by both versions that differ.
    """
    from transformers import AutoProcessor

    if not (folder / "tokenizer.json").is_file() and not (folder / "vocab.json").is_file():
        raise FileNotFoundError("it has neither tokenizer.json nor vocab.json")  # 5 makes an empty tokenizer of that
    new = _json(folder, "processor_config.json")
    for name, key in (
        ("preprocessor_config.json", "image_processor"),
        ("video_preprocessor_config.json", "video_processor"),
    ):
        old = _json(folder, name)
        values, others = _named(old), _named(new.get(key, {}))
        differ = sorted(name for name in values.keys() & others.keys() if values[name] != others[name])
        if differ:
            raise ValueError(
                f"'{folder / name}': {differ[0]} is {values[differ[0]]!r}, but in processor_config.json "
                f"{others[differ[0]]!r}; remove the file that is left from an older save"
            )
    return AutoProcessor.from_pretrained(folder, **processor_options(_json(folder, "tokenizer_config.json")))


def save_processor(processor: Any, folder: Path) -> None:
    """Save a processor, without leaving files of an older save by the other version beside it."""
    for name in (
        "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json",
        "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    ):  # fmt: skip
        (folder / name).unlink(missing_ok=True)
    processor.save_pretrained(folder)


def _json(folder: Path, name: str) -> dict[str, Any]:
    """Return what is in a file of JSON, empty without it."""
    file = folder / name
    return json.loads(file.read_text()) if file.is_file() else {}


def _named(settings: Any) -> dict[str, Any]:
    """Return settings without empty ones and without class names; 4.57 writes what is not set, 5 does not."""
    return {
        key: value for key, value in settings.items() if value is not None and not key.endswith(("_type", "_class"))
    }
