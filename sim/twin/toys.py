# SPDX-License-Identifier: Apache-2.0
"""The toys of the twin's task: animals, colours, and the language instruction."""

COLOURS = {
    "yellow": (0.95, 0.75, 0.05),
    "red": (0.85, 0.08, 0.08),
    "green": (0.10, 0.60, 0.15),
    "blue": (0.10, 0.25, 0.85),
    "pink": (0.95, 0.40, 0.60),
    "orange": (0.95, 0.42, 0.05),
}
# Half sizes of the body box, neck length and head radius [m].
ANIMALS = {
    "pig": ((0.017, 0.0125, 0.014), 0.000, 0.0120),
    "giraffe": ((0.018, 0.0125, 0.015), 0.014, 0.0110),
    "elephant": ((0.019, 0.0140, 0.016), 0.004, 0.0140),
}


def instruction(colour: str, animal: str) -> str:
    """Return the language instruction."""
    return f"put the {colour} toy {animal} in the bowl"
