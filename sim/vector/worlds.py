# SPDX-License-Identifier: Apache-2.0
"""N worlds stepped together: every world executes its action chunk, in processes here or on other machines.

A frame is rendered only where it is used: after the last step of a chunk (the policy's next observation), at
the steps that the reward model judges, and at the end of an episode, before the reset. Each world counts its own steps
and starts its next episode by itself, so an episode's end changes nothing for the others.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract
from lrm_ros.contract import require_limits
from lrm_ros.sim.vector.env_worker import NEXT, Command, EpisodeRules, image_slots
from lrm_ros.sim.vector.processes import Processes
from lrm_ros.sim.vector.ray_actors import RayActors
from lrm_ros.types import Frame, Observation

__all__ = ["ChunkResult", "EpisodeRules", "VectorWorlds", "Worlds"]


@dataclass(frozen=True)
class ChunkResult:
    """The result of one chunk of actions in one world.

    Attributes:
        sent: (k, D) targets that were executed, after limits [rad]; k is smaller than the chunk if the episode ended.
        progress: (k + 1,) simulator's progress before the first step and after every step.
        success: (k,) simulator's success after every step.
        judged: (step in the chunk from 1 to k, frame) of every frame for the reward model, oldest first; if the episode
            ended and ``judge_every`` is not 0, the last one is its last frame.
        done: the episode ended after these steps, terminated or truncated.
        truncated: it ended because ``max_steps`` was reached, not because the task is done.
        final_observation: the last one of the episode, if it ended.
        observation: the next one for the policy: of the new episode, if the old one ended.
        seed: of the episode that ``observation`` belongs to.
    """

    sent: NDArray[np.float32]
    progress: NDArray[np.float32]
    success: NDArray[np.bool_]
    judged: tuple[tuple[int, Frame], ...]
    done: bool
    truncated: bool
    final_observation: Observation | None
    observation: Observation
    seed: int


class Worlds(Protocol):
    """A vector environment of N worlds, as the learner uses it."""

    def reset(self, seeds: Sequence[Sequence[int]], rebuild: bool = False) -> list[Observation]:
        """Start a new episode in every world."""
        ...

    def step(self, chunks: Sequence[NDArray[np.float32]]) -> list[ChunkResult]:
        """Execute a chunk of actions in each world."""
        ...

    def close(self) -> None:
        """Stop them."""


class Workers(Protocol):
    """The env workers of all worlds: in processes here or in Ray actors."""

    def call(self, commands: Sequence[Command | None]) -> list[Any]:
        """Send every world its command and return the answers, both in the order of the worlds."""
        ...

    def image(self, world: int, slot: int) -> NDArray[np.uint8]:
        """Return a copy of the image in a slot of a world's last answer."""
        ...

    def close(self) -> None:
        """Stop."""


class VectorWorlds:
    """N worlds, stepped together."""

    def __init__(
        self,
        count: int,
        rules: EpisodeRules,
        chunk: int = 8,
        processes: int | None = None,
        contract: RobotContract | None = None,
        task: str = "PlaceToyInBowl-v1",
        ray: str = "",
    ) -> None:
        """Build the worlds.

        Args:
            count: number of worlds.
            rules: when episodes end and which frames are judged.
            chunk: most actions of a chunk.
            processes: how many processes or actors share the worlds; default: one a core of this machine, or with
                ``ray`` one a CPU of the cluster; at most one a world.
            contract: joints, limits, cameras and control rate; the default is the SO-100's.
            task: name of a ManiSkill task, such as that of ``sim.twin.place_toy_in_bowl``.
            ray: address of a Ray cluster that simulates (``vector.ray_actors``); empty: processes of this machine.

        Raises:
            ValueError: a number below 1, or a contract without limits.
            RuntimeError: a world could not be built, or the cluster has not that many CPUs free; says why.
        """
        if min(count, chunk, processes or 1) < 1:
            raise ValueError(f"worlds, chunk and processes must be at least 1, got {count}, {chunk}, {processes}")
        self.contract = contract or RobotContract()
        require_limits(self.contract, f"robot contract '{self.contract.name}'")
        self.count, self.rules, self.chunk = count, rules, chunk
        self._camera = self.contract.cameras[0].name
        about = (image_slots(rules, chunk), rules, task, self.contract)
        self._workers: Workers = (
            RayActors(count, processes, *about, address=ray)
            if ray
            else Processes(count, min(count, processes or len(os.sched_getaffinity(0))), *about)
        )

    def reset(self, seeds: Sequence[Sequence[int]], rebuild: bool = False) -> list[Observation]:
        """Start a new episode in every world.

        Args:
            seeds: for each world the seeds of its episodes from now on, at least one; after the last one it starts
                over with the first.
            rebuild: build the scenes anew, so that what follows is the same to the bit whatever was before.

        Returns:
            The first observation of each world.
        """
        if len(seeds) != self.count or not all(len(own) for own in seeds):
            raise ValueError(f"{self.count} worlds need a list of seeds each, got {len(seeds)} lists")
        answers = self._workers.call([("reset", (list(map(int, own)), rebuild)) for own in seeds])
        return [self._observation(world, answer) for world, answer in enumerate(answers)]

    def step(self, chunks: Sequence[NDArray[np.float32]], worlds: Sequence[int] | None = None) -> list[ChunkResult]:
        """Execute a chunk of absolute joint targets in each world.

        Args:
            chunks: for each world (K, D) with 1 <= K <= ``chunk`` [rad].
            worlds: which worlds, ascending; default: all. The others do not move.

        Returns:
            A result for each of them. Frames are copies; later steps do not change them.

        Raises:
            ValueError: a chunk of another size, or not finite.
            RuntimeError: a process died or its simulator raised; says which.
        """
        chosen = range(self.count) if worlds is None else list(worlds)
        joints = len(self.contract.joints)
        if len(chunks) != len(chosen):
            raise ValueError(f"{len(chosen)} worlds need a chunk each, got {len(chunks)}")
        commands: list[tuple[str, Any] | None] = [None] * self.count
        for world, actions in zip(chosen, chunks, strict=True):
            if actions.ndim != 2 or not 1 <= len(actions) <= self.chunk or actions.shape[1] != joints:
                raise ValueError(
                    f"world {world}: a chunk must be (1 to {self.chunk}, {joints}), got shape {actions.shape}"
                )
            if not np.isfinite(actions).all():
                raise ValueError(f"world {world}: the actions are not finite: {actions}")
            commands[world] = ("step", np.asarray(actions, np.float32))
        answers = self._workers.call(commands)
        return [self._result(world, answers[world]) for world in chosen]

    def close(self) -> None:
        """Stop the simulators."""
        self._workers.close()

    def __enter__(self) -> VectorWorlds:
        """Return the worlds."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the processes."""
        self.close()

    def _observation(self, world: int, about: dict[str, Any], slot: int = NEXT) -> Observation:
        frame = self._frame(world, slot, about["stamp_ns"])
        return Observation(about["stamp_ns"], {self._camera: frame}, about["state"], about["task"])

    def _frame(self, world: int, slot: int, stamp_ns: int) -> Frame:
        return Frame(stamp_ns, self._camera, self._workers.image(world, slot))

    def _result(self, world: int, answer: dict[str, Any]) -> ChunkResult:
        judged = tuple((step, self._frame(world, slot, stamp)) for slot, step, stamp in answer["judged"])
        final = answer["final"]
        return ChunkResult(
            answer["sent"],
            answer["progress"],
            answer["success"],
            judged,
            final is not None,
            answer["truncated"],
            self._observation(world, final, final["slot"]) if final else None,
            self._observation(world, answer),
            answer["seed"],
        )
