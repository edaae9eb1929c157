# SPDX-License-Identifier: Apache-2.0
"""Random scenes of tabletop tasks: objects, poses, colours and instructions of five families of tasks.

So many tasks in one scene make a reward model read the instruction instead of guessing it from the furniture. Two tasks
of ManiSkill's are kept out of them, since they are held out (``lrm_ros.training.reward.data.generate.HELD_OUT``): no
cube is ever put on a cube, and no cube is pushed towards the robot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrm_ros.sim.maniskill.tasks import COLOURS


@dataclass(frozen=True)
class Shape:
    """A thing: its form (``box``, ``cylinder`` or ``ball``), half its size (3,) [m], and whether it cannot be moved."""

    form: str
    half: tuple[float, float, float]
    fixed: bool = False


SHAPES = {
    "cube": Shape("box", (0.02, 0.02, 0.02)),
    "block": Shape("box", (0.03, 0.018, 0.0125)),
    "can": Shape("cylinder", (0.02, 0.02, 0.025)),
    "puck": Shape("cylinder", (0.026, 0.026, 0.012)),
    "ball": Shape("ball", (0.02, 0.02, 0.02)),
    "other_cube": Shape("box", (0.02, 0.02, 0.02)),
    "other_can": Shape("cylinder", (0.026, 0.026, 0.02)),
    "step": Shape("box", (0.04, 0.04, 0.015), fixed=True),
    "plate": Shape("cylinder", (0.05, 0.05, 0.005), fixed=True),
}
BOX = Shape("box", (0.045, 0.045, 0.035), fixed=True)  # open; half its inner width, and its walls' height
BOXES = ("box", "other_box")
TARGETS = {"target": 0.10, "small_target": 0.07}  # radii [m]
OBJECT_COLOURS = {**COLOURS, "green": (0.05, 0.60, 0.10)}
NAMES = {"other_cube": "cube", "other_can": "can", "other_box": "box"}
FAMILIES = ("slide", "stack", "beside", "box", "lift")
PULL = math.radians(130)  # headings beyond it lead towards the robot
LIFTED = 0.10  # height from which a thing counts as lifted [m]
LOW, HIGH = np.array([-0.14, -0.20]), np.array([0.10, 0.20])  # where things lie [m]
WORDS = {
    "slide": ("push the {thing} onto the target", "slide the {thing} {where} into the red and white circle"),
    "pull": ("pull the {thing} onto the target", "move the {thing} back into the red and white circle"),
    "stack": ("stack the {thing} on the {base}", "put the {thing} on top of the {base}"),
    "beside": ("put the {thing} next to the {base}", "place the {thing} beside the {base}"),
    "box": ("put the {thing} into the {base}", "place the {thing} in the {base}"),
    "lift": ("lift the {thing} off the table", "pick up the {thing}"),
    "hold": ("pick up the {thing} and hold it at the green ball", "lift the {thing} to the green goal"),
}


@dataclass(frozen=True)
class Scene:
    """An episode's task.

    Attributes:
        family: one of ``FAMILIES``.
        thing: the part to move.
        base: the part that it is put on, into or beside, or the target; empty: none.
        heading: ``slide``: direction of the way to the target, 0 away from the robot [rad].
        places: part -> where its middle is at first (3,) [m].
        yaws: part -> its turn about the vertical [rad].
        paints: part -> name of its colour.
        instruction: language instruction.
    """

    family: str
    thing: str
    base: str
    heading: float
    places: dict[str, NDArray[np.float64]]
    yaws: dict[str, float]
    paints: dict[str, str]
    instruction: str


def draw_scene(family: str, rng: np.random.Generator) -> Scene:
    """Draw an episode's task.

    Args:
        family: one of ``FAMILIES``.
        rng: source of all randomness.

    Raises:
        ValueError: unknown family.
    """
    if family not in FAMILIES:
        raise ValueError(f"no family '{family}' of tabletop tasks; there are: {', '.join(FAMILIES)}")
    heading, words, base = 0.0, family, ""
    if family == "slide":
        heading = rng.uniform(-math.pi, math.pi)
        pulled = abs(heading) > PULL
        thing = str(rng.choice(["can", "puck"] if pulled else ["cube", "block", "can", "puck"]))
        base, words = str(rng.choice(list(TARGETS))), "pull" if pulled else "slide"
    elif family == "lift":
        thing = str(rng.choice(["cube", "block", "can", "ball"]))
        if rng.uniform() < 0.5:
            base, words = "goal", "hold"
    elif family == "box":
        thing, base = str(rng.choice(["cube", "block", "can", "ball"])), "box"
    else:
        thing = str(rng.choice(["cube", "block", "can"]))
        bases = ["other_cube", "other_can", "step", "plate"]
        if family == "stack" and thing == "cube":
            bases.remove("other_cube")
        base = str(rng.choice(bases))
    places = _places(family, thing, base, heading, rng)
    painted = [part for part in places if part in SHAPES or part in BOXES]
    colours = [colour for colour in OBJECT_COLOURS if base != "goal" or colour != "green"]  # one green ball is enough
    paints = dict(zip(painted, map(str, rng.permutation(colours)), strict=False))

    def name_of_part(part: str) -> str:
        return f"{paints[part]} {NAMES.get(part, part)}"

    where = "forward" if abs(heading) < 0.7 else "back" if abs(heading) > PULL else "left" if heading > 0 else "right"
    instruction = str(rng.choice(WORDS[words])).format(
        thing=name_of_part(thing), base=name_of_part(base) if base in paints else "", where=where
    )
    yaws = {part: rng.uniform(-math.pi, math.pi) for part in places}
    if family == "slide":
        yaws[thing] = heading + rng.normal(0, 0.1)
    return Scene(family, thing, base, heading, places, yaws, paints, instruction)


def height_of(part: str) -> float:
    """Return how high the middle of a part is when it lies on the table [m]."""
    if part in BOXES:
        return 0.008
    return 1e-3 if part in TARGETS else SHAPES[part].half[2]


def _places(
    family: str, thing: str, base: str, heading: float, rng: np.random.Generator
) -> dict[str, NDArray[np.float64]]:
    """Draw where everything is: the thing, what it goes to, and in half of the scenes something that is not needed."""
    extra = [
        name for name in ("block", "can", "other_can", "puck", "plate", "step", "target") if name not in (thing, base)
    ]
    parts = [thing, *([base] if base and base != "goal" else [])]
    if rng.uniform() < 0.5:
        parts.append(str(rng.choice([name for name in extra if name not in parts])))
    if family == "box" and rng.uniform() < 0.5:
        parts.append("other_box")
    while True:
        spots = {part: rng.uniform(LOW, HIGH) for part in parts}
        if family == "slide":
            ahead = np.array([math.cos(heading), math.sin(heading)])
            spots[base] = spots[thing] + ahead * (TARGETS[base] + rng.uniform(0.05, 0.12))
        if _fit(spots, family, thing, base):
            break
    places = {part: np.append(spot, height_of(part)) for part, spot in spots.items()}
    if base == "goal":
        places["goal"] = np.append(rng.uniform([-0.1, -0.12], [0.06, 0.12]), rng.uniform(0.10, 0.24))
    return places


def _fit(spots: dict[str, NDArray[np.float64]], family: str, thing: str, base: str) -> bool:
    """Whether nothing overlaps and nothing is out of reach or in the way of a push."""
    names = list(spots)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            apart = float(np.linalg.norm(spots[first] - spots[second]))
            if family == "slide" and {first, second} == {thing, base}:
                continue
            if apart < (0.15 if family in ("slide", "beside") or {first, second} == set(BOXES) else 0.11):
                return False
    if base and base in spots and family == "slide":
        goal = spots[base]
        if not (-0.22 < goal[0] < 0.17 and abs(goal[1]) < 0.28):
            return False
        way = goal - spots[thing]
        for name in names:
            if name not in (thing, base):
                along = float(np.clip((spots[name] - spots[thing]) @ way / (way @ way), -0.6, 1.2))
                if np.linalg.norm(spots[thing] + along * way - spots[name]) < 0.10:
                    return False
    return True
