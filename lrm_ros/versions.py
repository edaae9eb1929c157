# SPDX-License-Identifier: Apache-2.0
"""What differs between the versions of other people's libraries that this project runs on; no other file asks."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

# ---- transformers 4.57 and 5: Qwen3-VL's configuration ---------------------------------------------------------------

_MROPE = (24, 20, 20)  # both versions' default sections


def transformers_major() -> int:
    """Return the first number of the installed transformers' version."""
    import transformers

    return int(transformers.__version__.split(".")[0])


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
    rope = rope_of(text, file)
    rest = {key: value for key, value in text.items() if key not in ("rope_theta", "rope_scaling", "rope_parameters")}
    if transformers_major() >= 5:
        return {**rest, "rope_parameters": rope}
    theta = rope.pop("rope_theta")
    return {**rest, "rope_scaling": rope, "rope_theta": theta}


def _has_output(folder: Path) -> bool:
    """Return whether a checkpoint stores an output layer.

    Raises:
        ValueError: a file of weights is cut off or none.
    """
    from safetensors import SafetensorError, safe_open

    for file in sorted(folder.glob("model*.safetensors")):
        try:
            with safe_open(file, framework="pt") as tensors:
                if "lm_head.weight" in tensors.keys():  # noqa: SIM118 (no dictionary)
                    return True
        except SafetensorError as error:
            raise ValueError(f"'{file}' holds no whole weights ({error}); download or copy it again") from error
    return False


# ---- transformers 4.57 and 5: Qwen3-VL's processor -------------------------------------------------------------------


def processor_parts() -> tuple[Any, Any]:
    """Return the classes of Qwen's tokenizer and image processor.

    Both versions have one of each that is not slow; 5 names them without 4.57's ending "Fast".
    """
    import transformers

    end = "" if transformers_major() >= 5 else "Fast"
    return getattr(transformers, f"Qwen2Tokenizer{end}"), getattr(transformers, f"Qwen2VLImageProcessor{end}")


def has_processor(folder: Path) -> bool:
    """Return whether a folder holds a processor's settings.

    4.57 saves preprocessor_config.json and video_preprocessor_config.json, 5 both in processor_config.json.
    """
    return (folder / "preprocessor_config.json").is_file() or "image_processor" in _json(
        folder, "processor_config.json"
    )


def load_processor(folder: Path) -> Any:
    """Return the ``AutoProcessor`` of a folder, the same whichever of the two versions wrote it.

    A tokenizer's further special tokens are a list ``extra_special_tokens`` in the files of 5; 4.57 calls that list
    ``additional_special_tokens`` and fails over the other. Where a folder has image settings by both versions, 4.57
    reads the one file and 5 the other.

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
    if transformers_major() >= 5:
        return AutoProcessor.from_pretrained(folder)
    more = _json(folder, "tokenizer_config.json").get("extra_special_tokens")
    renamed = {"extra_special_tokens": {}, "additional_special_tokens": more} if isinstance(more, list) else {}
    return AutoProcessor.from_pretrained(folder, use_fast=True, **renamed)


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


# ---- transformers 4.57 and 5: Qwen3-VL's forward ---------------------------------------------------------------------


def token_types(config: Any, ids: Any) -> dict[str, Any]:
    """Return what a forward pass with images or videos wants beside token ids (B, L).

    5: ``mm_token_type_ids`` (B, L), 1 at tokens of images and 2 of videos (its processor returns them too); 4.57:
    nothing.
    """
    if transformers_major() < 5:
        return {}
    return {"mm_token_type_ids": (ids == config.image_token_id).int() + 2 * (ids == config.video_token_id).int()}


def rope_index(model: Any, ids: Any, image_grid: Any) -> Any:
    """Return the positions (3, B, L) of time, height and width of prompts without padding.

    Args:
        model: a Qwen3VLModel; its ``get_rope_index`` takes the token types since 5.
        ids: (B, L) token ids.
        image_grid: (images, 3) patches of each image.
    """
    return model.get_rope_index(input_ids=ids, image_grid_thw=image_grid, **token_types(model.config, ids))[0]


def tower_tokens(visual: Any, pixels: Any, grid: Any) -> Any:
    """Return the visual tokens (N, D) of a stock Qwen3VLVisionModel; 5 returns them as ``pooler_output``, 4.57 first.

    Args:
        visual: the tower.
        pixels: (patches, values) of all images.
        grid: (images, 3) patches of each image.
    """
    found = visual(pixels, grid_thw=grid)
    return found[0] if transformers_major() < 5 else found.pooler_output


# ---- transformers 4.57 and 5: training -------------------------------------------------------------------------------


def warmup_of(share: float) -> dict[str, float]:
    """Return the training argument for a share of the steps, 0 to 1, with a rising learning rate.

    5 takes a share as ``warmup_steps`` where it is below 1, and warns of 4.57's ``warmup_ratio``.
    """
    if transformers_major() < 5:
        return {"warmup_ratio": share}
    return {"warmup_steps": min(share, math.nextafter(1.0, 0.0))}
