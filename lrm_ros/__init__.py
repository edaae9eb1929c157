# SPDX-License-Identifier: Apache-2.0
"""Large Reward Models for robots on the desk, as a ROS 2 stack.

The walk of a camera frame, the same on a real arm and in the simulated twin::

    camera/image_raw -> reward node -> engine -> model -> `reward` topic -> recorder -> episode journal (MCAP)
        -> judge -> kept episodes -> LeRobotDataset -> fine-tune -> checkpoint -> policy node -> arm

Imports go one way: types <- config <- reward, record, robot, policy <- ros <- nodes. ``sim`` and ``training`` import
the rest, never the reverse. ROS is imported only in ``messages.py``, ``topics.py``, ``ros/``, ``nodes/``, the launch
description and the node files of ``sim`` and ``training``; tests/product/test_architecture.py holds it.
"""

from lrm_ros.programs import begin

__version__ = "0.1.0"

begin()  # nothing unless this process is one of the package's programs
