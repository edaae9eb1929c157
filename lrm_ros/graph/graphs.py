# SPDX-License-Identifier: Apache-2.0
"""The one list: which nodes with which parameters make up a graph. ``lrm up`` and the launch files read it."""

from __future__ import annotations

import dataclasses
import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lrm_ros.config import (
    CameraConfig,
    EvaluatorConfig,
    ImproverConfig,
    PolicyConfig,
    RecorderConfig,
    RefinerConfig,
    RewardConfig,
    TeleopConfig,
    TwinConfig,
    WorldsConfig,
)


@dataclass(frozen=True)
class NodeSpec:
    """One node of a graph.

    Attributes:
        name: ROS node name, name of the ``ros2 run`` executable, prefix of its output.
        module: what ``python -m`` runs.
        parameters: what differs from the defaults.
        foreground: reads the terminal (keyboard) and prints on it unprefixed.
        ends_graph: its clean exit (0) is the graph's clean end; any other node must not exit.
        managed_by: name of the node that gives it its parameters and starts it; empty: it starts by itself.
    """

    name: str
    module: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    foreground: bool = False
    ends_graph: bool = False
    managed_by: str = ""

    def command(self) -> list[str]:
        """Return the command line of the process."""
        words = [sys.executable, "-m", self.module, "--ros-args", "-r", f"__node:={self.name}"]
        for key, value in self.parameters.items():
            words += ["-p", f"{key}:={ros_value(value)}"]
        return words


def ros_value(value: Any) -> str:
    """Return a parameter value as ROS parses it on a command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(ros_value(item) for item in value) + "]"
    if value == "":
        return "''"
    return str(value)


CONFIGS: dict[str, type] = {
    "camera": CameraConfig,
    "evaluator": EvaluatorConfig,
    "improver": ImproverConfig,
    "policy": PolicyConfig,
    "recorder": RecorderConfig,
    "refiner": RefinerConfig,
    "reward": RewardConfig,
    "teleop": TeleopConfig,
    "twin": TwinConfig,
    "worlds": WorldsConfig,
}

GRAPHS: dict[str, tuple[NodeSpec, ...]] = {
    # Collect, judge, fine-tune, evaluate (paper IV-C), in lock-step: nothing waits for wall time.
    "self_improve": (
        NodeSpec("twin", "lrm_ros.sim.twin.node", {"realtime": False, "frame_every": 0}),
        NodeSpec("reward", "lrm_ros.nodes.reward"),
        NodeSpec("policy", "lrm_ros.nodes.policy", {"realtime": False}),
        NodeSpec("recorder", "lrm_ros.nodes.recorder"),
        NodeSpec("evaluator", "lrm_ros.nodes.evaluator"),
        NodeSpec("improver", "lrm_ros.nodes.improver", ends_graph=True),
    ),
    # One policy on fixed seeds: `lrm evaluate`.
    "evaluate": (
        NodeSpec("twin", "lrm_ros.sim.twin.node", {"realtime": False, "frame_every": 0}),
        NodeSpec("policy", "lrm_ros.nodes.policy", {"realtime": False}),
        NodeSpec("evaluator", "lrm_ros.nodes.evaluator", {"once": True}, ends_graph=True),
    ),
    # PPO in many twins, in lock-step: the refiner sets up the others and starts them (paper IV-B).
    "sim_refine": (
        NodeSpec("worlds", "lrm_ros.sim.vector.node", {"autostart": False}, managed_by="refiner"),
        NodeSpec("reward", "lrm_ros.nodes.reward", {"autostart": False}, managed_by="refiner"),
        NodeSpec("refiner", "lrm_ros.training.ppo.node", ends_graph=True),
    ),
    # Demonstrations by hand, at the control rate.
    "teleop": (
        NodeSpec("twin", "lrm_ros.sim.twin.node", {"realtime": True}),
        NodeSpec("recorder", "lrm_ros.nodes.recorder", {"source": "teleop"}),
        NodeSpec("teleop", "lrm_ros.nodes.teleop", foreground=True, ends_graph=True),
    ),
}


def nodes_of(graph: str, arguments: Mapping[str, Any] | None = None) -> list[NodeSpec]:
    """Return the nodes of a graph with the arguments applied.

    Args:
        graph: a key of ``GRAPHS``.
        arguments: ``parameter`` sets it on every node that has it, ``node.parameter`` on one node; ``contract`` and
            ``use_sim_time`` go to all; ``sim`` selects the twin (true) or the robot.

    Raises:
        ValueError: an unknown graph, node or parameter, with the nearest valid one.
    """
    if graph not in GRAPHS:
        raise ValueError(f"unknown graph '{graph}'; choose one of {', '.join(GRAPHS)}")
    nodes = {node.name: dict(node.parameters) for node in GRAPHS[graph]}
    manager = {node.name: node.managed_by for node in GRAPHS[graph] if node.managed_by}
    free = [name for name in nodes if name not in manager]
    for key, value in (arguments or {}).items():
        if key == "sim":
            if str(value).lower() not in ("true", "1"):
                raise ValueError(
                    f"sim:={value}: there is no node for a real arm yet; run the twin (sim:=true, the default)"
                )
            continue
        name, _, parameter = key.rpartition(".")
        if name and name not in nodes:
            raise ValueError(f"'{key}': graph '{graph}' has no node '{name}'; its nodes: {', '.join(nodes)}")
        if name in manager:
            raise ValueError(f"'{key}': node '{name}' gets its parameters from node '{manager[name]}'; set them there")
        chosen = [name] if name else [n for n in free if parameter in _parameters(n)]
        if not chosen:
            known = sorted({p for n in free for p in _parameters(n)})
            near = difflib.get_close_matches(parameter, known, 1)
            cure = f"did you mean '{near[0]}'?" if near else f"parameters: {', '.join(known)}"
            raise ValueError(f"no node of graph '{graph}' has a parameter '{parameter}'; {cure}")
        for node in chosen:
            nodes[node][parameter] = value
    return [dataclasses.replace(node, parameters=nodes[node.name]) for node in GRAPHS[graph]]


def _parameters(node: str) -> list[str]:
    """Return the parameter names of a node."""
    return [f.name for f in dataclasses.fields(CONFIGS[node])] + ["contract", "use_sim_time"]


def threads_of(nodes: int) -> int:
    """Return how many threads each node's arithmetic gets: more than there are cores only wait for each other."""
    return max(1, (os.cpu_count() or 1) // nodes)


def parse_arguments(words: Sequence[str]) -> dict[str, str]:
    """Return ``key:=value`` words as a dict.

    Raises:
        ValueError: a word of another form.
    """
    arguments = {}
    for word in words:
        key, separator, value = word.partition(":=")
        if not separator or not key:
            raise ValueError(f"'{word}' is not key:=value, e.g. seed:=3 or policy.checkpoint:=FOLDER")
        arguments[key] = value
    return arguments
