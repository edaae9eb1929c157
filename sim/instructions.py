# SPDX-License-Identifier: Apache-2.0
"""What else could be asked of a scene: minimal pairs of instructions, with what the simulator's state says of each.

A model that looks and does not read passes every test in which the text fits the picture. So each scene names, beside
its own instruction, others that differ in one thing, and its labels are those of the state *for that text*. Kinds::

    own           the episode's instruction, in several wordings: these must change nothing
    colour        the same thing in another colour, which is not there
    thing         another thing that is there
    place         another place that is there
    both          another thing and another place, both there
    absent        a thing that is not there
    absent_place  a place that is not there
    swapped       the roles of thing and place swapped
    opposite      the opposite verb: into and out of, open and close, lift and put down
    nonsense      no task at all

What is not there is never done: progress 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

KINDS = (
    "own", "colour", "thing", "place", "both", "absent", "absent_place", "swapped", "opposite", "nonsense",
)  # fmt: skip
NONSENSE = (
    "sing the song of the table",
    "it is raining today",
    "the the of in put",
    "what is the time",
    "seven green ideas sleep",
    "thank you very much",
)
ABSENT = (
    "put the spoon on the plate",
    "open the fridge",
    "fold the towel",
    "pour the water into the glass",
    "hang the coat on the hook",
    "wipe the mirror",
)
NEVER = (0.0, 0.0)  # progress and done of what cannot be done here
UNKNOWN = float("nan")  # a label that the state does not tell


@dataclass(frozen=True)
class Instruction:
    """An instruction for a scene.

    Attributes:
        kind: one of ``KINDS``: how it differs from the scene's own.
        wordings: texts that mean the same, at least one; of kind ``own`` the first is the episode's.
    """

    kind: str
    wordings: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind '{self.kind}' of an instruction is not one of {', '.join(KINDS)}")
        if not self.wordings or not all(text.strip() for text in self.wordings):
            raise ValueError(f"an instruction of kind '{self.kind}' has no text")


@dataclass(frozen=True)
class Labelled:
    """Instructions for an episode with their labels.

    Attributes:
        instructions: K of them; the first is the episode's own.
        labels: (T, K, 2) float32, progress in [0, 1] and done (1 or 0) of each frame; NaN where it is not known.
    """

    instructions: tuple[Instruction, ...]
    labels: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.labels.shape[1:] != (len(self.instructions), 2) or self.instructions[0].kind != "own":
            raise ValueError(
                f"labels {self.labels.shape} do not fit {len(self.instructions)} instructions of which the first is "
                "the episode's own: (T, K, 2) is needed"
            )


def nonsense(rng: np.random.Generator) -> Instruction:
    """Return a text that is no task."""
    return Instruction("nonsense", (str(rng.choice(NONSENSE)),))


def another(rng: np.random.Generator, names: Sequence[str], without: Sequence[str]) -> str:
    """Return one of ``names`` that is not in ``without``; empty if there is none."""
    left = [name for name in names if name not in without]
    return str(rng.choice(left)) if left else ""


def around(
    own: str, wordings: Sequence[str], rng: np.random.Generator, colour: str = "", colours: Sequence[str] = ()
) -> tuple[Instruction, ...]:
    """Return instructions for a scene with one task: its wordings, and texts that cannot be done there.

    Args:
        own: the episode's instruction.
        wordings: texts that mean the same.
        rng: draws what is not there.
        colour: that of the thing to move, in its texts; empty: it has none.
        colours: which there may be.
    """
    found = [Instruction("own", tuple(dict.fromkeys((own, *wordings))))]
    if colour and (other := another(rng, colours, [colour])):
        found.append(Instruction("colour", tuple(text.replace(colour, other) for text in found[0].wordings)))
    return (*found, Instruction("absent", (str(rng.choice(ABSENT)),)), nonsense(rng))


def own_label(progress: float, done: bool) -> tuple[float, float]:
    """Return the label of the own instruction; what is complete and not yet counted as done has none of done."""
    return progress, 1.0 if done else 0.0 if progress < 0.999 else UNKNOWN


def fixed_labels(progress: NDArray, done: NDArray, instructions: Sequence[Instruction]) -> NDArray[np.float32]:
    """Return labels (T, K, 2) where the state is known of the own instruction only; the others are never done.

    Args:
        progress: (T,) in [0, 1].
        done: (T,) bool; frames that are complete and not yet counted as done have no label.
        instructions: K; all but the first cannot be done in the scene.
    """
    labels = np.zeros((len(progress), len(instructions), 2), np.float32)
    labels[:, 0, 0] = progress
    labels[:, 0, 1] = np.where(np.asarray(done, bool), 1.0, np.where(np.asarray(progress) < 0.999, 0.0, UNKNOWN))
    return labels


def instructions_json(instructions: Iterable[Instruction]) -> list[list[Any]]:
    """Return what a shard says of an episode's instructions: [kind, [wording, ...]] of each."""
    return [[one.kind, list(one.wordings)] for one in instructions]


def instructions_of(written: Iterable[tuple[str, Sequence[str]]]) -> tuple[Instruction, ...]:
    """Return the instructions that :func:`instructions_json` wrote."""
    return tuple(Instruction(kind, tuple(wordings)) for kind, wordings in written)


def joined_labels(parts: Sequence[NDArray], count: int = 0) -> NDArray[np.float16]:
    """Return the labels (T, K, 2) of several episodes as one array; what an episode has fewer is NaN.

    Args:
        parts: labels of each episode.
        count: K at least.
    """
    most = max([count, *(part.shape[1] for part in parts)])
    padded = [
        np.pad(part.astype(np.float16), ((0, 0), (0, most - part.shape[1]), (0, 0)), constant_values=np.nan)
        for part in parts
    ]
    return np.concatenate(padded)
