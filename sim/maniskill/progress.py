# SPDX-License-Identifier: Apache-2.0
"""How far a state of a ManiSkill task is, from the simulator and relative to the start of the episode.

The stages are those of ``lrm_ros.sim.behaviour``: the way to the object counts to 0.3, touching or holding it 0.4,
moving it to 0.9 or 0.95, where it belongs 1. Time plays no part.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lrm_ros.sim.behaviour import TOUCHED, closer
from lrm_ros.sim.maniskill.experts import up
from lrm_ros.sim.maniskill.scene import Scene

REACHED = 0.3


def gap(a: NDArray, b: NDArray) -> float:
    """Return the distance between two points."""
    return float(np.linalg.norm(a - b))


def carried(world: Scene, name: str, goal: NDArray, start: NDArray) -> float:
    """Way to the thing to 0.3, holding it 0.4, carrying it to the goal to 0.9; not held, only the way to it counts."""
    thing = world.at(name)
    if world.holds(name):
        return TOUCHED + (0.9 - TOUCHED) * closer(gap(thing, goal), gap(world.first[name], start), 0.01)
    return REACHED * closer(gap(world.arm.tool, thing), gap(world.first["tool"], world.first[name]), 0.02)


def pick_cube(world: Scene) -> float:
    """Reach to 0.3, held 0.4, carried to 0.9, at the goal 1 (done when the arm is still, too)."""
    goal = world.at("goal_site")
    if gap(world.at("cube"), goal) <= world.task_env.goal_thresh:
        return 1.0
    return carried(world, "cube", goal, world.first["goal_site"])


def stack_cube(world: Scene) -> float:
    """Reach to 0.3, held 0.4, carried to 0.9, lying on the other cube released 1 (done when at rest, too)."""
    other = world.at("cubeB")
    offset = world.at("cubeA") - other
    if np.hypot(*offset[:2]) <= 0.033 and abs(offset[2] - 0.04) <= 0.005 and not world.holds("cubeA"):
        return 1.0
    return carried(world, "cubeA", other + up(0.04), world.first["cubeB"] + up(0.04))


def place_sphere(world: Scene) -> float:
    """Reach to 0.3, held 0.4, carried to 0.9, lying in the bin released 1 (done when at rest, too)."""
    place = world.at("bin") + up(0.0225)
    if gap(world.at("obj"), place) <= 0.006 and not world.holds("obj"):
        return 1.0
    return carried(world, "obj", place, world.first["bin"] + up(0.0225))


def pushed(world: Scene, name: str, goal: str, radius: float, behind: NDArray) -> float:
    """Way to the place behind the thing to 0.4, the thing's way to the goal to 0.95, in the goal 1."""
    left = gap(world.at(name)[:2], world.at(goal)[:2])
    if left < radius:
        return 1.0
    moved = closer(left, gap(world.first[name][:2], world.first[goal][:2]), radius)
    reached = closer(
        gap(world.arm.tool, world.at(name) + behind), gap(world.first["tool"], world.first[name] + behind), 0.02
    )
    return TOUCHED * reached + (0.95 - TOUCHED) * moved


def push_cube(world: Scene) -> float:
    """Way to the place behind the cube to 0.4, the cube's way to the target to 0.95, in the target 1."""
    return pushed(world, "obj", "goal_region", 0.10, np.array([-0.04, 0, 0]))


def pull_cube(world: Scene) -> float:
    """Way to the place beyond the cube to 0.4, the cube's way to the target to 0.95, in the target 1."""
    return pushed(world, "obj", "goal_region", 0.10, np.array([0.04, 0, 0]))


def poke_cube(world: Scene) -> float:
    """Reach the peg to 0.3, hold it 0.4, bring its head to the cube 0.6, push the cube into the target 0.95 and 1."""
    cube, goal = world.at("cube"), world.at("goal_region")
    left = gap(cube[:2], goal[:2])
    if left < 0.05:
        return 1.0
    moved = closer(left, gap(world.first["cube"][:2], world.first["goal_region"][:2]), 0.05)
    if not world.holds("peg"):
        reached = closer(gap(world.arm.tool, world.at("peg")), gap(world.first["tool"], world.first["peg"]), 0.08)
        return REACHED * reached + (0.95 - 0.6) * moved
    head, ahead = np.array([0.12, 0, 0]), np.array([0.02, 0, 0])
    first = gap(world.first["peg"] + head, world.first["cube"] - ahead)
    brought = closer(gap(world.at("peg") + head, cube - ahead), first, 0.02)
    return TOUCHED + 0.2 * brought + (0.95 - 0.6) * moved


def lift_peg(world: Scene) -> float:
    """Reach to 0.3, held 0.4, turned upright to 0.85, lowered to the table to 0.95, standing on the table 1."""
    if world.done:
        return 1.0
    upright = abs(float(world.rotation("peg")[2, 0]))
    if not world.holds("peg"):
        reached = closer(gap(world.arm.tool, world.at("peg")), gap(world.first["tool"], world.first["peg"]), 0.05)
        return REACHED * reached + 0.3 * upright
    low = closer(abs(float(world.at("peg")[2]) - 0.12), 0.12) if upright > 0.95 else 0.0
    return TOUCHED + 0.45 * 2 / math.pi * math.asin(min(1.0, upright)) + 0.1 * low
