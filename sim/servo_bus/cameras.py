# SPDX-License-Identifier: Apache-2.0
"""The twin's cameras, rendered in a process of their own, so that the servos answer meanwhile.

That process has a world of its own, which does not move by itself: it shows the scene, the joint angles and the toy of
the snapshot that the twin's joints keep in shared memory. Only what someone reads is rendered.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from lrm_ros.config import CameraSpec, RobotContract
from lrm_ros.sim.servo_bus import fifo
from lrm_ros.sim.servo_bus.twin import SNAPSHOT, TwinJoints
from lrm_ros.sim.twin.world import World


@dataclass(frozen=True)
class Camera:
    """A camera and its picture.

    Attributes:
        name: ``front`` or ``wrist``; also the name of its pipe.
        size: width and height of what it delivers [pixels].
        rendered: of what is rendered and scaled to that.
    """

    name: str
    size: tuple[int, int]
    rendered: tuple[int, int]


# What the twin's policies see.
TWIN = (Camera("front", (96, 96), (96, 96)),)
# With one on the gripper beside it.
WRIST = (*TWIN, Camera("wrist", (96, 96), (96, 96)))
# A desk with two cameras as people have them; small pictures scaled up, which take a core a fifth of its time.
DESK = (Camera("front", (640, 480), (160, 120)), Camera("wrist", (640, 480), (160, 120)))


class Cameras:
    """Renders the twin's cameras while it is entered, each into the named pipe FOLDER/NAME."""

    def __init__(self, joints: TwinJoints, folder: Path, cameras: Sequence[Camera] = TWIN) -> None:
        """Make the pipes.

        Args:
            joints: of the twin; its snapshot is put into shared memory.
            folder: of the pipes.
            cameras: with their names.

        Raises:
            FileExistsError: there is something in the place of a pipe that is none.
        """
        self._cameras = tuple(cameras)
        folder.mkdir(parents=True, exist_ok=True)
        self.paths = {camera.name: folder / camera.name for camera in self._cameras}
        for path in self.paths.values():
            fifo.make(path)
        shared = RawArray("d", SNAPSHOT)
        joints.snapshot = np.frombuffer(shared)
        joints.show()
        self._counts = [RawArray("q", 3) for _ in self._cameras]
        spawn = multiprocessing.get_context("spawn")
        # A pipe and no events: one on which a process waited that was killed is never set again, its setter hangs.
        self._ours, self._theirs = spawn.Pipe()
        self._process = spawn.Process(
            target=render, args=(shared, self._cameras, self.paths, self._counts, self._theirs), daemon=True
        )

    def __enter__(self) -> Cameras:
        """Start the process and wait until it can deliver pictures, some seconds.

        Raises:
            RuntimeError: it cannot; what it says is on the standard error.
        """
        self._process.start()
        self._theirs.close()
        while not self._ours.poll(0.1):
            self.counts()
        try:
            self._ours.recv()
        except EOFError:  # it has ended instead of saying that it is ready
            self._process.join()
            self.counts()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it and take the pipes away."""
        self._ours.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        for path in self.paths.values():
            path.unlink(missing_ok=True)

    def counts(self) -> dict[str, tuple[int, int, int]]:
        """Return for each camera how many frames were written, how many of them repeat the one before, and skipped.

        Raises:
            RuntimeError: the process has ended.
        """
        if self._process.exitcode is not None:
            raise RuntimeError(f"the cameras' process has ended with code {self._process.exitcode}; start again")
        pairs = zip(self._cameras, self._counts, strict=True)
        return {camera.name: (counts[0], counts[1], counts[2]) for camera, counts in pairs}


class Mirror:
    """A world that shows what a snapshot says."""

    def __init__(self, cameras: Sequence[Camera]) -> None:
        """Build it with these cameras."""
        specs = tuple(CameraSpec(camera.name, *camera.rendered) for camera in cameras)
        desk = [camera.name for camera in cameras] != ["front"] or cameras[0].rendered[0] != cameras[0].rendered[1]
        self._world = World(contract=RobotContract(cameras=specs), desk=desk)
        self._seed = -1

    def show(self, snapshot: np.ndarray) -> None:
        """Take over scene, joint angles and toy of a snapshot."""
        import sapien

        seed, angles = int(snapshot[0]), snapshot[1:7].astype(np.float32)
        if seed != self._seed:
            self._world.reset(seed)
            self._seed = seed
        self._world.task_env.agent.robot._objs[0].set_qpos(angles)
        self._world.task_env.toy._objs[0].set_pose(sapien.Pose(snapshot[7:10], snapshot[10:14]))

    def picture(self, camera: Camera) -> fifo.Image:
        """Render a camera and scale its picture."""
        import cv2

        image = self._world.frame(camera.name).image
        if camera.size == camera.rendered:
            return image
        return np.asarray(cv2.resize(image, camera.size, interpolation=cv2.INTER_LINEAR), np.uint8)

    def close(self) -> None:
        """Free the simulator."""
        self._world.close()


def render(
    shared: Any, cameras: Sequence[Camera], paths: dict[str, Path], counts: Sequence[Any], pipe: Connection
) -> None:
    """Render until the other end of the pipe is closed, by word or because its parent has gone; runs in the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when
    import torch

    torch.set_num_threads(1)
    snapshot = np.frombuffer(shared)
    mirror = Mirror(cameras)
    mirror.show(snapshot.copy())
    for camera in cameras:
        mirror.picture(camera)  # the first one takes longer
    os.nice(5)  # the servos first
    with contextlib.suppress(BrokenPipeError):  # nobody waits any more
        pipe.send(None)
    newest: dict[str, tuple[int, fifo.Image]] = {}
    writers = [
        fifo.FifoWriter(paths[camera.name], lambda name=camera.name: newest.get(name), count)  # type: ignore[misc]
        for camera, count in zip(cameras, counts, strict=True)
    ]
    number = 0
    wait_s = 0.0
    while not pipe.poll(wait_s):
        begin = time.monotonic()
        mirror.show(snapshot.copy())
        number += 1
        for camera, writer in zip(cameras, writers, strict=True):
            writer.check()
            if writer.read:
                newest[camera.name] = (number, mirror.picture(camera))
            else:
                newest.pop(camera.name, None)  # the next reader gets none that is old
        wait_s = max(0.001, begin + 1 / fifo.RATE_HZ - time.monotonic())
    for writer in writers:
        writer.close()
    mirror.close()
