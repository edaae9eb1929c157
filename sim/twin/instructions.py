# SPDX-License-Identifier: Apache-2.0
"""What can be asked of toys and vessels on the twin's table, each text with its goal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lrm_ros.sim.instructions import Instruction, another, nonsense
from lrm_ros.sim.twin.toys import ANIMALS, COLOURS, instruction

VESSELS = ("bowl", "box")
ABSENT_PLACES = ("drawer", "red mug", "bag", "blue basket")
ABSENT_THINGS = ("toy car", "spoon", "toy lion", "green bottle")
INTO = (
    "place the {colour} toy {animal} in the {vessel}",
    "put the {colour} {animal} into the {vessel}",
    "drop the {colour} toy {animal} into the {vessel}",
    "the {colour} toy {animal} belongs in the {vessel}, put it there",
)
OUT = (
    "take the {colour} toy {animal} out of the {vessel}",
    "remove the {colour} {animal} from the {vessel}",
    "get the {colour} toy {animal} out of the {vessel}",
)


@dataclass(frozen=True)
class Goal:
    """A toy into a vessel, or out of it.

    Attributes:
        toy: number of the toy.
        vessel: one of ``VESSELS``.
        out: out of the vessel, onto the table.
    """

    toy: int
    vessel: str
    out: bool = False


def asked(
    toys: Sequence[tuple[str, str]], vessels: Sequence[str], own: Goal, rng: np.random.Generator
) -> list[tuple[Instruction, Goal | None]]:
    """Return instructions for a scene, the own one first, each with its goal; ``None``: it cannot be done here.

    Args:
        toys: colour and animal of each toy on the table, no two alike.
        vessels: the vessels on the table.
        own: the goal of the episode.
        rng: draws what is not there.
    """

    def into(colour: str, animal: str, vessel: str) -> tuple[str, ...]:
        return tuple(form.format(colour=colour, animal=animal, vessel=vessel) for form in (_FIRST, *INTO))

    colour, animal = toys[own.toy]
    found: list[tuple[Instruction, Goal | None]] = []
    for toy in sorted(range(len(toys)), key=lambda number: number != own.toy):
        for vessel in sorted(vessels, key=lambda name: name != own.vessel):
            kind = ("own", "place", "thing", "both")[(vessel != own.vessel) + 2 * (toy != own.toy)]
            goal = Goal(toy, vessel)
            found.append((Instruction(kind, into(*toys[toy], vessel)), goal))
    for toy in range(len(toys)):
        for vessel in vessels:
            kind = "opposite" if (toy, vessel) == (own.toy, own.vessel) else "both"
            out = tuple(form.format(colour=toys[toy][0], animal=toys[toy][1], vessel=vessel) for form in OUT)
            found.append((Instruction(kind, out), Goal(toy, vessel, out=True)))
    taken = [other for other, same in toys if same == animal]
    near = another(rng, [other for other, _ in toys], taken)  # the colour of another toy
    far = another(rng, list(COLOURS), [other for other, _ in toys])
    found += [(Instruction("colour", into(one, animal, own.vessel)), None) for one in (near, far) if one]
    gone = another(rng, list(ANIMALS), [other for same, other in toys if same == colour])
    if gone:
        found.append((Instruction("absent", into(colour, gone, own.vessel)), None))
    nothing, nowhere = another(rng, ABSENT_THINGS, ()), another(rng, (*ABSENT_PLACES, *VESSELS), vessels)
    found += [
        (
            Instruction(
                "absent", (f"put the {nothing} in the {own.vessel}", f"place the {nothing} in the {own.vessel}")
            ),
            None,
        ),
        (Instruction("absent_place", into(colour, animal, nowhere)), None),
        (Instruction("swapped", (f"put the {own.vessel} in the {colour} toy {animal}",)), None),
        (nonsense(rng), None),
    ]
    return found


_FIRST = instruction("{colour}", "{animal}").replace("the bowl", "the {vessel}")


def texts() -> list[str]:
    """Return every wording for every toy and vessel, for a tokenizer."""
    return [
        form.format(colour=colour, animal=animal, vessel=vessel)
        for form in (_FIRST, *INTO, *OUT)
        for colour in COLOURS
        for animal in ANIMALS
        for vessel in (*VESSELS, *ABSENT_PLACES)
    ]
