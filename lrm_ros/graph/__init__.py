# SPDX-License-Identifier: Apache-2.0
"""Which nodes make up a program (graphs), how they are started and kept together (runner, launch), and the doctor."""

from lrm_ros.graph.graphs import nodes_of

__all__ = ["nodes_of"]
