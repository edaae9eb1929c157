# SPDX-License-Identifier: Apache-2.0
"""``lrm bench bus``: a policy moves the twin's arm through the arm node, LeRobot's driver and the emulated servo bus.

Success beside that in the twin without driver and bus, in real time and in lock-step, on the same start poses. Arm,
camera, policy and emulator are processes, as on a desk; the scene is put in place as a person would: the arm rests,
its torque goes off, the toy is put down, the arm is taken up again. Everything runs in real time, so that a busy
machine shows in the figures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import rclpy
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State, Transition
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from lrm_ros import messages, topics
from lrm_ros.config import EvaluatorConfig, RobotContract
from lrm_ros.config_arm import ArmNodeConfig
from lrm_ros.config_files import read_yaml
from lrm_ros.errors import one_line
from lrm_ros.graph.graphs import NodeSpec
from lrm_ros.graph.runner import Graph
from lrm_ros.options import number, whole
from lrm_ros.private_domain import use_private_domain
from lrm_ros.ros.base import set_transport
from lrm_ros.ros.control import Control, EpisodeError
from lrm_ros.ros.executor import make_executor
from lrm_ros.training.bench.realtime import lock_step, rate, realtime
from lrm_ros.training.report.stats import paired, proportion

REST_S = 6.0  # the arm has so long to reach its resting pose and switch its torque off [s]


class Emulator:
    """The emulated bus with the twin's arm, and its camera, as a program of their own."""

    def __init__(self, folder: Path, leader: bool = False) -> None:
        """Start; links, calibration and cameras are in ``folder``.

        Args:
            folder: for them.
            leader: with a second arm called ``leader``, and a camera on the gripper beside the one in front.

        Raises:
            RuntimeError: it has ended at once.
        """
        words = ["twin", *(["leader", "--wrist"] if leader else []), "--links", folder, "--cameras", folder / "cameras"]
        words += ["--calibrated", "--calibration", folder / "calibration"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lrm_ros.sim.servo_bus", *map(str, words)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        while not self._line().startswith("wrist: " if leader else "front: "):
            pass

    def ask(self, line: str) -> str:
        """Give it a line and return its answer.

        Raises:
            RuntimeError: it has ended.
        """
        assert self._process.stdin is not None
        if self.code is None:
            self._process.stdin.write(line + "\n")
        return self._line()

    @property
    def code(self) -> int | None:
        """Its exit code, if it has ended."""
        return self._process.poll()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline() if self.code is None else ""
        if not line:
            raise RuntimeError(f"the emulated bus ended with code {self._process.wait()}; its output says why")
        return line.strip()

    def __enter__(self) -> Emulator:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class Person:
    """Puts the scene in place and lets the policy begin, by the services of arm and policy."""

    def __init__(self, node: Node, emulator: Emulator) -> None:
        """Know the node that asks, and the emulator whose scene it is."""
        triggers = ["arm/reset", "arm/torque_off", "policy/reload"]
        self.control = Control(node, triggers, ["policy"], lifecycles=["policy"])
        self._emulator = emulator
        self._torque = ""  # as the arm says on /diagnostics
        topics.DIAGNOSTICS.subscribe(node, self._on_diagnostics)

    def begin(self, seed: int) -> None:
        """Begin an episode with the scene of a seed.

        Raises:
            EpisodeError: arm or policy refuses; says why.
        """
        self.control.change("policy", Transition.TRANSITION_DEACTIVATE)
        self._put_to_rest()
        if "error" in (said := self._emulator.ask(f"scene {seed}")):
            raise EpisodeError(said)
        self.control.trigger("arm/reset")
        self.control.change("policy", Transition.TRANSITION_ACTIVATE)

    def _put_to_rest(self) -> None:
        """Have the arm go to its rest, without torque; if a servo is overloaded on the way, where it is then."""
        for last in (False, True):
            self.control.trigger("arm/torque_off")
            self._torque = ""
            try:
                self.control.wait_until(lambda: self._torque == "off", "the arm without torque", REST_S)
            except EpisodeError:
                if last:
                    raise
            else:
                return

    def use(self, checkpoint: Path) -> None:
        """Let another policy act from the next episode on.

        Raises:
            EpisodeError: it cannot be loaded; says why.
        """
        self.control.change("policy", Transition.TRANSITION_DEACTIVATE)
        self.control.set("policy", {"checkpoint": str(checkpoint)})
        self.control.trigger("policy/reload")
        self.control.change("policy", Transition.TRANSITION_ACTIVATE)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith("arm"):
                self._torque = messages.status_values(status).get("torque", "")
                self.control.notify()


@contextmanager
def spinning(name: str) -> Iterator[Node]:
    """Yield a node that a thread of its own spins, so that this one can call services."""
    set_transport()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(name)
    executor = make_executor(node.get_logger())
    executor.add_node(node)
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.1)

    thread = threading.Thread(target=spin, name="bench")
    thread.start()
    try:
        yield node
    finally:
        stop.set()
        thread.join()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()


def through_the_bus(
    checkpoint: str, seeds: range, max_steps: int, source: Path, arm: dict[str, Any], log: Path | None
) -> dict[int, bool]:
    """Evaluate the policy through driver and bus; returns success by seed.

    Args:
        checkpoint: folder of the policy.
        seeds: of the scenes.
        max_steps: control steps an episode.
        source: contract of the twin's arm behind the bus.
        arm: parameters of the arm node.
        log: file for the nodes' output.

    Raises:
        RuntimeError: a node has died.
        EpisodeError: one refuses.
    """
    won: dict[int, bool] = {}
    with tempfile.TemporaryDirectory(prefix="lrm_bench_") as name, Emulator(Path(name)) as emulator:
        contract = contract_of(source, Path(name))
        nodes = [
            NodeSpec("camera_front", "camera", {"source": f"{name}/cameras/front", "camera": "front", "rate_hz": 30.0,
                                                "width": 96, "height": 96}),
            NodeSpec("arm", "arm", arm | {"contract": str(contract)}),
            NodeSpec("policy", "policy", {"checkpoint": checkpoint, "contract": str(contract), "realtime": True,
                                          "timeout_s": 2.0}),
        ]  # fmt: skip
        with Graph(nodes, log=log, show=()) as graph, spinning("bench_bus") as node:
            someone = Person(node, emulator)
            someone.control.wait_ready(["arm/reset", "arm/torque_off"], check=graph.check)
            someone.control.wait_state("policy", State.PRIMARY_STATE_ACTIVE)
            for seed in seeds:
                someone.begin(seed)
                won[seed] = succeeds(emulator, max_steps * RobotContract().dt_s)
                graph.check()
                print(f"seed {seed}: {'success' if won[seed] else 'failure'}", flush=True)
    return won


def contract_of(source: Path, folder: Path) -> Path:
    """Write the contract of the twin's arm with the emulator's port and calibration; returns its path."""
    values = read_yaml(source)
    values["arm"] |= {"port": str(folder / "twin"), "calibration_dir": str(folder / "calibration")}
    path = folder / "contract.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def succeeds(emulator: Emulator, seconds: float) -> bool:
    """Wait for success; returns whether it has come."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if emulator.ask("outcome") == "success":
            return True
        time.sleep(0.05)
    return False


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="lrm bench bus", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, metavar="FOLDER", help="policy, e.g. runs/demo/iter_002/policy")
    parser.add_argument("--episodes", type=whole(1), default=60, help="start poses, one episode each (default 60)")
    parser.add_argument("--first-seed", type=whole(0), default=EvaluatorConfig.first_seed, help="of the start poses")
    parser.add_argument(
        "--max-steps", type=whole(1), default=EvaluatorConfig.max_steps, help="control steps an episode"
    )
    parser.add_argument(
        "--contract", type=Path, default=Path("config/so100_bus.yaml"), metavar="FILE", help="of the twin's arm"
    )
    parser.add_argument(
        "--approach-speed",
        type=number(above=True),
        default=ArmNodeConfig.approach_speed,
        metavar="RAD_S",
        help="at which the arm node approaches the first command (default: its own); the twin has no such limit",
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="write the nodes' output to FILE")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(argv)
    use_private_domain()
    seeds = range(options.first_seed, options.first_seed + options.episodes)
    given = (options.checkpoint, seeds, options.max_steps)
    figures: dict[str, Any] = {"checkpoint": options.checkpoint, "seeds": [seeds.start, len(seeds)]}
    try:
        arm = {"approach_speed": options.approach_speed}
        figures |= arm
        won = through_the_bus(*given, options.contract, arm, options.log)
        figures["bus"] = proportion(sum(won.values()), len(won)) | {"success": won}
        print(f"through driver and bus: {rate(figures['bus'])}", flush=True)
        twin = realtime(0.0, *given, options.log)["success"]
        for name, found in (("twin in real time", twin), ("lock-step", lock_step(*given, options.log))):
            other = {seed: bool(value) for seed, value in found.items()}
            figures[name] = proportion(sum(other.values()), len(other)) | {"against": paired(won, other)}
            pair = figures[name]["against"]
            low, high = (100 * value for value in pair["ci95"])
            print(
                f"{name}: {rate(figures[name])}; the bus {100 * pair['difference']:+.1f} points "
                f"({low:+.1f} to {high:+.1f}) against it",
                flush=True,
            )
    except (RuntimeError, FileNotFoundError, ValueError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1 if isinstance(error, RuntimeError) else 2
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
