# SPDX-License-Identifier: Apache-2.0
"""The commands and the YAML of a page of the documentation, and whether the real parsers take a command."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import yaml

from lrm_ros import cli
from lrm_ros.graph.graphs import nodes_of, parse_arguments

DOCS = Path(__file__).parents[1] / "docs"
ASSIGNMENT = re.compile(r"(export )?([A-Z][A-Z0-9_]*)=(.*)")


def commands_of(page: str) -> list[str]:
    """The shell commands of a page, in order: what its blocks of ``bash`` hold, without comments."""
    found = []
    for block in re.findall(r"```bash\n(.*?)```", (DOCS / page).read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            command = re.sub(r"\s+#\s.*", "", line).strip()
            if command:
                found.append(command)
    return found


def yaml_of(page: str) -> list[dict[str, Any]]:
    """The pieces of YAML of a page, in order."""
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)]


def is_assignment(command: str) -> bool:
    """Whether a command only sets a variable of the shell."""
    found = ASSIGNMENT.fullmatch(command)
    return found is not None and len(shlex.split(found[3])) <= 1


def words_of(command: str, before: list[str]) -> list[str]:
    """The words of a command as bash makes them, after the assignments that stand before it on the page."""
    script = "\n".join([*before, f"printf '%s\\0' {command}"])
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    words = done.stdout.split("\0")[:-1]
    while words and ASSIGNMENT.fullmatch(words[0]):  # of the command's environment
        del words[0]
    return words


class Parsed(Exception):
    """The parser has taken its words."""


def check_words(words: list[str], monkeypatch) -> None:
    """Fail where the real parser of a command of ours would refuse its words; nothing is run.

    Raises:
        ValueError, SystemExit: the words are refused.
    """
    if words[:3] == ["ros2", "launch", "lrm_ros"]:
        nodes_of(words[3].removesuffix(".launch.py"), parse_arguments(words[4:]))
        return
    assert words[0] == "lrm", words
    if words[1] in ("up", "collect", "replay"):  # whose key:=value are read by the graph, not by argparse
        graph = words[2] if words[1] == "up" else {"collect": "teleop", "replay": "replay"}[words[1]]
        if graph == "--print":
            graph = words[3]
        nodes_of(graph, parse_arguments([word for word in words if re.match(r"[a-z_.]+:=", word)]))
    with monkeypatch.context() as patch:
        for name in ("parse_args", "parse_intermixed_args"):
            patch.setattr(argparse.ArgumentParser, name, _only_parse(getattr(argparse.ArgumentParser, name)))
        try:
            code = cli.main(words[1:])
        except Parsed:
            return
    raise AssertionError(f"{words} did not reach a parser, but ended with {code}")


def _only_parse(real: Any) -> Any:
    def parse(self, args=None, namespace=None):
        real(self, args, namespace)
        raise Parsed

    return parse
