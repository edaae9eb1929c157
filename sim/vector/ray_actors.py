# SPDX-License-Identifier: Apache-2.0
"""Worlds in Ray actors, on as many machines as the cluster has; their images come with the answers.

Address ``local`` starts Ray on this machine, ``auto`` joins the cluster this machine belongs to, ``ray://HOST:PORT``
one elsewhere. An actor takes one CPU of the cluster. Every machine needs this package in Ray's Python.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract
from lrm_ros.sim.vector.env_worker import NEXT, Command, EnvWorker, EpisodeRules

LOCAL = "local"
TIMEOUT_S = 5.0  # for CPUs that are still taken [s]


class RayActors:
    """The actors of N worlds."""

    def __init__(
        self,
        count: int,
        actors: int | None,
        slots: int,
        rules: EpisodeRules,
        task: str,
        contract: RobotContract,
        address: str,
    ) -> None:
        """Start the actors and build the worlds.

        Args:
            count: number of worlds.
            actors: that share them, at most one a world; ``None``: one a CPU of the cluster.
            slots: images of a world at once.
            rules: when episodes end and which frames are judged.
            task: name of a ManiSkill task, such as that of ``sim.twin.place_toy_in_bowl``.
            contract: joints, limits, cameras and control rate.
            address: of the cluster.

        Raises:
            RuntimeError: Ray is not installed or not there, it has fewer CPUs free than actors, or a world could not be
                built; says why.
        """
        self._ray, self._started = _connect(address)
        self._images: list[dict[int, NDArray[np.uint8]]] = [{} for _ in range(count)]
        actor = self._ray.remote(num_cpus=1)(_Actor)
        self._actors: list[Any] = []
        try:
            actors = min(count, actors or max(1, int(self._ray.cluster_resources().get("CPU", 0))))
            _wait_for_cpus(self._ray, actors)
            edges = np.linspace(0, count, actors + 1).astype(int).tolist()
            self._ranges = [range(first, end) for first, end in pairwise(edges)]
            self._actors = [actor.remote(worlds, slots, rules, task, contract) for worlds in self._ranges]
            self._get([one.ready.remote() for one in self._actors])
        except BaseException:
            self.close()
            raise

    def call(self, commands: Sequence[Command | None]) -> list[Any]:
        """Send every world its command and return the answers, both in the order of the worlds.

        Raises:
            RuntimeError: an actor died or its simulator raised; says which. Or they are closed.
        """
        if not self._actors:
            raise RuntimeError("the worlds are closed")
        asked = [
            actor.handle.remote([commands[world] for world in worlds])
            for actor, worlds in zip(self._actors, self._ranges, strict=True)
        ]
        found = [pair for part in self._get(asked) for pair in part]
        for world, (_, images) in enumerate(found):
            self._images[world] = images
        return [answer for answer, _ in found]

    def image(self, world: int, slot: int) -> NDArray[np.uint8]:
        """Return a copy of the image in a slot of a world's last answer."""
        return self._images[world][slot].copy()

    def close(self) -> None:
        """End the actors, and Ray if it was started here."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []
        if self._started:
            self._ray.shutdown()
            self._started = False

    def _get(self, asked: list[Any]) -> list[Any]:
        """Return the actors' answers."""
        found = []
        for worlds, reference in zip(self._ranges, asked, strict=True):
            try:
                found.append(self._ray.get(reference))
            except self._ray.exceptions.RayTaskError as error:
                raise RuntimeError(f"worlds {worlds.start} to {worlds.stop - 1}: {error.cause!r}") from error
            except self._ray.exceptions.RayError as error:
                raise RuntimeError(
                    f"the Ray actor of worlds {worlds.start} to {worlds.stop - 1} died: {error}; 'ray status' tells "
                    "whether the cluster is well"
                ) from error
        return found


class _Actor:
    """Worlds ``worlds`` on some machine of the cluster."""

    def __init__(self, worlds: range, slots: int, rules: EpisodeRules, task: str, contract: RobotContract) -> None:
        os.environ.setdefault("LP_NUM_THREADS", "1")  # the software renderer's threads
        import torch

        from lrm_ros.sim.twin.world import World

        torch.set_num_threads(1)
        camera = contract.cameras[0]
        self._slots = np.zeros((len(worlds), slots, camera.height, camera.width, 3), np.uint8)
        self._workers = [EnvWorker(World(task, contract), own, rules) for own in self._slots]

    def ready(self) -> bool:
        """Return when the worlds are built."""
        return True

    def handle(
        self, commands: Sequence[Command | None]
    ) -> list[tuple[dict[str, Any] | None, dict[int, NDArray[np.uint8]]]]:
        """Return the answer of each world and its images, by slot."""
        found = []
        for worker, own, command in zip(self._workers, self._slots, commands, strict=True):
            answer = worker.handle(command) if command else None
            slots = {NEXT} if answer else set()
            if answer and command and command[0] == "step":
                slots |= {slot for slot, _, _ in answer["judged"]}
                slots |= {answer["final"]["slot"]} if answer["final"] else set()
            found.append((answer, {slot: own[slot].copy() for slot in slots}))
        return found


def _wait_for_cpus(ray: Any, actors: int) -> None:
    """Wait until every actor can have a CPU; those of actors that have just ended are free after a moment.

    Raises:
        RuntimeError: too few are free; Ray itself would wait for ever.
    """
    until = time.monotonic() + TIMEOUT_S
    while (free := int(ray.available_resources().get("CPU", 0))) < actors:
        if time.monotonic() > until:
            raise RuntimeError(
                f"{actors} Ray actors need a CPU each, the cluster has {free} free; set processes to {max(free, 1)} at "
                "most or free some ('ray status' tells who has them)"
            )
        time.sleep(0.1)


def _connect(address: str) -> tuple[Any, bool]:
    """Return the ray module, connected, and whether Ray was started here."""
    try:
        import ray
    except ImportError as error:
        raise RuntimeError("worlds on a Ray cluster need Ray: pip install 'lrm_ros[ray]'") from error
    if ray.is_initialized():
        return ray, False
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    try:
        if colon:  # Ray itself would wait for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        here = {"include_dashboard": False} if address == LOCAL else {}
        ray.init(address=address, log_to_driver=False, **here)
    except (OSError, ValueError, RuntimeError) as error:
        raise RuntimeError(f"no Ray cluster at '{address}' ({error}); start one with 'ray start --head'") from error
    return ray, True
