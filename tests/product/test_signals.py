# SPDX-License-Identifier: Apache-2.0
"""Signals at named moments of a node, a graph and a command: one exit code, no traceback, nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lrm_ros.programs import ASK_TO_STOP, exit_code
from lrm_ros.training.bench import signals as bench

ROOT = Path(__file__).parents[2]
ASKING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

_NODE = """
import os, signal, sys, time
sys.path[:0] = ["tests/ros", "tests", "."]
from test_base import Example
from lrm_ros.ros.program import run
def ask():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), number)
class Program(Example):
    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        {init}
    def configure(self):
        super().configure()
        {configure}
    def deactivate(self):
        super().deactivate()
        {deactivate}
        print("held", flush=True)
    def cleanup(self):
        super().cleanup()
        {cleanup}
        print("closed", flush=True)
run(Program, [])
"""


def _play(**bodies: str) -> subprocess.CompletedProcess[str]:
    body = _NODE.format(**{"init": "pass", "configure": "pass", "deactivate": "pass", "cleanup": "pass", **bodies})
    return subprocess.run(
        [sys.executable, "-c", body], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("bodies", "says"),
    [
        ({"init": "ask()"}, ["closed"]),
        ({"configure": "ask()"}, ["closed"]),
        ({"configure": "self.create_timer(0.01, ask)"}, ["held", "closed"]),
        ({"configure": "self.create_timer(0.01, ask)", "deactivate": "ask()", "cleanup": "ask()"}, ["held", "closed"]),
        # A start that goes on is interrupted, and one that loses the interrupt, too, is ended.
        ({"configure": "ask()\n        while True: time.sleep(0.01)"}, ["closed"]),
        (
            {
                "configure": "ask()\n        while True:\n            try: time.sleep(9)\n"
                "            except KeyboardInterrupt: pass"
            },
            [],
        ),
    ],
    ids=["constructor", "configure", "running", "stopping", "long configure", "lost interrupt"],
)
def test_a_node_ends_with_0_whenever_it_is_asked_to_stop(bodies, says):
    done = _play(**bodies)
    output = done.stdout + done.stderr
    assert done.returncode == 0 and "Traceback" not in output, output
    assert [line for line in done.stdout.splitlines() if line in ("held", "closed")] == says


def _stopped_in_import(words: list[str], number: int, tmp_path: Path) -> tuple[int, str]:
    """Start a program of ours that stops in the import of numpy, send it a signal there, and return how it ended."""
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy/__init__.py").write_text(
        f"import time\nopen({str(tmp_path / 'there')!r}, 'w').close()\nwhile True: time.sleep(0.01)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    process = subprocess.Popen(
        [sys.executable, "-m", *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 30
    while not (tmp_path / "there").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    return process.returncode, output


@pytest.mark.parametrize("number", ASKING)
@pytest.mark.parametrize(
    "words", [["lrm_ros.nodes.camera"], ["lrm_ros.sim.twin.node"], ["lrm_ros.cli", "up", "teleop"]]
)
def test_a_signal_in_the_imports_of_a_node_or_a_graph_is_no_failure(words, number, tmp_path):
    assert _stopped_in_import(words, number, tmp_path) == (0, "")


@pytest.mark.parametrize("words", [["lrm_ros.cli", "collect"], ["lrm_ros.training.policy.collect"]])
def test_a_command_that_is_interrupted_in_its_imports_ends_with_130_and_one_line(words, tmp_path):
    code, output = _stopped_in_import([*words, "--out", "nowhere"], signal.SIGINT, tmp_path)
    assert code == 130 and output.strip().endswith(": interrupted") and "Traceback" not in output


def test_a_signal_before_the_handlers_stand_waits_for_them():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ASK_TO_STOP)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "lrm_ros.nodes.camera"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        process.send_signal(signal.SIGTERM)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    output, _ = process.communicate(timeout=30)
    assert (process.returncode, output) == (0, b"")


@pytest.mark.parametrize("module", ["nodes.recorder", "nodes.policy", "nodes.evaluator", "sim.twin.node"])
def test_a_node_that_ends_gives_back_the_shared_memory_of_dds(module):
    process = subprocess.Popen(
        [sys.executable, "-m", f"lrm_ros.{module}"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (memory := bench.shared_memory(process.pid)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0
    assert not [path for path in memory if path.exists()]


def test_teleoperation_without_a_terminal_says_so_and_ends_with_2():
    done = subprocess.run(
        [sys.executable, "-m", "lrm_ros.nodes.teleop"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        start_new_session=True,
    )
    assert done.returncode == 2 and "there is no terminal to read keys from" in done.stdout + done.stderr


def test_the_exit_code_tells_what_the_user_gave_from_what_went_wrong():
    given = (ValueError("x"), FileNotFoundError("x"), IsADirectoryError("x"))
    wrong = (RuntimeError("x"), FloatingPointError("x"), OSError(28, "No space left on device"), ImportError("x"))
    assert [exit_code(error) for error in (*given, *wrong)] == [2] * 3 + [1] * 4


def test_the_benchmark_repeats_its_plan_and_sees_a_bad_end(tmp_path, monkeypatch, capsys):
    assert bench.plan(9, 3, list(bench.PROGRAMS)) == bench.plan(9, 3, list(bench.PROGRAMS))
    assert bench.plan(9, 3, list(bench.PROGRAMS)) != bench.plan(9, 4, list(bench.PROGRAMS))
    monkeypatch.setitem(bench.PROGRAMS, "bad", (["-c", "raise SystemExit(7)"], 30.0))
    monkeypatch.setitem(bench.PROGRAMS, "good", (["-m", "lrm_ros.nodes.camera"], 0.0))
    assert bench.main(["--starts", "2", "--only", "good", "--json", str(tmp_path / "good.json")]) == 0
    assert '"bad": []' in (tmp_path / "good.json").read_text()
    assert bench.main(["--starts", "1", "--only", "bad", "--json", str(tmp_path / "bad.json")]) == 1
    assert '"fault": "exit code 7"' in (tmp_path / "bad.json").read_text()
    assert "1 ended badly" in capsys.readouterr().out
