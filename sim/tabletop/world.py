# SPDX-License-Identifier: Apache-2.0
"""Drawn tasks at a table on the CPU: a scripted Panda and failures of it, pictures, and progress from the state."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lrm_ros.sim.instructions import NEVER, UNKNOWN, Instruction
from lrm_ros.sim.maniskill.arms import CLOSED, Waypoint
from lrm_ros.sim.maniskill.experts import grasp, pick_and_place, push, up
from lrm_ros.sim.maniskill.progress import carried, dist, pushed
from lrm_ros.sim.maniskill.world import ManiSkillWorld
from lrm_ros.sim.seen import HELD
from lrm_ros.sim.tabletop.goals import Goal, asked
from lrm_ros.sim.tabletop.scenes import (
    BOX,
    BOXES,
    LIFTED,
    NAMES,
    OBJECT_COLOURS,
    SHAPES,
    TARGETS,
    Scene,
    draw_scene,
    height_of,
)
from lrm_ros.sim.twin.world import use_software_vulkan

BESIDE = 0.065  # distance from the other thing at which it is let go [m]
NEAR = (0.045, 0.09)  # distances that count as beside [m]
GOAL_RADIUS = 0.025  # of the green ball [m]
_PLAIN = {"small_target": "target", "goal": "green goal"}  # names of parts that have no paint


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
        self._own = Goal(self.scene.family, self.scene.thing, self.scene.base)
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
        self._own = Goal(self.scene.family, self.scene.thing, self.scene.base)
        self._asked = asked(self.scene, np.random.default_rng([seed, 5]))
        goals = [goal for _, goal in self._asked if goal is not None and goal.family != "slide" and not goal.undo]
        self._first_goals = {goal: self._goal(goal) for goal in goals}

    # --- where the thing has to go -------------------------------------------------------------------------------

    def _on_base(self, goal: Goal | None = None) -> NDArray[np.float64]:
        """Where the thing's middle is when it lies on or in the base."""
        base, rise = (goal or self._own).base, height_of((goal or self._own).thing)
        return self.position(base) + up(rise if base in BOXES else rise + SHAPES[base].half[2])

    def _beside_base(self, goal: Goal | None = None) -> NDArray[np.float64]:
        """The nearest place beside the base."""
        goal = goal or self._own
        base, thing = self.position(goal.base)[:2], self.position(goal.thing)[:2]
        way = thing - base
        return np.append(base + way / max(float(np.linalg.norm(way)), 1e-6) * self._gap(goal), height_of(goal.thing))

    def _gap(self, goal: Goal) -> float:
        """Distance of the middles at which the thing is let go beside the base; a large base needs more."""
        return BESIDE + max(0.0, SHAPES[goal.base].half[0] - 0.026)

    # --- progress ------------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """The task is done: the thing is where it belongs, and let go unless it is to be held."""
        return self._done(self._own)

    def _done(self, goal: Goal) -> bool:
        thing, held = self.position(goal.thing), self.is_grasping(goal.thing)
        if goal.family == "slide":
            return dist(thing[:2], self.position(goal.base)[:2]) < TARGETS[goal.base]
        if goal.family == "lift":
            if goal.base:
                return held and dist(thing, self.position("goal")) <= GOAL_RADIUS
            return held and bool(thing[2] >= height_of(goal.thing) + LIFTED)
        if held:
            return False
        if goal.family == "beside":
            off = dist(thing[:2], self.position(goal.base)[:2]) - (self._gap(goal) - BESIDE)
            return NEAR[0] <= off <= NEAR[1] and thing[2] < height_of(goal.thing) + 0.006
        x, y, z = (thing - self._on_base(goal)).tolist()
        if goal.family == "box":
            return max(abs(x), abs(y)) < BOX.half[0] and z < 0.02
        return math.hypot(x, y) <= 0.033 and abs(z) <= 0.006

    @property
    def progress(self) -> float:
        """How far the state is, in [0, 1].

        Pushed: the way to the place behind the thing to 0.4, the thing's way to 0.95. Carried: reach to 0.3, held 0.4,
        carried to 0.9. Done is 1.
        """
        return self._progress(self._own)

    def _progress(self, goal: Goal) -> float:
        if self._done(goal):
            return 1.0
        if goal.family == "slide":
            way = self.first[goal.base][:2] - self.first[goal.thing][:2]
            own = math.atan2(way[1], way[0]) if goal != self._own else self.scene.heading
            behind = -0.04 * np.array([math.cos(own), math.sin(own), 0.0])
            return pushed(self, goal.thing, goal.base, TARGETS[goal.base], behind)
        return carried(self, goal.thing, self._goal(goal), self._first_goals[goal])

    def _goal(self, goal: Goal | None = None) -> NDArray[np.float64]:
        """Where the thing has to go (3,) [m]."""
        goal = goal or self._own
        if goal.family == "lift":
            return self.position("goal") if goal.base else self.first[goal.thing] + up(LIFTED)
        return self._beside_base(goal) if goal.family == "beside" else self._on_base(goal)

    # --- what is where ---------------------------------------------------------------------------------------------

    def things(self) -> list[tuple[str, int, bool]]:
        """Return name, number in a segmentation, and whether it can be moved, of everything that a text may name."""
        scene, found = self.scene, []
        for part in scene.places:
            movable = part in SHAPES and not SHAPES[part].fixed
            name = f"{scene.paints[part]} {NAMES.get(part, part)}" if part in scene.paints else _PLAIN.get(part, part)
            found.append((name, int(getattr(self.task_env, part).per_scene_id[0]), movable))
        return found

    def where(self) -> list[int]:
        """Return what each of ``things`` is on or in: 0 nothing, k + 1 thing k, or held (``lrm_ros.sim.seen``)."""
        parts = list(self.scene.places)

        def of(part: str) -> int:
            if part not in SHAPES or SHAPES[part].fixed:
                return 0
            if self.is_grasping(part):
                return HELD
            for number, base in enumerate(parts):
                if base in (part, "goal"):
                    continue
                family = "slide" if base in TARGETS else "box" if base in BOXES else "stack"
                if self._done(Goal(family, part, base)):
                    return number + 1
            return 0

        return [of(part) for part in parts]

    # --- other instructions for the scene ------------------------------------------------------------------------

    @property
    def instructions(self) -> tuple[Instruction, ...]:
        """What could be asked of the scene, the episode's own instruction first."""
        return tuple(instruction for instruction, _ in self._asked)

    def labels(self) -> list[tuple[float, float]]:
        """Return progress and done of each of ``instructions`` by the present state; NaN: the state does not tell."""
        return [NEVER if goal is None else self._label(goal) for _, goal in self._asked]

    def _label(self, goal: Goal) -> tuple[float, float]:
        if not goal.undo:
            return self._progress(goal), float(self._done(goal))
        thing = self.position(goal.thing)
        if self.is_grasping(goal.thing):
            return UNKNOWN, 0.0
        lying = bool(thing[2] < height_of(goal.thing) + 0.006)
        if goal.family == "lift":
            return (1.0, 1.0) if lying else (UNKNOWN, UNKNOWN)
        if self._done(Goal(goal.family, goal.thing, goal.base)):
            return 0.0, 0.0
        clear = TARGETS[goal.base] + 0.02 if goal.family == "slide" else 0.10 if goal.family != "beside" else 0.14
        away = dist(thing[:2], self.position(goal.base)[:2]) > clear
        return (1.0, 1.0) if lying and away else (UNKNOWN, UNKNOWN)

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
