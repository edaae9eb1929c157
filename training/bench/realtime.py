# SPDX-License-Identifier: Apache-2.0
"""``lrm bench realtime``: the twin in real time moved by a policy that sleeps: pauses, and success beside lock-step.

The twin and the evaluator are processes; the policy node runs here and sleeps before each prediction. A pause is a
control step for which the arm had no action when it was due, between an episode's first action and its end.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.signals import SignalHandlerOptions
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages, topics
from lrm_ros.config import EvaluatorConfig, RobotContract
from lrm_ros.graph.graphs import NodeSpec, nodes_of
from lrm_ros.graph.runner import Graph
from lrm_ros.nodes.policy import PolicyNode
from lrm_ros.options import number, whole
from lrm_ros.policy import Policy
from lrm_ros.private_domain import use_private_domain
from lrm_ros.ros.base import set_transport
from lrm_ros.ros.executor import make_executor
from lrm_ros.training.report.stats import paired, proportion
from lrm_ros.types import ActionChunk, Observation


class Slow:
    """A policy that sleeps before it predicts."""

    def __init__(self, policy: Policy, sleep_s: float) -> None:
        """Take a policy and a time [s]."""
        self._policy, self._sleep_s = policy, sleep_s
        self.observed_steps = policy.observed_steps

    def act(self, observation: Observation) -> ActionChunk:
        """Sleep and act."""
        time.sleep(self._sleep_s)
        return self._policy.act(observation)

    def predict(
        self, observation: Observation, delay_steps: int = 0, running: tuple[int, int] | None = None
    ) -> ActionChunk:
        """Sleep and predict."""
        time.sleep(self._sleep_s)
        return self._policy.predict(observation, delay_steps, running)

    def reset(self, seed: int | None = None) -> None:
        """Forget the episode."""
        self._policy.reset(seed)


class SlowPolicyNode(PolicyNode):
    """The policy node with a policy that sleeps."""

    def __init__(self, sleep_s: float, **overrides: Any) -> None:
        """Take a time [s] and parameter values."""
        self._sleep_s = sleep_s
        super().__init__(**overrides)

    def _load(self) -> None:
        super()._load()
        assert self._predictor is not None
        if self._predictor.policy is not None:
            self._predictor.policy = Slow(self._predictor.policy, self._sleep_s)


class Pauses:
    """Counts the control steps for which an arm had no action.

    Attributes:
        steps: control steps after an episode's first action.
        without: those of them that no command covered when they were due.
        longest: most of these in a row.
        before: control steps before an episode's first action.
    """

    def __init__(self, dt_s: float) -> None:
        """Count for a control period [s]."""
        self._dt_ns = round(1e9 * dt_s)
        self.steps = self.without = self.longest = self.before = 0
        self._commands: list[tuple[int, int]] = []  # number of the first control step, and how many
        self.reset()

    def reset(self) -> None:
        """An episode begins."""
        self._begin: int | None = None  # number of its first control step
        self._moving, self._row = False, 0

    def command(self, stamp_ns: int, steps: int) -> None:
        """A command of so many steps was asked for."""
        self._commands = [*self._commands[-9:], (round(stamp_ns / self._dt_ns), steps)]

    def sent(self, stamp_ns: int) -> None:
        """The arm was sent the target of a control step; it ignores commands that answer the episode before."""
        step = round(stamp_ns / self._dt_ns)
        if self._begin is None:
            self._begin = step
        covered = any(self._begin <= first <= step < first + steps for first, steps in self._commands)
        self._moving = self._moving or covered
        if not self._moving:
            self.before += 1
            return
        self.steps += 1
        self._row = 0 if covered else self._row + 1
        self.without += not covered
        self.longest = max(self.longest, self._row)


def realtime(sleep_s: float, checkpoint: str, seeds: range, max_steps: int, log: Path | None) -> dict[str, Any]:
    """Evaluate a policy that sleeps in the real-time twin; returns its figures and ``success`` by seed.

    Raises:
        RuntimeError: a node has died.
    """
    set_transport()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    pauses = Pauses(RobotContract().dt_s)
    node = SlowPolicyNode(sleep_s, checkpoint=checkpoint, realtime=True, timeout_s=2.0)
    watch = rclpy.create_node("bench_realtime")

    def on_evaluation(_: DiagnosticStatus) -> None:
        pauses.reset()  # an episode has ended; the next one is begun at once

    def on_sent(message: JointTrajectory) -> None:
        pauses.sent(messages.to_ns(message.header.stamp))

    def on_command(message: JointTrajectory) -> None:
        if message.header.stamp.sec or message.header.stamp.nanosec:  # else a hold
            pauses.command(messages.to_ns(message.header.stamp), len(message.points))

    topics.JOINT_COMMAND.subscribe(watch, on_command)
    topics.JOINT_COMMAND_SENT.subscribe(watch, on_sent)
    topics.EVALUATION.subscribe(watch, on_evaluation)
    executor = make_executor(watch.get_logger())
    executor.add_node(node)
    executor.add_node(watch)
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.1)

    thread = threading.Thread(target=spin, name="policy")
    with tempfile.TemporaryDirectory(prefix="lrm_bench_") as folder:
        file = Path(folder) / "result.json"
        nodes = [
            NodeSpec("twin", "twin", {"realtime": True}),
            NodeSpec("evaluator", "evaluator", {"once": True, "checkpoint": checkpoint, "file": str(file),
                                                "first_seed": seeds.start, "episodes": len(seeds),
                                                "max_steps": max_steps}, ends_graph=True),
        ]  # fmt: skip
        try:
            node.trigger_configure()
            node.trigger_activate()
            thread.start()
            with Graph(nodes, log=log, show=()) as graph:
                code = graph.wait()
            if code != 0:
                raise RuntimeError(f"node '{graph.failed}' died with code {code}; its output is in '{log}'")
            result = json.loads(file.read_text())
        finally:
            stop.set()
            thread.join()
            assert node._predictor is not None
            latency_s = node._predictor.timing.latency_s
            node.close()
            executor.shutdown()
            watch.destroy_node()
            rclpy.try_shutdown()
    success = dict(zip(result["seeds"], result["success"], strict=True))
    return {
        "sleep_ms": round(1e3 * sleep_s),
        "latency_ms": round(1e3 * latency_s, 1),
        "steps": pauses.steps,
        "steps_without_action": pauses.without,
        "longest_pause_steps": pauses.longest,
        "steps_before_first_action": pauses.before,
        "success": {seed: int(won) for seed, won in success.items()},
    }


def lock_step(checkpoint: str, seeds: range, max_steps: int, log: Path | None) -> dict[int, int]:
    """Evaluate the policy in lock-step; returns success by seed.

    Raises:
        RuntimeError: a node has died.
    """
    with tempfile.TemporaryDirectory(prefix="lrm_bench_") as folder:
        file = Path(folder) / "result.json"
        settings = {"evaluator.checkpoint": checkpoint, "policy.checkpoint": checkpoint, "file": str(file),
                    "first_seed": seeds.start, "evaluator.episodes": len(seeds),
                    "evaluator.max_steps": max_steps}  # fmt: skip
        with Graph(nodes_of("evaluate", settings), log=log, show=()) as graph:
            code = graph.wait()
        if code != 0:
            raise RuntimeError(f"node '{graph.failed}' died with code {code}; its output is in '{log}'")
        result = json.loads(file.read_text())
    return dict(zip(result["seeds"], result["success"], strict=True))


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="lrm bench realtime", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, metavar="FOLDER", help="policy, e.g. runs/demo/iter_002/policy")
    parser.add_argument("--sleep-ms", type=number(), nargs="+", default=[0, 50, 200, 600], help="default 0 50 200 600")
    parser.add_argument("--episodes", type=whole(1), default=60, help="start poses, one episode each (default 60)")
    parser.add_argument("--first-seed", type=whole(0), default=EvaluatorConfig.first_seed, help="of the start poses")
    parser.add_argument(
        "--max-steps", type=whole(1), default=EvaluatorConfig.max_steps, help="control steps an episode"
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="write the nodes' output to FILE")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(argv)
    if options.episodes < 1 or min(options.sleep_ms) < 0:
        parser.error("give at least one episode, and times of at least 0 ms")
    use_private_domain()
    seeds = range(options.first_seed, options.first_seed + options.episodes)
    try:
        reference = lock_step(options.checkpoint, seeds, options.max_steps, options.log)
        figures: dict[str, Any] = {"checkpoint": options.checkpoint, "seeds": [seeds.start, len(seeds)]}
        figures["lock_step"] = proportion(sum(reference.values()), len(reference))
        print(f"lock-step: {rate(figures['lock_step'])}", flush=True)
        figures["realtime"] = []
        for sleep_ms in options.sleep_ms:
            gc.collect()  # else this one sees the nodes of the one before
            found = realtime(sleep_ms / 1e3, options.checkpoint, seeds, options.max_steps, options.log)
            success = found.pop("success")
            found["success"] = proportion(sum(success.values()), len(success))
            found["against_lock_step"] = paired(success, {seed: bool(won) for seed, won in reference.items()})
            figures["realtime"].append(found)
            pair = found["against_lock_step"]
            low, high = (100 * value for value in pair["ci95"])
            print(
                f"sleeps {sleep_ms:g} ms: {rate(found['success'])}, {100 * pair['difference']:+.1f} points "
                f"({low:+.1f} to {high:+.1f}) against lock-step; {found['steps_without_action']} of {found['steps']} "
                f"control steps without an action, at most {found['longest_pause_steps']} in a row",
                flush=True,
            )
    except RuntimeError as error:
        print(f"lrm bench realtime: {error}")
        return 1
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def rate(found: dict[str, Any]) -> str:
    """Return a proportion with its interval, for people."""
    low, high = found["ci95"]
    return f"{found['count']}/{found['n']} ({low:.0%} to {high:.0%})"


if __name__ == "__main__":
    raise SystemExit(main())
