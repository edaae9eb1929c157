# SPDX-License-Identifier: Apache-2.0
"""Forward and inverse kinematics of the SO-100 arm.

The geometry is that of ``so100.urdf`` as shipped with ManiSkill (haosulab/ManiSkill:
mani_skill/assets/robots/so100/so100.urdf), in the frame ``base_link``: x forward, y left, z up, origin at the
arm's base plate. Angles in rad, lengths in m, float64 throughout.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract
from lrm_ros.robot.urdf import rotation, turning

ARM_JOINTS = 5
# Each row: xyz [m] and rpy [rad] of the joint in its parent, then its axis.
_JOINTS = (
    ((0.0, -0.0452, 0.0165), (math.pi / 2, 0.0, 0.0), (0.0, -1.0, 0.0)),
    ((0.0, 0.1025, 0.0306), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0)),
    ((0.0, 0.11257, 0.028), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0)),
    ((0.0, 0.0052, 0.1349), (-math.pi / 2, 0.0, 0.0), (1.0, 0.0, 0.0)),
    ((0.0, -0.0601, 0.0), (0.0, math.pi / 2, 0.0), (0.0, 1.0, 0.0)),
)
# Where an object between the jaws sits, in the frame of the fixed jaw [m]; the jaw points along -y.
_TCP = np.array([-0.012, -0.090, 0.0])


class Unreachable(ValueError):
    """The requested pose is outside the arm's reach or joint limits."""


def require_so100(contract: RobotContract, what: str, cure: str) -> None:
    """Check that an arm is the one whose kinematics stand here; other arms have joints of the same names.

    Args:
        contract: of the arm at hand.
        what: needs these kinematics, for the message.
        cure: what to do with another arm.

    Raises:
        ValueError: another robot, or other joints.
    """
    so100 = RobotContract()
    if (contract.name, contract.joints) != (so100.name, so100.joints):
        raise ValueError(
            f"{what} knows the kinematics of '{so100.name}' only ({', '.join(so100.joints)}), the robot contract is "
            f"'{contract.name}' ({', '.join(contract.joints)}): {cure}"
        )


_CHAIN = [(np.array(xyz), *turning(rpy, axis)) for xyz, rpy, axis in _JOINTS]
_BASE = rotation((0.0, 0.0, math.pi / 2))  # the URDF's arm faces -y; base_link faces +x


def forward(joints: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the position of the tool centre point.

    Args:
        joints: (5,) or (6,) joint positions [rad]; a sixth (gripper) is ignored.

    Returns:
        (3,) position [m] and (3, 3) rotation of the fixed jaw in ``base_link``; its -y column is the approach.
    """
    position, rotation = np.zeros(3), _BASE
    angles = np.asarray(joints, dtype=np.float64)[:ARM_JOINTS].tolist()
    for (xyz, still, sine, cosine), angle in zip(_CHAIN, angles, strict=True):
        position = position + rotation @ xyz
        rotation = rotation @ (still + math.sin(angle) * sine + math.cos(angle) * cosine)
    return position + rotation @ _TCP, rotation


def approach(joints: NDArray) -> NDArray[np.float64]:
    """Return the unit vector (3,) in which the gripper points."""
    return -forward(joints)[1][:, 1]


def inverse(
    position: NDArray,
    pitch: float,
    roll: float,
    start: NDArray,
    lower: NDArray,
    upper: NDArray,
    tolerance: float = 2e-3,
) -> NDArray[np.float64]:
    """Return arm joints that bring the tool centre point to a position with a given pitch.

    Damped least squares from ``start``, kept inside the limits. The arm has five joints: pan follows from the
    position, and the roll joint is set, not solved for.

    Args:
        position: (3,) target in ``base_link`` [m].
        pitch: angle of the approach below the horizontal [rad]; pi/2 points straight down.
        roll: wrist_roll joint [rad].
        start: (5,) or (6,) joints to start from [rad].
        lower: lower joint limits [rad], at least 5.
        upper: upper joint limits [rad], at least 5.
        tolerance: accepted position error [m].

    Raises:
        Unreachable: no solution within ``tolerance`` and the limits, with the nearest distance found.
    """
    target = np.append(np.asarray(position, dtype=np.float64), 0.12 * math.sin(pitch))
    low, high = np.asarray(lower, dtype=np.float64)[:4], np.asarray(upper, dtype=np.float64)[:4]
    best, best_error = None, math.inf
    seeds = [np.asarray(start, dtype=np.float64)[:4], np.array([0.0, 0.3, 0.3, 0.9]), np.array([0.0, -0.8, 0.9, 1.3])]
    pan = -math.atan2(target[1], target[0] - 0.0452)  # positive pan turns the arm to its right
    for seed in seeds:
        q = np.clip(seed, low, high)
        if seed is not seeds[0]:
            q[0] = np.clip(pan, low[0], high[0])

        def residual(angles: NDArray) -> NDArray:
            point, rotation = forward(np.append(angles, roll))
            return np.append(point, 0.12 * rotation[2, 1]) - target  # approach_z = -rotation[2, 1] = -sin(pitch)

        for _ in range(60):
            r = residual(q)
            error = float(np.linalg.norm(r))
            if error < best_error:
                best, best_error = q.copy(), error
            if error < 2e-4:
                break
            jacobian = np.stack([(residual(q + 1e-5 * e) - r) / 1e-5 for e in np.eye(4)], axis=1)
            step = np.linalg.solve(jacobian.T @ jacobian + 1e-5 * np.eye(4), jacobian.T @ r)
            q = np.clip(q - np.clip(step, -0.4, 0.4), low, high)
        if best_error < tolerance:
            break
    if best is None or best_error > tolerance:
        raise Unreachable(
            f"the arm cannot reach {np.round(target[:3], 3).tolist()} m at pitch {pitch:.2f} rad "
            f"(nearest {best_error:.3f} m away); move the target closer or tilt the gripper"
        )
    return np.append(best, roll)


def shift(joints: NDArray, offset: NDArray) -> NDArray[np.float32]:
    """Return joints whose tool centre point is moved, with the same pitch and roll.

    Three Gauss-Newton steps from ``joints``: right to about a millimetre for offsets of a few centimetres; where the
    offset cannot be reached, the nearest the steps find. Joint limits are the limiter's business.

    Args:
        joints: (5,) or (6,) joint positions [rad]; a sixth (gripper) is kept.
        offset: (3,) movement in ``base_link`` [m].
    """
    joints = np.asarray(joints, dtype=np.float64)
    start, rotation = forward(joints)
    target = np.append(start + offset, 0.12 * rotation[2, 1])
    moved = joints.copy()

    def residual(angles: NDArray) -> NDArray:
        point, turned = forward(np.append(angles, moved[4]))
        return np.append(point, 0.12 * turned[2, 1]) - target

    for _ in range(3):
        r = residual(moved[:4])
        jacobian = np.stack([(residual(moved[:4] + 1e-5 * e) - r) / 1e-5 for e in np.eye(4)], axis=1)
        moved[:4] -= np.linalg.solve(jacobian.T @ jacobian + 1e-6 * np.eye(4), jacobian.T @ r)
    return moved.astype(np.float32)
