# SPDX-License-Identifier: Apache-2.0
"""The ManiSkill tasks that have a scripted expert: instructions, camera, expert and progress of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrm_ros.sim.maniskill import experts, progress
from lrm_ros.sim.maniskill.arms import Waypoint
from lrm_ros.sim.maniskill.scene import Scene

Expert = Callable[[Scene, NDArray[np.float64]], Iterator[Waypoint]]


@dataclass(frozen=True)
class Task:
    """A ManiSkill task.

    Attributes:
        instructions: instructions that mean the same, with ``{colour}`` of the painted actor; one is drawn an episode.
        expert: yields waypoints, given an error in where the object is believed to be.
        progress: how far the state is, in [0, 1].
        eye: where the camera is [m].
        target: what it looks at [m].
        painted: the actor whose colour is drawn for each episode, if any.
        shown: an actor that ManiSkill hides from cameras though the task needs it, if any.
    """

    instructions: tuple[str, ...]
    expert: Expert
    progress: Callable[[Scene], float]
    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    painted: str = ""
    shown: str = ""


COLOURS = {
    "red": (0.85, 0.06, 0.06),
    "blue": (0.08, 0.16, 0.75),
    "yellow": (0.90, 0.75, 0.05),
    "orange": (0.95, 0.42, 0.05),
    "purple": (0.45, 0.10, 0.60),
}
FRONT, TABLE = (0.44, 0.22, 0.42), (0.02, 0.0, 0.04)
TASKS = {
    "PickCube-v1": Task(
        ("pick up the {colour} cube and hold it at the green ball", "lift the {colour} cube to the green goal"),
        experts.pick_cube, progress.pick_cube, (0.45, 0.25, 0.42), (-0.04, 0.0, 0.13), "cube", "goal_site",
    ),
    "PickCubeSO100-v1": Task(
        ("pick up the {colour} cube and hold it at the green ball", "lift the {colour} cube to the green goal"),
        experts.pick_cube, progress.pick_cube, (-0.20, 0.14, 0.26), (-0.49, 0.0, 0.05), "cube", "goal_site",
    ),
    "PushCube-v1": Task(
        ("push the {colour} cube onto the target", "move the {colour} cube forward into the red and white circle"),
        experts.push_cube, progress.push_cube, (0.55, 0.42, 0.40), (0.08, 0.0, 0.03), "obj",
    ),
    "PullCube-v1": Task(
        ("pull the {colour} cube onto the target", "move the {colour} cube back into the red and white circle"),
        experts.pull_cube, progress.pull_cube, (0.40, 0.40, 0.42), (-0.10, 0.0, 0.02), "obj",
    ),
    "StackCube-v1": Task(
        ("stack the {colour} cube on the green cube", "put the {colour} cube on top of the green cube"),
        experts.stack_cube, progress.stack_cube, FRONT, TABLE, "cubeA",
    ),
    "PlaceSphere-v1": Task(
        ("put the {colour} ball into the bin", "place the {colour} ball in the small white bin"),
        experts.place_sphere, progress.place_sphere, (0.36, 0.18, 0.32), (-0.02, 0.0, 0.04), "obj",
    ),
    "PokeCube-v1": Task(
        ("poke the {colour} cube with the peg into the target", "push the {colour} cube forward with the stick"),
        experts.poke_cube, progress.poke_cube, (0.70, 0.44, 0.44), (0.16, 0.0, 0.02), "cube",
    ),
    "LiftPegUpright-v1": Task(
        ("stand the peg upright on the table", "lift the red and blue peg and put it up straight"),
        experts.lift_peg, progress.lift_peg, (0.38, 0.52, 0.38), (-0.10, 0.0, 0.14),
    ),
}  # fmt: skip
