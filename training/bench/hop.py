# SPDX-License-Identifier: Apache-2.0
"""``lrm bench hop``: the time from a camera's frame to its reward, through the reward node with a fake model.

The node is the real one in a process of its own. This program plays the camera: it publishes a frame, waits for the
message on ``reward`` with the frame's stamp, and goes on at the camera's rate. The model's own time is next to nothing,
so what is measured are two messages and what the node does between them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import String

from lrm_ros import messages, topics
from lrm_ros.files import write_json
from lrm_ros.graph.graphs import NodeSpec
from lrm_ros.graph.runner import Graph
from lrm_ros.options import number, whole
from lrm_ros.ros.base import set_transport
from lrm_ros.types import Frame, Reward

CAMERA = "front"
WAIT_S = 1.0  # an answer that takes longer is lost
START_S = 60.0  # the node has so long to give its first answer


class Camera:
    """Publishes frames and hears their rewards."""

    def __init__(self, height: int, width: int) -> None:
        """Join the graph.

        Args:
            height: of the frames [pixels].
            width: of the frames [pixels].
        """
        set_transport()
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node("bench_hop")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._images = topics.IMAGE_RAW.of(CAMERA).publisher(self._node)
        self._task = topics.TASK.publisher(self._node)
        self._task.publish(String(data="put the red toy giraffe in the bowl"))
        self._shown = np.random.default_rng(0).integers(0, 256, (8, height, width, 3), dtype=np.uint8)
        self._count = 0
        self._heard: dict[int, tuple[float, bool]] = {}  # stamp [ns] -> when, and whether every head answered
        topics.REWARD.subscribe(self._node, self._on_reward)

    def _on_reward(self, message: DiagnosticArray) -> None:
        answers = messages.to_rewards(message)
        self._heard[messages.to_ns(message.header.stamp)] = (
            time.perf_counter(),
            bool(answers) and all(isinstance(answer, Reward) for answer in answers),
        )

    def show(self, wait_s: float) -> float | None:
        """Publish a frame; returns the time to its reward [s], None if there was none within ``wait_s`` [s]."""
        stamp_ns = time.time_ns()
        message = messages.from_frame(Frame(stamp_ns, CAMERA, self._shown[self._count % len(self._shown)]))
        self._count += 1
        self._heard.clear()
        start = time.perf_counter()
        self._images.publish(message)
        while stamp_ns not in self._heard:
            if (left := start + wait_s - time.perf_counter()) <= 0:
                return None
            self._executor.spin_once(timeout_sec=left)
        when, scored = self._heard[stamp_ns]
        return when - start if scored else None

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown()


def measure(frames: int, hz: float, height: int, width: int, log: Path) -> list[float | None]:
    """Return the time from each frame to its reward [s], None for a frame without one.

    Args:
        frames: how many are measured; those until the first answer are not.
        hz: their rate.
        height: of the frames [pixels].
        width: of the frames [pixels].
        log: where the node's output goes.

    Raises:
        TimeoutError: there was no reward at all.
    """
    camera = Camera(height, width)
    node = NodeSpec("reward", "reward", {"model": "fake", "mode": "progress", "camera": CAMERA, "interval": 1})
    try:
        with Graph([node], show=(), log=log):
            end = time.monotonic() + START_S
            while camera.show(0.2) is None:
                if time.monotonic() > end:
                    said = log.read_text().strip()[-500:]  # the file goes with its folder
                    raise TimeoutError(f"the reward node answered nothing within {START_S:.0f} s; it said: {said}")
            taken: list[float | None] = []
            begin = time.monotonic()
            for count in range(frames):
                time.sleep(max(0.0, begin + count / hz - time.monotonic()))
                taken.append(camera.show(WAIT_S))
            return taken
    finally:
        camera.close()


def main(argv: list[str] | None = None) -> int:
    """Measure and print; 1 if a frame had no reward."""
    parser = argparse.ArgumentParser(prog="lrm bench hop", description=__doc__)
    parser.add_argument("--frames", type=whole(1), default=600, help="how many (default 600)")
    parser.add_argument("--hz", type=number(above=True), default=30.0, help="their rate (default 30)")
    parser.add_argument("--height", type=whole(1), default=96, help="of the frames [pixels] (default 96)")
    parser.add_argument("--width", type=whole(1), default=96, help="of the frames [pixels] (default 96)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the metrics to this file")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="lrm_bench_") as folder:
        taken = measure(options.frames, options.hz, options.height, options.width, Path(folder, "reward.log"))
    times = [each for each in taken if each is not None]
    lost = len(taken) - len(times)
    figures = {"frames": len(taken), "lost": lost, "hz": options.hz, "size": [options.height, options.width]}
    if times:
        p50, p95, p99 = np.percentile(times, (50, 95, 99)) * 1e3
        figures["latency_ms"] = {"p50": round(p50, 3), "p95": round(p95, 3), "p99": round(p99, 3)}
        print(f"frame to reward, {options.width}x{options.height}: p50 {p50:.2f}, p95 {p95:.2f}, p99 {p99:.2f} ms")
    print(f"{len(taken)} frames at {options.hz:g} Hz, {lost} without a reward")
    if options.json:
        write_json(options.json, figures)
    return int(lost > 0)


if __name__ == "__main__":
    raise SystemExit(main())
