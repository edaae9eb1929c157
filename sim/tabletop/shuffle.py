# SPDX-License-Identifier: Apache-2.0
"""Pictures of a tabletop scene in which everything is somewhere else each time: what lies on, in or beside what.

An episode shows its own task, done or failed in a few ways, in some twenty pictures that are nearly the same. Here
every picture is another arrangement of the same things, with the same texts; labels come from the state, as ever.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lrm_ros.robot.so100.kinematics import Unreachable
from lrm_ros.sim.maniskill.arms import CLOSED, OPEN, Waypoint
from lrm_ros.sim.maniskill.experts import up
from lrm_ros.sim.tabletop.scenes import BOXES, HIGH, LOW, NAMES, SHAPES, TARGETS, height_of
from lrm_ros.sim.tabletop.world import TabletopWorld

SETTLE = 6  # control steps until what was put somewhere lies still, or is held
_ON, _BESIDE, _HELD = 0.5, 0.2, 0.25  # shares: of things on another or beside it; of pictures with one in the gripper
_APART, _TRIES = 0.09, 50  # between the middles of things [m], and how often a place is drawn


def shuffle(world: TabletopWorld, rng: np.random.Generator) -> None:
    """Put the arm and every thing that can be moved somewhere else, and let them come to rest.

    Args:
        world: a world that was reset.
        rng: draws where.
    """
    scene, env, arm = world.scene, world.task_env, world.arm
    movable = [part for part in scene.places if part in SHAPES and not SHAPES[part].fixed]
    for part in movable:  # out of the way of the arm
        env.put(part, [5.0, 5.0 + len(part), 0.5])
    held = str(rng.choice(movable)) if rng.uniform() < _HELD else ""
    grip = CLOSED if held or rng.uniform() < 0.5 else OPEN
    _place_arm(world, rng)
    taken = {part: world.position(part)[:2] for part in scene.places if part not in movable and part != "goal"}
    loaded: set[str] = set()
    order = [str(part) for part in rng.permutation(movable)]
    for part in sorted(order, key=lambda name: name != scene.base):  # a base lies before anything is put on it
        if part == held:
            env.put(part, arm.tool, arm.now.yaw)
            continue
        place = _spot(part, taken, loaded, world, rng)
        env.put(part, place, rng.uniform(-math.pi, math.pi))
        taken[part] = place[:2]
    stay = arm.reset()
    for _ in range(SETTLE):
        world._send(np.append(stay[:-1], 2.0 * grip - 1.0))
    arm.reset()


def _place_arm(world: TabletopWorld, rng: np.random.Generator) -> None:
    """Put the tool at once somewhere above the table, or above where something lies."""
    arm, low, high = world.arm, *world.arm.box
    goal = rng.uniform(low, high)
    if rng.uniform() < 0.4:
        place = list(world.scene.places.values())[int(rng.integers(len(world.scene.places)))]
        goal = np.append(place[:2], 0.0) + rng.uniform([-0.03, -0.03, 0.07], [0.03, 0.03, 0.16])
    try:
        *_, target = arm.path(Waypoint(goal, arm.now.yaw + rng.uniform(-0.8, 0.8), OPEN))
    except Unreachable:
        return
    robot = world.task_env.agent.robot._objs[0]
    joints = robot.qpos
    joints[: arm.joints] = target[: arm.joints]
    joints[arm.joints :] = 0.04  # fingers open [m]
    robot.set_qpos(joints.astype(np.float32))
    robot.set_qvel(np.zeros_like(joints))
    arm.reset()


def _spot(
    part: str, taken: dict[str, NDArray], loaded: set[str], world: TabletopWorld, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw where a thing is put (3,) [m]: on or in another, beside it, or anywhere."""
    lot, rise = rng.uniform(), height_of(part)
    kind = NAMES.get(part, part)
    # No cube on a cube: that is a task that no training shows.
    bases = [base for base in taken if base not in loaded and not kind == NAMES.get(base, base) == "cube"]
    if lot < _ON and bases:
        base = str(rng.choice(bases))
        loaded.add(base)
        spread = 0.6 * TARGETS[base] if base in TARGETS else 0.008
        top = 0.0 if base in TARGETS or base in BOXES else SHAPES[base].half[2]
        return world.position(base) + up(rise + top + 0.001) + np.append(rng.uniform(-spread, spread, 2), 0.0)
    if lot < _ON + _BESIDE and taken:
        base, angle = str(rng.choice(list(taken))), rng.uniform(-math.pi, math.pi)
        wide = SHAPES[base].half[0] if base in SHAPES else 0.05
        way = (wide + rng.uniform(0.03, 0.05)) * np.array([math.cos(angle), math.sin(angle)])
        if all(np.linalg.norm(taken[base] + way - other) > 0.06 for name, other in taken.items() if name != base):
            return np.append(taken[base] + way, rise + 0.001)
    for _ in range(_TRIES):
        spot = rng.uniform(LOW, HIGH)
        if all(np.linalg.norm(spot - other) > _APART for other in taken.values()):
            break
    return np.append(spot, rise + 0.001)
