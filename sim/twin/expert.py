# SPDX-License-Identifier: Apache-2.0
"""Scripted behaviours in the twin: the expert that stands in for the teleoperator, and failures of every kind.

A behaviour is a list of joint targets computed from the simulator's state by inverse kinematics. Only demonstrations
and the labelled training data of the reward model come from here; the self-improvement loop never calls it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrm_ros.robot.so100.kinematics import Unreachable, inverse
from lrm_ros.sim.twin.world import World

GRIPPER_OPEN = 0.35  # [rad]
GRIPPER_CLOSED = -0.95
SPEED = 0.22  # largest joint change a control step [rad]
KINDS = ("success", "halted", "held", "dropped", "beside", "missed", "pushed", "random", "reversed")
MISTAKES = ("wrong_toy", "wrong_place")  # where the table has several toys and vessels: SortToys-v1


@dataclass(frozen=True)
class Waypoint:
    """Pose of the gripper: position [m], pitch [rad], gripper [rad], control steps (0: as speed allows)."""

    position: NDArray[np.float64]
    pitch: float
    gripper: float
    steps: int = 0


def waypoints(world: World, miss: NDArray | None = None, beside: NDArray | None = None) -> list[Waypoint]:
    """Return the expert's waypoints: hover, descend, close, lift, carry, open, retreat.

    Args:
        world: a freshly reset world.
        miss: (2,) error added to where the toy is believed to be [m].
        beside: (2,) error added to where the bowl is believed to be [m].
    """
    env = world.task_env
    toy = env.toy.pose.p[0].cpu().numpy().astype(np.float64)
    bowl = env.bowl.pose.p[0].cpu().numpy().astype(np.float64)
    if miss is not None:
        toy[:2] += miss
    if beside is not None:
        bowl[:2] += beside
    down = math.pi / 2
    grasp = np.array([toy[0], toy[1], 0.012])
    over = np.array([bowl[0], bowl[1], 0.085])
    lift, lower, higher = _up(0.065), _up(-0.015), _up(0.03)
    return [
        Waypoint(grasp + lift, down, GRIPPER_OPEN),
        Waypoint(grasp, down, GRIPPER_OPEN, 4),
        Waypoint(grasp, down, GRIPPER_CLOSED, 4),
        Waypoint(grasp + lift - lower, down, GRIPPER_CLOSED, 3),
        Waypoint(over, down, GRIPPER_CLOSED),
        Waypoint(over + lower, down, GRIPPER_CLOSED, 1),
        Waypoint(over + lower, down, GRIPPER_OPEN, 3),
        Waypoint(over + higher, down, GRIPPER_OPEN, 4),
        Waypoint(over + higher, down, GRIPPER_OPEN, 3),
    ]


def joint_targets(world: World, way: list[Waypoint]) -> NDArray[np.float32]:
    """Turn waypoints into joint targets (T, 6) [rad], one a control step, from the arm's present state.

    Raises:
        Unreachable: a waypoint is out of reach even with a tilted gripper.
    """
    lower, upper = np.array(world.contract.lower), np.array(world.contract.upper)
    now = world.state.astype(np.float64)
    targets: list[NDArray] = []
    for point in way:
        arm = now[:5]
        for tilt in (0.0, 0.2, 0.4, 0.6):
            try:
                arm = inverse(point.position, point.pitch - tilt, 0.0, now, lower, upper)
                break
            except Unreachable:
                if tilt == 0.6:
                    raise
        goal = np.append(arm, point.gripper)
        count = point.steps or max(2, math.ceil(float(np.abs(goal - now)[:5].max()) / SPEED))
        targets += [now + (goal - now) * (i + 1) / count for i in range(count)]
        now = goal
    return np.stack(targets).astype(np.float32)


def expert_targets(world: World) -> NDArray[np.float32]:
    """Return the expert's joint targets (T, 6) [rad] for a freshly reset world."""
    return joint_targets(world, waypoints(world))


def behaviour_targets(world: World, kind: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return joint targets (T, 6) [rad] of a behaviour for a freshly reset world.

    Args:
        world: a freshly reset world.
        kind: one of ``KINDS``. ``halted`` stops somewhere, ``held`` never lets go, ``dropped`` opens on the way,
            ``beside`` puts the toy down next to the bowl, ``missed`` grasps beside the toy, ``pushed`` sweeps it away,
            ``random`` wanders, ``reversed`` takes the toy out of the bowl again. With several toys and vessels also
            one of ``MISTAKES``: all goes well, but with another toy or another vessel than the instruction names.
        rng: source of all randomness.
    """
    if kind == "random":
        return random_walk(world.state, rng)
    if kind in MISTAKES:
        world.task_env.mistake(kind, rng)
    way = waypoints(
        world,
        _offset(rng, 0.02, 0.08) if kind == "missed" else None,
        _offset(rng, 0.055, 0.11) if kind == "beside" else None,
    )
    if kind == "pushed":
        sweep = way[1].position + np.array([rng.uniform(-0.05, 0.05), rng.choice([-1.0, 1.0]) * 0.08, 0.01])
        start = way[1].position * 2 - sweep
        way = [
            Waypoint(start + _up(0.06), math.pi / 2, GRIPPER_CLOSED),
            Waypoint(start + _up(0.012), math.pi / 2, GRIPPER_CLOSED, 3),
            Waypoint(sweep + _up(0.012), math.pi / 2, GRIPPER_CLOSED, 6),
        ]
    targets = joint_targets(world, way)
    if kind == "halted":
        stop = int(rng.integers(3, max(4, len(targets) - 6)))
        targets = np.concatenate([targets[:stop], np.repeat(targets[stop - 1 : stop], 12, axis=0)])
    elif kind == "held":
        opened = int(np.flatnonzero(targets[:, 5] <= GRIPPER_CLOSED + 0.05)[-1])
        targets = np.concatenate([targets[: opened + 1], np.repeat(targets[opened : opened + 1], 8, axis=0)])
    elif kind == "dropped":
        closed = np.flatnonzero(targets[:, 5] <= GRIPPER_CLOSED + 0.05)
        drop = int(rng.integers(closed[0] + 2, max(closed[0] + 3, closed[-1] - 3)))
        targets = targets.copy()
        targets[drop:, 5] = GRIPPER_OPEN
    elif kind == "reversed":
        targets = np.concatenate([targets, targets[::-1]])
        # Close in the bowl and carry the toy back out, as a film played backwards would show it.
    return targets


def _up(height: float) -> NDArray[np.float64]:
    """Return a (3,) vertical offset [m]."""
    return np.array([0.0, 0.0, height])


def _offset(rng: np.random.Generator, low: float, high: float) -> NDArray[np.float64]:
    """Return a (2,) offset [m] of random direction."""
    angle, radius = rng.uniform(0, 2 * math.pi), rng.uniform(low, high)
    return radius * np.array([math.cos(angle), math.sin(angle)])


def random_walk(start: NDArray, rng: np.random.Generator, steps: int = 50) -> NDArray[np.float32]:
    """Return a smooth random walk (T, 6) of all joints [rad] from ``start``, at most ``steps`` long."""
    low = np.array([-0.9, -1.3, -0.8, 0.3, -0.6, -0.9])
    high = np.array([0.9, 0.4, 1.3, 1.7, 0.6, 0.5])
    targets: list[NDArray] = []
    now = np.asarray(start, dtype=np.float64)
    while len(targets) < steps:
        goal = rng.uniform(low, high)
        count = max(3, math.ceil(float(np.abs(goal - now).max()) / SPEED))
        targets += [now + (goal - now) * (i + 1) / count for i in range(count)]
        now = goal
    return np.stack(targets[:steps]).astype(np.float32)
