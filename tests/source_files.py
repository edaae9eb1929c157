# SPDX-License-Identifier: Apache-2.0
"""The Python files of the repository, for the tests that read the source."""

from __future__ import annotations

import ast
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
# sim and training stand at the top level and are linked here; in an sdist they are these folders.
ROOMS = ("lrm_ros", "lrm_ros/sim", "lrm_ros/training")
OURS = ("lrm_ros", "lrm_ros.sim", "lrm_ros.training")
SOURCES = sorted({path for room in ROOMS for path in (TOP / room).rglob("*.py")})
OTHERS = ("lerobot_policy_act_small", "tests", "launch", "tools")
EVERY = [*SOURCES, *sorted(path for room in OTHERS for path in (TOP / room).rglob("*.py"))]
EVERY.append(TOP / "setup.py")


def name_of(path: Path) -> str:
    return path.relative_to(TOP).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), name_of(path))
