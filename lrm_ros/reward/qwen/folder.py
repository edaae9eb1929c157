# SPDX-License-Identifier: Apache-2.0
"""Configuration and processor of a Qwen3-VL's folder, the same whichever version of transformers wrote or reads it.

What cannot be the same is refused: settings by two versions that contradict each other never become other scores.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lrm_ros.errors import one_line
from lrm_ros.reward.qwen.vision import patches_of
from lrm_ros.reward.qwen.weights import header, quiet, read_json, refuse_pointer, stored
from lrm_ros.versions import processor_options, rope_settings

_MROPE = (24, 20, 20)  # both versions' default sections
_FILES = (
    "tokenizer.json", "vocab.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.json",
)  # fmt: skip
_TOKENS = {
    "<|image_pad|>": "image_token_id",
    "<|video_pad|>": "video_token_id",
    "<|vision_start|>": "vision_start_token_id",
    "<|vision_end|>": "vision_end_token_id",
}
_MOST_PIXELS = 2**24  # of the smallest image


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
    from transformers import Qwen3VLConfig
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextRotaryEmbedding

    file = folder / "config.json"
    settings = read_json(file)
    text = settings.get("text_config")
    if not isinstance(text, dict):
        raise ValueError(f"'{file}': text_config is {text!r}, not a dictionary; download or copy the file again")
    vision = settings.get("vision_config")
    if not isinstance(vision, dict):
        raise ValueError(f"'{file}': vision_config is {vision!r}, not a dictionary; download or copy the file again")
    rope = rope_of(text, file)
    tied = bool(
        settings.get("tie_word_embeddings") or text.get("tie_word_embeddings")
    ) and "lm_head.weight" not in stored(folder)
    text = {**text_settings(text, file), "tie_word_embeddings": tied}
    try:
        config = Qwen3VLConfig.from_dict({**settings, "text_config": text, "tie_word_embeddings": tied})
        Qwen3VLTextRotaryEmbedding(config.text_config)
    except Exception as error:  # transformers raises any
        raise ValueError(
            f"'{file}': transformers cannot use the settings, those of rotary positions are {rope} "
            f"({one_line(error)}); write those that the model was trained with"
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


def has_robometer_heads(folder: Path) -> bool:
    """Return whether a whole checkpoint or an adapter stores the progress head of a Robometer.

    Raises:
        ValueError: a file of weights is cut off or none.
    """
    names = (name for file in sorted(folder.glob("*.safetensors")) for name in header(file))
    return any(".progress_head." in f".{name}" for name in names)


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
        ValueError: files that cannot be read, settings by both versions that differ, or another model's processor.
    """
    from transformers import AutoProcessor

    for file in sorted([*folder.glob("*.jinja"), *folder.glob("merges.txt")]):
        refuse_pointer(file)
    for name in _FILES:
        _json(folder, name)
    if not has_processor(folder):
        raise FileNotFoundError(
            "it has neither preprocessor_config.json nor a processor_config.json with an image_processor"
        )
    if not (folder / "tokenizer.json").is_file() and not (folder / "vocab.json").is_file():
        raise FileNotFoundError("it has neither tokenizer.json nor vocab.json")  # 5 makes an empty tokenizer of that
    new = _json(folder, "processor_config.json")
    for name, key in (
        ("preprocessor_config.json", "image_processor"),
        ("video_preprocessor_config.json", "video_processor"),
    ):
        old = _json(folder, name)
        if not isinstance(new.get(key, {}), dict):
            raise ValueError(f"'{folder / 'processor_config.json'}': {key} is no dictionary; download or copy it again")
        values, others = _named(old), _named(new.get(key, {}))
        differ = sorted(name for name in values.keys() & others.keys() if values[name] != others[name])
        if differ:
            raise ValueError(
                f"'{folder / name}': {differ[0]} is {values[differ[0]]!r}, but in processor_config.json "
                f"{others[differ[0]]!r}; remove the file that is left from an older save"
            )
    try:
        with quiet():
            processor = AutoProcessor.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                **processor_options(_json(folder, "tokenizer_config.json")),
            )
    except Exception as error:  # the tokenizers raise a plain Exception
        raise ValueError(f"'{folder}': transformers cannot read the processor ({one_line(error)})") from error
    if type(processor).__name__ != "Qwen3VLProcessor":
        raise ValueError(
            f"'{folder}' holds a {type(processor).__name__}, not a Qwen3VLProcessor (its processor_config.json or "
            "preprocessor_config.json says so, or is missing)"
        )
    return processor


def check_processor(processor: Any, config: Any, folder: Path) -> None:
    """Check that a processor is that of a model: its tokens, its chat template, its images.

    Args:
        processor: of ``load_processor``.
        config: a Qwen3VLConfig.
        folder: where the processor is from, for the error.

    Raises:
        ValueError: names what does not fit and the cure.
    """
    cure = "copy tokenizer*.json, *processor_config.json and chat_template.* from the download of the model's own base"
    tokenizer, images, vision = processor.tokenizer, processor.image_processor, config.vision_config
    known = tokenizer.get_vocab()
    for word, key in _TOKENS.items():
        if known.get(word) != getattr(config, key):
            raise ValueError(
                f"the tokenizer in '{folder}' has {word} at {known.get(word)}, the model at {getattr(config, key)} "
                f"({key} of its config.json); {cure}"
            )
    last, rows = max(known.values()), config.text_config.vocab_size
    if last >= rows:
        raise ValueError(
            f"the tokenizer in '{folder}' has tokens up to {last}, the model's embedding {rows} rows; {cure}"
        )
    for name, expected in (
        ("patch_size", vision.patch_size),
        ("temporal_patch_size", vision.temporal_patch_size),
        ("merge_size", vision.spatial_merge_size),
    ):
        if getattr(images, name, None) != expected:
            raise ValueError(
                f"the image settings in '{folder}': {name} is {getattr(images, name, None)!r}, but the model's is "
                f"{expected}; {cure}"
            )
    check_template(processor, "image", folder, cure)
    _check_images(images, folder, cure)


def check_template(processor: Any, kind: str, folder: Path, cure: str) -> None:
    """Raise ValueError unless a chat template shows an ``image`` or ``video``, the text and the assistant's turn."""
    question = "is the cube in the bowl"
    messages = [{"role": "user", "content": [{"type": kind}, {"type": "text", "text": question}]}]
    try:
        asked, plain = (
            processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
            for prompt in (True, False)
        )
    except Exception as error:  # templates raise any; without one it is a ValueError
        raise ValueError(f"the chat template in '{folder}' cannot be used ({one_line(error)}); {cure}") from error
    token = processor.image_token if kind == "image" else processor.video_token
    if asked.count(token) != 1 or question not in asked or len(asked) <= len(plain):
        raise ValueError(
            f"the chat template in '{folder}' makes {asked[:200]!r} of one {kind} and the question {question!r}, with "
            f"{asked.count(token)} {token} for the {kind}, and of no answer yet {plain[-40:]!r}; {cure}"
        )


def _check_images(images: Any, folder: Path, cure: str) -> None:
    """Raise ValueError unless images are prepared as ``patches_of`` does it, which is faster than the processor."""
    import numpy as np
    import torch
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    try:
        least, most = images.size["shortest_edge"], images.size["longest_edge"]
        if not 0 < least <= most or least > _MOST_PIXELS:
            raise ValueError(f"size is {dict(images.size)}")
        height, width = smart_resize(96, 96, images.patch_size * images.merge_size, least, most)
        picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        ((grid, patches),) = patches_of(images, [picture])
        own = images(images=[picture], return_tensors="pt")
        if not bool(patches.isfinite().all()):
            raise ValueError(f"image_std is {images.image_std}")
        same = list(grid) == own["image_grid_thw"][0].tolist() and torch.allclose(
            patches, own["pixel_values"], atol=1e-4
        )
    except Exception as error:
        raise ValueError(f"the image settings in '{folder}' cannot be used ({one_line(error)}); {cure}") from error
    if not same:
        raise ValueError(
            f"the image settings in '{folder}' are not Qwen3-VL's: rescaling, normalisation or conversion to RGB is "
            f"off, or a crop or padding on; {cure}"
        )


def differing_processors(one: Any, other: Any) -> str:
    """Return what differs between two processors of one model, empty if they prepare the same."""
    if one.tokenizer.get_vocab() != other.tokenizer.get_vocab():
        return "the vocabulary"
    if one.chat_template != other.chat_template:
        return "the chat template"
    for name in ("patch_size", "temporal_patch_size", "merge_size", "size", "image_mean", "image_std"):
        values = [getattr(processor.image_processor, name) for processor in (one, other)]
        if values[0] != values[1]:
            return f"{name} ({values[0]} and {values[1]})"
    return ""


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
    return read_json(file) if file.is_file() else {}


def _named(settings: Any) -> dict[str, Any]:
    """Return settings without empty ones and without class names; 4.57 writes what is not set, 5 does not."""
    return {
        key: value for key, value in settings.items() if value is not None and not key.endswith(("_type", "_class"))
    }
