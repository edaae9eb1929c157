# SPDX-License-Identifier: Apache-2.0
"""How commands end where their output or a file fails: a line or nothing, the exit code, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LISTS = [["--help"], ["completion", "bash"], ["--version"]]  # the last is written at the end


def _run(words: list[str], stdout: int) -> tuple[int, str]:
    """Run a command of ``lrm`` with another standard output; returns its exit code and what it says of errors."""
    done = subprocess.run(
        [sys.executable, "-m", "lrm_ros.cli", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("words", LISTS, ids=" ".join)
def test_where_nobody_reads_the_output_it_ends_with_1_and_no_word(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert _run(words, writer) == (1, "")
    finally:
        os.close(writer)


@pytest.mark.parametrize("words", LISTS, ids=" ".join)
def test_where_the_output_cannot_be_written_it_is_one_line_and_1(words: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        code, said = _run(words, full.fileno())
    assert code == 1 and said.count("\n") == 1 and "No space left on device" in said, said


@pytest.mark.parametrize(
    ("file", "code", "says"),
    [
        ("/dev/full", 1, "No space left on device"),
        ("/proc/none/found.json", 2, "No such file or directory"),
        (".", 2, "Is a directory"),
    ],
)
def test_a_file_that_cannot_be_written_is_one_line(file: str, code: int, says: str) -> None:
    ended, said = _run(["doctor", "--only", "disk", "--json", file], subprocess.DEVNULL)
    assert ended == code and said.startswith("error: ") and said.count("\n") == 1 and says in said, said


@pytest.mark.parametrize("file", ["none.yaml", "tests"])
def test_a_contract_that_is_no_file_is_one_line(file: str) -> None:
    code, said = _run(["up", "teleop", "sim:=false", f"contract:={file}"], subprocess.DEVNULL)
    assert code == 2 and said.startswith(f"error: configuration file '{file}' ") and said.count("\n") == 1, said


def test_a_log_that_is_no_file_is_one_line_and_nothing_is_started() -> None:
    code, said = _run(["up", "self_improve", "--log", "tests"], subprocess.DEVNULL)
    assert code == 2 and said.count("\n") == 1 and "Is a directory: 'tests'" in said, said


def test_what_is_no_text_is_printed_all_the_same() -> None:
    script = "import sys\nsys.argv[0] = 'lrm'\nimport lrm_ros\nprint('caf\\u00e9 \\udcff \\ud800')"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"caf\\xe9 \\udcff \\ud800\n"), done.stderr
