# SPDX-License-Identifier: Apache-2.0
"""``ros2 launch lrm_ros rollout.launch.py``: the graph 'rollout' of lrm_ros/graph/graphs.py."""

from lrm_ros.graph.launch import launch_description


def generate_launch_description():
    """Return the nodes of the graph; arguments as in ``lrm up rollout``."""
    return launch_description("rollout")
