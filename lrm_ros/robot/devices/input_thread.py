# SPDX-License-Identifier: Apache-2.0
"""Reads an input device in a thread of its own, so that one that blocks or is gone stops no keyboard and no e-stop."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Protocol

from lrm_ros.errors import one_line
from lrm_ros.robot.devices.lerobot_input import Motion

AGAIN_S = 1.0  # a device that is gone is looked for so often [s]


class Input(Protocol):
    """A device that a person moves."""

    leads_joints: bool

    def connect(self) -> None:
        """Connect; raises ValueError with the cure."""
        ...

    def read(self) -> Motion | None:
        """Return what was done since the last read, ``None`` if nothing was heard; raises OSError or ValueError."""
        ...

    def close(self) -> None:
        """Disconnect."""
        ...


class InputThread:
    """Connects a device, reads it at a rate, and connects it again when it was gone."""

    def __init__(self, device: Input, rate_hz: float) -> None:
        """Take a device; only the thread uses it from now on.

        Args:
            device: not connected.
            rate_hz: how often it is read [1/s].
        """
        self._device, self._period_s = device, 1 / rate_hz
        self._changed = threading.Condition()
        self._stopping = False
        self._motion: Motion | None = None
        self._read_s = 0.0
        self._fault = "it is being connected"
        # A daemon: a device that blocks for ever must not keep the process.
        self._thread = threading.Thread(target=self._run, name="input", daemon=True)

    def start(self) -> None:
        """Connect and read from now on."""
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> bool:
        """End the thread and disconnect; returns whether it has ended within so long [s]."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def fault(self) -> str:
        """Why there is nothing to read now; empty: there is."""
        with self._changed:
            return self._fault

    def take(self, oldest_s: float) -> Motion | None:
        """Return all that was done since the last call, ``None`` if nothing younger than ``oldest_s`` [s] was read."""
        with self._changed:
            motion, self._motion = self._motion, None
            if motion is None or time.monotonic() - self._read_s > oldest_s:
                return None
            return motion

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._device.connect()
                self._read()
            except (OSError, ValueError) as error:
                self._lose(one_line(error))
            except Exception as error:  # of a library below LeRobot
                self._lose(f"{one_line(error)}; look at the device")
            finally:
                self._device.close()
            self._wait(AGAIN_S)

    def _lose(self, reason: str) -> None:
        with self._changed:
            self._motion, self._fault = None, reason

    def _read(self) -> None:
        """Read until the thread is to stop."""
        due_s = time.monotonic()
        while not self._stopping:
            motion = self._device.read()
            if motion is not None:
                self._add(motion)
            due_s = max(due_s + self._period_s, time.monotonic())
            self._wait(due_s - time.monotonic())

    def _add(self, motion: Motion) -> None:
        """Add to what was done and not taken yet."""
        with self._changed:
            before = self._motion
            if before is not None:
                motion = replace(
                    motion,
                    change=before.change + motion.change,
                    gripper=before.gripper + motion.gripper,
                    events=before.events + motion.events,
                )
            self._motion, self._read_s, self._fault = motion, time.monotonic(), ""

    def _wait(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, max(0.0, seconds))
