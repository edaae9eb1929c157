# SPDX-License-Identifier: Apache-2.0
"""The walk: twin, policy, reward, recorder, evaluator and improver as processes, killed in the middle and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState

ROOT = Path(__file__).resolve().parents[2]
# The judge keeps everything (threshold 0), so the walk does not depend on how good model and policy are.
SMALL = [
    "improver.judge_threshold:=0.0", "demonstrations:=2", "improver.episodes:=2", "tries:=1", "rollout_steps:=16",
    "improver.max_steps:=16",
    "iterations:=1", "sft_steps:=4", "finetune_steps:=2", "batch_size:=4", "eval_episodes:=2",
    "eval_seed:=900000",
]  # fmt: skip


def _start(run: Path) -> subprocess.Popen:
    words = [sys.executable, "-m", "lrm_ros.graph.runner", "self_improve", f"run:={run}", *SMALL]
    with (run.parent / "output.txt").open("a") as output:
        return subprocess.Popen(words, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)


def _wait_for(path: Path, process: subprocess.Popen, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, f"ended with {process.returncode} before {path}: {_output(path.parents[1])}"
        assert time.monotonic() < deadline, f"{path} is not there after {seconds} s: {_output(path.parents[1])}"
        time.sleep(0.05)


def _output(run: Path) -> str:
    """Return the end of what the graph has said."""
    return (run.parent / "output.txt").read_text()[-6000:]


def _kill(process: subprocess.Popen) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait_end(process: subprocess.Popen, run: Path, seconds: float) -> int:
    """Wait for the end as long as something is said or done; a starved computer is slow, not stuck."""
    watched = [run, run / "demonstrations", run / "iter_000", run / "iter_001", run / "eval", run.parent / "output.txt"]

    def state() -> list[tuple[int, int]]:
        return [(path.stat().st_mtime_ns, path.stat().st_size) for path in watched if path.exists()]

    last, changed_s = state(), time.monotonic()
    while process.poll() is None:
        if (now := state()) != last:
            last, changed_s = now, time.monotonic()
        idle_s = time.monotonic() - changed_s
        assert idle_s < seconds, f"nothing for {idle_s:.0f} s: {_output(run)}"
        time.sleep(0.1)
    return process.returncode


@pytest.mark.slow
def test_the_loop_goes_on_after_a_stop_and_after_a_kill_and_ends_with_all_its_results(tmp_path, spin, probe):
    run = tmp_path / "run"
    process = _start(run)
    try:
        _wait_for(run / "demonstrations" / "verdicts.jsonl", process, 240)
        for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
            request = ChangeState.Request(transition=Transition(id=transition))
            assert spin.call(probe, ChangeState, "improver/change_state", request, 60).success
            if transition == Transition.TRANSITION_DEACTIVATE:
                assert not (run / "demonstrations" / "dataset").exists(), "it has stopped in the middle"
        _wait_for(run / "iter_001" / "verdicts.jsonl", process, 240)
    finally:
        _kill(process)
    journals = {path: path.read_bytes() for path in run.glob("demonstrations/episodes/*.mcap")}
    assert len(journals) == 2

    process = _start(run)
    try:
        assert _wait_end(process, run, 240) == 0, _output(run)
    finally:
        _kill(process)
    assert {path: path.read_bytes() for path in run.glob("demonstrations/episodes/*.mcap")} == journals
    stages = [json.loads(line)["stage"] for line in (run / "stages.jsonl").read_text().splitlines()]
    assert stages == ["demonstrations", "sft", "rollout", "dataset", "finetune", *["evaluate"] * 3]
    for name in ("baseline", "control", "final"):
        result = json.loads((run / "eval" / f"{name}.json").read_text())
        assert len(result["success"]) == 2
        assert result["seeds"] == [900_000, 900_001]
    truth = [json.loads(line) for line in (run / "iter_001" / "truth.jsonl").read_text().splitlines()]
    verdicts = [json.loads(line) for line in (run / "iter_001" / "verdicts.jsonl").read_text().splitlines()]
    assert [row["episode_id"] for row in truth] == [row["episode_id"] for row in verdicts]
    assert all(row["steps"] == 16 for row in truth)
