# SPDX-License-Identifier: Apache-2.0
"""``lrm bench faults``: how long after a fault an arm in motion is told to hold, and whether it then does.

A robot of 50 Hz joint states and 30 Hz images is played here (``robot.py``); the policy node is a process of its own,
whose policy moves all joints. Time runs from the fault (the last good message, the call, the signal) to the command to
hold as the arm receives it; the time-out that a fault has by its nature is taken off. After it the arm must stand.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lrm_ros.config import RobotContract
from lrm_ros.nodes.policy import PolicyNode
from lrm_ros.options import whole
from lrm_ros.private_domain import use_private_domain
from lrm_ros.progress import progress_bar
from lrm_ros.ros.program import run
from lrm_ros.ros.stamps import STILL
from lrm_ros.training.bench.robot import RAISE, STATE_HZ, Robot, until
from lrm_ros.types import ActionChunk, Observation

TIMEOUT_S = 0.5
LATEST_S = 0.1  # after the time-out
_PATIENCE_S = 60.0


class Sweep:
    """A policy that moves all joints to and fro, and raises when it sees a white image."""

    def __init__(self, contract: RobotContract) -> None:
        """Move the joints of a contract."""
        self._contract, self.observed_steps = contract, 1

    def act(self, observation: Observation) -> ActionChunk:
        """Return eight steps."""
        return self.predict(observation)

    def predict(
        self, observation: Observation, delay_steps: int = 0, running: tuple[int, int] | None = None
    ) -> ActionChunk:
        """Return eight steps and what the delay needs.

        Raises:
            RuntimeError: a white image.
        """
        if next(iter(observation.frames.values())).image[0, 0, 0] == RAISE:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        steps = observation.stamp_ns / 1e9 + self._contract.dt_s * np.arange(1, 17 + delay_steps)
        wanted = 0.5 * np.sin(2 * math.pi * steps / 4.0)[:, None] * np.ones(len(self._contract.joints))
        return ActionChunk(observation.stamp_ns, wanted.astype(np.float32), self._contract.dt_s)

    def reset(self, seed: int | None = None) -> None:
        """Nothing to forget."""


class SweepNode(PolicyNode):
    """The policy node with that policy."""

    def _load(self) -> None:
        super()._load()
        assert self._predictor is not None
        self._predictor.policy = Sweep(self.contract)


OF_CAMERA = ("the camera stops", "images without pixels", "the policy raises")
# What a message can be like -> the time-out that it has by its nature [s].
MESSAGES = {
    "joint states stop": TIMEOUT_S,
    "joint states freeze": STILL / STATE_HZ,
    "a joint is NaN": 0.0,
    "joint states in degrees": 0.0,
    "joint states without stamp": 0.0,
    "the arm's clock jumps back": 0.0,
    "the camera stops": TIMEOUT_S,
    "images without pixels": 0.0,
    # It is asked once a chunk: eight steps, less 1.5 before their end.
    "the policy raises": 0.8,
}
CALLS: dict[str, tuple[Callable[[Robot], None], Callable[[Robot], None] | None]] = {
    "policy/reload": (Robot.reload, None),
    "deactivate": (Robot.deactivate, Robot.activate),
}
SIGNALS = {"SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM, "SIGHUP": signal.SIGHUP}


class Bench:
    """The robot and the policy node's process."""

    def __init__(self, robot: Robot, log: Path | None) -> None:
        """Start the process when it is needed; its output goes to ``log``, ``None``: nowhere."""
        self._robot = robot
        self._out = log.open("ab") if log else None
        self._process: subprocess.Popen[bytes] | None = None

    def moving(self) -> None:
        """Wait until the policy moves the arm."""
        if self._process is None or self._process.poll() is not None:
            words = [sys.executable, "-m", "lrm_ros.training.bench.faults", "--ros-args", "-p", "checkpoint:=fake",
                     "-p", f"timeout_s:={TIMEOUT_S}"]  # fmt: skip
            out = self._out or subprocess.DEVNULL
            self._process = subprocess.Popen(words, env={**os.environ, _CHILD: "1"}, stdout=out, stderr=out)
        begin = time.monotonic()
        until(lambda: self._robot.moved_s > begin and not self._robot.held_s, "motion")
        time.sleep(random.uniform(0.2, 1.2))  # wherever in a chunk

    def trial(self, name: str) -> dict[str, Any]:
        """Make one fault happen; returns how long it took and whether the arm stood."""
        robot = self._robot
        self.moving()
        if name in MESSAGES:
            robot.fault = name
            until(lambda: robot.held_s, f"a hold after '{name}'", 10.0)
            begin_s, allowed = robot.good_s[name in OF_CAMERA], MESSAGES[name]
        else:
            begin_s, allowed = time.monotonic(), 0.0
            if name in CALLS:
                CALLS[name][0](robot)
            else:
                assert self._process is not None
                self._process.send_signal(SIGNALS[name])
            until(lambda: robot.held_s, f"a hold after '{name}'", 10.0)
        taken_s = robot.held_s - begin_s
        time.sleep(0.1)
        at = robot.position.copy()
        if name != "policy/reload":  # after which it moves again
            time.sleep(0.5)
        stood = bool(np.array_equal(at, robot.position))
        robot.fault = ""
        if name in CALLS and (undo := CALLS[name][1]) is not None:
            undo(robot)
        if name in SIGNALS:
            assert self._process is not None
            self._process.wait(_PATIENCE_S)
        return {"seconds": taken_s, "after_timeout": max(0.0, taken_s - allowed), "stood": stood}

    def killed(self) -> dict[str, Any]:
        """Kill the policy node; returns how long the arm moved on and whether it stood at the last point asked for."""
        robot = self._robot
        self.moving()
        assert self._process is not None
        chunk = robot._server._chunk
        self._process.kill()
        begin_s = time.monotonic()
        self._process.wait()
        last, since_s = robot.position.copy(), begin_s
        while time.monotonic() - since_s < 0.5:
            if not np.array_equal(last, robot.position):
                last, since_s = robot.position.copy(), time.monotonic()
            time.sleep(0.002)
        chunk = robot._server._chunk or chunk
        assert chunk is not None
        return {"seconds": since_s - begin_s, "stood": bool(np.allclose(last, chunk.actions[-1], atol=1e-5))}

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        if self._out is not None:
            self._out.close()


_CHILD = "LRM_BENCH_FAULTS"  # environment variable: this process is the policy node


def main(argv: list[str] | None = None) -> int:
    """Measure and print; 1 if one took too long or the arm did not stand."""
    parser = argparse.ArgumentParser(
        prog="lrm bench faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=whole(1), default=20, help="how often each fault happens (default 20)")
    parser.add_argument("--seed", type=whole(0), default=0, help="of the moments")
    parser.add_argument("--only", nargs="+", choices=[*MESSAGES, *CALLS, *SIGNALS, "SIGKILL"], metavar="FAULT")
    parser.add_argument("--log", type=Path, metavar="FILE", help="write the policy node's output to FILE")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(argv)
    if options.times < 1:
        parser.error("give at least one time")
    use_private_domain()
    random.seed(options.seed)
    names = options.only or [*MESSAGES, *CALLS, *SIGNALS, "SIGKILL"]
    figures: dict[str, Any] = {"times": options.times, "seed": options.seed, "timeout_s": TIMEOUT_S, "faults": {}}
    bad = 0
    robot = Robot()
    bench = Bench(robot, options.log)
    try:
        with progress_bar(len(names) * options.times, "faults", "fault") as bar:
            for name in names:
                trials = []
                for _ in range(options.times):
                    trials.append(bench.killed() if name == "SIGKILL" else bench.trial(name))
                    bar.update()
                stood = sum(trial["stood"] for trial in trials)
                taken = [trial["seconds"] for trial in trials]
                late = max(trial.get("after_timeout", 0.0) for trial in trials)
                bad += stood < len(trials) or late > LATEST_S
                figures["faults"][name] = {
                    "seconds": {"p50": round(float(np.median(taken)), 4), "max": round(max(taken), 4)},
                    "after_timeout_max": round(late, 4),
                    "stood": stood,
                }
                if name == "SIGKILL":
                    bar.write(f"{name:28s} moves on for {max(taken):.3f} s at most; stood at the last point {stood}")
                else:
                    bar.write(
                        f"{name:28s} held after p50 {np.median(taken):.3f}, max {max(taken):.3f} s, at most "
                        f"{late:.3f} s beyond the time-out; stood {stood} of {len(trials)}"
                    )
    except TimeoutError as error:
        print(f"lrm bench faults: {error}", file=sys.stderr)
        return 1
    finally:
        bench.close()
        robot.close()
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(run(SweepNode) if os.environ.get(_CHILD) else main())
