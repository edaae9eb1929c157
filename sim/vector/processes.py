# SPDX-License-Identifier: Apache-2.0
"""Worlds in a few processes of this machine; their images come through shared memory."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract
from lrm_ros.sim.vector.env_worker import Command, EnvWorker, EpisodeRules


class Processes:
    """The processes of N worlds."""

    def __init__(
        self,
        count: int,
        processes: int,
        slots: int,
        rules: EpisodeRules,
        task: str,
        contract: RobotContract,
    ) -> None:
        """Start the processes and build the worlds.

        Args:
            count: number of worlds.
            processes: that share them.
            slots: images of a world at once.
            rules: when episodes end and which frames are judged.
            task: name of a ManiSkill task, such as that of ``sim.twin.place_toy_in_bowl``.
            contract: joints, limits, cameras and control rate.

        Raises:
            RuntimeError: a world could not be built; says why.
        """
        camera = contract.cameras[0]
        shape = (count, slots, camera.height, camera.width, 3)
        self._memory: SharedMemory | None = SharedMemory(create=True, size=int(np.prod(shape)))
        self._frames: NDArray[np.uint8] = np.ndarray(shape, np.uint8, self._memory.buf)
        self._processes: list[tuple[range, Any, Connection]] = []
        context = multiprocessing.get_context("spawn")
        edges = np.linspace(0, count, processes + 1).astype(int)
        try:
            for first, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
                ours, theirs = context.Pipe()
                about = (theirs, self._memory.name, shape, first, end, rules, task, contract)
                process = context.Process(target=_run, args=about, daemon=True)
                process.start()
                theirs.close()
                self._processes.append((range(first, end), process, ours))
            for _, _, pipe in self._processes:
                self._answer(pipe)
        except BaseException:
            self.close()
            raise

    def call(self, commands: Sequence[Command | None]) -> list[Any]:
        """Send every world its command and return the answers, both in the order of the worlds.

        Raises:
            RuntimeError: a process died or its simulator raised; says which. Or they are closed.
        """
        if not self._processes:
            raise RuntimeError("the worlds are closed")
        for worlds, process, pipe in self._processes:
            try:
                pipe.send([commands[world] for world in worlds])
            except ConnectionError as error:
                raise _died(worlds, process) from error
        return [answer for _, _, pipe in self._processes for answer in self._answer(pipe)]

    def image(self, world: int, slot: int) -> NDArray[np.uint8]:
        """Return a copy of the image in a slot of a world."""
        return self._frames[world, slot].copy()

    def close(self) -> None:
        """Stop the processes and free the memory."""
        for _, process, pipe in self._processes:
            pipe.close()  # a worker ends when its pipe does
            process.join(timeout=5)
            if process.is_alive():
                process.kill()
                process.join()
        self._processes = []
        if self._memory is not None:
            self._frames = np.zeros(0, np.uint8)
            self._memory.close()
            self._memory.unlink()
            self._memory = None

    def _answer(self, pipe: Connection) -> list[Any]:
        try:
            answer = pipe.recv()
        except (EOFError, ConnectionError) as error:
            worlds, process, _ = next(member for member in self._processes if member[2] is pipe)
            raise _died(worlds, process) from error
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return answer


def _died(worlds: range, process: Any) -> RuntimeError:
    """Return the error for a process that has ended."""
    process.join(timeout=5)
    return RuntimeError(
        f"the process of worlds {worlds.start} to {worlds.stop - 1} died with code {process.exitcode}; "
        "'lrm doctor' tells whether the simulator runs here"
    )


def _run(
    pipe: Connection,
    memory: str,
    shape: tuple[int, ...],
    first: int,
    end: int,
    rules: EpisodeRules,
    task: str,
    contract: RobotContract,
) -> None:
    """Body of a process: build worlds ``first`` to ``end`` and execute commands until the pipe ends."""
    import gc
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's; it closes the pipe
    os.environ.setdefault("LP_NUM_THREADS", "1")  # the software renderer's threads
    shared = None
    try:
        import torch

        from lrm_ros.sim.twin.world import World

        torch.set_num_threads(1)
        shared = SharedMemory(name=memory)
        frames: NDArray[np.uint8] = np.ndarray(shape, np.uint8, shared.buf)
        workers = [EnvWorker(World(task, contract), frames[number], rules) for number in range(first, end)]
        gc.collect()
        gc.freeze()  # ManiSkill collects garbage whenever it builds a scene; what is here now will not become any
        pipe.send([])
        while True:
            commands = pipe.recv()
            pipe.send(
                [worker.handle(command) if command else None for worker, command in zip(workers, commands, strict=True)]
            )
    except (EOFError, BrokenPipeError):
        pass
    except Exception as error:
        pipe.send(f"worlds {first} to {end - 1}: {type(error).__name__}: {error}")
    finally:
        frames = workers = None  # type: ignore[assignment]
        if shared is not None:
            shared.close()
