# SPDX-License-Identifier: Apache-2.0
"""What can be asked of a tabletop scene besides its own task, each text with its goal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrm_ros.sim.instructions import Instruction, another, nonsense
from lrm_ros.sim.tabletop.scenes import BOXES, NAMES, OBJECT_COLOURS, SHAPES, WORDS, Scene

OPPOSITE = {
    "slide": ("push the {thing} off the target", "move the {thing} out of the red and white circle"),
    "stack": ("take the {thing} off the {base}", "remove the {thing} from the top of the {base}"),
    "beside": ("move the {thing} away from the {base}", "take the {thing} far away from the {base}"),
    "box": ("take the {thing} out of the {base}", "remove the {thing} from the {base}"),
    "lift": ("put the {thing} down on the table", "lay the {thing} on the table"),
}
ABSENT_PLACE = ("put the {thing} in the drawer", "place the {thing} into the basket", "hang the {thing} on the hook")


@dataclass(frozen=True)
class Goal:
    """What a text asks for.

    Attributes:
        family: one of ``lrm_ros.sim.tabletop.scenes.FAMILIES``.
        thing: the part to move.
        base: the part that it is put on, into or beside, or the target; empty: none.
        undo: the opposite: off, out of, away from the base, or down on the table.
    """

    family: str
    thing: str
    base: str
    undo: bool = False


def asked(scene: Scene, rng: np.random.Generator) -> list[tuple[Instruction, Goal | None]]:
    """Return instructions for a scene, the own one first, each with its goal; ``None``: it cannot be done here.

    Args:
        scene: the scene.
        rng: draws what is not there.
    """
    family, thing, base = scene.family, scene.thing, scene.base
    own = Goal(family, thing, base)
    forms = WORDS["hold" if base == "goal" else family]

    def name(part: str) -> str:
        return f"{scene.paints[part]} {NAMES.get(part, part)}" if part in scene.paints else part

    def texts(some: tuple[str, ...], first: str, second: str = "") -> tuple[str, ...]:
        return tuple(form.format(thing=first, base=second, where="").replace("  ", " ") for form in some)

    wordings = (scene.instruction, *texts(forms, name(thing), name(base)))
    found: list[tuple[Instruction, Goal | None]] = [(Instruction("own", tuple(dict.fromkeys(wordings))), own)]
    undone = Instruction("opposite", texts(OPPOSITE[family], name(thing), name(base)))
    found.append((undone, Goal(family, thing, base, undo=True)))
    for part in scene.paints:
        if part in (thing, base):
            continue
        shape = SHAPES.get(part)
        if shape is not None and not shape.fixed:
            found.append((Instruction("thing", texts(forms, name(part), name(base))), Goal(family, part, base)))
        if shape is not None and family in ("stack", "beside", "box"):
            relation = "beside" if family == "beside" else "stack"
            place = Instruction("place", texts(WORDS[relation], name(thing), name(part)))
            found.append((place, Goal(relation, thing, part)))
        if part in BOXES:
            found.append((Instruction("place", texts(WORDS["box"], name(thing), name(part))), Goal("box", thing, part)))
    if base in scene.paints and family in ("stack", "box"):
        movable = base in SHAPES and not SHAPES[base].fixed
        swapped = Instruction("swapped", texts(forms, name(base), name(thing)))
        found.append((swapped, Goal("stack", base, thing) if movable else None))
    kind = NAMES.get(thing, thing)
    there = {name(part) for part in scene.paints}
    used = [text.split()[0] for text in sorted(there)]
    near = another(rng, used, [colour for colour in used if f"{colour} {kind}" in there])
    far = another(rng, list(OBJECT_COLOURS), used)
    others = [f"{colour} {kind}" for colour in (near, far) if colour]
    found += [(Instruction("colour", texts(forms, other, name(base))), None) for other in others]
    kinds = [shape for shape in SHAPES if not SHAPES[shape].fixed and shape not in NAMES]
    gone = another(rng, kinds, [text.split()[1] for text in there])
    found += [
        (Instruction("absent", texts(forms, f"{scene.paints[thing]} {gone}", name(base))), None),
        (Instruction("absent_place", texts((str(rng.choice(ABSENT_PLACE)),), name(thing))), None),
        (nonsense(rng), None),
    ]
    return found
