# SPDX-License-Identifier: Apache-2.0
"""Large Reward Models for robots on the desk, as a ROS 2 stack.

The walk of a camera frame, the same on a real arm and in the simulated twin::

    camera/image_raw -> reward node -> engine -> model -> `reward` topic -> recorder -> episode journal (MCAP)
        -> judge -> kept episodes -> LeRobotDataset -> fine-tune -> checkpoint -> policy node -> arm

Imports go one way: types <- config <- reward, record, robot, policy <- nodes. ``sim`` and ``training`` import
``lrm_ros``, never the reverse. ROS is imported only in ``messages.py``, ``nodes/`` and ``sim/twin/node.py``.
"""

__version__ = "0.1.0"
