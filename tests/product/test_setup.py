# SPDX-License-Identifier: Apache-2.0
"""The set-up finds a Python that runs: on PATH, behind pyenv's shims, among pyenv's and uv's versions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]


def python(path: Path, version: str) -> Path:
    """A stand-in of an interpreter: it answers the question that the script asks, and nothing else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\necho "{version} {path}"\n')
    path.chmod(0o755)
    return path


def shim(path: Path) -> Path:
    """What pyenv puts on PATH for a version that is installed but not chosen."""
    python(path, "").write_text('#!/bin/sh\necho "pyenv: python3.12: command not found" >&2\nexit 127\n')
    return path


@pytest.fixture
def find(tmp_path: Path):
    """Runs tools/find_python.sh in a home of its own; returns what it prints, empty if it finds none."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "bash", "env", "sort"):
        (tools / name).symlink_to(str(shutil.which(name)))

    def run(*versions: str) -> str:
        path = os.pathsep.join([str(tmp_path / "shims"), str(tmp_path / "bin"), str(tools)])
        environment = {"PATH": path, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "share")}
        command = [str(TOP / "tools/find_python.sh"), *versions]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == (0 if done.stdout else 1), done.stderr
        return done.stdout.strip()

    return run


def test_the_first_version_that_is_there_wins(tmp_path: Path, find) -> None:
    assert find("3.12", "3.11") == ""
    older = python(tmp_path / "bin/python3", "3.11")
    assert find("3.12", "3.13", "3.11") == str(older)
    newer = python(tmp_path / "bin/python3.12", "3.12")
    assert find("3.12", "3.13", "3.11") == str(newer)
    assert find("3.11") == str(older)


def test_a_shim_that_fails_is_passed_over_for_what_is_behind_it(tmp_path: Path, find) -> None:
    shim(tmp_path / "shims/python3.12")
    older = python(tmp_path / "bin/python3", "3.11")
    assert find("3.12", "3.11") == str(older)
    for patch in ("3.12.9", "3.12.10"):
        real = python(tmp_path / f".pyenv/versions/{patch}/bin/python", "3.12")
    assert find("3.12", "3.11") == str(real), "the newest patch release"


def test_uvs_versions_are_found_without_uv_on_path(tmp_path: Path, find) -> None:
    real = python(tmp_path / "share/uv/python/cpython-3.13.2-linux-x86_64-gnu/bin/python3", "3.13")
    assert find("3.12", "3.13") == str(real)


def test_a_name_that_promises_another_version_is_not_believed(tmp_path: Path, find) -> None:
    python(tmp_path / "bin/python3.12", "3.10")
    assert find("3.12") == ""


def test_the_python_of_these_tests_is_found_by_its_own_version() -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    command = [str(TOP / "tools/find_python.sh"), version]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()
    assert Path(found).samefile(sys._base_executable)  # type: ignore[attr-defined]
