# SPDX-License-Identifier: Apache-2.0
"""Every node can be stopped and started again, with and without its parameters read anew."""

import importlib
from typing import Any

import pytest
from rclpy.lifecycle import TransitionCallbackReturn

from lrm_ros.ros.base import LrmNode

NODES: dict[str, dict[str, Any]] = {
    "lrm_ros.nodes.camera.CameraNode": {"source": "synthetic"},
    "lrm_ros.nodes.evaluator.EvaluatorNode": {},
    "lrm_ros.nodes.improver.ImproverNode": {"model": "fake"},
    "lrm_ros.nodes.policy.PolicyNode": {},
    "lrm_ros.nodes.recorder.RecorderNode": {},
    "lrm_ros.nodes.reward.RewardNode": {"model": "fake"},
    "lrm_ros.sim.twin.node.TwinNode": {"realtime": False},
    "lrm_ros.sim.vector.node.WorldsNode": {"worlds": 1, "processes": 1},
}


@pytest.mark.parametrize("name", NODES)
def test_a_node_runs_again_after_it_was_stopped_and_after_it_was_cleaned_up(name, spin, request, tmp_path):
    module, _, kind = name.rpartition(".")
    parameters = dict(NODES[name])
    if kind == "PolicyNode":
        parameters["checkpoint"] = str(request.getfixturevalue("small_policy"))
    if kind == "ImproverNode":
        parameters["run"] = str(tmp_path / "run")
    node: LrmNode[Any] = spin.add(getattr(importlib.import_module(module), kind)(**parameters))
    for transition in ("configure", *("activate", "deactivate") * 2, "cleanup", "configure", "activate"):
        assert getattr(node, f"trigger_{transition}")() == TransitionCallbackReturn.SUCCESS, transition
        spin.executor.spin_once(timeout_sec=0.05)
    assert node.active and not node.diagnostics.faults
    node.close()
