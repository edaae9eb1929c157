# SPDX-License-Identifier: Apache-2.0
"""Shared fixtures: a private ROS domain, an executor that spins until something is true, real frames."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# Before any participant exists: a private domain on this host only (OFF would cut even one host apart).
os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 200))
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from lrm_ros.types import Frame


class Spinner:
    """An executor for real nodes in process: ``spin.add(node)``, then ``spin.until(predicate)``."""

    def __init__(self) -> None:
        import rclpy

        from lrm_ros.ros.base import set_transport
        from lrm_ros.ros.executor import make_executor

        set_transport()
        rclpy.init()
        self.executor = make_executor(rclpy.logging.get_logger("tests"))
        self.nodes: list = []

    def add(self, node):
        """Add a node; it is destroyed at the end of the test. Returns it."""
        self.executor.add_node(node)
        self.nodes.append(node)
        return node

    def start(self, node):
        """Add a lifecycle node, configure and activate it; fails the test if that fails."""
        from rclpy.lifecycle import TransitionCallbackReturn

        self.add(node)
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        return node

    def until(self, predicate: Callable[[], object], seconds: float = 30.0, what: str = "") -> None:
        """Spin until ``predicate()`` is true; fail after ``seconds``."""
        deadline = time.monotonic() + seconds
        while not predicate():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what or predicate}"
            self.executor.spin_once(timeout_sec=0.02)

    def call(self, node, service_type, name: str, request=None, seconds: float = 30.0):
        """Call a service from ``node`` and return the response."""
        client = node.create_client(service_type, name)
        self.until(client.service_is_ready, seconds, f"service {name}")
        future = client.call_async(request or service_type.Request())
        self.until(future.done, seconds, f"answer of {name}")
        node.destroy_client(client)
        return future.result()

    def collect(self, node, message_type, topic: str, qos=100) -> list:
        """Subscribe and return the (growing) list of received messages."""
        received: list = []
        node.create_subscription(message_type, topic, received.append, qos)
        return received

    def close(self) -> None:
        """Destroy the nodes and the context."""
        import rclpy

        for node in self.nodes:
            self.executor.remove_node(node)
            node.destroy_node()
        self.executor.shutdown()
        rclpy.try_shutdown()


@pytest.fixture(autouse=True)
def ordinary_scheduling() -> Iterator[None]:
    """Run as root, SVT-AV1 (in PyAV) makes the encoding thread real-time: all else on the machine would wait."""
    yield
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture
def spin() -> Iterator[Spinner]:
    """Real rclpy nodes in this process; see :class:`Spinner`."""
    spinner = Spinner()
    yield spinner
    spinner.close()


@pytest.fixture
def probe(spin: Spinner):
    """A plain node to publish, subscribe and call services from."""
    import rclpy

    return spin.add(rclpy.create_node("probe"))


@pytest.fixture(scope="session")
def small_policy(tmp_path_factory) -> Path:
    """An ACT policy that has learned next to nothing; to be read only."""
    from episodes import square_episodes  # type: ignore[import-not-found]

    from lrm_ros.config import FinetuneConfig
    from lrm_ros.training.policy.finetune import finetune

    sizes = {"cnn_channels": [8, 8, 16], "dim_model": 16, "n_heads": 2, "dim_feedforward": 16, "chunk_size": 10}
    out = tmp_path_factory.mktemp("squares") / "policy"
    finetune([square_episodes(3)], out, FinetuneConfig(steps=5, batch_size=8, warmup=2, options=sizes))
    return out


@pytest.fixture(scope="session")
def baseline_folders(tmp_path_factory) -> dict[str, Path]:
    """Weights of each video head, tiny and made up; to be read only."""
    import torch
    from video_models import save, small, write_robometer, write_roboreward  # type: ignore[import-not-found]

    torch.set_num_threads(1)
    return {
        "roboreward": write_roboreward(tmp_path_factory.mktemp("robo")),
        "robometer": write_robometer(tmp_path_factory.mktemp("meter")),
        "topreward": save(*small((" True",)), tmp_path_factory.mktemp("stock")),
    }


@pytest.fixture(scope="session")
def baselines(baseline_folders) -> dict:
    """The model of each video head."""
    from lrm_ros.reward.load import load_model

    return {head: load_model(str(folder), "cpu", head) for head, folder in baseline_folders.items()}


@pytest.fixture
def frame() -> Frame:
    """A 96x96 image with a different value in every channel and row."""
    image = np.zeros((96, 96, 3), np.uint8)
    image[..., 0] = np.arange(96)[:, None]
    image[..., 1] = np.arange(96)[None, :]
    image[..., 2] = 200
    return Frame(1_000_000_000, "front", image)
