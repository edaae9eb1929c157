# SPDX-License-Identifier: Apache-2.0
"""Shared fixtures: a private ROS domain, an executor that spins until something is true, real frames.

The folders mirror the rooms of ``lrm_ros``; beside this file are the tests of its top-level modules and what several
tests import. ``product`` tests the whole: the source's rules, the installed package, the set-up, the loop's processes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from scheduling import without_real_time  # type: ignore[import-not-found]

from lrm_ros.private_domain import use_private_domain
from lrm_ros.types import Frame

if TYPE_CHECKING:
    from spinner import Spinner  # type: ignore[import-not-found]

    from lrm_ros.reward.qwen.model import QwenRewardModel

use_private_domain(replace=True)  # before any participant exists; also where several test runs share the machine
without_real_time()
# A shell ignores them for what it runs in the background (SIGHUP: nohup), and every program started here would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Their assertions show the values, as those of a test file do.
pytest.register_assert_rewrite("lerobot_sets", "spinner")

# Their tests move emulated servos, or watch nodes, in real time: one at a time, whatever else runs beside it.
REAL_TIME = ("graph", "nodes", "robot", "ros", "sim/servo_bus", "training/bench")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests a process of pytest-xdist has to itself: those of a file, and all that run in real time."""
    top = Path(__file__).parent
    for item in items:
        file = item.path.relative_to(top)
        here = next((room for room in REAL_TIME if file.is_relative_to(room)), None)
        item.add_marker(pytest.mark.xdist_group(str(file) if here is None else "real time"))


@pytest.fixture
def spin() -> Iterator[Spinner]:
    """Real rclpy nodes in this process; see :class:`Spinner`."""
    from spinner import Spinner

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


@pytest.fixture(scope="module")
def tiny() -> QwenRewardModel:
    """The shipped reward model."""
    import torch

    from lrm_ros.reward.load import load_model
    from lrm_ros.reward.qwen.model import QwenRewardModel

    torch.set_num_threads(1)
    model = load_model("tiny", "cpu")
    assert isinstance(model, QwenRewardModel)
    return model


@pytest.fixture
def frame() -> Frame:
    """A 96x96 image with a different value in every channel and row."""
    image = np.zeros((96, 96, 3), np.uint8)
    image[..., 0] = np.arange(96)[:, None]
    image[..., 1] = np.arange(96)[None, :]
    image[..., 2] = 200
    return Frame(1_000_000_000, "front", image)
