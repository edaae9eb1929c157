# SPDX-License-Identifier: Apache-2.0
"""Plain values, YAML files and command lines <-> the dataclasses of ``config.py``.

What is unknown or of the wrong type is refused.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import difflib
import json
import math
import os
import re
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def option(default: Any, help: str, low: float | None = None, high: float | None = None, **more: Any) -> Any:
    """Return a field of a configuration dataclass.

    Args:
        default: immutable.
        help: the parameter's description in ROS and the option's help on the command line.
        low: smallest value of a number; with ``high``, or none.
        high: largest value.
        more: other metadata; ``stated``: plain values must have this key, for the default is one robot's and would be
            wrong for another; names a file that has it.
    """
    if isinstance(default, list | dict):
        raise TypeError("use a tuple as default")
    limits = {} if low is None else {"range": (low, high)}
    return dataclasses.field(default=default, metadata={"help": help, **limits, **more})


def out_of_range(field: dataclasses.Field[Any], value: Any) -> str:
    """Return what a value must be if it is out of its field's range or choices, e.g. ``from 0 to 1``; else nothing."""
    choices = field.metadata.get("choices")
    if choices and value not in choices:
        return f"of {', '.join(map(repr, choices))}"
    limits = field.metadata.get("range")
    if limits is None or value is None or limits[0] <= value <= limits[1]:
        return ""
    return f"from {limits[0]} to {limits[1]}"


def from_dict(cls: type[T], values: typing.Mapping[str, Any], where: str = "") -> T:
    """Build a configuration dataclass from plain values.

    Args:
        cls: a dataclass of ``lrm_ros.config``.
        values: nested plain data (from YAML, ROS parameters or the command line).
        where: name of the origin for error messages.

    Raises:
        ValueError: an unknown key, one that is missing though it must be stated, a value of the wrong type, not finite
            or out of its range, or one that the dataclass refuses; names key, value and cure.
    """
    if not isinstance(values, typing.Mapping):
        raise ValueError(f"{where or cls.__name__}: expected a mapping, got {values!r}")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    arguments = {}
    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, 1)  # YAML also has numbers as keys
            cure = f"did you mean '{near[0]}'?" if near else f"valid keys: {', '.join(fields)}"
            raise ValueError(f"{where or cls.__name__}: unknown key '{key}'; {cure}")
        arguments[key] = convert(hints[key], value, f"{where or cls.__name__}.{key}")
        if allowed := out_of_range(fields[key], arguments[key]):
            raise ValueError(f"{where or cls.__name__}.{key}: must be {allowed}, got {value!r}")
    if missing := [key for key, field in fields.items() if "stated" in field.metadata and key not in arguments]:
        example = fields[missing[0]].metadata["stated"]
        raise ValueError(f"{where or cls.__name__} lacks {', '.join(missing)}; give every one, as {example} does")
    try:
        return cls(**arguments)
    except ValueError as error:
        raise ValueError(f"{where}: {error}" if where else str(error)) from error


def convert(hint: Any, value: Any, where: str) -> Any:
    """Convert plain data to a field's type; integers pass as floats, lists as tuples. A number is finite."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else convert(_plain_type(hint), value, where)
    if origin is tuple:
        # A mapping is its keys to a loop, a set is in no order; ROS has arrays of its own.
        if isinstance(value, str | bytes | typing.Mapping | typing.AbstractSet) or not hasattr(value, "__iter__"):
            raise ValueError(f"{where}: expected a list, got {value!r}")
        return tuple(convert(typing.get_args(hint)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where}: expected a mapping, got {value!r}")
        return value
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_dict(hint, value, where)  # type: ignore[arg-type]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise ValueError(f"{where}: expected a number, got one of {len(str(value))} digits") from error
    if hint is float and isinstance(value, str) and re.fullmatch(r"[+-]?\d+[eE][+-]?\d+", value):
        value = float(value)  # YAML 1.1 takes 1e-5, without a point, for text
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        # Also no, yes, on, off and dates are no text to YAML.
        cure = "; quote it" if hint is str and isinstance(value, bool | int | float | datetime.date) else ""
        raise ValueError(f"{where}: expected {hint.__name__}, got {value!r}{cure}")
    if hint is float and not math.isfinite(value):
        raise ValueError(f"{where}: expected a finite number, got {value!r}")
    return value


def to_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as plain data that YAML and JSON can write (tuples become lists)."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value

    return plain(dataclasses.asdict(config))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read the mapping in a YAML file.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is no YAML in UTF-8, holds no mapping or nothing, or has a key twice or a number that is not what
            it seems; names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"configuration file '{path}' {'is a folder' if path.is_dir() else 'does not exist'}")
    try:
        data = yaml_value(path.read_text(encoding="utf-8"))
    except OddNumber as error:
        raise ValueError(f"{path}: {error}") from error
    except ValueError as error:
        raise ValueError(f"'{path}' is no YAML: {error}") from error
    if not isinstance(data, dict):
        found = "nothing" if data is None else type(data).__name__
        raise ValueError(f"{path}: expected 'key: value' lines, got {found}")
    return data


class OddNumber(ValueError):
    """A number that YAML 1.1 reads otherwise than people do; the message names key, text and cure."""


def yaml_value(text: str) -> Any:
    """Return the value of a text in YAML.

    Raises:
        OddNumber: it has a number in base 60, as 10:30, or one in base 8, as 012.
        ValueError: it is no YAML, or has a key twice; in one line.
    """
    import yaml

    try:
        root = yaml.compose(text, yaml.SafeLoader)
        if twice := _key_twice(root):
            raise ValueError(f"key {twice} again; leave one")
        if odd := _odd_number(root):
            raise OddNumber(odd)
        return yaml.safe_load(text)
    except OddNumber:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error


def _odd_number(root: Any) -> str:
    """Return what is wrong with a number below a node of YAML that is in base 60 or 8 without saying so, if any is."""
    import yaml

    nodes, seen = [("", root)], set()
    while nodes:
        key, node = nodes.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            inside = [(f"{key}.{name.value}".lstrip("."), value) for name, value in node.value]
            nodes += inside[::-1]  # the first one is looked at first
        elif isinstance(node, yaml.SequenceNode):
            nodes += [(f"{key}[{place}]", value) for place, value in enumerate(node.value)][::-1]
        elif isinstance(node, yaml.ScalarNode) and node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
            where, text = f"{key}: " if key else "", str(node.value)
            if ":" in text:
                value = yaml.safe_load(text)
                return f"{where}{text} is the number {value} to YAML (base 60); write {value}, or quote it"
            if re.fullmatch(r"[+-]?0[0-7_]+", text):
                value, plain = yaml.safe_load(text), int(text.replace("_", ""))
                return f"{where}{text} is the number {value} to YAML (base 8); write {value} or {plain}, or quote it"
    return ""


def _key_twice(root: Any) -> str:
    """Return a key that a mapping below a node of YAML has twice, and where; the last one alone would count."""
    nodes, seen = [root], set()
    while nodes:
        node = nodes.pop()
        if id(node) in seen or not isinstance(getattr(node, "value", None), list):
            continue
        seen.add(id(node))
        keys: set[str] = set()
        for item in node.value:
            key, *values = item if isinstance(item, tuple) else (None, item)
            nodes += values
            if key is None or isinstance(key.value, list):
                continue
            if key.value in keys:
                return f"'{key.value}' is in line {key.start_mark.line + 1}"
            keys.add(key.value)
    return ""


def load_yaml(path: str | Path, cls: type[T], sections: typing.Collection[str] = ()) -> T:
    """Read a configuration dataclass from a YAML file.

    Args:
        path: of the file.
        cls: a dataclass of ``lrm_ros.config``.
        sections: keys of the file that others read; they are left out.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: not a mapping, an unknown key, or a value of the wrong type.
    """
    data = {key: value for key, value in read_yaml(path).items() if key not in sections}
    return from_dict(cls, data, str(path))


def given_path(text: str | Path) -> Path:
    """Return a path as a person writes it: ``~`` and ``~name`` are homes.

    Raises:
        FileNotFoundError: nobody here is called so, or whoever runs this has no home.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        home = Path(text).parts[0]
        raise FileNotFoundError(f"'{text}': this machine knows no home '{home}'; write the whole path") from error


def real_path(path: str | Path) -> Path:
    """Return a path without links; one in a circle, which ``Path.resolve`` raises RuntimeError at, stays as it is."""
    return Path(os.path.realpath(path))


def add_options(parser: argparse.ArgumentParser, cls: type) -> None:
    """Add an option for each field of a configuration dataclass, required where the field has no default.

    A tuple is given by repeating its option, a mapping as JSON.

    Raises:
        TypeError: a field's type has no form on the command line.
    """
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind = _plain_type(hints[field.name])
        repeated = typing.get_origin(kind) is tuple
        kind = typing.get_args(kind)[0] if repeated else kind
        read = _json_object if typing.get_origin(kind) is dict else kind
        if read not in (int, float, str, _json_object):
            raise TypeError(f"{cls.__name__}.{field.name} is {kind}; there is no option for that")
        default, text = _default(field), str(field.metadata["help"]).replace("%", "%%")
        needed = default is dataclasses.MISSING
        parser.add_argument(
            _option(field),
            dest=field.name,
            metavar=None if "choices" in field.metadata else _option(field)[2:].replace("-", "_").upper(),
            type=read,
            action="append" if repeated else "store",
            choices=field.metadata.get("choices"),
            required=needed,
            default=None if needed else default,
            help=text if needed or default in (None, "", (), {}) else f"{text} (default: {default})",
        )


def from_options(cls: type[T], arguments: argparse.Namespace) -> T:
    """Build a configuration dataclass from the options that :func:`add_options` has added.

    Raises:
        ValueError: the dataclass refuses a value.
    """
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    return from_dict(cls, {name: getattr(arguments, name) for name in names})


def option_words(config: Any) -> list[str]:
    """Return the command line whose options of :func:`add_options` make this configuration again.

    Raises:
        ValueError: a field is ``None`` or empty where its default is not: there are no words for that.
    """
    words: list[str] = []
    for field in dataclasses.fields(config):
        value, default = getattr(config, field.name), _default(field)
        if value == default:
            continue
        if value is None or value == ():
            raise ValueError(f"{_option(field)} cannot say {value!r}; its default is {default!r}")
        texts = value if isinstance(value, tuple) else (json.dumps(value) if isinstance(value, dict) else value,)
        words += [f"{_option(field)}={text}" for text in texts]
    return words


def _option(field: dataclasses.Field[Any]) -> str:
    """Return the name of a field's option."""
    return "--" + str(field.metadata.get("option", field.name)).replace("_", "-")


def _default(field: dataclasses.Field[Any]) -> Any:
    """Return a field's default, ``dataclasses.MISSING`` if it has none."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _plain_type(hint: Any) -> Any:
    """Return a field's type without ``| None``."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(kind for kind in typing.get_args(hint) if kind is not type(None))
    return hint


def _json_object(text: str) -> dict[str, Any]:
    """Read a mapping from an option's text."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"{text} is no JSON object; write e.g. '{{\"chunk_size\": 16}}'")
    return found
