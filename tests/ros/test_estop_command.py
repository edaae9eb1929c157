# SPDX-License-Identifier: Apache-2.0
"""``lrm estop`` as a program of its own before arms' nodes: its exit code is 0 only if all arms have answered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lrm_ros.config import RecorderConfig
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.estop import EStop


class Arm(LrmNode[RecorderConfig]):
    """An arm's node without an arm."""

    def __init__(self, name: str) -> None:
        super().__init__(name, RecorderConfig)
        self.trouble: Exception | None = None
        self.estop = EStop(self, self.hold, lambda: None)

    def hold(self) -> None:
        if self.trouble:
            raise self.trouble


@pytest.fixture
def lrm(spin):
    """Run the command while the nodes of the test spin; returns its exit code and what it said."""

    def run(*words: str) -> tuple[int, str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "lrm_ros.cli", "estop", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        spin.until(lambda: process.poll() is not None, 120.0, "the end of the command")
        return process.returncode, process.communicate()[0]

    return run


def test_every_arm_is_stopped_and_one_is_released(spin, lrm) -> None:
    one, two = spin.add(Arm("arm")), spin.add(Arm("other"))
    code, said = lrm()
    assert code == 0 and "/arm: stopped by" in said and "/other: stopped by" in said
    assert one.estop.latched and two.estop.latched
    code, said = lrm("--release", "--timeout", "20")
    assert code == 2 and "2 arms to release (/arm, /other); name one of them" in said
    code, said = lrm("--release", "--arm", "other", "--timeout", "20")
    assert code == 0 and said.endswith("/other: released\n")  # DDS may say something before
    assert one.estop.latched and not two.estop.latched


def test_an_arm_that_may_not_hold_is_no_success(spin, lrm) -> None:
    arm = spin.add(Arm("arm"))
    arm.trouble = ConnectionError("the bus is silent")
    code, said = lrm()
    assert code == 1 and "error: /arm has not acknowledged the stop" in said and "the bus is silent" in said
    assert arm.estop.latched


def test_without_an_arm_it_is_no_success(lrm) -> None:
    code, said = lrm("--timeout", "1.5")
    assert code == 1 and said.startswith("error: no arm is there that could stop") and "Cut the power" in said
    code, said = lrm("--release", "--timeout", "1.5")
    assert code == 1 and "0 arms to release (none is there)" in said
    assert lrm("--arm", "x")[0] == 2
