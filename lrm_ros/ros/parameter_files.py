# SPDX-License-Identifier: Apache-2.0
"""Files of parameters that ROS would pass over in silence: what they hold is for a node of a similar name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

_SECTION = "ros__parameters"


def passed_over(arguments: Sequence[str], node: str) -> list[str]:
    """Return a line for each ``--params-file`` that has nothing for a node, but for one whose name is nearly its.

    A file for other nodes alone is none: one file is often given to all nodes of a graph.

    Args:
        arguments: command line of the program.
        node: full name, e.g. ``"/arm1/recorder"``.
    """
    lines = []
    for flag, path in pairwise(arguments):
        names = _names(path) if flag == "--params-file" else []
        if not names or any(_matches(name, node) for name in names):
            continue
        last = node.rpartition("/")[2]
        same = [name for name in names if name.rpartition("/")[2] == last]
        if near := same or difflib.get_close_matches(node, names, 1, 0.75):
            lines.append(f"'{path}' has parameters of '{near[0]}', which '{node}' does not take: write '{node}' there")
    return lines


def _names(path: str) -> list[str]:
    """Return the full names, or patterns of names, of the nodes that a file has parameters of."""
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return []  # ROS has refused it before
    return list(_sections(content, "")) if isinstance(content, Mapping) else []


def _sections(content: Mapping[Any, Any], space: str) -> Iterator[str]:
    for key, inside in content.items():
        name = f"{space}/{str(key).strip('/')}"
        if isinstance(inside, Mapping):
            yield from [name] if _SECTION in inside else _sections(inside, name)


def _matches(pattern: str, node: str) -> bool:
    """Return whether a pattern, where ``*`` is a word and ``**`` any number of them, is a node's full name."""
    words = {"**": "(/[^/]+)*", "*": "/[^/]+"}
    parts = [words.get(word, "/" + re.escape(word)) for word in pattern.strip("/").split("/")]
    return re.fullmatch("".join(parts), node) is not None
