# SPDX-License-Identifier: Apache-2.0
"""Progress of ManiSkill tasks from the simulator's state, relative to the start of the episode.

The stages are those of ``lrm_ros.sim.behaviour``: the way to the object counts to 0.3, touching or holding it 0.4,
moving it to 0.9 or 0.95, where it belongs 1. Time plays no part.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lrm_ros.sim.behaviour import TOUCH_PROGRESS, approach_progress
from lrm_ros.sim.maniskill.experts import up
from lrm_ros.sim.maniskill.scene import Scene

REACHED = 0.3


def dist(a: NDArray, b: NDArray) -> float:
    """Return the distance between two points."""
    return float(np.linalg.norm(a - b))


def carried(world: Scene, name: str, goal: NDArray, start: NDArray) -> float:
    """Way to the thing to 0.3, holding it 0.4, carrying it to the goal to 0.9; not held, only the way to it counts."""
    thing = world.position(name)
    if world.is_grasping(name):
        return TOUCH_PROGRESS + (0.9 - TOUCH_PROGRESS) * approach_progress(
            dist(thing, goal), dist(world.first[name], start), 0.01
        )
    return REACHED * approach_progress(dist(world.arm.tool, thing), dist(world.first["tool"], world.first[name]), 0.02)


def pick_cube(world: Scene) -> float:
    """Reach to 0.3, held 0.4, carried to 0.9, at the goal 1 (done when the arm is still, too)."""
    goal = world.position("goal_site")
    if dist(world.position("cube"), goal) <= world.task_env.goal_thresh:
        return 1.0
    return carried(world, "cube", goal, world.first["goal_site"])


def stack_cube(world: Scene) -> float:
    """Reach to 0.3, held 0.4, carried to 0.9, lying on the other cube released 1 (done when at rest, too)."""
    other = world.position("cubeB")
    offset = world.position("cubeA") - other
    if np.hypot(*offset[:2]) <= 0.033 and abs(offset[2] - 0.04) <= 0.005 and not world.is_grasping("cubeA"):
        return 1.0
    return carried(world, "cubeA", other + up(0.04), world.first["cubeB"] + up(0.04))


def place_sphere(world: Scene) -> float:
    """Reach to 0.3, held 0.4, carried to 0.9, lying in the bin released 1 (done when at rest, too)."""
    place = world.position("bin") + up(0.0225)
    if dist(world.position("obj"), place) <= 0.006 and not world.is_grasping("obj"):
        return 1.0
    return carried(world, "obj", place, world.first["bin"] + up(0.0225))


def pushed(world: Scene, name: str, goal: str, radius: float, behind: NDArray) -> float:
    """Way to the place behind the thing to 0.4, the thing's way to the goal to 0.95, in the goal 1."""
    left = dist(world.position(name)[:2], world.position(goal)[:2])
    if left < radius:
        return 1.0
    moved = approach_progress(left, dist(world.first[name][:2], world.first[goal][:2]), radius)
    reached = approach_progress(
        dist(world.arm.tool, world.position(name) + behind),
        dist(world.first["tool"], world.first[name] + behind),
        0.02,
    )
    return TOUCH_PROGRESS * reached + (0.95 - TOUCH_PROGRESS) * moved


def push_cube(world: Scene) -> float:
    """Way to the place behind the cube to 0.4, the cube's way to the target to 0.95, in the target 1."""
    return pushed(world, "obj", "goal_region", 0.10, np.array([-0.04, 0, 0]))


def pull_cube(world: Scene) -> float:
    """Way to the place beyond the cube to 0.4, the cube's way to the target to 0.95, in the target 1."""
    return pushed(world, "obj", "goal_region", 0.10, np.array([0.04, 0, 0]))


def poke_cube(world: Scene) -> float:
    """Reach the peg to 0.3, hold it 0.4, bring its head to the cube 0.6, push the cube into the target 0.95 and 1."""
    cube, goal = world.position("cube"), world.position("goal_region")
    left = dist(cube[:2], goal[:2])
    if left < 0.05:
        return 1.0
    moved = approach_progress(left, dist(world.first["cube"][:2], world.first["goal_region"][:2]), 0.05)
    if not world.is_grasping("peg"):
        reached = approach_progress(
            dist(world.arm.tool, world.position("peg")),
            dist(world.first["tool"], world.first["peg"]),
            0.08,
        )
        return REACHED * reached + (0.95 - 0.6) * moved
    head, ahead = np.array([0.12, 0, 0]), np.array([0.02, 0, 0])
    first = dist(world.first["peg"] + head, world.first["cube"] - ahead)
    brought = approach_progress(dist(world.position("peg") + head, cube - ahead), first, 0.02)
    return TOUCH_PROGRESS + 0.2 * brought + (0.95 - 0.6) * moved


def lift_peg(world: Scene) -> float:
    """Reach to 0.3, held 0.4, turned upright to 0.85, lowered to the table to 0.95, standing on the table 1."""
    if world.done:
        return 1.0
    upright = abs(float(world.rotation("peg")[2, 0]))
    if not world.is_grasping("peg"):
        reached = approach_progress(
            dist(world.arm.tool, world.position("peg")),
            dist(world.first["tool"], world.first["peg"]),
            0.05,
        )
        return REACHED * reached + 0.3 * upright
    low = approach_progress(abs(float(world.position("peg")[2]) - 0.12), 0.12) if upright > 0.95 else 0.0
    return TOUCH_PROGRESS + 0.45 * 2 / math.pi * math.asin(min(1.0, upright)) + 0.1 * low
