# SPDX-License-Identifier: Apache-2.0
"""``ros2 launch lrm_ros sim_refine.launch.py``: the graph 'sim_refine' of lrm_ros/graph/graphs.py."""

from lrm_ros.graph.launch import launch_description


def generate_launch_description():
    """Return the nodes of the graph; arguments as in ``lrm up sim_refine``."""
    return launch_description("sim_refine")
