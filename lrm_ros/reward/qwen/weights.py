# SPDX-License-Identifier: Apache-2.0
"""What the files of a checkpoint hold, and whether it is the whole of a model: every weight used, every module filled.

Nothing but headers is read before a checkpoint is compared with its model, so half a model is refused before it is
loaded. A library's own way with missing weights is to draw them anew and warn, or not to warn.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrm_ros.errors import one_line

_POINTER = b"version https://git-lfs.github.com/spec/"
_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Stored:
    """Where a tensor of a checkpoint is.

    Attributes:
        file: the file.
        shape: of the tensor.
    """

    file: Path
    shape: tuple[int, ...]


def again(folder: Path) -> str:
    """Return how to get the files of a folder again."""
    return f"run 'hf download NAME --local-dir {folder}' again on a machine with network"


def refuse_pointer(file: Path) -> None:
    """Raise ValueError for a pointer of Git LFS in place of the file it stands for."""
    with file.open("rb") as stream:
        if stream.read(len(_POINTER)) == _POINTER:
            raise ValueError(
                f"'{file}' is a pointer of Git LFS, not the file itself; run 'git lfs pull' in '{file.parent}', or "
                f"{again(file.parent)}"
            )


def read_json(file: Path) -> dict[str, Any]:
    """Return the dictionary in a file of JSON.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a pointer of Git LFS, cut off, or something else; names the file and the cure.
    """
    refuse_pointer(file)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{file}' is not JSON or cut off ({one_line(error)}); download or copy it again") from None
    if not isinstance(found, dict):
        raise ValueError(f"'{file}' holds a {type(found).__name__}, not a dictionary; download or copy it again")
    return found


# ---- files -----------------------------------------------------------------------------------------------------------


def header(file: Path) -> dict[str, Stored]:
    """Return the tensors of a file of safetensors by name; reads no values.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a pointer of Git LFS, cut off, something else, or quantised weights.
    """
    from safetensors import SafetensorError, safe_open

    refuse_pointer(file)
    found: dict[str, Stored] = {}
    try:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (not a dictionary)
                part = tensors.get_slice(name)
                found[name] = Stored(file, tuple(part.get_shape()))
                if part.get_dtype() not in _FLOATS:
                    raise ValueError(
                        f"'{file}' stores {name} as {part.get_dtype()}: quantised weights are not supported; give the "
                        "model in bfloat16, float16 or float32"
                    )
    except (SafetensorError, OSError) as error:
        raise ValueError(f"'{file}' holds no whole weights ({one_line(error)}); download or copy it again") from None
    return found


def stored(folder: Path) -> dict[str, Stored]:
    """Return the tensors of a whole checkpoint by name, from model.safetensors or the files that its index names.

    Raises:
        FileNotFoundError: no weights, no index, or a file that the index names is missing.
        ValueError: a file as in ``header``, weights in a form that is not read, or an index that is not of its files.
    """
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return header(whole)
    if not index.is_file():
        raise _no_weights(folder)
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(n, str) and n == Path(n).name for n in places.values()):
        raise ValueError(f"'{index}' has no weight_map from weights to files beside it; download or copy it again")
    files = {name: folder / name for name in sorted(set(places.values()))}
    missing = [name for name, file in files.items() if not file.is_file()]
    if missing:
        raise FileNotFoundError(
            f"'{index}' names {files[missing[0]]}, which is not there ({len(missing)} of {len(files)} files are "
            f"missing); the download is incomplete: {again(folder)}"
        )
    found = {name: header(file) for name, file in files.items()}
    for key, name in places.items():
        if key not in found[name]:
            raise ValueError(f"'{index}' says that {key} is in '{name}', which does not hold it; {again(folder)}")
    for name, tensors in found.items():
        for key in tensors:
            if places.get(key) != name:
                raise ValueError(f"'{folder / name}' holds {key}, which the index does not say; {again(folder)}")
    return {key: found[name][key] for key, name in places.items()}


def _no_weights(folder: Path) -> Exception:
    """Return the error of a folder without model.safetensors and its index."""
    pickled = sorted(folder.glob("pytorch_model*.bin"))
    if pickled:
        return ValueError(
            f"'{folder}' has its weights as {pickled[0].name}; only safetensors are read: convert them with 'python -c "
            f'"from transformers import AutoModelForImageTextToText as M; M.from_pretrained(\\"{folder}\\")'
            f'.save_pretrained(\\"{folder}-safetensors\\")"\' and copy tokenizer and processor files beside them'
        )
    parts = sorted(folder.glob("*.safetensors"))
    if parts:
        return FileNotFoundError(
            f"'{folder}' has '{parts[0].name}', but neither model.safetensors nor its index "
            f"model.safetensors.index.json; the download is incomplete: {again(folder)}"
        )
    return FileNotFoundError(
        f"'{folder}' has no *.safetensors weights; the download is incomplete (neither model.safetensors nor its "
        f"index): {again(folder)}"
    )


# ---- the whole of a model --------------------------------------------------------------------------------------------


def differences(
    found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], optional: Collection[str] = ()
) -> str:
    """Return how the weights that are there differ from those that a model has, empty if they are the same.

    Args:
        found: shapes of the stored weights by name.
        wanted: shapes of the model's.
        optional: names that may lack.
    """
    parts = []
    for what, names in (
        ("missing", sorted(wanted.keys() - found.keys() - set(optional))),
        ("unexpected", sorted(found.keys() - wanted.keys())),
    ):
        if names:
            parts.append(f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})")
    odd = sorted(name for name in found.keys() & wanted.keys() if tuple(found[name]) != tuple(wanted[name]))
    if odd:
        shapes = f"{odd[0]}: {list(found[odd[0]])} instead of {list(wanted[odd[0]])}"
        parts.append(f"{len(odd)} of another shape ({shapes}{', ...' if len(odd) > 1 else ''})")
    return " and ".join(parts)


def check_whole(
    folder: Path, found: Mapping[str, Stored], wanted: Mapping[str, tuple[int, ...]], optional: Collection[str] = ()
) -> None:
    """Raise ValueError unless a checkpoint holds exactly the weights of a model, each in its shape."""
    wrong = differences({name: tensor.shape for name, tensor in found.items()}, wanted, optional)
    if wrong:
        raise ValueError(
            f"download or copy '{folder}' again, or give the weights that its config.json describes: the weights in "
            f"'{folder}' are not those of this model: {wrong}"
        )


def shapes_of(config: Any, file: Path, most: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight of a Qwen3-VL by name; takes no memory.

    Args:
        config: a Qwen3VLConfig.
        file: where it is from, for the error.
        most: weights that are stored; a model has more weights than layers.

    Raises:
        ValueError: no model can be made of the settings.
    """
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    try:
        layers = int(config.text_config.num_hidden_layers) + int(config.vision_config.depth)
        if layers > most:
            raise ValueError(f"{layers} layers, but {most} weights are stored")
        with torch.device("meta"), quiet():
            model = Qwen3VLForConditionalGeneration(config)
    except Exception as error:  # torch and transformers raise any
        raise ValueError(
            f"'{file}': no model can be made of the settings ({one_line(error)}); download or copy it again"
        ) from error
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def load_checked(
    folder: Path, config: Any, dtype: Any, more: Mapping[str, tuple[int, ...]] | None = None, **options: Any
) -> Any:
    """Load a Qwen3-VL of which every weight is stored and used.

    Args:
        folder: the checkpoint.
        config: its Qwen3VLConfig.
        dtype: torch dtype of the weights.
        more: shapes of weights that are not the Qwen3-VL's; ``None``: it must be one that writes text. With them, no
            output layer is needed.
        options: of ``from_pretrained``, such as a ``quantization_config``.

    Raises:
        FileNotFoundError, ValueError: as ``stored``, ``shapes_of`` and ``check_whole``, or values that are not finite.
    """
    from transformers import Qwen3VLForConditionalGeneration

    found = stored(folder)
    shapes = shapes_of(config, folder / "config.json", len(found))
    silent = {"lm_head.weight"} if config.tie_word_embeddings or more is not None else set()
    check_whole(folder, found, {**shapes, **(more or {})}, silent)
    try:
        with quiet():
            model, info = Qwen3VLForConditionalGeneration.from_pretrained(
                folder, config=config, dtype=dtype, local_files_only=True, output_loading_info=True, **options
            )
    except Exception as error:
        raise ValueError(f"'{folder}': transformers cannot load it ({one_line(error)}); {again(folder)}") from error
    # The names are the same, so the library has a rule of its own for them if it left one out.
    left = (set(info["missing_keys"]) - silent) | (set(info["unexpected_keys"]) - set(more or {}))
    if left or info["mismatched_keys"]:
        raise ValueError(
            f"'{folder}': transformers did not use {len(left) + len(info['mismatched_keys'])} weights as they are "
            f"stored, e.g. {next(iter(sorted(left)), info['mismatched_keys'])}; install the version that wrote them"
        )
    _check_values(folder, model)
    return model


def _check_values(folder: Path, model: Any) -> None:
    """Raise ValueError for weights that are not finite, or all zero as the holes of a broken download are."""
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise ValueError(f"'{folder}': {name} is not finite; {again(folder)}")
        if parameter.ndim > 1 and not bool(parameter.any()):
            raise ValueError(f"'{folder}': {name} is zero throughout, as after a broken download; {again(folder)}")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' and PEFT's warnings back: what they warn of is checked here. In a log, no bars either."""
    import sys
    import warnings

    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
