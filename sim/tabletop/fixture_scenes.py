# SPDX-License-Identifier: Apache-2.0
"""Random scenes with fixtures: which stand where, how far each is open, what is to be done, and what else could be."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrm_ros.sim.instructions import Instruction, another, nonsense
from lrm_ros.sim.tabletop.fixtures import KINDS
from lrm_ros.sim.tabletop.scenes import OBJECT_COLOURS

FAMILIES = tuple(KINDS)  # a family of tasks for each kind
LOWER, UPPER = 0, 1  # ends of a joint
# What moving a joint to its end is called.
WORDS = {
    ("button", UPPER): ("press the {thing}", "push the {thing} down"),
    ("drawer", UPPER): ("open the {thing}", "pull the {thing} open"),
    ("drawer", LOWER): ("close the {thing}", "push the {thing} shut"),
    ("lever", UPPER): ("turn the {thing} to the left", "move the {thing} to the left"),
    ("lever", LOWER): ("turn the {thing} to the right", "move the {thing} to the right"),
    ("handle", LOWER): ("pull the {thing} down", "move the {thing} down"),
    ("handle", UPPER): ("push the {thing} up", "move the {thing} up"),
}
_REACH = np.array([[-0.14, -0.17], [0.06, 0.17]])  # where fixtures stand [m]
_GAP = 0.02  # between their spaces [m]
_TRIES = 200


@dataclass(frozen=True)
class Aim:
    """What a text asks for: the part, and to which end its joint is to be moved."""

    part: str
    end: int


@dataclass(frozen=True)
class FixtureScene:
    """An episode's task.

    Attributes:
        aim: what is to be done.
        spots: part -> where it stands (2,) [m]; parts are ``lrm_ros.sim.tabletop.fixture_task.FIXTURES``.
        yaws: part -> its turn about the vertical [rad].
        joints: part -> how far its joint is at first, 0 its lower end to 1 its upper.
        paints: part -> name of the colour of what moves.
        instruction: language instruction.
    """

    aim: Aim
    spots: dict[str, NDArray[np.float64]]
    yaws: dict[str, float]
    joints: dict[str, float]
    paints: dict[str, str]
    instruction: str


def kind_of(part: str) -> str:
    """Return the kind of a part."""
    return part.partition("_")[0]


def ends_of(part: str) -> list[int]:
    """Return the ends to which a part can be moved so that it stays there, or is pressed."""
    return [end for kind, end in WORDS if kind == kind_of(part)]


def name_in(scene: FixtureScene, part: str) -> str:
    """Return what a text calls a part of a scene, e.g. ``"red drawer"``."""
    return f"{scene.paints[part]} {kind_of(part)}"


def draw_fixture_scene(family: str, rng: np.random.Generator) -> FixtureScene:
    """Draw an episode's task.

    Args:
        family: one of ``FAMILIES``.
        rng: source of all randomness.

    Raises:
        ValueError: unknown family.
    """
    if family not in FAMILIES:
        raise ValueError(f"no family '{family}' of fixtures; there are: {', '.join(FAMILIES)}")
    own = f"{family}_1"
    while True:
        # One of the same kind, of another kind, or none beside it.
        beside = [f"{family}_2", f"{rng.choice([kind for kind in FAMILIES if kind != family])}_1"]
        parts = [own, *[part for part in beside if rng.uniform() < 0.5]]
        spots = _spots(parts, rng)
        if spots is not None:
            break
    aim = Aim(own, int(rng.choice(ends_of(own))))
    yaws = {part: _yaw(kind_of(part), rng) for part in parts}
    joints = {part: _joint(kind_of(part), rng) for part in parts}
    if family != "button":
        joints[own] = rng.uniform(0.0, 0.12) if aim.end == UPPER else rng.uniform(0.88, 1.0)
    paints = dict(zip(parts, map(str, rng.permutation(list(OBJECT_COLOURS))), strict=False))
    text = str(rng.choice(WORDS[family, aim.end])).format(thing=f"{paints[own]} {family}")
    return FixtureScene(aim, spots, yaws, joints, paints, text)


def _yaw(kind: str, rng: np.random.Generator) -> float:
    """Draw a turn: levers point away from the robot, about, so that left and right are its left and right."""
    return float(rng.uniform(-0.5, 0.5) if kind == "lever" else rng.uniform(-math.pi, math.pi))


def _joint(kind: str, rng: np.random.Generator) -> float:
    """Draw how far a joint is."""
    if kind == "button":
        return 0.0
    return float(rng.uniform(0.0, 0.12) if rng.uniform() < 0.5 else rng.uniform(0.88, 1.0))


def _spots(parts: list[str], rng: np.random.Generator) -> dict[str, NDArray[np.float64]] | None:
    """Draw where the parts stand; ``None``: there was no room."""
    spots: dict[str, NDArray[np.float64]] = {}
    for part in parts:
        for _ in range(_TRIES):
            spot = rng.uniform(*_REACH)
            if all(
                np.linalg.norm(spot - other) > KINDS[kind_of(part)].radius + KINDS[kind_of(name)].radius + _GAP
                for name, other in spots.items()
            ):
                spots[part] = spot
                break
        else:
            return None
    return spots


def asked_of_fixtures(scene: FixtureScene, rng: np.random.Generator) -> list[tuple[Instruction, Aim | None]]:
    """Return instructions for a scene, the own one first, each with its aim; ``None``: it cannot be done here.

    Args:
        scene: the scene.
        rng: draws what is not there.
    """
    aim, there = scene.aim, {name_in(scene, part) for part in scene.spots}
    kind, colour = kind_of(aim.part), scene.paints[aim.part]

    def texts(end: int, thing: str) -> tuple[str, ...]:
        return tuple(form.format(thing=thing) for form in WORDS[thing.split()[-1], end])

    wordings = tuple(dict.fromkeys((scene.instruction, *texts(aim.end, name_in(scene, aim.part)))))
    found: list[tuple[Instruction, Aim | None]] = [(Instruction("own", wordings), aim)]
    for part in scene.spots:
        for end in ends_of(part):
            if Aim(part, end) != aim:
                how = "opposite" if part == aim.part else "thing" if kind_of(part) == kind else "both"
                found.append((Instruction(how, texts(end, name_in(scene, part))), Aim(part, end)))
    used = list(scene.paints.values())
    near = another(rng, used, [text.split()[0] for text in there if text.endswith(kind)])
    far = another(rng, list(OBJECT_COLOURS), used)
    found += [(Instruction("colour", texts(aim.end, f"{one} {kind}")), None) for one in (near, far) if one]
    gone = another(rng, list(KINDS), [kind_of(part) for part in scene.spots])
    end = int(rng.choice(ends_of(gone)))
    found += [(Instruction("absent", texts(end, f"{colour} {gone}")), None), (nonsense(rng), None)]
    return found
