# SPDX-License-Identifier: Apache-2.0
"""Scripted experts of ManiSkill tasks: waypoints of the tool from the simulator's state.

They look at the state while they are followed: an object that slips in the grip is still put where it belongs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from lrm_ros.sim.maniskill.arms import CLOSED, OPEN, Waypoint
from lrm_ros.sim.maniskill.scene import Scene

Place = Callable[[], NDArray[np.float64]]


def up(height: float) -> NDArray[np.float64]:
    """Return a vertical offset (3,) [m]."""
    return np.array([0.0, 0.0, height])


def grasp(world: Scene, name: str, miss: NDArray, hover: float, yaw: float) -> Iterator[Waypoint]:
    """Open the fingers above a thing, go down and close them."""
    at = world.position(name) + miss + up(world.arm.grip_height)
    yield Waypoint(at + up(hover), yaw, OPEN)
    yield Waypoint(at, yaw, OPEN)
    yield Waypoint(at, yaw, OPEN, steps=2)  # the arm lags behind its targets
    yield Waypoint(at, yaw, CLOSED, steps=4)


def pick_cube(world: Scene, miss: NDArray) -> Iterator[Waypoint]:
    """Grasp the cube, carry it to the green ball and stay there."""
    yaw = world.grasp_yaw("cube")
    yield from grasp(world, "cube", miss, world.arm.hover, yaw)
    grip = world.arm.tool - world.position("cube") if world.is_grasping("cube") else np.zeros(3)
    yield Waypoint(world.position("goal_site") + grip, yaw, CLOSED)
    grip = world.arm.tool - world.position("cube") if world.is_grasping("cube") else grip
    yield Waypoint(world.position("goal_site") + grip, yaw, CLOSED, steps=14)


def pick_and_place(
    world: Scene, name: str, miss: NDArray, yaw: float, place: Place, turned: Callable[[], float] | None = None
) -> Iterator[Waypoint]:
    """Grasp a thing, carry it over a place, lower it, let go and leave upwards.

    Args:
        world: where.
        name: the thing's actor.
        miss: error in where it is believed to be (3,) [m].
        yaw: direction in which the fingers close on it [rad].
        place: gives where its centre has to go (3,) [m]; called again on the way.
        turned: gives the direction of the fingers over the place; ``None``: as they grasped.
    """
    yield from grasp(world, name, miss, 0.10, yaw)
    yield Waypoint(world.arm.tool + up(0.10), yaw, CLOSED)
    turn = yaw if turned is None else turned()
    grip = world.arm.tool - world.position(name) if world.is_grasping(name) else np.zeros(3)
    yield Waypoint(place() + grip + up(0.05), turn, CLOSED)
    grip = world.arm.tool - world.position(name) if world.is_grasping(name) else grip
    end = place() + grip
    yield Waypoint(end, turn, CLOSED)
    yield Waypoint(end, turn, CLOSED, steps=2)
    yield Waypoint(end, turn, OPEN, steps=5)
    yield Waypoint(end + up(0.12), turn, OPEN)
    yield Waypoint(end + up(0.12), turn, OPEN, steps=6)


def stack_cube(world: Scene, miss: NDArray) -> Iterator[Waypoint]:
    """Grasp the first cube, pick_and_place it on the green one, let go and leave upwards."""
    yield from pick_and_place(
        world,
        "cubeA",
        miss,
        world.grasp_yaw("cubeA"),
        lambda: world.position("cubeB") + up(0.041),
        lambda: world.grasp_yaw("cubeB"),
    )


def place_sphere(world: Scene, miss: NDArray) -> Iterator[Waypoint]:
    """Grasp the ball, let go of it in the shallow bin and leave upwards."""
    yield from pick_and_place(world, "obj", miss, math.pi / 2, lambda: world.position("bin") + up(0.0245))


def push(world: Scene, name: str, goal: str, heading: float, radius: float, miss: NDArray) -> Iterator[Waypoint]:
    """Put the closed fingers behind a thing, push it along the table into a round target, leave upwards.

    Args:
        world: where.
        name: the thing's actor.
        goal: the target's actor.
        heading: direction of the push in the horizontal plane, 0 away from the robot, pi towards it [rad].
        radius: of the target [m].
        miss: error in where the thing is believed to be (3,) [m]; it is turned across the push, along it an error
            would not matter.
    """
    ahead = np.array([math.cos(heading), math.sin(heading), 0.0])
    across = np.array([-ahead[1], ahead[0], 0.0])
    miss = across * math.copysign(float(np.linalg.norm(miss)), float(miss @ across))
    yaw, start = heading + math.pi / 2, world.position(name) + miss - 0.07 * ahead
    yield Waypoint(start + up(0.10), yaw, CLOSED)
    yield Waypoint(start, yaw, CLOSED)
    end = world.position(goal) + miss - (radius - 0.01) * ahead + up(0.02)
    tilt = float(np.clip((end[0] - 0.05) * 3, 0, 0.5))  # far from the base the arm reaches only with a tilted gripper
    yield Waypoint(end, yaw, CLOSED, tilt)
    yield Waypoint(end - 0.05 * ahead + up(0.08), yaw, CLOSED, tilt)


def push_cube(world: Scene, miss: NDArray) -> Iterator[Waypoint]:
    """Push the cube into the target away from the robot."""
    yield from push(world, "obj", "goal_region", 0.0, 0.10, miss)


def pull_cube(world: Scene, miss: NDArray) -> Iterator[Waypoint]:
    """Pull the cube into the target towards the robot."""
    yield from push(world, "obj", "goal_region", math.pi, 0.10, miss)


def poke_cube(world: Scene, miss: NDArray) -> Iterator[Waypoint]:
    """Grasp the peg at its rear, line it up behind the cube and push the cube with it into the target."""
    yaw, rear = math.pi / 2, np.array([-0.07, 0, 0])
    grasp = world.position("peg") + rear + miss
    yield Waypoint(grasp + up(0.10), yaw, OPEN)
    yield Waypoint(grasp, yaw, OPEN)
    yield Waypoint(grasp, yaw, OPEN, steps=2)
    yield Waypoint(grasp, yaw, CLOSED, steps=5)
    cube = world.position("cube")
    grip = world.arm.tool - world.position("peg") if world.is_grasping("peg") else rear
    lined = np.array([cube[0] - 0.12 - 0.02 - 0.05, cube[1], world.position("peg")[2] + 0.006]) + grip
    yield Waypoint(lined, yaw, CLOSED)
    goal = world.position("goal_region")
    end = np.array([goal[0] - 0.12 - 0.02 - 0.015, lined[1], lined[2]]) + np.array([grip[0], 0, 0])
    yield Waypoint(end, yaw, CLOSED)
    yield Waypoint(end, yaw, CLOSED, steps=8)


def lift_peg(world: Scene, miss: NDArray) -> Iterator[Waypoint]:
    """Grasp the lying peg off its middle, lift it, turn it upright, pick_and_place it down, let go and leave."""
    yaw, off = math.pi / 2, np.array([-0.04, 0, 0])
    grasp = world.position("peg") + off + miss
    tilt = 0.3  # the arm cannot turn by a quarter from straight down, but from here to tilted backwards
    back = np.array([-math.sin(tilt), 0, math.cos(tilt)])
    yield Waypoint(grasp + 0.09 * back, yaw, OPEN, tilt)
    yield Waypoint(grasp, yaw, OPEN, tilt)
    yield Waypoint(grasp, yaw, OPEN, tilt, steps=2)
    yield Waypoint(grasp, yaw, CLOSED, tilt, steps=5)
    yield Waypoint(np.array([-0.14, grasp[1], 0.24]), yaw, CLOSED, tilt)
    turned = tilt - math.pi / 2
    yield Waypoint(np.array([-0.24, grasp[1], 0.24]), yaw, CLOSED, turned)
    bottom = world.position("peg")[2] - 0.12
    down = world.arm.tool - up(bottom - 0.001)
    yield Waypoint(down, yaw, CLOSED, turned)
    yield Waypoint(down, yaw, OPEN, turned, steps=5)
    away = np.array([math.sin(-turned), 0, math.cos(turned)])
    yield Waypoint(down + 0.08 * away, yaw, OPEN, turned)
    yield Waypoint(down + 0.08 * away, yaw, OPEN, turned, steps=4)
