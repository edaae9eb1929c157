# SPDX-License-Identifier: Apache-2.0
"""An arm's description for RViz and Foxglove: ``robot_description``, and the frames of its links on ``/tf``.

The frames need the message package tf2_msgs, which every ROS 2 installation has and the wheels of ROS 2 on PyPI do not;
without it the node says so in its diagnostics, and robot_state_publisher makes the frames of ``robot_description``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.publisher import Publisher
from std_msgs.msg import String

from lrm_ros import messages, topics
from lrm_ros.robot.urdf import Urdf
from lrm_ros.ros.base import LrmNode

NO_FRAMES = "no frames on /tf: message package tf2_msgs is not installed; robot_state_publisher makes them"


def quaternion(rotation: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Return (x, y, z, w), w not below 0, of a (3, 3) rotation."""
    # Of the four ways the one by the largest component: nothing is divided by almost zero.
    diagonal = np.diag(rotation)
    largest = int(np.argmax([*diagonal, diagonal.sum()]))
    if largest == 3:
        w = math.sqrt(max(0.0, 1 + diagonal.sum())) / 2
        x, y, z = ((rotation[j, i] - rotation[i, j]) / (4 * w) for i, j in ((1, 2), (2, 0), (0, 1)))
        return x, y, z, w
    i, j, k = largest, (largest + 1) % 3, (largest + 2) % 3
    values = [0.0] * 3
    values[i] = math.sqrt(max(0.0, 1 + rotation[i, i] - rotation[j, j] - rotation[k, k])) / 2
    values[j] = (rotation[i, j] + rotation[j, i]) / (4 * values[i])
    values[k] = (rotation[i, k] + rotation[k, i]) / (4 * values[i])
    w = (rotation[k, j] - rotation[j, k]) / (4 * values[i])
    sign = -1.0 if w < 0 else 1.0
    return sign * values[0], sign * values[1], sign * values[2], sign * w


def frames(urdf: Urdf, positions: Mapping[str, float], stamp_ns: int, fixed: bool) -> list[Any]:
    """Return geometry_msgs/TransformStamped of the joints that are fixed, or of those that move.

    Args:
        urdf: the arm's; a frame has the name of its link.
        positions: of the joints that move, by name [rad, m].
        stamp_ns: of the positions [ns].
        fixed: which joints.

    Raises:
        ImportError: there is no message package.
        ValueError: a joint that moves has no position.
    """
    from geometry_msgs.msg import TransformStamped

    found = []
    for joint in urdf.joints.values():
        if (joint.kind == "fixed") != fixed:
            continue
        pose, message = urdf.step(joint, positions), TransformStamped()
        message.header.stamp = messages.to_time(stamp_ns)
        message.header.frame_id, message.child_frame_id = joint.parent, joint.child
        move, turn = message.transform.translation, message.transform.rotation
        move.x, move.y, move.z = map(float, pose[:3, 3])
        turn.x, turn.y, turn.z, turn.w = map(float, quaternion(pose[:3, :3]))
        found.append(message)
    return found


class Description:
    """Publishes the URDF once, latched, and the frames with each joint state."""

    def __init__(self, node: LrmNode[Any], urdf: Urdf) -> None:
        """Publish ``robot_description`` and, if there are frames, those that are fixed.

        Args:
            node: of the arm; its contract's joints are the URDF's.
            urdf: the arm's.
        """
        self._node, self._urdf = node, urdf
        self._frames: Publisher | None
        self._text = topics.ROBOT_DESCRIPTION.publisher(node)
        self._text.publish(String(data=urdf.text))
        try:
            moving, still = topics.frames()
        except ImportError:
            self._frames = None
            node.diagnostics.value("frames", NO_FRAMES)
            return
        self._message = moving.message_type
        self._frames, self._still = moving.publisher(node), still.publisher(node)
        now_ns = node.get_clock().now().nanoseconds
        self._still.publish(self._message(transforms=frames(urdf, {}, now_ns, fixed=True)))
        node.diagnostics.value("frames", "on /tf")

    def update(self, stamp_ns: int, position: NDArray) -> None:
        """Publish the frames of a joint state.

        Args:
            stamp_ns: of the state [ns].
            position: (D,) in the order of the contract [rad].

        Raises:
            ValueError: a joint of the URDF that moves is none of the contract's.
        """
        if self._frames is None:
            return
        positions = dict(zip(self._node.contract.joints, map(float, position), strict=True))
        self._frames.publish(self._message(transforms=frames(self._urdf, positions, stamp_ns, fixed=False)))
