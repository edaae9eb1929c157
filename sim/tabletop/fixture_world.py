# SPDX-License-Identifier: Apache-2.0
"""Fixtures at a table on the CPU: a scripted Panda that presses, opens, turns, pulls; pictures, labels of the state."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lrm_ros.robot.so100.kinematics import Unreachable
from lrm_ros.sim.behaviour import TOUCH_PROGRESS, approach_progress
from lrm_ros.sim.instructions import NEVER, Instruction
from lrm_ros.sim.maniskill.arms import CLOSED, OPEN, Waypoint
from lrm_ros.sim.maniskill.experts import up
from lrm_ros.sim.maniskill.progress import dist
from lrm_ros.sim.maniskill.world import ManiSkillWorld
from lrm_ros.sim.tabletop.fixture_scenes import (
    UPPER,
    Aim,
    FixtureScene,
    asked_of_fixtures,
    draw_fixture_scene,
    kind_of,
    name_in,
)
from lrm_ros.sim.tabletop.fixtures import KINDS, fraction, knob_at
from lrm_ros.sim.tabletop.scenes import OBJECT_COLOURS
from lrm_ros.sim.twin.world import use_software_vulkan

ENOUGH = 0.85  # of a joint's way, from where it counts as at its end
PRESSED = 0.7  # of a button's way
TOUCHED = 0.03  # distance of the tool from where it takes a part that counts as touched [m]
_PARTS = 8  # waypoints of a motion along a joint's way
# How far beyond its end a part is led, of its way: a handle turns in the fingers, which stay behind.
_BEYOND = {"drawer": -0.03, "lever": -0.03, "handle": 0.15}


class FixtureWorld(ManiSkillWorld):
    """A family of tasks of ``lrm_ros.sim.tabletop.fixture_scenes``; every seed draws another task."""

    def __init__(self, family: str, size: int = 96) -> None:
        """Build the world.

        Args:
            family: one of ``lrm_ros.sim.tabletop.fixture_scenes.FAMILIES``.
            size: width and height of the pictures [pixels].

        Raises:
            ValueError: unknown family.
        """
        self._family = family
        self.scene: FixtureScene = draw_fixture_scene(family, np.random.default_rng(0))
        use_software_vulkan()
        import lrm_ros.sim.tabletop.fixture_task  # noqa: F401  (registers the task)

        self._build("Fixtures-v1", size)

    def reset(self, seed: int) -> None:
        """Start a new episode; the seed fixes task, scene, camera and noise."""
        rng = np.random.default_rng([seed, 2])
        scene = self.scene = draw_fixture_scene(self._family, rng)
        self.instruction = scene.instruction
        self._noise_of = np.random.default_rng([seed, 3])
        self._noise = rng.uniform(0.0, 0.004)
        self.task_env.reset(seed=int(seed))
        for part in scene.spots:
            self.move(part, scene.joints[part])
            self._paint_moving(part, OBJECT_COLOURS[scene.paints[part]])
        middle = 0.6 * np.append(np.mean(list(scene.spots.values()), axis=0), 0.06)
        target = middle + rng.uniform([-0.05, -0.04, 0.0], [0.05, 0.04, 0.04])
        self._look(rng.uniform([0.38, 0.12, 0.34], [0.58, 0.44, 0.46]), target)
        self._begin()
        self._first_knobs = {part: self.knob(part) for part in scene.spots}
        self._first_fractions = {part: self.fraction(part) for part in scene.spots}
        self._asked = asked_of_fixtures(scene, np.random.default_rng([seed, 5]))

    def move(self, part: str, share: float) -> None:
        """Put a part's joint somewhere, 0 its lower end to 1 its upper."""
        fixture, scene = KINDS[kind_of(part)], self.scene
        joint = fixture.low + share * (fixture.high - fixture.low)
        self.task_env.put_fixture(part, scene.spots[part], scene.yaws[part], joint)

    def _paint_moving(self, part: str, rgb: tuple[float, float, float]) -> None:
        import sapien

        entity = self.task_env.fixtures[part]._objs[0].links[1].entity
        for shape in entity.find_component_by_type(sapien.render.RenderBodyComponent).render_shapes:
            shape.material.set_base_color([*rgb, 1.0])

    # --- state ---------------------------------------------------------------------------------------------------

    def joint(self, part: str) -> float:
        """Return the position of a part's joint [m or rad]."""
        return float(self.task_env.fixtures[part]._objs[0].qpos[0])

    def fraction(self, part: str) -> float:
        """Return how far a part's joint is, 0 its lower end to 1 its upper."""
        return fraction(kind_of(part), self.joint(part))

    def knob(self, part: str, joint: float | None = None) -> NDArray[np.float64]:
        """Return where a part is taken (3,) [m], now or with its joint at a position."""
        local = knob_at(kind_of(part), self.joint(part) if joint is None else joint)
        yaw = self.scene.yaws[part]
        cos, sin = math.cos(yaw), math.sin(yaw)
        turned = np.array([cos * local[0] - sin * local[1], sin * local[0] + cos * local[1], local[2]])
        return turned + np.append(self.scene.spots[part], 0.0)

    @property
    def done(self) -> bool:
        """The part's joint is at the end where it belongs; a button is pressed."""
        return self._done(self.scene.aim)

    def _done(self, aim: Aim) -> bool:
        share = self.fraction(aim.part)
        if kind_of(aim.part) == "button":
            return share >= PRESSED
        return share >= ENOUGH if aim.end == UPPER else share <= 1.0 - ENOUGH

    @property
    def progress(self) -> float:
        """How far the state is, in [0, 1]: reached and touched 0.4, the joint's way to 0.9, done 1."""
        return self._progress(self.scene.aim)

    def _progress(self, aim: Aim) -> float:
        if self._done(aim):
            return 1.0
        first, now = self._first_fractions[aim.part], self.fraction(aim.part)
        end = (PRESSED if kind_of(aim.part) == "button" else ENOUGH) if aim.end == UPPER else 1.0 - ENOUGH
        moved = 0.0 if abs(end - first) < 1e-6 else float(np.clip((now - first) / (end - first), 0.0, 1.0))
        start = dist(self.first["tool"], self._first_knobs[aim.part])
        near = approach_progress(dist(self.arm.tool, self.knob(aim.part)), start, TOUCHED)
        return TOUCH_PROGRESS * near * (1.0 - moved) + 0.9 * moved

    # --- what is where, and other instructions ---------------------------------------------------------------------

    def things(self) -> list[tuple[str, int, bool]]:
        """Return name, number in a segmentation, and that it can be moved, of each fixture's moving part."""
        links = {part: self.task_env.fixtures[part].links[1] for part in self.scene.spots}
        return [(name_in(self.scene, part), int(link.per_scene_id[0]), True) for part, link in links.items()]

    def where(self) -> list[int]:
        """Return that each of ``things`` is in or on none of the others."""
        return [0] * len(self.scene.spots)

    @property
    def instructions(self) -> tuple[Instruction, ...]:
        """What could be asked of the scene, the episode's own instruction first."""
        return tuple(instruction for instruction, _ in self._asked)

    def labels(self) -> list[tuple[float, float]]:
        """Return progress and done of each of ``instructions`` by the present state."""
        return [NEVER if aim is None else (self._progress(aim), float(self._done(aim))) for _, aim in self._asked]

    # --- motion --------------------------------------------------------------------------------------------------

    def expert(self, rng: np.random.Generator, miss: NDArray[np.float64]) -> Iterator[None]:
        """Do the task."""
        aim = self.scene.aim
        points = self._press(aim, miss) if kind_of(aim.part) == "button" else self._take_along(aim, miss)
        for point in points:
            yield from self._go(point)

    def _press(self, aim: Aim, miss: NDArray) -> Iterator[Waypoint]:
        """Press a button with closed fingers, and stay."""
        yaw, top = self.arm.now.yaw, self.knob(aim.part, KINDS["button"].low) + miss
        yield Waypoint(top + up(0.08), yaw, CLOSED)
        yield Waypoint(top + up(0.015), yaw, CLOSED)
        down = top - up(KINDS["button"].high + 0.004)
        yield Waypoint(down, yaw, CLOSED)
        yield Waypoint(down, yaw, CLOSED, steps=12)

    def _take_along(self, aim: Aim, miss: NDArray) -> Iterator[Waypoint]:
        """Take a part between the fingers, move it along its joint's way, let go and leave upwards."""
        part, fixture = aim.part, KINDS[kind_of(aim.part)]
        begin = self.joint(part)
        beyond = _BEYOND[kind_of(part)]
        end = fixture.low + (1.0 + beyond if aim.end == UPPER else -beyond) * (fixture.high - fixture.low)
        yaw = self._closing(part, begin)
        at = self.knob(part) + miss
        yield Waypoint(at + up(0.09), yaw, OPEN)
        yield Waypoint(at, yaw, OPEN)
        yield Waypoint(at, yaw, OPEN, steps=2)  # the arm lags behind its targets
        yield Waypoint(at, yaw, CLOSED, steps=4)
        for share in np.linspace(0.0, 1.0, _PARTS + 1)[1:]:
            joint = begin + share * (end - begin)
            at = self.knob(part, joint) + miss
            yield Waypoint(at, self._closing(part, joint), CLOSED)
        yaw = self._closing(part, end)
        yield Waypoint(at, yaw, CLOSED, steps=2)
        yield Waypoint(at, yaw, OPEN, steps=5)
        yield Waypoint(at + up(0.10), yaw, OPEN)
        yield Waypoint(at + up(0.10), yaw, OPEN, steps=6)

    def _closing(self, part: str, joint: float) -> float:
        """Return the direction in which the fingers close on a part [rad], of two the one nearer to the present."""
        kind, yaw = kind_of(part), self.scene.yaws[part]
        wanted = yaw if kind == "drawer" else yaw + math.pi / 2 + (joint if kind == "lever" else 0.0)
        present = self.arm.now.yaw
        return present + (wanted - present + math.pi / 2) % math.pi - math.pi / 2

    # --- pictures without motion -----------------------------------------------------------------------------------

    def shuffle(self, rng: np.random.Generator) -> None:
        """Put every joint somewhere else, mostly at an end, and the arm somewhere above the table."""
        for part in self.scene.spots:
            low, high = [(0.0, 0.12), (0.88, 1.0), (0.0, 1.0)][int(rng.choice(3, p=(0.4, 0.4, 0.2)))]
            self.move(part, rng.uniform(low, high))
        goal = rng.uniform(*self.arm.box)
        if rng.uniform() < 0.4:
            goal = self.knob(str(rng.choice(list(self.scene.spots)))) + up(rng.uniform(0.01, 0.12))
        self._stand(Waypoint(goal, self.arm.now.yaw + rng.uniform(-0.8, 0.8), OPEN))

    def _stand(self, point: Waypoint) -> None:
        """Put the arm somewhere at once; where it cannot be it stays."""
        try:
            *_, target = self.arm.path(point)
        except Unreachable:
            return
        robot, count = self.task_env.agent.robot._objs[0], self.arm.joints
        joints = robot.qpos
        joints[:count], joints[count:] = target[:count], 0.04  # fingers open [m]
        robot.set_qpos(joints.astype(np.float32))
        robot.set_qvel(np.zeros_like(joints))
        self.arm.reset()
