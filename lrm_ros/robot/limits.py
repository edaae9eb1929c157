# SPDX-License-Identifier: Apache-2.0
"""The limiter: what may be sent to an arm, and what may be believed of one.

Nothing moves an arm, real or simulated, without the limiter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrm_ros.config import RobotContract
from lrm_ros.contract import implausible, require_limits

# Joint positions that were far outside the limits are believed again when they have been plausible for so long [s]: in
# degrees, too, a joint passes near zero.
PLAUSIBLE_S = 5.0


def checked(values: ArrayLike, what: str, contract: RobotContract) -> NDArray[np.float64]:
    """Return joint positions as (D,) float64 [rad].

    Args:
        values: one for each joint of the contract.
        what: they are, for the message.
        contract: joint names.

    Raises:
        ValueError: a wrong number of joints or a value that is not finite, naming the joint.
    """
    joints, found = contract.joints, np.asarray(values, dtype=np.float64)
    if found.shape != (len(joints),):
        raise ValueError(
            f"{what} has shape {found.shape}, the robot contract '{contract.name}' has {len(joints)} joints: "
            f"{', '.join(joints)}"
        )
    bad = [f"{joint} = {value}" for joint, value in zip(joints, found, strict=True) if not np.isfinite(value)]
    if bad:
        raise ValueError(f"{what} is not finite: {', '.join(bad)}; nothing was sent to the arm")
    return found


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
        ValueError: a wrong number of joints, a value that is not finite, naming the joint, or a contract without
            limits.
    """
    # In float32 first, as it is sent: what overflows is not finite.
    target, last = np.asarray(target, dtype=np.float32), np.asarray(last, dtype=np.float32)
    for name, values in (("joint target", target), ("last joint target", last)):
        checked(values, name, contract)
    require_limits(contract, f"robot contract '{contract.name}'")
    inside = np.clip(target, np.array(contract.lower, np.float32), np.array(contract.upper, np.float32))
    step = np.array(contract.max_step, np.float32)
    return np.clip(inside, last - step, last + step)


class Plausibility:
    """Whether joint positions can be radians, looked at message by message."""

    def __init__(self, contract: RobotContract) -> None:
        """Judge by the contract's joint limits."""
        self._contract = contract
        self._reason = ""
        self._since_s = 0.0  # when the last implausible position came

    def check(self, positions: Sequence[float | None], now_s: float) -> None:
        """Take the positions of one message.

        Args:
            positions: of each joint of the contract [rad]; ``None``: not in this message.
            now_s: when it came, of a clock that does not go back [s].

        Raises:
            ValueError: a joint is far outside its limits, or was less than ``PLAUSIBLE_S`` ago; names it, its position
                and its limits.
        """
        reason = implausible(positions, self._contract)
        if reason:
            self._reason, self._since_s = reason, now_s
        elif self._reason and now_s - self._since_s >= PLAUSIBLE_S:
            self._reason = ""
        if self._reason:
            raise ValueError(self._reason)
