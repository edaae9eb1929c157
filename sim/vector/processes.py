# SPDX-License-Identifier: Apache-2.0
"""Worlds in a few processes of this machine; their pictures come through shared memory."""

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
from lrm_ros.sim.vector.place import EpisodeRules, Order, Place


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
            slots: pictures a world can have to show at once.
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
        self._crew: list[tuple[range, Any, Connection]] = []
        context = multiprocessing.get_context("spawn")
        edges = np.linspace(0, count, processes + 1).astype(int)
        try:
            for first, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
                ours, theirs = context.Pipe()
                about = (theirs, self._memory.name, shape, first, end, rules, task, contract)
                process = context.Process(target=_work, args=about, daemon=True)
                process.start()
                theirs.close()
                self._crew.append((range(first, end), process, ours))
            for _, _, pipe in self._crew:
                self._answer(pipe)
        except BaseException:
            self.close()
            raise

    def ask(self, orders: Sequence[Order | None]) -> list[Any]:
        """Give every world its order and return the answers, both in the order of the worlds.

        Raises:
            RuntimeError: a process died or its simulator raised; says which. Or they are closed.
        """
        if not self._crew:
            raise RuntimeError("the worlds are closed")
        for worlds, process, pipe in self._crew:
            try:
                pipe.send([orders[world] for world in worlds])
            except ConnectionError as error:
                raise _death(worlds, process) from error
        return [answer for _, _, pipe in self._crew for answer in self._answer(pipe)]

    def picture(self, world: int, slot: int) -> NDArray[np.uint8]:
        """Return a copy of what a world put into a slot."""
        return self._frames[world, slot].copy()

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
            self._memory = None

    def _answer(self, pipe: Connection) -> list[Any]:
        try:
            answer = pipe.recv()
        except (EOFError, ConnectionError) as error:
            worlds, process, _ = next(member for member in self._crew if member[2] is pipe)
            raise _death(worlds, process) from error
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return answer


def _death(worlds: range, process: Any) -> RuntimeError:
    """Return what to say about a process that has ended."""
    process.join(timeout=5)
    return RuntimeError(
        f"the process of worlds {worlds.start} to {worlds.stop - 1} died with code {process.exitcode}; "
        "'lrm doctor' tells whether the simulator runs here"
    )


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

        from lrm_ros.sim.twin.world import World

        torch.set_num_threads(1)
        shared = SharedMemory(name=memory)
        frames: NDArray[np.uint8] = np.ndarray(shape, np.uint8, shared.buf)
        places = [Place(World(task, contract), frames[number], rules) for number in range(first, end)]
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
