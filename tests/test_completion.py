# SPDX-License-Identifier: Apache-2.0
"""What a shell completes, by that shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from lrm_ros.cli import COMMANDS
from lrm_ros.completion import completion
from lrm_ros.graph.graphs import GRAPHS

_ASK = """
eval "$SCRIPT"
COMP_WORDS=("$@"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _lrm; echo "${COMPREPLY[*]}"
"""


def completed(script: str, words: list[str], tmp_path) -> list[str]:
    (tmp_path / "lrm").write_text(f'#!/bin/sh\nexec {sys.executable} -m lrm_ros.cli "$@"\n')
    (tmp_path / "lrm").chmod(0o755)
    env = {**os.environ, "SCRIPT": script, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", _ASK, "ask", *words], env=env, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["lrm", "re"], ["replay", "report", "reward"]),
        (["lrm", "reward", ""], ["data", "eval", "openloop", "train"]),
        (["lrm", "up", ""], list(GRAPHS)),
        (["lrm", "bench", "signals", "--st"], ["--starts"]),
        (["lrm", "up", "teleop", "--pr"], ["--print"]),
        (["lrm", "completion", "--x"], []),
    ],
)
def test_bash_completes_commands_graphs_and_options(words, found, capsys, tmp_path):
    assert completion(["bash"], COMMANDS) == 0
    assert completed(capsys.readouterr().out, words, tmp_path) == found


def test_a_shell_it_does_not_know_is_refused_and_zsh_loads_bashs(capsys):
    assert completion(["fish"], COMMANDS) == 2 and "give bash or zsh" in capsys.readouterr().err
    assert completion(["zsh"], COMMANDS) == 0 and "bashcompinit" in capsys.readouterr().out
