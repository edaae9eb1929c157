# SPDX-License-Identifier: Apache-2.0
"""Expert and failing behaviours of any simulated world, chosen by name; where they stop depends on the state.

Used for the labelled training data of the reward model only, like ``lrm_ros.sim.twin.expert`` of the twin.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lrm_ros.sim.instructions import Instruction

# What can happen in an episode: the expert succeeds, stops on the way, lets go on the way, aims beside the object,
# the success is shown backwards, or the arm moves at random.
KINDS = ("success", "halted", "dropped", "missed", "reversed", "random")
# Progress of a world while the object is touched or held and has not been moved yet; every task keeps to it.
TOUCH_PROGRESS = 0.4


class ExpertWorld(Protocol):
    """A simulated world with a scripted expert.

    Attributes:
        fps: control steps a second.
        instruction: the task of this episode in words.
    """

    fps: float
    instruction: str

    @property
    def instructions(self) -> tuple[Instruction, ...]:
        """What could be asked of the scene, the episode's own instruction first."""
        ...

    def labels(self) -> list[tuple[float, float]]:
        """Return progress and done of each of ``instructions`` by the present state; NaN: the state does not tell."""
        ...

    @property
    def progress(self) -> float:
        """Progress in [0, 1], from the simulator's state."""
        ...

    @property
    def done(self) -> bool:
        """The task is done, by the simulator."""
        ...

    def reset(self, seed: int) -> None:
        """Start a new episode; the seed fixes scene, camera, instruction and noise."""

    def image(self) -> NDArray[np.uint8]:
        """Render the camera: (H, W, 3) uint8 RGB."""
        ...

    def things(self) -> list[tuple[str, int, bool]]:
        """Return name, number in a segmentation, and whether it can be moved, of each thing; empty: not known."""
        ...

    def where(self) -> list[int]:
        """Return what each of ``things`` is on or in: 0 nothing, k + 1 thing k, or held (``lrm_ros.sim.seen``)."""
        ...

    def segmentation(self) -> NDArray[np.int16]:
        """Return which thing each pixel of the last picture shows, (H, W)."""
        ...

    def expert(self, rng: np.random.Generator, miss: NDArray[np.float64]) -> Iterator[None]:
        """Do the task, with an error (3,) [m] of the object's position; yields after every step."""
        ...

    def release(self, rng: np.random.Generator) -> Iterator[None]:
        """Open the gripper and leave upwards; yields after every step."""
        ...

    def hold(self, steps: int) -> Iterator[None]:
        """Stay; yields after every step."""
        ...

    def random_motion(self, rng: np.random.Generator) -> Iterator[None]:
        """Move at random above the table; yields after every step."""
        ...


def behave(world: ExpertWorld, kind: str, rng: np.random.Generator) -> Iterator[None]:
    """Run a behaviour in a freshly reset world; yields after every control step.

    Args:
        world: the world to act in.
        kind: one of ``KINDS``; ``"reversed"`` acts as ``"success"``, showing it backwards is up to the caller.
        rng: source of all randomness.

    Raises:
        ValueError: unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind '{kind}' is not one of {', '.join(KINDS)}")
    if kind == "random":
        yield from world.random_motion(rng)
        return
    stop = math.inf
    if kind == "halted":
        stop = rng.uniform(0.05, 0.75)
    elif kind == "dropped":
        stop = rng.uniform(TOUCH_PROGRESS + 0.05, 0.75)
    angle, radius = rng.uniform(0, 2 * math.pi), rng.uniform(0.05, 0.10)
    miss = radius * np.array([math.cos(angle), math.sin(angle), 0.0]) * (kind == "missed")
    for _ in world.expert(rng, miss):
        yield
        if world.progress >= stop:
            yield from world.release(rng) if kind == "dropped" else world.hold(int(rng.integers(16, 40)))
            return


def approach_progress(distance: float, start: float, enough: float = 0.0) -> float:
    """Return the progress of an approach in [0, 1]: 0 at the distance ``start`` and beyond, 1 at ``enough``."""
    return float(np.clip((start - distance) / max(start - enough, 1e-3), 0, 1))
