# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 nodes: one class and one ``main`` a file, all lifecycle nodes built on ``base.py``."""
