# SPDX-License-Identifier: Apache-2.0
"""The env worker of one of many worlds: simulates its episodes and renders only the frames that are used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lrm_ros.sim.twin.world import World

NEXT = -1  # slot of the policy's next observation; the slots before it hold the judged frames of a chunk

Command = tuple[str, Any]  # "reset" with (seeds, rebuild), or "step" with actions (K, D)


@dataclass(frozen=True)
class EpisodeRules:
    """What an episode is.

    Attributes:
        max_steps: control steps after which an episode is truncated.
        stop_at_success: end an episode when the simulator says the task is done.
        judge_every: render every K-th step of an episode for the reward model; 0: none.
    """

    max_steps: int = 80
    stop_at_success: bool = True
    judge_every: int = 0

    def __post_init__(self) -> None:
        if self.max_steps < 1 or self.judge_every < 0:
            raise ValueError(
                f"max_steps must be at least 1 and judge_every at least 0, got {self.max_steps}, {self.judge_every}"
            )


def image_slots(rules: EpisodeRules, chunk: int) -> int:
    """Return the number of images of a world after a chunk of that many actions, at most."""
    judged = 1 + (chunk // rules.judge_every + 1 if rules.judge_every else 0)
    return judged + 1


class EnvWorker:
    """Runs episodes from its seeds and writes frames into its image slots."""

    def __init__(self, world: World, slots: NDArray[np.uint8], rules: EpisodeRules) -> None:
        """Take a world.

        Args:
            world: the simulated world.
            slots: (S, H, W, 3) uint8, buffer of the images; see ``image_slots``.
            rules: what an episode is.
        """
        self._world, self._slots, self._rules = world, slots, rules
        self._seeds: list[int] = []
        self._episode = 0

    def handle(self, command: Command) -> dict[str, Any]:
        """Execute a command and return the answer as plain data; its images are in the slots."""
        if command[0] == "reset":
            (self._seeds, rebuild), self._episode = command[1], 0
            return self._begin(rebuild)
        return self._step(command[1])

    def _begin(self, rebuild: bool = False) -> dict[str, Any]:
        self._world.reset(self._seeds[self._episode % len(self._seeds)], rebuild)
        return self._render(NEXT)

    def _render(self, slot: int) -> dict[str, Any]:
        """Render into a slot; return stamp, state, task and seed of the image."""
        world = self._world
        self._slots[slot] = world.frame().image
        seed = self._seeds[self._episode % len(self._seeds)]
        about = {"stamp_ns": world.stamp_ns, "state": world.state, "task": world.instruction, "seed": seed}
        return about | {"slot": slot}

    def _step(self, actions: NDArray[np.float32]) -> dict[str, Any]:
        world, rules = self._world, self._rules
        sent, progress, success = [], [world.task_env.progress], []
        judged: list[tuple[int, int, int]] = []  # slot, step in the chunk, stamp
        final = None
        for step, target in enumerate(actions, start=1):
            sent.append(world.step(target))
            progress.append(world.task_env.progress)
            success.append(world.succeeded)
            terminated = rules.stop_at_success and success[-1]
            done = terminated or world.steps >= rules.max_steps
            due = rules.judge_every > 0 and (done or world.steps % rules.judge_every == 0)
            if done or due:
                frame = self._render(len(judged))
                if due:
                    judged.append((frame["slot"], step, frame["stamp_ns"]))
            if done:
                final = frame | {"truncated": not terminated}
                break
        if final is not None:
            self._episode += 1
            observation = self._begin()
        else:
            observation = self._render(NEXT)
        return observation | {
            "sent": np.array(sent, np.float32),
            "progress": np.array(progress, np.float32),
            "success": np.array(success),
            "judged": judged,
            "final": final,
            "truncated": bool(final and final["truncated"]),
        }
