# SPDX-License-Identifier: Apache-2.0
"""The limiter: what may be sent to an arm. Nothing moves one, real or simulated, without it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract


def limited(target: NDArray, last: NDArray, contract: RobotContract) -> NDArray[np.float32]:
    """Return the target to send: inside the joint limits and near the target sent before.

    The step limit is the stronger one: an arm found outside its joint limits comes back in steps, not in a jump.

    Args:
        target: (D,) what is asked for, absolute joint positions [rad].
        last: (D,) what was sent before, or the joint state when nothing was [rad].
        contract: joint names, joint limits and step limits.

    Returns:
        (D,) float32 [rad].

    Raises:
        ValueError: a wrong number of joints or a value that is not finite, naming the joint.
    """
    joints = contract.joints
    target, last = np.asarray(target, dtype=np.float32), np.asarray(last, dtype=np.float32)
    for name, values in (("joint target", target), ("last joint target", last)):
        if values.shape != (len(joints),):
            raise ValueError(
                f"{name} has shape {values.shape}, the robot contract '{contract.name}' has {len(joints)} joints: "
                f"{', '.join(joints)}"
            )
        bad = [f"{joint} = {value}" for joint, value in zip(joints, values, strict=True) if not np.isfinite(value)]
        if bad:
            raise ValueError(f"{name} is not finite: {', '.join(bad)}; nothing was sent to the arm")
    inside = np.clip(target, np.array(contract.lower, np.float32), np.array(contract.upper, np.float32))
    step = np.array(contract.max_step, np.float32)
    return np.clip(inside, last - step, last + step)
