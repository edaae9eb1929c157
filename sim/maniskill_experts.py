# SPDX-License-Identifier: Apache-2.0
"""Scripted experts of ManiSkill tasks: way-points of the tool from the simulator's state.

They look at the state while they are followed: an object that slips in the grip is still put where it belongs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim.maniskill_arms import CLOSED, OPEN, Waypoint

if TYPE_CHECKING:
    from sim.maniskill_world import ManiSkillWorld


def up(height: float) -> NDArray[np.float64]:
    """Return a vertical offset (3,) [m]."""
    return np.array([0.0, 0.0, height])


def _grasp(world: ManiSkillWorld, name: str, miss: NDArray, hover: float, yaw: float) -> Iterator[Waypoint]:
    at = world.at(name) + miss + up(world.arm.grip_height)
    yield Waypoint(at + up(hover), yaw, OPEN)
    yield Waypoint(at, yaw, OPEN)
    yield Waypoint(at, yaw, OPEN, steps=2)  # the arm lags behind its targets
    yield Waypoint(at, yaw, CLOSED, steps=4)


def pick_cube(world: ManiSkillWorld, miss: NDArray) -> Iterator[Waypoint]:
    """Grasp the cube, carry it to the green ball and stay there."""
    yaw = world.square_on("cube")
    yield from _grasp(world, "cube", miss, world.arm.hover, yaw)
    grip = world.arm.tool - world.at("cube") if world.holds("cube") else np.zeros(3)
    yield Waypoint(world.at("goal_site") + grip, yaw, CLOSED)
    grip = world.arm.tool - world.at("cube") if world.holds("cube") else grip
    yield Waypoint(world.at("goal_site") + grip, yaw, CLOSED, steps=14)


def stack_cube(world: ManiSkillWorld, miss: NDArray) -> Iterator[Waypoint]:
    """Grasp the first cube, put it on the green one, let go and leave upwards."""
    yaw = world.square_on("cubeA")
    yield from _grasp(world, "cubeA", miss, 0.10, yaw)
    yield Waypoint(world.arm.tool + up(0.10), yaw, CLOSED)
    turned = world.square_on("cubeB")
    grip = world.arm.tool - world.at("cubeA") if world.holds("cubeA") else np.zeros(3)
    yield Waypoint(world.at("cubeB") + grip + up(0.09), turned, CLOSED)
    grip = world.arm.tool - world.at("cubeA") if world.holds("cubeA") else grip
    top = world.at("cubeB") + grip + up(0.041)
    yield Waypoint(top, turned, CLOSED)
    yield Waypoint(top, turned, CLOSED, steps=2)
    yield Waypoint(top, turned, OPEN, steps=4)
    yield Waypoint(top + up(0.12), turned, OPEN)
    yield Waypoint(top + up(0.12), turned, OPEN, steps=6)


def place_sphere(world: ManiSkillWorld, miss: NDArray) -> Iterator[Waypoint]:
    """Grasp the ball, let go of it in the shallow bin and leave upwards."""
    yaw = math.pi / 2
    yield from _grasp(world, "obj", miss, 0.10, yaw)
    yield Waypoint(world.arm.tool + up(0.08), yaw, CLOSED)
    grip = world.arm.tool - world.at("obj") if world.holds("obj") else np.zeros(3)
    yield Waypoint(world.at("bin") + grip + up(0.08), yaw, CLOSED)
    grip = world.arm.tool - world.at("obj") if world.holds("obj") else grip
    inside = world.at("bin") + grip + up(0.0245)
    yield Waypoint(inside, yaw, CLOSED)
    yield Waypoint(inside, yaw, CLOSED, steps=2)
    yield Waypoint(inside, yaw, OPEN, steps=5)
    yield Waypoint(inside + up(0.12), yaw, OPEN)
    yield Waypoint(inside + up(0.12), yaw, OPEN, steps=6)


def _aside(miss: NDArray) -> NDArray[np.float64]:
    """Return a miss as long, but across the way of the push: an error along it would not matter."""
    return np.array([0.0, math.copysign(float(np.linalg.norm(miss)), miss[1]), 0.0])


def push_cube(world: ManiSkillWorld, miss: NDArray) -> Iterator[Waypoint]:
    """Put the closed fingers behind the cube, push it into the target away from the robot, leave upwards."""
    miss = _aside(miss)
    yaw, start = math.pi / 2, world.at("obj") + miss - np.array([0.07, 0, 0])
    yield Waypoint(start + up(0.10), yaw, CLOSED)
    yield Waypoint(start, yaw, CLOSED)
    end = world.at("goal_region") + miss + np.array([-0.09, 0, 0.02])
    tilt = float(np.clip((end[0] - 0.05) * 3, 0, 0.5))  # far from the base the arm reaches only with a tilted gripper
    yield Waypoint(end, yaw, CLOSED, tilt)
    yield Waypoint(end + np.array([-0.05, 0, 0.08]), yaw, CLOSED, tilt)


def pull_cube(world: ManiSkillWorld, miss: NDArray) -> Iterator[Waypoint]:
    """Put the closed fingers beyond the cube, pull it into the target towards the robot, leave upwards."""
    miss = _aside(miss)
    yaw, start = math.pi / 2, world.at("obj") + miss + np.array([0.06, 0, 0])
    yield Waypoint(start + up(0.10), yaw, CLOSED)
    yield Waypoint(start, yaw, CLOSED)
    end = world.at("goal_region") + miss + np.array([0.08, 0, 0.02])
    yield Waypoint(end, yaw, CLOSED)
    yield Waypoint(end + np.array([0.05, 0, 0.10]), yaw, CLOSED)


def poke_cube(world: ManiSkillWorld, miss: NDArray) -> Iterator[Waypoint]:
    """Grasp the peg at its rear, line it up behind the cube and push the cube with it into the target."""
    yaw, rear = math.pi / 2, np.array([-0.07, 0, 0])
    grasp = world.at("peg") + rear + miss
    yield Waypoint(grasp + up(0.10), yaw, OPEN)
    yield Waypoint(grasp, yaw, OPEN)
    yield Waypoint(grasp, yaw, OPEN, steps=2)
    yield Waypoint(grasp, yaw, CLOSED, steps=5)
    cube = world.at("cube")
    grip = world.arm.tool - world.at("peg") if world.holds("peg") else rear
    lined = np.array([cube[0] - 0.12 - 0.02 - 0.05, cube[1], world.at("peg")[2] + 0.006]) + grip
    yield Waypoint(lined, yaw, CLOSED)
    goal = world.at("goal_region")
    end = np.array([goal[0] - 0.12 - 0.02 - 0.015, lined[1], lined[2]]) + np.array([grip[0], 0, 0])
    yield Waypoint(end, yaw, CLOSED)
    yield Waypoint(end, yaw, CLOSED, steps=8)


def lift_peg(world: ManiSkillWorld, miss: NDArray) -> Iterator[Waypoint]:
    """Grasp the lying peg off its middle, lift it, turn it upright, put it down, let go and leave."""
    yaw, off = math.pi / 2, np.array([-0.04, 0, 0])
    grasp = world.at("peg") + off + miss
    tilt = 0.3  # the arm cannot turn by a quarter from straight down, but from here to tilted backwards
    back = np.array([-math.sin(tilt), 0, math.cos(tilt)])
    yield Waypoint(grasp + 0.09 * back, yaw, OPEN, tilt)
    yield Waypoint(grasp, yaw, OPEN, tilt)
    yield Waypoint(grasp, yaw, OPEN, tilt, steps=2)
    yield Waypoint(grasp, yaw, CLOSED, tilt, steps=5)
    yield Waypoint(np.array([-0.14, grasp[1], 0.24]), yaw, CLOSED, tilt)
    turned = tilt - math.pi / 2
    yield Waypoint(np.array([-0.24, grasp[1], 0.24]), yaw, CLOSED, turned)
    bottom = world.at("peg")[2] - 0.12
    down = world.arm.tool - up(bottom - 0.001)
    yield Waypoint(down, yaw, CLOSED, turned)
    yield Waypoint(down, yaw, OPEN, turned, steps=5)
    away = np.array([math.sin(-turned), 0, math.cos(turned)])
    yield Waypoint(down + 0.08 * away, yaw, OPEN, turned)
    yield Waypoint(down + 0.08 * away, yaw, OPEN, turned, steps=4)
