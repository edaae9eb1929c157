# SPDX-License-Identifier: Apache-2.0
"""What the bench of driver and bus stands on: the emulator as a program, and a contract with its port."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lrm_ros.config import RobotContract
from lrm_ros.config_arm import SECTION, load_arm
from lrm_ros.config_files import load_yaml
from lrm_ros.training.bench.bus import Emulator, contract_of

SOURCE = Path(__file__).parents[3] / "config" / "so100_bus.yaml"


def test_the_emulator_sets_scenes_and_tells_the_truth_until_it_is_left(tmp_path):
    with Emulator(tmp_path) as emulator:
        assert "bowl" in emulator.ask("scene 3")
        assert emulator.ask("outcome") == "failure"
        assert emulator.ask("scene x").startswith("error: ")
        assert (tmp_path / "twin").exists() and (tmp_path / "calibration" / "twin.json").is_file()
    assert emulator.code == 0
    with pytest.raises(RuntimeError, match="ended with code 0"):
        emulator.ask("outcome")


def test_the_contract_is_the_twins_with_the_emulators_port(tmp_path):
    path = contract_of(SOURCE, tmp_path)
    contract = load_yaml(path, RobotContract, (SECTION,))
    assert contract == load_yaml(SOURCE, RobotContract, (SECTION,))
    arm = load_arm(path, contract)
    assert (arm.port, arm.calibration_dir) == (str(tmp_path / "twin"), str(tmp_path / "calibration"))
    assert arm.joints == load_arm(SOURCE, contract).joints


def test_ctrl_c_ends_a_bench_with_a_node_of_its_own_and_no_thread_falls():
    body = """
import time
from lrm_ros.training.bench.bus import spinning
with spinning("waits"):
    print("up", flush=True)
    while True:
        time.sleep(0.1)
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", body], stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGINT)
        try:
            said = process.communicate(timeout=30)[1]
        finally:
            process.kill()
    assert "KeyboardInterrupt" in said and "ExternalShutdownException" not in said
