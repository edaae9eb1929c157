# SPDX-License-Identifier: Apache-2.0
"""What every node looks at around itself: a clock where it needs one, no other node of its name."""

from __future__ import annotations

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from lrm_ros import topics
from lrm_ros.ros.diagnostics import Diagnostics

NO_CLOCK = (
    "use_sim_time is true but nothing publishes /clock: time stands still; start the simulator, or set "
    "use_sim_time:=false"
)
_LOOK_S = 1.0
_LOOKS = 3  # so many looks in a row must see it: discovery takes its time


class Surroundings:
    """Looks once a second; what is wrong is a fault in the node's diagnostics."""

    def __init__(self, node: Node, diagnostics: Diagnostics) -> None:
        """Look around ``node`` from now on."""
        self._node, self._diagnostics = node, diagnostics
        self._without_clock = self._twice = 0
        # Wall time: it is the other one that may be missing.
        node.create_timer(_LOOK_S, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _look(self) -> None:
        node, diagnostics = self._node, self._diagnostics
        simulated = bool(node.get_parameter("use_sim_time").value)
        needed = simulated and not node.get_publishers_info_by_topic(topics.CLOCK.name)
        self._without_clock = self._without_clock + 1 if needed else 0
        if self._without_clock >= _LOOKS:
            diagnostics.fault("use_sim_time", NO_CLOCK)
        elif not needed:
            diagnostics.recovered("use_sim_time", "/clock is published")
        own = (node.get_name(), node.get_namespace())
        same = sum(found == own for found in node.get_node_names_and_namespaces())
        self._twice = self._twice + 1 if same > 1 else 0
        name = node.get_fully_qualified_name()
        if self._twice >= _LOOKS - 1:
            diagnostics.fault(
                "name",
                f"{same} nodes are called '{name}': each answers the calls of its services; stop the other ones, or "
                "give this one another name: --ros-args -r __node:=NAME (one that was killed is seen for 20 s more)",
            )
        elif same == 1:
            diagnostics.recovered("name", f"no other node is called '{name}' any more")
