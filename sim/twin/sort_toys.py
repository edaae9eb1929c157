# SPDX-License-Identifier: Apache-2.0
"""ManiSkill task: two or three toys and two vessels, of which the instruction names one each.

The picture does not tell what is to be done: which toy and which vessel is said by the instruction alone. Toys of the
same animal differ in colour, toys of the same colour in the animal; one may lie in a vessel from the start, and it
may be another toy, or another vessel, that the arm goes for (:meth:`SortToysEnv.mistake`).
"""

from __future__ import annotations

import itertools
import math
from typing import Any, ClassVar

import numpy as np
import sapien
import torch
from mani_skill.utils.registration import register_env
from mani_skill.utils.structs.pose import Pose
from transforms3d.euler import euler2quat

from lrm_ros.sim.twin.expert import MISTAKES
from lrm_ros.sim.twin.instructions import VESSELS, Goal
from lrm_ros.sim.twin.place_toy_in_bowl import PAN_AXIS, REST, PlaceToyInBowlEnv
from lrm_ros.sim.twin.things import BOWL_HEIGHT, BOWL_RADIUS, build_toy, paint, parked, picture, position, repaint
from lrm_ros.sim.twin.toys import ANIMALS, COLOURS, instruction

BOX_HALF = 0.046  # inner half width of the box [m]
TINTS = ((0.88, 0.90, 0.93), (0.45, 0.47, 0.50), (0.52, 0.34, 0.18), (0.12, 0.50, 0.52))
_COPIES = 2  # toys of one animal
_VESSEL_ANGLE, _VESSEL_RADIUS = 1.05, 0.19  # from the arm's pan axis [rad, m]
_TOY_ANGLE, _TOY_RADIUS = 0.55, (0.13, 0.24)
_APART = 0.056  # between the middles of two toys [m]
_SHUFFLED_SHARE = 0.55  # share of shuffled toys that are in a vessel
_FULL_SHARE = 0.3  # share of scenes in which a toy lies in a vessel from the start


@register_env("SortToys-v1", max_episode_steps=200)
class SortToysEnv(PlaceToyInBowlEnv):
    """One of the toys into one of the vessels, as the instruction says. Success as in ``PlaceToyInBowl-v1``."""

    MARKED: ClassVar[bool] = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._present: list[tuple[str, str, Any]] = []
        self._goal = self._acted = Goal(0, "bowl")
        super().__init__(*args, **kwargs)

    def _load_scene(self, options: dict) -> None:
        super()._load_scene(options)
        self._all = {(0, name): toy for name, toy in self.toys.items()}
        for copy, name in itertools.product(range(1, _COPIES), ANIMALS):
            self._all[copy, name] = build_toy(self.scene, name, len(self._all), f"toy_{name}_{copy}", self.MARKED)
        self._vessels = {"bowl": self.bowl, "box": self._build_box()}

    def _build_box(self) -> Any:
        """A kinematic open box: a floor and four walls."""
        builder = self.scene.create_actor_builder()
        material, wall, height = paint((1, 1, 1)), 0.003, BOWL_HEIGHT
        sides = [((0.0, 0.0, 0.003), (BOX_HALF + wall, BOX_HALF + wall, 0.003))]
        for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            half = (wall if x else BOX_HALF + wall, wall if y else BOX_HALF + wall, height / 2)
            sides.append(((x * (BOX_HALF + wall), y * (BOX_HALF + wall), height / 2), half))
        for centre, half in sides:
            builder.add_box_collision(sapien.Pose(centre), half_size=half)
            builder.add_box_visual(sapien.Pose(centre), half_size=half, material=material)
        builder.initial_pose = sapien.Pose(p=[-1.0, -1.2, 0.5])
        return builder.build_kinematic("box")

    def _initialize_episode(self, env_idx: torch.Tensor, options: dict) -> None:
        state = self._batched_episode_rng[int(env_idx[0])]
        rng = np.random.default_rng(state.randint(2**31))
        self._quiet_steps = 0
        sides = rng.permutation([-1.0, 1.0])
        tints = rng.permutation(len(TINTS))
        places = {}
        for name, side, tint in zip(VESSELS, sides, tints, strict=False):
            angle = side * _VESSEL_ANGLE + rng.uniform(-0.05, 0.05)
            radius = _VESSEL_RADIUS + rng.uniform(-0.01, 0.01)
            places[name] = _around_pan_axis(radius, angle)
            self._vessels[name].set_pose(Pose.create_from_pq(torch.tensor([[*places[name], 0.0]], dtype=torch.float32)))
            repaint(self._vessels[name], TINTS[int(tint)])
        slots = list(self._all)
        chosen = [slots[i] for i in rng.choice(len(slots), int(rng.integers(2, 4)), replace=False)]
        colours = self._draw_colours([animal for _, animal in chosen], rng)
        spots = _spots(len(chosen), list(places.values()), rng)
        full = str(rng.choice(VESSELS)) if rng.uniform() < _FULL_SHARE else ""
        self._goal = self._acted = Goal(int(rng.integers(len(chosen) - bool(full))), str(rng.choice(VESSELS)))
        if full:  # the last toy, which is not the one to move
            spots[-1] = places[full] + rng.uniform(-0.012, 0.012, 2)
        for index, (slot, toy) in enumerate(self._all.items()):
            here = slot in chosen
            pose = parked(index)
            picture(toy).visibility = float(here)
            if here:
                at = chosen.index(slot)
                height = ANIMALS[slot[1]][0][2] + (0.014 if full and at == len(chosen) - 1 else 0.007)
                pose = sapien.Pose(p=[*spots[at], height], q=euler2quat(0, 0, rng.uniform(-np.pi, np.pi)))
                repaint(toy, COLOURS[colours[at]])
            toy.disable_gravity = not here
            toy.set_pose(pose)
            toy.set_linear_velocity(torch.zeros(3))
            toy.set_angular_velocity(torch.zeros(3))
        self._present = [(colours[at], slot[1], self._all[slot]) for at, slot in enumerate(chosen)]
        self.bowl = self._vessels[self._acted.vessel]
        self.agent.reset(REST + np.append(rng.normal(0, 0.02, 5), 0.0).astype(np.float32))
        self._ask(state)

    def _draw_colours(self, animals: list[str], rng: np.random.Generator) -> list[str]:
        """Draw a colour for each toy; two of one animal never have the same."""
        while True:
            colours = [str(colour) for colour in rng.choice(list(COLOURS), len(animals))]
            if len(set(zip(colours, animals, strict=True))) == len(animals):
                return colours

    def mistake(self, kind: str, rng: np.random.Generator) -> None:
        """Let the expert go for another toy or another vessel than the instruction names.

        Args:
            kind: one of ``lrm_ros.sim.twin.expert.MISTAKES``.
            rng: draws which one.

        Raises:
            ValueError: unknown kind.
        """
        if kind not in MISTAKES:
            raise ValueError(f"mistake '{kind}' is not one of {', '.join(MISTAKES)}")
        toy, vessel = self._goal.toy, self._goal.vessel
        if kind == "wrong_toy":
            lying = [
                i
                for i, (_, _, actor) in enumerate(self._present)
                if i != toy and not any(self._in_vessel(actor, one) for one in self._vessels.values())
            ]
            toy = int(rng.choice(lying)) if lying else toy
        if kind == "wrong_place" or toy == self._goal.toy:
            vessel = next(name for name in VESSELS if name != vessel)
        self._acted = Goal(toy, vessel)
        self.bowl = self._vessels[vessel]

    def shuffle(self, rng: np.random.Generator) -> None:
        """Put every toy somewhere else: into a vessel or onto the table, turned as it falls. For pictures only.

        Args:
            rng: draws where.
        """
        self._quiet_steps = 0
        middles = {name: position(vessel)[:2].astype(float) for name, vessel in self._vessels.items()}
        spots = _spots(len(self._present), list(middles.values()), rng)
        for (_, animal, toy), spot in zip(self._present, spots, strict=True):
            height, tilt = ANIMALS[animal][0][2] + 0.007, 0.0
            if rng.uniform() < _SHUFFLED_SHARE:
                spot = middles[str(rng.choice(VESSELS))] + rng.uniform(-0.02, 0.02, 2)
                height += 0.007
            if rng.uniform() < 0.2:
                height, tilt = height + 0.02, rng.uniform(-np.pi, np.pi)
            turned = euler2quat(tilt, 0, rng.uniform(-np.pi, np.pi), "sxyz")
            toy.set_pose(sapien.Pose(p=[*spot, height], q=turned))
            toy.set_linear_velocity(torch.zeros(3))
            toy.set_angular_velocity(torch.zeros(3))

    def middles(self) -> list[np.ndarray]:
        """Return the positions of the toys and vessels, (3,) [m] each."""
        return [position(one).astype(float) for one in (*(toy for _, _, toy in self._present), *self._vessels.values())]

    def _in_vessel(self, toy: Any, vessel: Any) -> bool:
        if vessel is not self._vessels["box"]:
            return super()._in_vessel(toy, vessel)
        offset = position(toy) - position(vessel)
        return bool(np.abs(offset[:2]).max() < BOX_HALF and offset[2] < BOWL_HEIGHT + 0.012)

    @property
    def toy(self) -> Any:
        """The toy that the expert goes for; that of the instruction but for mistakes."""
        return self._present[self._acted.toy][2]

    @property
    def instruction(self) -> str:
        """Language instruction of the episode."""
        colour, animal, _ = self._present[self._goal.toy]
        return instruction(colour, animal).replace("the bowl", f"the {self._goal.vessel}")

    def after_control_step(self) -> None:
        """Count for how many control steps what the instruction asks for has been done."""
        self._quiet_steps = self._quiet_steps + 1 if self._placed(*self._named()) else 0

    @property
    def progress(self) -> float:
        """Progress of the instruction, as in ``PlaceToyInBowl-v1``."""
        return self._progress_into(*self._named())

    def _named(self) -> tuple[Any, Any]:
        """Return the toy and the vessel that the instruction names."""
        return self._present[self._goal.toy][2], self._vessels[self._goal.vessel]

    def _toys_here(self) -> list[tuple[str, str, Any]]:
        return self._present

    def _vessels_here(self) -> dict[str, Any]:
        return self._vessels

    def _own_goal(self) -> Goal:
        return self._goal


def _around_pan_axis(radius: float, angle: float) -> np.ndarray:
    """Return a place on the table (2,) [m], seen from the arm's pan axis."""
    return np.array([PAN_AXIS[0] + radius * math.cos(angle), PAN_AXIS[1] + radius * math.sin(angle)])


def _spots(count: int, vessels: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Draw where toys lie on the table (2,) [m]: apart, and beside the vessels."""
    while True:
        radii = np.sqrt(rng.uniform(_TOY_RADIUS[0] ** 2, _TOY_RADIUS[1] ** 2, count))
        spots = [_around_pan_axis(radius, rng.uniform(-_TOY_ANGLE, _TOY_ANGLE)) for radius in radii]
        apart = [math.dist(a, b) for a, b in itertools.combinations(spots, 2)]
        clear = [math.dist(spot, vessel) for spot in spots for vessel in vessels]
        if min(apart, default=1.0) > _APART and min(clear) > BOWL_RADIUS + 0.03:
            return spots
