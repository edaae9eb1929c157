# SPDX-License-Identifier: Apache-2.0
"""``lrm bench twin``: control steps a second of one simulated world, in process and through the nodes in lock-step.

Through the nodes: the twin is a process; this one sends a chunk of eight targets, waits for the image at its end, sends
the next one, as a policy that needs no time would. Both render one picture a chunk.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image, JointState
from std_srvs.srv import Trigger

from lrm_ros import messages, topics
from lrm_ros.config import RobotContract
from lrm_ros.graph.graphs import NodeSpec
from lrm_ros.graph.runner import Graph
from lrm_ros.options import whole
from lrm_ros.ros.base import set_transport
from lrm_ros.types import ActionChunk

CHUNK = 8
_TIMEOUT_S = 300.0  # a first picture may compile shaders on a busy machine


class _Client:
    """Sends a chunk whenever the image after the last one has come."""

    def __init__(self) -> None:
        set_transport()
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self._contract = RobotContract()
        self._node = rclpy.create_node("bench_twin")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._states: dict[int, np.ndarray] = {}
        self._image_ns = -1
        self._command = topics.JOINT_COMMAND.publisher(self._node)
        topics.JOINT_STATES.subscribe(self._node, self._on_state)
        topics.IMAGE_RAW.of("front").subscribe(self._node, self._on_image)

    def _on_state(self, message: JointState) -> None:
        self._states = {messages.to_ns(message.header.stamp): messages.to_state(message, self._contract.joints)}

    def _on_image(self, message: Image) -> None:
        messages.to_frame(message, "front")
        self._image_ns = messages.to_ns(message.header.stamp)

    def _wait_until(self, what: str, predicate) -> None:  # type: ignore[no-untyped-def]
        deadline = time.monotonic() + _TIMEOUT_S
        while not predicate():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {_TIMEOUT_S:.0f} s; look at the twin's output above")
            self._executor.spin_once(timeout_sec=1.0)

    def reset(self) -> None:
        """Start an episode and wait for its first observation."""
        client = self._node.create_client(Trigger, "twin/reset")
        self._wait_until("service 'twin/reset'", client.service_is_ready)
        self._wait_until("the twin on 'joint_command'", lambda: self._command.get_subscription_count())
        self._wait_until("images of the twin", lambda: self._node.count_publishers(topics.IMAGE_RAW.of("front").name))
        self._states, self._image_ns = {}, -1
        future = client.call_async(Trigger.Request())
        self._wait_until("answer of 'twin/reset'", future.done)
        self._wait_until("the first observation", lambda: self._image_ns in self._states)

    def run(self, steps: int) -> float:
        """Make control steps and return how many a second."""
        home = self._states[self._image_ns]
        sweep = np.array([0.5, 0.3, -0.3, 0.2, 0.4, 0.3], np.float32)
        begin, made = time.perf_counter(), 0
        while made < steps:
            phase = (made + np.arange(1, CHUNK + 1)) * (2 * np.pi / 60)
            actions = home + np.sin(phase)[:, None] * sweep  # (K, D)
            stamp_ns = self._image_ns
            chunk = ActionChunk(stamp_ns, actions.astype(np.float32), self._contract.dt_s)
            self._command.publish(messages.from_chunk(chunk, self._contract.joints))
            self._wait_until(
                "the image after a chunk", lambda ns=stamp_ns: self._image_ns > ns and self._image_ns in self._states
            )
            made += CHUNK
        return made / (time.perf_counter() - begin)

    def close(self) -> None:
        """Leave the ROS graph."""
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown()


def through_nodes(steps: int, log: Path | None = None) -> float:
    """Return control steps a second of the twin node in lock-step."""
    client = _Client()
    try:
        with Graph([NodeSpec("twin", "twin", {"realtime": False, "frame_every": 0})], log=log):
            client.reset()
            client.run(10 * CHUNK)
            client.reset()
            return client.run(steps)
    finally:
        client.close()


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="lrm bench twin", description=__doc__)
    parser.add_argument("--steps", type=whole(1), default=1000, help="control steps of each measurement (default 1000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the metrics to this file")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="lrm_bench_") as folder:
        file = Path(folder) / "world.json"
        # A process of its own: this package does not import the simulator, and the two must not share a processor.
        command = [
            sys.executable,
            "-m",
            "lrm_ros.training.bench.world",
            "--steps",
            str(options.steps),
            "--json",
            str(file),
        ]
        code = subprocess.run(command, check=False).returncode
        if code:
            print(f"error: '{' '.join(command[1:4])}' ended with code {code}; 'lrm doctor' may know why")
            return 1
        alone = json.loads(file.read_text())
    nodes = through_nodes(options.steps)
    print(f"through the nodes in lock-step: {nodes:.0f} steps/s")
    figures = {"steps_per_s": round(alone["steps_per_s"], 1), "via_nodes_steps_per_s": round(nodes, 1)}
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
