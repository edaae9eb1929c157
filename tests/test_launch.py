# SPDX-License-Identifier: Apache-2.0
"""The real ``ros2 launch`` on real nodes: parameters arrive, a signal ends it well, a death is named."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.launch,
    pytest.mark.skipif(
        importlib.util.find_spec("launch_ros") is None or shutil.which("ros2") is None,
        reason="needs launch_ros and the ros2 command (they are not on PyPI; see docs/ros2.md)",
    ),
]

_FILE = """
from lrm_ros.graph import graphs as graph
from lrm_ros.graph.graphs import NodeSpec
from lrm_ros.graph.launch import launch_description
graph.GRAPHS["two"] = (
    NodeSpec("camera", "", {"source": "synthetic", "width": 96, "height": 96}),
    NodeSpec("recorder", "", ends_graph=True),
)
def generate_launch_description():
    return launch_description("two")
"""


@pytest.fixture
def launch(tmp_path):
    """Start ``ros2 launch`` on a graph of two nodes with the given arguments."""
    prefix = tmp_path / "prefix"
    (prefix / "share/ament_index/resource_index/packages").mkdir(parents=True)
    (prefix / "share/ament_index/resource_index/packages/lrm_ros").touch()
    programs = prefix / "lib/lrm_ros"
    programs.mkdir(parents=True)
    for name in ("camera", "recorder"):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m lrm_ros.nodes.{name} "$@"\n')
        (programs / name).chmod(0o755)
    (tmp_path / "two.launch.py").write_text(_FILE)
    env = {
        **os.environ,
        "AMENT_PREFIX_PATH": os.pathsep.join([str(prefix), os.environ.get("AMENT_PREFIX_PATH", "")]),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "ROS_LOG_DIR": str(tmp_path / "log"),
    }
    running = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        words = ["ros2", "launch", str(tmp_path / "two.launch.py"), *arguments]
        process = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)


def test_the_nodes_run_with_their_parameters_until_a_signal(launch, spin, probe):
    from sensor_msgs.msg import Image

    process = launch("rate_hz:=50", "camera.camera:=wrist")
    images = spin.collect(probe, Image, "wrist/image_raw")
    spin.until(lambda: len(images) > 5, 60.0)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert output.count("process has finished cleanly") == 2


def test_a_node_that_dies_ends_the_launch_with_its_name_and_a_code(launch):
    process = launch("rate_hz:=fast")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert "'rate_hz' must be float, got 'fast'" in output and "node 'camera' died with code 2" in output
