# SPDX-License-Identifier: Apache-2.0
"""A graph of ``graphs.py`` as a ros2 launch description; the files in launch/ only name their graph."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

from lrm_ros.graph.graphs import GRAPHS, KINDS, NodeSpec, nodes_of, threads_of
from lrm_ros.parameters import ros_value


def launch_description(graph: str) -> Any:
    """Return the launch description of a graph.

    Arguments are those of ``lrm up``: ``parameter:=value`` for every node that has it, ``node.parameter:=value`` for
    one; what ``lrm up`` refuses is refused in the same words, before any node starts. A node that dies ends the launch
    with code 1 and its name; ``ros2 launch`` alone would go on and return 0.

    Args:
        graph: a key of ``lrm_ros.graph.graphs.GRAPHS``.
    """
    from launch import LaunchDescription
    from launch.actions import DeclareLaunchArgument, OpaqueFunction

    helps: dict[str, str] = {}
    for node in GRAPHS[graph]:
        if node.managed_by:
            continue
        for field in dataclasses.fields(KINDS[node.kind].config):
            default = ros_value(node.parameters.get(field.name, field.default))
            helps.setdefault(field.name, f"{node.name}: {field.metadata['help']} (without it: {default})")
    helps |= {
        "contract": "all: YAML file of the robot contract",
        "use_sim_time": "all: time is the twin's (without it: false)",
        "namespace": "all: namespace of the nodes, their topics, services and simulated time (without it: none)",
        "sim": "true: the twin; false: the robot",
    }
    # An argument left at this value is not passed on: the defaults live in config.py.
    declared = [DeclareLaunchArgument(name, default_value="", description=text) for name, text in helps.items()]
    return LaunchDescription([*declared, OpaqueFunction(function=_start, args=[graph, frozenset(helps)])])


def _given(context: Any, declared: frozenset[str]) -> dict[str, str]:
    """Return the launch arguments; those of this file that no node knows too, for they are refused.

    A file that includes this one has arguments of its own, which are its business.
    """
    configurations = dict(context.launch_configurations)
    words = {word.partition(":=")[0] for word in context.argv} - {"launch-prefix", "launch-prefix-filter"}
    file = Path(getattr(context.locals, "current_launch_file_path", "")).name
    ours = words if file in {Path(word).name for word in sys.argv} else set()
    given = {
        key: value
        for key, value in configurations.items()
        if value != "" and (key in declared or "." in key or key in ours)
    }
    pushed = configurations.get("ros_namespace", "")  # by PushRosNamespace of a file that includes this one
    namespace = given.get("namespace", "")
    if pushed and not namespace.startswith("/"):
        given["namespace"] = "/".join(filter(None, [pushed, namespace]))
    return given


def _start(context: Any, graph: str, declared: frozenset[str]) -> list[Any]:
    """Return the actions that start the nodes with the launch arguments applied."""
    from launch.actions import RegisterEventHandler
    from launch.event_handlers import OnProcessExit
    from launch_ros.actions import LifecycleNode

    specs = nodes_of(graph, _given(context, declared))
    threads = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(threads_of(len(specs)))}
    # ros2 launch ends without its nodes when it is killed; they end when it is gone.
    env = threads | {"LRM_PARENT": str(os.getpid())}
    actions: list[Any] = []
    for spec in specs:
        words = [word for key, value in spec.parameters.items() for word in ("-p", f"{key}:={ros_value(value)}")]
        node = LifecycleNode(
            package="lrm_ros",
            executable=spec.kind,
            name=spec.name,
            namespace=spec.namespace,
            remappings=spec.remappings(),
            ros_arguments=words,
            additional_env=env,
            output="screen",
            emulate_tty=True,
        )
        watch = OnProcessExit(target_action=node, on_exit=_exit_handler(spec))
        actions += [RegisterEventHandler(watch), node]
    return actions


def _exit_handler(spec: NodeSpec) -> Any:
    """Return what is called when a node's process has ended."""
    from launch.actions import Shutdown

    def on_exit(event: Any, context: Any) -> list[Any]:
        if context.is_shutdown:
            return []
        if event.returncode == 0 and spec.ends_graph:
            return [Shutdown(reason=f"node '{spec.name}' has finished")]
        # Raising is the only way to make ros2 launch return a code other than 0.
        raise RuntimeError(f"node '{spec.name}' died with code {event.returncode}")

    return on_exit
