# SPDX-License-Identifier: Apache-2.0
"""Drawn tasks at a table on the CPU: a scripted Panda and failures of it, pictures, and progress from the state."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lrm_ros.sim.maniskill.arms import CLOSED, Waypoint
from lrm_ros.sim.maniskill.experts import grasp, pick_and_place, push, up
from lrm_ros.sim.maniskill.progress import carried, dist, pushed
from lrm_ros.sim.maniskill.world import ManiSkillWorld
from lrm_ros.sim.tabletop.scenes import BOX, LIFTED, OBJECT_COLOURS, SHAPES, TARGETS, Scene, draw_scene, height_of
from lrm_ros.sim.twin.world import use_software_vulkan

BESIDE = 0.065  # distance from the other thing at which it is let go [m]
NEAR = (0.045, 0.09)  # distances that count as beside [m]
GOAL_RADIUS = 0.025  # of the green ball [m]


class TabletopWorld(ManiSkillWorld):
    """A family of tasks of ``lrm_ros.sim.tabletop.scenes``; every seed draws another task."""

    def __init__(self, family: str, size: int = 96) -> None:
        """Build the world.

        Args:
            family: one of ``lrm_ros.sim.tabletop.scenes.FAMILIES``.
            size: width and height of the pictures [pixels].

        Raises:
            ValueError: unknown family.
        """
        self._family = family
        self.scene: Scene = draw_scene(family, np.random.default_rng(0))
        use_software_vulkan()
        import lrm_ros.sim.tabletop.task  # noqa: F401  (registers the task)

        self._build("Tabletop-v1", size)

    def reset(self, seed: int) -> None:
        """Start a new episode; the seed fixes task, scene, camera and noise."""
        rng = np.random.default_rng([seed, 2])
        self.scene = draw_scene(self._family, rng)
        self.instruction = self.scene.instruction
        self._noise_of = np.random.default_rng([seed, 3])
        self._noise = rng.uniform(0.0, 0.006)
        self.task_env.reset(seed=int(seed))
        for part, place in self.scene.places.items():
            self.task_env.put(part, place, self.scene.yaws[part])
        for part, colour in self.scene.paints.items():
            self._paint(part, OBJECT_COLOURS[colour])
        middle = 0.6 * np.mean([place * [1, 1, 0] for place in self.scene.places.values()], axis=0)
        target = middle + rng.uniform([-0.06, -0.04, 0.02], [0.06, 0.04, 0.06])
        self._look(rng.uniform([0.36, 0.10, 0.32], [0.58, 0.46, 0.46]), target)
        self._begin()
        self._first_goal = self._goal() if self._family != "slide" else np.zeros(3)

    # --- where the thing has to go -------------------------------------------------------------------------------

    def _on_base(self) -> NDArray[np.float64]:
        """Where the thing's middle is when it lies on or in the base."""
        base, rise = self.scene.base, height_of(self.scene.thing)
        return self.position(base) + up(rise if base == "box" else rise + SHAPES[base].half[2])

    def _beside_base(self) -> NDArray[np.float64]:
        """The nearest place beside the base."""
        base, thing = self.position(self.scene.base)[:2], self.position(self.scene.thing)[:2]
        way = thing - base
        return np.append(base + way / max(float(np.linalg.norm(way)), 1e-6) * self._gap, height_of(self.scene.thing))

    @property
    def _gap(self) -> float:
        """Distance of the middles at which the thing is let go beside the base; a large base needs more."""
        return BESIDE + max(0.0, SHAPES[self.scene.base].half[0] - 0.026)

    # --- progress ------------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """The task is done: the thing is where it belongs, and let go unless it is to be held."""
        scene = self.scene
        thing, held = self.position(scene.thing), self.is_grasping(scene.thing)
        if scene.family == "slide":
            return dist(thing[:2], self.position(scene.base)[:2]) < TARGETS[scene.base]
        if scene.family == "lift":
            if scene.base:
                return held and dist(thing, self.position("goal")) <= GOAL_RADIUS
            return held and bool(thing[2] >= height_of(scene.thing) + LIFTED)
        if held:
            return False
        if scene.family == "beside":
            off = dist(thing[:2], self.position(scene.base)[:2]) - (self._gap - BESIDE)
            return NEAR[0] <= off <= NEAR[1] and thing[2] < height_of(scene.thing) + 0.006
        x, y, z = (thing - self._on_base()).tolist()
        if scene.family == "box":
            return max(abs(x), abs(y)) < BOX.half[0] and z < 0.02
        return math.hypot(x, y) <= 0.033 and abs(z) <= 0.006

    @property
    def progress(self) -> float:
        """How far the state is, in [0, 1].

        Pushed: the way to the place behind the thing to 0.4, the thing's way to 0.95. Carried: reach to 0.3, held 0.4,
        carried to 0.9. Done is 1.
        """
        if self.done:
            return 1.0
        scene = self.scene
        if scene.family == "slide":
            behind = -0.04 * np.array([np.cos(scene.heading), np.sin(scene.heading), 0.0])
            return pushed(self, scene.thing, scene.base, TARGETS[scene.base], behind)
        return carried(self, scene.thing, self._goal(), self._first_goal)

    def _goal(self) -> NDArray[np.float64]:
        """Where the thing has to go (3,) [m]."""
        scene = self.scene
        if scene.family == "lift":
            return self.position("goal") if scene.base else self.first[scene.thing] + up(LIFTED)
        return self._beside_base() if scene.family == "beside" else self._on_base()

    # --- motion --------------------------------------------------------------------------------------------------

    def expert(self, rng: np.random.Generator, miss: NDArray[np.float64]) -> Iterator[None]:
        """Do the task."""
        for point in self._waypoints(miss):
            yield from self._go(point)

    def _waypoints(self, miss: NDArray) -> Iterator[Waypoint]:
        scene = self.scene
        if scene.family == "slide":
            yield from push(self, scene.thing, scene.base, scene.heading, TARGETS[scene.base], miss)
            return
        yaw = self.grasp_yaw(scene.thing) if SHAPES[scene.thing].form == "box" else self.arm.now.yaw
        if scene.family == "lift":
            yield from grasp(self, scene.thing, miss, 0.10, yaw)
            grip = self.arm.tool - self.position(scene.thing) if self.is_grasping(scene.thing) else np.zeros(3)
            end = (self._goal() if scene.base else self._goal() + up(0.02)) + grip
            yield Waypoint(end, yaw, CLOSED)
            yield Waypoint(end, yaw, CLOSED, steps=14)
            return
        if scene.family == "beside":
            spot = self._beside_base()
            yield from pick_and_place(self, scene.thing, miss, yaw, lambda: spot + up(0.002))
            return
        square = scene.family == "stack" and SHAPES[scene.base].form == "box" and SHAPES[scene.thing].form == "box"
        turned = (lambda: self.grasp_yaw(scene.base)) if square else None
        yield from pick_and_place(self, scene.thing, miss, yaw, lambda: self._on_base() + up(0.002), turned)
