# SPDX-License-Identifier: Apache-2.0
"""N worlds in a few processes: every world executes its action chunk, frames come back through shared memory.

A frame is rendered only where someone looks at it: after the last step of a chunk (the policy's next observation), at
the steps that the reward model judges, and at the end of an episode, before the reset. Each world counts its own steps
and starts its next episode by itself, so an episode's end changes nothing for the others.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract
from lrm_ros.types import Frame, Observation

if TYPE_CHECKING:
    from sim.world import World

_NEXT = -1  # slot of the policy's next observation; the slots before it hold the judged frames of a chunk


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


@dataclass(frozen=True)
class Stretch:
    """What one world did with a chunk of actions.

    Attributes:
        sent: (k, D) targets that were executed, after limits [rad]; k is smaller than the chunk if the episode ended.
        progress: (k + 1,) simulator's progress before the first step and after every step.
        success: (k,) simulator's success after every step.
        judged: (place in the chunk from 1 to k, frame) of every rendered frame to judge, oldest first; if the episode
            ended and ``judge_every`` is not 0, the last one shows its end.
        ended: the episode is over after these steps.
        cut_off: it is over because ``max_steps`` was reached, not because the task is done.
        final: what was to be seen at the end of the episode, if it ended.
        observation: what the policy sees next: of the new episode, if the old one ended.
        seed: of the episode that ``observation`` belongs to.
    """

    sent: NDArray[np.float32]
    progress: NDArray[np.float32]
    success: NDArray[np.bool_]
    judged: tuple[tuple[int, Frame], ...]
    ended: bool
    cut_off: bool
    final: Observation | None
    observation: Observation
    seed: int


class Worlds(Protocol):
    """What a learner needs of N worlds, wherever they are."""

    def reset(self, seeds: Sequence[Sequence[int]], rebuild: bool = False) -> list[Observation]:
        """Start a new episode in every world."""
        ...

    def advance(self, chunks: Sequence[NDArray[np.float32]]) -> list[Stretch]:
        """Execute a chunk of actions in each world."""
        ...

    def close(self) -> None:
        """Let go of them."""


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
    ) -> None:
        """Start the processes and build the worlds.

        Args:
            count: number of worlds.
            rules: when episodes end and which frames are judged.
            chunk: most actions a call of ``advance`` brings.
            processes: how many processes share the worlds; default: one a core, at most one a world.
            contract: joints, limits, cameras and control rate; the default is the SO-100's.
            task: name of a ManiSkill task in ``sim.tasks``.

        Raises:
            ValueError: a number below 1.
            RuntimeError: a world could not be built; says why.
        """
        processes = min(count, processes or len(os.sched_getaffinity(0)))
        if min(count, chunk, processes) < 1:
            raise ValueError(f"worlds, chunk and processes must be at least 1, got {count}, {chunk}, {processes}")
        self.contract = contract or RobotContract()
        self.count, self.rules, self.chunk = count, rules, chunk
        camera = self.contract.cameras[0]
        judged = 1 + (chunk // rules.judge_every + 1 if rules.judge_every else 0)
        shape = (count, judged + 1, camera.height, camera.width, 3)
        self._memory = SharedMemory(create=True, size=int(np.prod(shape)))
        self._frames: NDArray[np.uint8] = np.ndarray(shape, np.uint8, self._memory.buf)
        self._camera = camera.name
        self._crew: list[tuple[range, Any, Connection]] = []
        context = multiprocessing.get_context("spawn")
        edges = np.linspace(0, count, processes + 1).astype(int)
        try:
            for first, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
                ours, theirs = context.Pipe()
                about = (theirs, self._memory.name, shape, first, end, rules, task, self.contract)
                process = context.Process(target=_work, args=about, daemon=True)
                process.start()
                theirs.close()
                self._crew.append((range(first, end), process, ours))
            for _, _, pipe in self._crew:
                self._answer(pipe)
        except BaseException:
            self.close()
            raise

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
        answers = self._ask([("reset", (list(map(int, own)), rebuild)) for own in seeds])
        return [self._observation(world, answer) for world, answer in enumerate(answers)]

    def advance(self, chunks: Sequence[NDArray[np.float32]], worlds: Sequence[int] | None = None) -> list[Stretch]:
        """Execute a chunk of absolute joint targets in each world.

        Args:
            chunks: for each world (K, D) with 1 <= K <= ``chunk`` [rad].
            worlds: which worlds, ascending; default: all. The others stand still.

        Returns:
            What each of them did. Frames are copies: they stay what they are.

        Raises:
            ValueError: a chunk of another size, or not finite.
            RuntimeError: a process died or its simulator raised; says which.
        """
        chosen = range(self.count) if worlds is None else list(worlds)
        joints = len(self.contract.joints)
        if len(chunks) != len(chosen):
            raise ValueError(f"{len(chosen)} worlds need a chunk each, got {len(chunks)}")
        orders: list[tuple[str, Any] | None] = [None] * self.count
        for world, actions in zip(chosen, chunks, strict=True):
            if actions.ndim != 2 or not 1 <= len(actions) <= self.chunk or actions.shape[1] != joints:
                raise ValueError(
                    f"world {world}: a chunk must be (1 to {self.chunk}, {joints}), got shape {actions.shape}"
                )
            if not np.isfinite(actions).all():
                raise ValueError(f"world {world}: the actions are not finite: {actions}")
            orders[world] = ("advance", np.asarray(actions, np.float32))
        answers = self._ask(orders)
        return [self._stretch(world, answers[world]) for world in chosen]

    def close(self) -> None:
        """Stop the processes and free the memory."""
        for _, process, pipe in self._crew:
            pipe.close()  # a worker ends when its pipe does
            process.join(timeout=5)
            if process.is_alive():
                process.kill()
                process.join()
        self._crew = []
        if self._memory is not None:
            self._frames = np.zeros(0, np.uint8)
            self._memory.close()
            self._memory.unlink()
            self._memory = None  # type: ignore[assignment]

    def __enter__(self) -> VectorWorlds:
        """Return the worlds."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the processes."""
        self.close()

    def _ask(self, orders: Sequence[tuple[str, Any] | None]) -> list[Any]:
        """Give every process its worlds' orders and return the answers in the order of the worlds."""
        if not self._crew:
            raise RuntimeError("the worlds are closed")
        for worlds, _, pipe in self._crew:
            pipe.send([orders[world] for world in worlds])
        return [answer for _, _, pipe in self._crew for answer in self._answer(pipe)]

    def _answer(self, pipe: Connection) -> list[Any]:
        try:
            answer = pipe.recv()
        except (EOFError, ConnectionError) as error:
            worlds, process, _ = next(member for member in self._crew if member[2] is pipe)
            process.join(timeout=5)
            raise RuntimeError(
                f"the process of worlds {worlds.start} to {worlds.stop - 1} died with code {process.exitcode}; "
                "'lrm doctor' tells whether the simulator runs here"
            ) from error
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return answer

    def _observation(self, world: int, about: dict[str, Any], slot: int = _NEXT) -> Observation:
        frame = self._frame(world, slot, about["stamp_ns"])
        return Observation(about["stamp_ns"], {self._camera: frame}, about["state"], about["task"])

    def _frame(self, world: int, slot: int, stamp_ns: int) -> Frame:
        return Frame(stamp_ns, self._camera, self._frames[world, slot].copy())

    def _stretch(self, world: int, answer: dict[str, Any]) -> Stretch:
        judged = tuple((place, self._frame(world, slot, stamp)) for slot, place, stamp in answer["judged"])
        final = answer["final"]
        return Stretch(
            answer["sent"],
            answer["progress"],
            answer["success"],
            judged,
            final is not None,
            answer["cut_off"],
            self._observation(world, final, final["slot"]) if final else None,
            self._observation(world, answer),
            answer["seed"],
        )


class _Place:
    """One world in its process: plays episodes with its seeds and writes frames into its slots."""

    def __init__(self, world: World, slots: NDArray[np.uint8], rules: EpisodeRules) -> None:
        self._world, self._slots, self._rules = world, slots, rules
        self._seeds: list[int] = []
        self._episode = 0

    def obey(self, order: tuple[str, Any]) -> dict[str, Any]:
        if order[0] == "reset":
            (self._seeds, rebuild), self._episode = order[1], 0
            return self._begin(rebuild)
        return self._advance(order[1])

    def _begin(self, rebuild: bool = False) -> dict[str, Any]:
        self._world.reset(self._seeds[self._episode % len(self._seeds)], rebuild)
        return self._see(_NEXT)

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
            now = self._see(_NEXT)
        return now | {
            "sent": np.array(sent, np.float32),
            "progress": np.array(progress, np.float32),
            "success": np.array(success),
            "judged": judged,
            "final": final,
            "cut_off": bool(final and final["cut_off"]),
        }


def _work(
    pipe: Connection,
    memory: str,
    shape: tuple[int, ...],
    first: int,
    end: int,
    rules: EpisodeRules,
    task: str,
    contract: RobotContract,
) -> None:
    """Body of a process: build worlds ``first`` to ``end`` and obey until the pipe ends."""
    import gc
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's; it closes the pipe
    os.environ.setdefault("LP_NUM_THREADS", "1")  # the software renderer's threads
    shared = None
    try:
        import torch

        from sim.world import World

        torch.set_num_threads(1)
        shared = SharedMemory(name=memory)
        frames: NDArray[np.uint8] = np.ndarray(shape, np.uint8, shared.buf)
        places = [_Place(World(task, contract), frames[number], rules) for number in range(first, end)]
        gc.collect()
        gc.freeze()  # ManiSkill collects garbage whenever it builds a scene; what is here now will not become any
        pipe.send([])
        while True:
            orders = pipe.recv()
            pipe.send([place.obey(order) if order else None for place, order in zip(places, orders, strict=True)])
    except (EOFError, BrokenPipeError):
        pass
    except Exception as error:
        pipe.send(f"worlds {first} to {end - 1}: {type(error).__name__}: {error}")
    finally:
        frames = places = None  # type: ignore[assignment]
        if shared is not None:
            shared.close()
