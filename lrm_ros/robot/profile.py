# SPDX-License-Identifier: Apache-2.0
"""Motions of joints with a highest velocity and acceleration, exact at any moment: brake, and go to a goal and stop.

All arguments are arrays that broadcast together; positions [rad], velocities [rad/s], times from now [s]. The
acceleration is never above ``acceleration`` in size, so that samples of a motion are inside the same limits at any
rate: mean velocities of two periods differ by no more than the acceleration times the time between their middles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def stop_point(position: Floats, velocity: Floats, acceleration: Floats) -> Floats:
    """Return where a joint stands that brakes now."""
    return position + velocity * np.abs(velocity) / (2 * acceleration)


def brake(position: Floats, velocity: Floats, acceleration: Floats, time: Floats) -> tuple[Floats, Floats]:
    """Return (position, velocity) after ``time`` of braking; it stays where it has stopped."""
    way = np.sign(velocity)
    braking = np.minimum(time, np.abs(velocity) / acceleration)
    stopped = time >= np.abs(velocity) / acceleration
    after = position + velocity * braking - way * acceleration * braking**2 / 2
    return (
        np.where(stopped, stop_point(position, velocity, acceleration), after),
        np.where(stopped, 0.0, velocity - way * acceleration * braking),
    )


def approach(
    position: Floats, velocity: Floats, goal: Floats, highest: Floats, acceleration: Floats, time: Floats
) -> tuple[Floats, Floats]:
    """Return (position, velocity) after ``time`` on the quickest way to stand at a goal.

    The stop point goes from where it is to the goal and never beyond either: what holds for both holds on the way.

    Args:
        position: now.
        velocity: now, at most ``highest`` in size.
        goal: where to stand.
        highest: velocity, above 0.
        acceleration: above 0.
        time: from now, 0 or more.
    """
    way = np.where(goal >= stop_point(position, velocity, acceleration), 1.0, -1.0)
    distance, start = way * (goal - position), way * velocity
    # Speed up from start to peak, go on, slow down to 0. The distance is enough for that: the stop point is not beyond.
    peak = np.sqrt(np.maximum(acceleration * distance + start**2 / 2, 0.0))
    peak = np.maximum(np.minimum(peak, highest), np.maximum(start, 0.0))
    speeding = (peak - start) / acceleration
    covered = (2 * peak**2 - start**2) / (2 * acceleration)
    cruising = np.where(peak > 0, np.maximum(distance - covered, 0.0) / np.where(peak > 0, peak, 1.0), 0.0)
    first = np.minimum(time, speeding)
    second = np.clip(time - speeding, 0.0, cruising)
    third = np.clip(time - speeding - cruising, 0.0, peak / acceleration)
    done = time >= speeding + cruising + peak / acceleration
    way_there = start * first + acceleration * first**2 / 2 + peak * (second + third) - acceleration * third**2 / 2
    speed = start + acceleration * (first - third)
    return np.where(done, goal, position + way * way_there), np.where(done, 0.0, way * speed)
