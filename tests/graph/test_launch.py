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

from lrm_ros.graph.graphs import GRAPHS, NodeSpec, nodes_of, parse_arguments

ROOT = Path(__file__).parents[2]
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
    NodeSpec("camera", "camera", {"source": "synthetic", "width": 96, "height": 96}),
    NodeSpec("recorder", "recorder", ends_graph=True),
)
def generate_launch_description():
    return launch_description("two")
"""

TWO = (
    NodeSpec("camera", "camera", {"source": "synthetic", "width": 96, "height": 96}),
    NodeSpec("recorder", "recorder", ends_graph=True),
)
_OUTER = """
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import PushRosNamespace
def generate_launch_description():
    inner = IncludeLaunchDescription(
        PythonLaunchDescriptionSource({inner!r}), launch_arguments=[("use_sim_time", "true")]
    )
    group = GroupAction([PushRosNamespace(LaunchConfiguration("place")), inner])
    return LaunchDescription([DeclareLaunchArgument("place"), group])
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

    def start(*arguments: str, file: str = "two.launch.py") -> subprocess.Popen[str]:
        words = ["ros2", "launch", str(tmp_path / file), *arguments]
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
    process = launch("source:=/no/such/folder")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert "cannot open source '/no/such/folder'" in output and "node 'camera' died with code 1" in output


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("rate_hz:=fast", "node 'camera': parameter 'rate_hz' must be float, got 'fast'"),
        ("rate_hs:=5.0", "no node of graph 'two' has a parameter 'rate_hs'; did you mean 'rate_hz'?"),
        ("camera.rate_hs:=5.0", "node 'camera' has no parameter 'rate_hs'; did you mean 'rate_hz'?"),
        ("camara.rate_hz:=5.0", "graph 'two' has no node 'camara'; its nodes: camera, recorder"),
        ("use_sim_time:=perhaps", "parameter 'use_sim_time' must be bool, got 'perhaps'"),
        ("namespace:=1st", "namespace:=1st: a namespace has letters"),
    ],
)
def test_what_up_refuses_is_refused_before_a_node_starts(launch, monkeypatch, argument, says):
    monkeypatch.setitem(GRAPHS, "two", TWO)
    with pytest.raises(ValueError) as refused:
        nodes_of("two", parse_arguments([argument]))
    process = launch(argument)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert says in output and str(refused.value) in output
    assert "process started" not in output


def test_the_nodes_run_in_a_namespace_with_its_clock(launch, spin, probe):
    from sensor_msgs.msg import Image

    process = launch("namespace:=arm1", "use_sim_time:=true")
    images = spin.collect(probe, Image, "/arm1/front/image_raw")
    others = spin.collect(probe, Image, "/front/image_raw")
    listens = lambda: {i.node_name for i in probe.get_subscriptions_info_by_topic("/arm1/clock")}  # noqa: E731
    spin.until(lambda: len(images) > 5 and listens() == {"camera", "recorder"}, 60.0)
    assert not others and not probe.get_subscriptions_info_by_topic("/clock")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output


def test_a_file_that_includes_the_graph_has_arguments_and_a_namespace_of_its_own(launch, spin, probe, tmp_path):
    from sensor_msgs.msg import Image

    (tmp_path / "lab.launch.py").write_text(_OUTER.format(inner=str(tmp_path / "two.launch.py")))
    process = launch("place:=lab", file="lab.launch.py")
    images = spin.collect(probe, Image, "/lab/front/image_raw")
    spin.until(lambda: len(images) > 5, 60.0)
    assert probe.count_subscribers("/lab/clock") == 2 and not probe.count_subscribers("/clock")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
