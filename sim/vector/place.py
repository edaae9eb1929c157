# SPDX-License-Identifier: Apache-2.0
"""One of many worlds, where it is simulated: plays its episodes and renders only what someone looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lrm_ros.sim.twin.world import World

NEXT = -1  # slot of the policy's next observation; the slots before it hold the judged frames of a chunk

Order = tuple[str, Any]  # "reset" with (seeds, rebuild), or "advance" with actions (K, D)


@dataclass(frozen=True)
class EpisodeRules:
    """What an episode is.

    Attributes:
        max_steps: control steps after which an episode is cut off.
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


def slots_of(rules: EpisodeRules, chunk: int) -> int:
    """Return how many pictures a world can have to show after a chunk of that many actions."""
    judged = 1 + (chunk // rules.judge_every + 1 if rules.judge_every else 0)
    return judged + 1


class Place:
    """Plays episodes with its seeds and writes frames into its slots."""

    def __init__(self, world: World, slots: NDArray[np.uint8], rules: EpisodeRules) -> None:
        """Take a world.

        Args:
            world: to play in.
            slots: (S, H, W, 3) uint8, where pictures go; see ``slots_of``.
            rules: what an episode is.
        """
        self._world, self._slots, self._rules = world, slots, rules
        self._seeds: list[int] = []
        self._episode = 0

    def obey(self, order: Order) -> dict[str, Any]:
        """Do as told and return what is to be known, as plain data; pictures lie in the slots."""
        if order[0] == "reset":
            (self._seeds, rebuild), self._episode = order[1], 0
            return self._begin(rebuild)
        return self._advance(order[1])

    def _begin(self, rebuild: bool = False) -> dict[str, Any]:
        self._world.reset(self._seeds[self._episode % len(self._seeds)], rebuild)
        return self._see(NEXT)

    def _see(self, slot: int) -> dict[str, Any]:
        """Render into a slot; return what belongs to the picture."""
        world = self._world
        self._slots[slot] = world.frame().image
        seed = self._seeds[self._episode % len(self._seeds)]
        about = {"stamp_ns": world.stamp_ns, "state": world.state, "task": world.instruction, "seed": seed}
        return about | {"slot": slot}

    def _advance(self, actions: NDArray[np.float32]) -> dict[str, Any]:
        world, rules = self._world, self._rules
        sent, progress, success = [], [world.task_env.progress], []
        judged: list[tuple[int, int, int]] = []  # slot, place in the chunk, stamp
        final = None
        for place, target in enumerate(actions, start=1):
            sent.append(world.step(target))
            progress.append(world.task_env.progress)
            success.append(world.succeeded)
            done = rules.stop_at_success and success[-1]
            over = done or world.steps >= rules.max_steps
            due = rules.judge_every > 0 and (over or world.steps % rules.judge_every == 0)
            if over or due:
                seen = self._see(len(judged))
                if due:
                    judged.append((seen["slot"], place, seen["stamp_ns"]))
            if over:
                final = seen | {"cut_off": not done}
                break
        if final is not None:
            self._episode += 1
            now = self._begin()
        else:
            now = self._see(NEXT)
        return now | {
            "sent": np.array(sent, np.float32),
            "progress": np.array(progress, np.float32),
            "success": np.array(success),
            "judged": judged,
            "final": final,
            "cut_off": bool(final and final["cut_off"]),
        }
