# SPDX-License-Identifier: Apache-2.0
"""Parameters of a node beside its dataclass, their types, and how ROS reads and writes values on a command line."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import typing
from typing import Any

from lrm_ros.config_files import convert, out_of_range

# name -> (default, help)
NODE_PARAMETERS: dict[str, tuple[Any, str]] = {
    "autostart": (True, "configure and activate at start"),
    "contract": ("", "YAML file of the robot contract; empty: the SO-100 of the twin"),
}
# Of these, what takes effect when the node is configured, and what when its program starts.
AT_CONFIGURE, AT_START = "contract", "autostart"
# Of the recorder, about its next episode.
EPISODE_PARAMETERS: dict[str, tuple[Any, str]] = {
    "episode_id": ("", "name of the next episode; empty: date and time"),
    "task_text": ("", "task text; empty: from topic 'task'"),
    "source": ("policy", "who acts: 'policy', 'teleop' or 'expert'"),
}
# That rclpy itself declares in every node.
BUILT_IN = {"use_sim_time": False, "start_type_description_service": True}

_TRUE = ("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON")
_FALSE = ("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF")
_FLOAT = r"[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|\.?(inf|Inf|INF))|\.?(nan|NaN|NAN)"


def unknown_parameter(node: str, name: str, known: typing.Iterable[str]) -> str:
    """Return the message about a parameter that a node does not have, with the nearest one that it has."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, 1)
    cure = f"did you mean '{near[0]}'?" if near else f"its parameters: {', '.join(known)}"
    return f"node '{node}' has no parameter '{name}'; {cure}"


def to_parameter(cls: type[Any], extra: typing.Mapping[str, Any], node: str, name: str, value: Any) -> Any:
    """Return the value of a node's parameter as its field's type.

    Args:
        cls: dataclass of the node's parameters.
        extra: parameters beside the dataclass, with their defaults.
        node: name of the node, for the message.
        name: of the parameter, one of the dataclass's fields or of ``extra``.
        value: as ROS gives it.

    Raises:
        ValueError: of the wrong type or out of its range; names node, parameter, value and an example of a good one.
    """
    if name in extra:
        default = extra[name]
        if type(value) is int and isinstance(default, float | str):
            value = type(default)(value)
        if isinstance(value, type(default)):
            return value
        raise ValueError(_wrong(node, name, value, type(default).__name__, default))
    hint = typing.get_type_hints(cls)[name]
    if hint is str and type(value) is int:
        value = str(value)  # `-p source:=0` arrives as an integer
    field = next(f for f in dataclasses.fields(cls) if f.name == name)
    wanted = getattr(hint, "__name__", str(hint))
    try:
        converted = convert(hint, value, name)
    except ValueError as error:
        if isinstance(value, float) and hint is float:  # one that is not finite
            wanted = f"{wanted} {out_of_range(field, value) or 'that is finite'}"
        raise ValueError(_wrong(node, name, value, wanted, field.default)) from error
    if allowed := out_of_range(field, converted):
        raise ValueError(_wrong(node, name, value, f"{wanted} {allowed}", field.default))
    return converted


def _wrong(node: str, name: str, value: Any, wanted: str, example: Any) -> str:
    """Return the message for a parameter of the wrong type or out of its range."""
    shown = list(example) if isinstance(example, tuple) else example
    return (
        f"node '{node}': parameter '{name}' must be {wanted}, got {value!r}; "
        f"set it like the default: {name}:={shown if shown != '' else repr('')}"
    )


def ros_value(value: Any) -> str:
    """Return a parameter value as ROS parses it on a command line; text comes back as it is, whatever it is."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(ros_value(item) for item in value) + "]"
    if not isinstance(value, str):
        return str(value)
    if re.fullmatch(r"[A-Za-z/._-][\w/.+-]*( [\w/.+-]+)*", value, re.ASCII) and _means(value):
        return value
    return json.dumps(value, ensure_ascii=False) if value else "''"


def _means(word: str) -> bool:
    """Return whether ROS takes a word for the text that it is."""
    try:
        return parsed_value(word) == word
    except ValueError:
        return False


def is_text(cls: type[Any], extra: typing.Mapping[str, Any], name: str) -> bool:
    """Return whether a node's parameter is text; arguments as for :func:`to_parameter`."""
    return isinstance(extra[name], str) if name in extra else typing.get_type_hints(cls)[name] is str


def parsed_value(word: str) -> Any:
    """Return the value that ROS takes ``name:=word`` for: bool, int, float, str, or a list of one of them.

    Raises:
        ValueError: ROS does not take it for a value.
    """
    import yaml

    try:
        node = yaml.compose(word, yaml.SafeLoader)
    except yaml.YAMLError:
        node = None
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if isinstance(node, yaml.SequenceNode) and all(isinstance(item, yaml.ScalarNode) for item in node.value):
        values = [_scalar(item) for item in node.value]
        if len({type(value) for value in values}) > 1:
            raise ValueError(f"list {word} is of several types, which ROS refuses; write e.g. [1.0, 0.5]")
        return values
    raise ValueError(f"ROS cannot read value {word!r}: it is no number, no true or false, and no list of one of them")


def _scalar(node: Any) -> bool | int | float | str:
    """Return the value of a YAML scalar by the rules of rcl_yaml_param_parser."""
    text = str(node.value)
    if node.style is not None:  # in quotes
        return text
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if re.fullmatch(r"[+-]?(0[xX][0-9a-fA-F]+|[1-9]\d*|0[0-7]*)", text):
        octal = re.fullmatch(r"[+-]?0[0-7]+", text)
        return int(text, 8 if octal else 0)
    if re.fullmatch(_FLOAT, text):
        return float(re.sub(r"\.(?=[a-zA-Z])", "", text))  # .inf and .nan without their point
    return text
