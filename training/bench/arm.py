# SPDX-License-Identifier: Apache-2.0
"""``lrm bench arm``: from a command to its first byte on the servo bus, and the joint states, with an emulated SO-101.

The arm node, the emulated bus and this program are each a process. A command's time is from its publication here to the
first packet at the servos that has its target: through DDS, the node, LeRobot's driver and the pseudo-terminal, while
the node reads the joints. The emulator takes no time on the wire: on a real bus six positions take about 1 ms more.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import random
import tempfile
import threading
import time
from bisect import bisect_left
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import JointState

from lrm_ros import messages, topics
from lrm_ros.config import RobotContract
from lrm_ros.config_arm import SECTION
from lrm_ros.config_files import load_yaml, read_yaml
from lrm_ros.graph.graphs import NodeSpec
from lrm_ros.graph.runner import Graph
from lrm_ros.options import number, whole
from lrm_ros.ros.base import set_transport, share_file
from lrm_ros.ros.executor import make_executor
from lrm_ros.types import ActionChunk

SWING = 0.02  # the joint goes so far to either side [rad]
FAST = 20.0  # step limit [rad]: what is measured is the time, not the limiter
_FIND_S = 60.0  # so long for the node to start [s]


def emulate(folder: str, stop: Any, goals: Any) -> None:
    """Run a calibrated arm until ``stop``; put (monotonic time [s], goal of the first servo [steps]) into ``goals``.

    Args:
        folder: for the port's link ``port`` and LeRobot's calibration file ``bench.json``.
        stop: an event.
        goals: a connection.
    """
    from lrm_ros.sim.servo_bus import protocol
    from lrm_ros.sim.servo_bus.arm import Arm
    from lrm_ros.sim.servo_bus.bus import Bus
    from lrm_ros.sim.servo_bus.joints import SO101
    from lrm_ros.sim.servo_bus.server import Server

    found: list[tuple[float, int]] = []

    class Listening(Bus):
        def receive(self, data: bytes, rate: int, now: float) -> None:
            before = len(self.seen)
            super().receive(data, rate, now)
            for packet in self.seen[before:] if len(self.seen) > before else ():
                given = packet.parameters
                if packet.instruction == protocol.SYNC_WRITE and given[0] == 42:
                    found.append((time.monotonic(), given[3] | given[4] << 8))

    bus = Listening(Arm())
    rows = {
        joint.name: {"id": i + 1, "drive_mode": 0, "homing_offset": 0, "range_min": 0, "range_max": 4095}
        for i, joint in enumerate(SO101)
    }
    (Path(folder) / "bench.json").write_text(json.dumps(rows))
    with Server({"bench": bus}, {"bench": Path(folder) / "port"}):
        goals.send("ready")
        stop.wait()
    goals.send(found)


class Commander:
    """Swings the first joint by commands at random moments and listens to the arm."""

    def __init__(self, contract: RobotContract) -> None:
        """Join the ROS graph."""
        self._contract = contract
        self.node = rclpy.create_node("bench_arm")
        self.states: list[tuple[float, float]] = []  # (when it came, its age) [s]
        self.position: np.ndarray | None = None
        self.node_ms: dict[str, str] = {}
        self._publisher = topics.JOINT_COMMAND.publisher(self.node)
        topics.JOINT_STATES.subscribe(self.node, self._on_state)
        topics.DIAGNOSTICS.subscribe(self.node, self._on_diagnostics)
        self._executor = make_executor(self.node.get_logger())
        self._executor.add_node(self.node)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._spin, name="bench")
        self._thread.start()

    def _spin(self) -> None:
        while not self._stopping.is_set():
            self._executor.spin_once(timeout_sec=0.1)

    def _on_state(self, message: JointState) -> None:
        self.states.append((time.monotonic(), (time.time_ns() - messages.to_ns(message.header.stamp)) / 1e9))
        self.position = np.array(message.position, np.float32)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == "/arm":
                self.node_ms = {v.key: v.value for v in status.values if v.key.startswith("command_ms")} or self.node_ms

    def command(self, target: np.ndarray) -> None:
        """Ask the arm to go to (D,) [rad] now."""
        chunk = ActionChunk(0, target[None], self._contract.dt_s)
        self._publisher.publish(messages.from_chunk(chunk, self._contract.joints))

    def close(self) -> None:
        """Leave it."""
        self._stopping.set()
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()


def swing(commander: Commander, commands: int, rate_hz: float) -> list[tuple[float, bool]]:
    """Send commands; returns (monotonic time [s], whether it was to the upper side) of each.

    Raises:
        TimeoutError: no joint states come.
    """
    end = time.monotonic() + _FIND_S
    while commander.position is None:
        if time.monotonic() > end:
            raise TimeoutError(f"no joint state within {_FIND_S:.0f} s; look at the arm node's output above")
        time.sleep(0.05)
    middle = commander.position.copy()
    middle[0] = 0.0
    for _ in range(20):  # the first one is approached, and both ends get to know each other
        commander.command(middle)
        time.sleep(0.1)
    commander.states.clear()
    rng, sent = random.Random(0), []
    for k in range(commands):
        target = middle.copy()
        target[0] += SWING if k % 2 else -SWING
        sent.append((time.monotonic(), bool(k % 2)))
        commander.command(target)
        time.sleep(rng.uniform(0.5, 1.5) / rate_hz)
    return sent


def latencies(sent: list[tuple[float, bool]], goals: list[tuple[float, int]]) -> list[float]:
    """Return for each command how long until the first goal on its side of the middle [s]; ``inf``: none came."""
    stamps = [stamp for stamp, _ in goals]
    found = []
    for k, (began, upper) in enumerate(sent):
        until = sent[k + 1][0] if k + 1 < len(sent) else np.inf
        due = goals[bisect_left(stamps, began) : bisect_left(stamps, until)]
        found.append(next((stamp - began for stamp, goal in due if (goal > 2048) == upper), np.inf))
    return found


def spread(values: Any) -> dict[str, float]:
    """Return p50, p95, p99 and the greatest of times [s] in ms."""
    found = np.percentile(np.asarray(values), (50, 95, 99, 100)) * 1e3
    return dict(zip(("p50", "p95", "p99", "max"), found.round(3).tolist(), strict=True))


def measure(commands: int, rate_hz: float, log: Path | None) -> dict[str, Any]:
    """Measure and return the figures.

    Raises:
        RuntimeError: the arm node has died.
        TimeoutError: it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="lrm_bench_") as name:
        folder = Path(name)
        base = load_yaml(share_file("config/so101.yaml"), RobotContract, (SECTION,))
        contract = dataclasses.replace(base, max_step=(FAST,) * len(base.joints))
        file = folder / "contract.yaml"
        file.write_text(yaml.safe_dump(read_yaml(share_file("config/so101.yaml")) | {"max_step": [FAST] * 6}))
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        stop = context.Event()
        emulator = context.Process(target=emulate, args=(name, stop, there), name="emulator")
        emulator.start()
        there.close()
        here.recv()
        spec = NodeSpec(
            "arm",
            "arm",
            {"contract": str(file), "port": str(folder / "port"), "id": "bench", "calibration_dir": name,
             "approach_speed": 10.0},
        )  # fmt: skip
        set_transport()
        rclpy.init()
        commander = Commander(contract)
        try:
            with Graph([spec], log=log, show=("arm",) if log is None else ()) as graph:
                sent = swing(commander, commands, rate_hz)
                if graph.failed:
                    raise RuntimeError("the arm node died; its output is above")
                states = np.array(commander.states)
        finally:
            commander.close()
            rclpy.try_shutdown()
            stop.set()
            goals = here.recv()
            emulator.join()
    between = np.diff(states[:, 0])
    times = latencies(sent, goals)
    return {
        "load": round(os.getloadavg()[0] / (os.cpu_count() or 1), 2),
        "commands": len(times),
        "lost": int(np.isinf(times).sum()),
        "command_to_bus_ms": spread([value for value in times if np.isfinite(value)]),
        "through_the_node_ms": commander.node_ms,
        "states_per_s": round(1 / float(between.mean()), 1),
        "state_interval_ms": spread(between),
        "state_age_ms": spread(states[:, 1]),
    }


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="lrm bench arm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commands", type=whole(2), default=1000, help="number of commands (default 1000)")
    parser.add_argument("--rate-hz", type=number(above=True), default=30.0, help="commands a second (default 30)")
    parser.add_argument("--log", type=Path, metavar="FILE", help="write the node's output to FILE")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(argv)
    os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randrange(1, 101)))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    try:
        figures = measure(options.commands, options.rate_hz, options.log)
    except (RuntimeError, TimeoutError) as error:
        print(f"lrm bench arm: {error}")
        return 1
    for name, value in figures.items():
        print(f"{name:22s} {value}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
