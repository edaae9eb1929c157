# SPDX-License-Identifier: Apache-2.0
"""The one list: which nodes with which parameters make up a graph. ``lrm up`` and the launch files read it."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
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
    RobotContract,
    TeleopConfig,
    TwinConfig,
    WorldsConfig,
)
from lrm_ros.config_arm import (
    CONTROL_SECTION,
    SECTIONS,
    ArmNodeConfig,
    ControlNodeConfig,
    driven_by,
    load_arm,
    load_control,
)
from lrm_ros.config_files import load_yaml
from lrm_ros.config_person import AnswerConfig, RobotImproverConfig, TrialConfig
from lrm_ros.config_teleop import ReplayConfig
from lrm_ros.parameters import (
    BUILT_IN,
    EPISODE_PARAMETERS,
    NODE_PARAMETERS,
    is_text,
    parsed_value,
    ros_value,
    to_parameter,
    unknown_parameter,
)


@dataclass(frozen=True)
class Kind:
    """A program: what a node can be, whatever it is called.

    Attributes:
        module: what ``python -m`` runs.
        config: dataclass of its parameters.
        extra: parameters beside that: name -> (default, help).
    """

    module: str
    config: type
    extra: Mapping[str, tuple[Any, str]] = field(default_factory=dict)

    def read(self, node: str, name: str, value: Any) -> Any:
        """Return a parameter's value; what a node of this kind would refuse is refused in the same words.

        Args:
            node: its name.
            name: of a parameter.
            value: a word of a command line, or the value itself. Text is taken as it is.

        Raises:
            ValueError: no such parameter, or a value of the wrong type.
        """
        beside = {key: default for key, (default, _) in {**NODE_PARAMETERS, **self.extra}.items()}
        known = {*beside, *(f.name for f in dataclasses.fields(self.config))}
        if name not in known | BUILT_IN.keys():
            raise ValueError(unknown_parameter(node, name, known))
        extra, parsed = {**beside, **BUILT_IN}, value
        if isinstance(value, str) and not is_text(self.config, extra, name):
            try:
                parsed = parsed_value(value)
            except ValueError as error:
                raise ValueError(f"node '{node}': parameter '{name}': {error}") from error
        to_parameter(self.config, extra, node, name, parsed)
        return parsed


# By the name of the ``ros2 run`` executable.
KINDS: dict[str, Kind] = {
    "answer": Kind("lrm_ros.nodes.answer", AnswerConfig),
    "arm": Kind("lrm_ros.nodes.arm", ArmNodeConfig),
    "camera": Kind("lrm_ros.nodes.camera", CameraConfig),
    "evaluator": Kind("lrm_ros.nodes.evaluator", EvaluatorConfig),
    "improver": Kind("lrm_ros.nodes.improver", ImproverConfig),
    "policy": Kind("lrm_ros.nodes.policy", PolicyConfig),
    "recorder": Kind("lrm_ros.nodes.recorder", RecorderConfig, EPISODE_PARAMETERS),
    "replay": Kind("lrm_ros.nodes.replay", ReplayConfig),
    "refiner": Kind("lrm_ros.training.ppo.node", RefinerConfig),
    "reward": Kind("lrm_ros.nodes.reward", RewardConfig),
    "robot_improver": Kind("lrm_ros.nodes.robot_improver", RobotImproverConfig),
    "ros2_control": Kind("lrm_ros.nodes.ros2_control", ControlNodeConfig),
    "teleop": Kind("lrm_ros.nodes.teleop", TeleopConfig),
    "trial": Kind("lrm_ros.nodes.trial", TrialConfig),
    "twin": Kind("lrm_ros.sim.twin.node", TwinConfig),
    "worlds": Kind("lrm_ros.sim.vector.node", WorldsConfig),
}
SEEING = {"policy", "recorder", "reward"}  # kinds of nodes that take images


@dataclass(frozen=True)
class NodeSpec:
    """One node of a graph.

    Attributes:
        name: ROS node name, prefix of its services and of its output; no two nodes of a graph have the same.
        kind: which program it runs, a key of ``KINDS``.
        parameters: what differs from the defaults.
        foreground: reads the terminal (keyboard) and prints on it unprefixed.
        ends_graph: its clean exit (0) is the graph's clean end; any other node must not exit.
        managed_by: name of the node that gives it its parameters and starts it; empty: it starts by itself.
        namespace: ROS namespace, absolute, e.g. ``/arm1``; empty: none.
    """

    name: str
    kind: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    foreground: bool = False
    ends_graph: bool = False
    managed_by: str = ""
    namespace: str = ""

    def remappings(self) -> list[tuple[str, str]]:
        """Return the absolute names that are the namespace's own: simulated time."""
        return [("/clock", f"{self.namespace}/clock")] if self.namespace else []

    def command(self) -> list[str]:
        """Return the command line of the process."""
        words = [sys.executable, "-m", KINDS[self.kind].module, "--ros-args", "-r", f"__node:={self.name}"]
        if self.namespace:
            words += ["-r", f"__ns:={self.namespace}"]
        for name, other in self.remappings():
            words += ["-r", f"{name}:={other}"]
        for key, value in self.parameters.items():
            words += ["-p", f"{key}:={ros_value(value)}"]
        return words


GRAPHS: dict[str, tuple[NodeSpec, ...]] = {
    # Collect, judge, fine-tune, evaluate (paper IV-C), in lock-step: nothing waits for wall time.
    "self_improve": (
        NodeSpec("twin", "twin", {"realtime": False, "frame_every": 0}),
        NodeSpec("reward", "reward", {"realtime": False}),
        NodeSpec("policy", "policy", {"realtime": False}),
        NodeSpec("recorder", "recorder", {"realtime": False}),
        NodeSpec("evaluator", "evaluator"),
        NodeSpec("improver", "improver", ends_graph=True),
    ),
    # One policy on fixed seeds: `lrm evaluate`.
    "evaluate": (
        NodeSpec("twin", "twin", {"realtime": False, "frame_every": 0}),
        NodeSpec("policy", "policy", {"realtime": False}),
        NodeSpec("evaluator", "evaluator", {"once": True}, ends_graph=True),
    ),
    # What `lrm trial` compares policies with, in real time: somebody watches.
    "trial": (
        NodeSpec("twin", "twin"),
        NodeSpec("reward", "reward"),
        NodeSpec("policy", "policy"),
        NodeSpec("recorder", "recorder"),
    ),
    # PPO in many twins, in lock-step: the refiner sets up the others and starts them (paper IV-B).
    "sim_refine": (
        NodeSpec("worlds", "worlds", {"autostart": False}, managed_by="refiner"),
        NodeSpec("reward", "reward", {"autostart": False}, managed_by="refiner"),
        NodeSpec("refiner", "refiner", ends_graph=True),
    ),
    # Demonstrations by hand, at the control rate.
    "teleop": (
        NodeSpec("twin", "twin", {"realtime": True}),
        NodeSpec("recorder", "recorder", {"source": "teleop"}),
        NodeSpec("teleop", "teleop", foreground=True, ends_graph=True),
    ),
    # A policy acts, a person takes over and gives back.
    "rollout": (
        NodeSpec("twin", "twin", {"realtime": True}),
        NodeSpec("policy", "policy", {"autostart": False}),
        NodeSpec("recorder", "recorder", {"source": "policy"}),
        NodeSpec("teleop", "teleop", {"rollout": True}, foreground=True, ends_graph=True),
    ),
    # A recorded episode once more: `lrm replay`.
    "replay": (NodeSpec("twin", "twin", {"realtime": True}), NodeSpec("replay", "replay", ends_graph=True)),
}


def nodes_of(graph: str, arguments: Mapping[str, Any] | None = None) -> list[NodeSpec]:
    """Return the nodes of a graph with the arguments applied; what a node would refuse is refused here.

    Args:
        graph: a key of ``GRAPHS``.
        arguments: ``parameter`` sets it on every node that has it, ``node.parameter`` on the node of that name;
            ``contract`` and ``use_sim_time`` go to all; ``sim`` selects the twin (true, the default) or the robot, a
            node ``arm`` and a node ``NAME_camera`` for each camera of the contract; ``ns`` or
            ``namespace`` is where all nodes run.

    Raises:
        ValueError: an unknown graph, node or parameter, with the nearest valid one, or a value of the wrong type.
    """
    if graph not in GRAPHS:
        raise ValueError(f"unknown graph '{graph}'; choose one of {', '.join(GRAPHS)}")
    arguments = dict(arguments or {})
    specs = GRAPHS[graph]
    if not _is_true("sim", arguments.pop("sim", True)):
        specs = on_robot(graph, str(arguments.get("contract", "")))
    kinds = {node.name: KINDS[node.kind] for node in specs}
    nodes = {node.name: dict(node.parameters) for node in specs}
    manager = {node.name: node.managed_by for node in specs if node.managed_by}
    settable = {name: settable_by_all(kind) for name, kind in kinds.items() if name not in manager}
    namespace = ""
    for key, value in arguments.items():
        if key in ("ns", "namespace"):
            namespace = _namespace(key, str(value))
            continue
        name, _, parameter = key.rpartition(".")
        if name and name not in nodes:
            raise ValueError(f"'{key}': graph '{graph}' has no node '{name}'; its nodes: {', '.join(nodes)}")
        if name in manager:
            raise ValueError(f"'{key}': node '{name}' gets its parameters from node '{manager[name]}'; set them there")
        chosen = [name] if name else [n for n, names in settable.items() if parameter in names]
        if not chosen:
            known = sorted({p for names in settable.values() for p in names})
            near = difflib.get_close_matches(parameter, known, 1)
            cure = f"did you mean '{near[0]}'?" if near else f"parameters: {', '.join(known)}"
            raise ValueError(f"no node of graph '{graph}' has a parameter '{parameter}'; {cure}")
        for node in chosen:
            nodes[node][parameter] = kinds[node].read(node, parameter, value)
    return [dataclasses.replace(node, parameters=nodes[node.name], namespace=namespace) for node in specs]


def on_robot(graph: str, contract: str) -> tuple[NodeSpec, ...]:
    """Return a graph with an arm's node and a camera node for each of the contract's cameras in place of the twin.

    Args:
        graph: a key of ``GRAPHS``.
        contract: file of the robot contract. Its section ``arm`` (LeRobot's driver) or ``ros2_control`` says which
            node is in front of the arm.

    Raises:
        ValueError: the graph cannot run on a robot yet, or the file does not describe one.
        FileNotFoundError: there is no such file.
    """
    specs = GRAPHS[graph]
    kinds = {node.kind for node in specs}
    if "twin" not in kinds:
        raise ValueError(f"sim:=false: graph '{graph}' is one of simulated worlds; run it without sim")
    if "evaluator" in kinds and "improver" not in kinds:
        raise ValueError(
            f"sim:=false: graph '{graph}' resets the scene and asks the simulator for success; on the arm a person "
            "compares policies: 'lrm up trial sim:=false contract:=FILE', and 'lrm trial' beside it"
        )
    if not contract:
        raise ValueError(
            "sim:=false needs contract:=FILE, the robot's with its section 'arm', e.g. config/so101.yaml, or "
            "'ros2_control', e.g. config/ros2_control.yaml"
        )
    robot = load_yaml(contract, RobotContract, SECTIONS)
    controlled = driven_by(contract) == CONTROL_SECTION
    if controlled:
        load_control(contract, robot)
    else:
        load_arm(contract, robot)
    cameras = [
        # A USB camera takes two of the system's numbers.
        NodeSpec(
            f"{camera.name}_camera",
            "camera",
            {"camera": camera.name, "source": str(2 * index), "width": camera.width, "height": camera.height},
        )
        for index, camera in enumerate(robot.cameras if kinds & SEEING else ())
    ]
    first = robot.cameras[0].name if robot.cameras else RewardConfig.camera
    others = [_beside_robot(node, first) for node in specs if node.kind not in ("twin", "evaluator")]
    if "improver" in kinds:  # a person puts the scene back
        others.append(NodeSpec("answer", "answer", foreground=True))
    # Whatever drives it, the node in front of the arm has one name.
    return (NodeSpec("arm", "ros2_control" if controlled else "arm"), *cameras, *others)


def _beside_robot(node: NodeSpec, first: str) -> NodeSpec:
    """Return a node of a twin's graph beside a robot (``first``: its camera): in real time, a person for the scene."""
    parameters = {name: value for name, value in node.parameters.items() if name != "realtime"}
    if node.kind == "reward" and first != RewardConfig.camera:
        parameters["camera"] = first
    kind = "robot_improver" if node.kind == "improver" else node.kind
    return dataclasses.replace(node, kind=kind, parameters=parameters)


def _is_true(key: str, value: Any) -> bool:
    """Return a switch.

    Raises:
        ValueError: it is neither true nor false.
    """
    word = str(value).lower()
    if word not in ("true", "false", "1", "0"):
        raise ValueError(f"{key}:={value}: give true or false")
    return word in ("true", "1")


def settable_by_all(kind: Kind) -> list[str]:
    """Return the parameters of a kind of node that an argument without a node's name sets."""
    return [f.name for f in dataclasses.fields(kind.config)] + ["contract", "use_sim_time"]


def _namespace(key: str, word: str) -> str:
    """Return a namespace as an absolute name, empty for none.

    Raises:
        ValueError: ROS would not take it.
    """
    name = word.strip("/")
    if name and not re.fullmatch(r"[A-Za-z_]\w*(/[A-Za-z_]\w*)*", name, re.ASCII):
        raise ValueError(
            f"{key}:={word}: a namespace has letters, digits and '_' and begins with no digit, e.g. {key}:=arm1"
        )
    return f"/{name}" if name else ""


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
