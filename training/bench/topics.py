# SPDX-License-Identifier: Apache-2.0
"""``lrm bench topics``: frames lost and latency from two 640x480 cameras at 30 Hz to the recorder's journal.

Cameras and recorder are the real nodes, each a process. Every synthetic frame carries its number; a frame counts as
received when that number is found in the journal. Latency is from the camera's stamp to the recorder's receipt.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger

from lrm_ros import messages, topics
from lrm_ros.config import CameraSpec, RobotContract
from lrm_ros.config_files import to_dict
from lrm_ros.graph.graphs import NodeSpec
from lrm_ros.graph.runner import Graph
from lrm_ros.nodes.camera import read_counter
from lrm_ros.options import number
from lrm_ros.record import journal
from lrm_ros.ros.base import set_transport
from lrm_ros.types import ActionChunk

CAMERAS = ("left", "right")
WIDTH, HEIGHT, HZ = 640, 480, 30.0


def graph(folder: Path) -> list[NodeSpec]:
    """Return two synthetic cameras, not started, and the recorder writing to ``folder``."""
    contract = folder / "contract.yaml"
    specs = tuple(CameraSpec(name, WIDTH, HEIGHT) for name in CAMERAS)
    contract.write_text(yaml.safe_dump(to_dict(RobotContract(cameras=specs))))
    size = {"width": WIDTH, "height": HEIGHT, "rate_hz": HZ}
    cameras = [
        NodeSpec(
            f"camera_{name}",
            "camera",
            {"camera": name, "source": "synthetic", "autostart": False, **size},
        )
        for name in CAMERAS
    ]
    parameters = {"folder": str(folder), "contract": str(contract), "task_text": "bench", "episode_id": "bench"}
    # Not in real time: the cameras begin after the episode, so that every frame is in it.
    return [*cameras, NodeSpec("recorder", "recorder", parameters | {"realtime": False})]


class _Client:
    """A node that drives the benched ones."""

    def __init__(self) -> None:
        set_transport()
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node("bench_topics")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self.said: dict[str, dict[str, str]] = {}
        self._states, self._sent = (
            topics.JOINT_STATES.publisher(self.node),
            topics.JOINT_COMMAND_SENT.publisher(self.node),
        )
        topics.DIAGNOSTICS.subscribe(self.node, self._on_diagnostics, 100)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.said |= {status.name: messages.status_values(status) for status in message.status}

    def value(self, node: str, name: str) -> int:
        """Return a figure of a node's newest diagnostics, 0 without."""
        return int(self.said.get("/" + node, {}).get(name, 0))

    def wait_until(self, predicate: Callable[[], Any], seconds: float, what: str) -> None:
        """Spin until something is true.

        Raises:
            TimeoutError: it was not within ``seconds``.
        """
        deadline = time.monotonic() + seconds
        while not predicate():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {seconds:.0f} s; look at the nodes' output")
            self._executor.spin_once(timeout_sec=0.1)

    def step(self) -> None:
        """Play the arm: one step, without which an episode is no episode."""
        ns, joints = time.time_ns(), RobotContract().joints
        state = np.zeros(len(joints), np.float32)
        self._states.publish(messages.from_state(ns, joints, state))
        self._sent.publish(messages.from_chunk(ActionChunk(ns, state[None], RobotContract().dt_s), joints))

    def spin(self, seconds: float) -> None:
        """Answer callbacks for some time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def call(self, service_type: Any, name: str, request: Any) -> Any:
        """Call a service.

        Raises:
            RuntimeError: it answered with an error.
        """
        client = self.node.create_client(service_type, name)
        self.wait_until(client.service_is_ready, 30.0, f"service '{name}'")
        future = client.call_async(request)
        self.wait_until(future.done, 30.0, f"answer of '{name}'")
        answer = future.result()
        if not answer.success:
            raise RuntimeError(f"service '{name}' failed: {getattr(answer, 'message', 'see the output of the node')}")
        return answer

    def transition(self, node: str, number: int) -> None:
        """Change the lifecycle state of a node."""
        self.call(ChangeState, f"{node}/change_state", ChangeState.Request(transition=Transition(id=number)))

    def close(self) -> None:
        """Leave the ROS graph."""
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown()


def record(seconds: float, folder: Path, show: tuple[str, ...] | None = ()) -> tuple[int, Path]:
    """Run the graph for ``seconds`` of recording; returns the frames the cameras published and the journal."""
    client = _Client()
    try:
        with Graph(graph(folder), show=show, log=folder / "nodes.log"):
            cameras = [f"camera_{name}" for name in CAMERAS]
            for camera in cameras:
                client.transition(camera, Transition.TRANSITION_CONFIGURE)
            client.call(Trigger, "recorder/start_episode", Trigger.Request())
            # A volatile publisher sends nothing to a subscription it has not met yet.
            client.wait_until(
                lambda: all(client.value(camera, "subscribers") for camera in cameras),
                30.0,
                "cameras and recorder meeting on the image topics",
            )
            for camera in cameras:
                client.transition(camera, Transition.TRANSITION_ACTIVATE)
            begin = time.monotonic()
            shown = 0.0
            while (passed := time.monotonic() - begin) < seconds:
                client.step()
                client.spin(0.2)
                if passed - shown >= 5:
                    shown = passed
                    print(f"recording: {shown:.0f} of {seconds:.0f} s", flush=True)
            for camera in cameras:
                client.transition(camera, Transition.TRANSITION_DEACTIVATE)
            client.said.clear()
            client.wait_until(
                lambda: all("/" + camera in client.said for camera in cameras), 10.0, "the cameras' diagnostics"
            )
            path = Path(client.call(Trigger, "recorder/stop_episode", Trigger.Request()).message)
            return sum(client.value(camera, "frames") for camera in cameras), path
    finally:
        client.close()


def received(path: Path) -> tuple[int, list[float]]:
    """Return how many different frames a journal holds, and their latencies [s]."""
    numbers: set[tuple[str, int]] = set()
    latencies = []
    for camera in CAMERAS:
        for frame, received_ns in journal.iter_frames(path, camera):
            numbers.add((camera, read_counter(frame.image)))
            latencies.append((received_ns - frame.stamp_ns) / 1e9)
    return len(numbers), latencies


def main(argv: list[str] | None = None) -> int:
    """Measure and print; 1 if frames were lost."""
    parser = argparse.ArgumentParser(prog="lrm bench topics", description=__doc__)
    parser.add_argument("--seconds", type=number(above=True), default=60.0, help="how long to record (default 60)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the metrics to this file")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="lrm_bench_") as folder:
        sent, path = record(options.seconds, Path(folder))
        print("reading the journal", flush=True)
        got, latencies = received(path)
    p50, p95, p99 = np.percentile(latencies, (50, 95, 99)) * 1e3
    figures = {
        "cameras": len(CAMERAS),
        "hz": HZ,
        "seconds": options.seconds,
        "sent": sent,
        "received": got,
        "latency_ms": {"p50": round(p50, 3), "p95": round(p95, 3), "p99": round(p99, 3)},
    }
    print(
        f"{len(CAMERAS)} cameras {WIDTH}x{HEIGHT} at {HZ:.0f} Hz, {options.seconds:.0f} s: sent {sent}, received {got}"
    )
    print(f"lost {sent - got}; latency camera to recorder p50 {p50:.2f}, p95 {p95:.2f}, p99 {p99:.2f} ms")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return int(got < sent)


if __name__ == "__main__":
    raise SystemExit(main())
