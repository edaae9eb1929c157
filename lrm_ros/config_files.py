# SPDX-License-Identifier: Apache-2.0
"""Plain values and YAML files <-> the dataclasses of ``config.py``: what is unknown or of the wrong type is refused."""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def from_dict(cls: type[T], values: typing.Mapping[str, Any], where: str = "") -> T:
    """Build a configuration dataclass from plain values.

    Args:
        cls: a dataclass of ``lrm_ros.config``.
        values: nested plain data (from YAML, ROS parameters or the command line).
        where: name of the origin for error messages.

    Raises:
        ValueError: an unknown key or a value of the wrong type, naming both and the cure.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    arguments = {}
    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, 1)
            cure = f"did you mean '{near[0]}'?" if near else f"valid keys: {', '.join(fields)}"
            raise ValueError(f"{where or cls.__name__}: unknown key '{key}'; {cure}")
        arguments[key] = _convert(hints[key], value, f"{where or cls.__name__}.{key}")
    return cls(**arguments)


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Convert plain data to a field's type; integers pass as floats, lists as tuples."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _convert(next(h for h in typing.get_args(hint) if h is not type(None)), value, where)
    if origin is tuple:
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            raise ValueError(f"{where}: expected a list, got {value!r}")
        return tuple(_convert(typing.get_args(hint)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_dict(hint, value, where)  # type: ignore[arg-type]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str) and re.fullmatch(r"[+-]?\d+[eE][+-]?\d+", value):
        return float(value)  # YAML 1.1 takes 1e-5, without a point, for text
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ValueError(f"{where}: expected {hint.__name__}, got {value!r}")
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


def load_yaml(path: str | Path, cls: type[T]) -> T:
    """Read a configuration dataclass from a YAML file.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: not a mapping, an unknown key, or a value of the wrong type.
    """
    import yaml

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"configuration file '{path}' does not exist")
    try:
        data = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"'{path}' is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: expected 'key: value' lines, got {type(data).__name__}")
    return from_dict(cls, data, str(path))
