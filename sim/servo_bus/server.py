# SPDX-License-Identifier: Apache-2.0
"""Runs buses on pseudo-terminals in real time, in a thread of its own."""

from __future__ import annotations

import math
import os
import select
import threading
import time
from collections.abc import Mapping
from types import TracebackType

from lrm_ros.sim.servo_bus.bus import Bus
from lrm_ros.sim.servo_bus.port import Port

PERIOD = 0.005  # s between two steps of the joints
LONGEST_PAUSE = 0.1  # s: a process that was stopped for longer has stopped the arms, too


class Server:
    """Buses by name, each with its port; as a context manager it runs.

    Attributes:
        buses: name -> bus. Hold ``lock`` to look at or change anything of them while it runs.
        ports: name -> port.
        lock: held while bytes are answered and the joints move.
    """

    def __init__(self, buses: Mapping[str, Bus], links: Mapping[str, str | os.PathLike[str]] | None = None) -> None:
        """Plug in a port for each bus.

        Args:
            buses: name -> bus.
            links: name -> path of a link to its port, for those that shall have one.
        """
        self.buses = dict(buses)
        self.lock = threading.RLock()
        self.ports: dict[str, Port] = {}
        for name in self.buses:
            link = (links or {}).get(name)
            self.ports[name] = Port(None if link is None else os.fspath(link))
        self._stop = threading.Event()
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._run, name="servo bus", daemon=True)
        self._error: BaseException | None = None

    def __enter__(self) -> Server:
        """Start; the servos have had their power for a moment, and show it."""
        for bus in self.buses.values():
            bus.arm.step(PERIOD)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and take the ports away; raises what has ended the thread."""
        self._stop.set()
        os.write(self._wake_write, b"x")
        self._thread.join()
        for port in self.ports.values():
            port.unplug()
        os.close(self._wake_read)
        os.close(self._wake_write)
        if self._error is not None:
            raise self._error

    def unplug(self, name: str) -> None:
        """Pull a bus's adapter out of the computer; its servos keep their power."""
        with self.lock:
            self.ports[name].unplug()
            self.buses[name].forget()
        os.write(self._wake_write, b"x")

    def plug(self, name: str, link: str | os.PathLike[str] | None = None) -> str:
        """Plug it in again, under another terminal and the link given; returns the path to open."""
        with self.lock:
            self.ports[name].plug(None if link is None else os.fspath(link))
            path = self.ports[name].path
        os.write(self._wake_write, b"x")
        return path

    def _run(self) -> None:
        try:
            last = time.monotonic()
            while not self._stop.is_set():
                last = self._turn(last)
        except BaseException as error:
            self._error = error

    def _turn(self, last: float) -> float:
        """Wait for bytes or the next step, answer and move; returns when the joints moved last."""
        now = time.monotonic()
        with self.lock:
            times = [due for bus in self.buses.values() if (due := bus.next_due()) is not None]
            names = {port.fileno(): name for name, port in self.ports.items() if port.plugged}
        until = min([last + PERIOD, *times])
        poll = select.poll()  # unlike select, it takes a port that is pulled out meanwhile for no error
        for fd in (*names, self._wake_read):
            poll.register(fd, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(max(0, math.ceil((until - now) * 1000)))}
        if self._wake_read in ready:
            os.read(self._wake_read, 4096)
        now = time.monotonic()
        with self.lock:
            if now - last >= PERIOD:
                for bus in self.buses.values():
                    bus.arm.step(min(now - last, LONGEST_PAUSE))
                last = now
            for name, port in self.ports.items():
                if not port.plugged:
                    continue
                bus = self.buses[name]
                if names.get(port.fileno()) == name and port.fileno() in ready:
                    # The rate first: it is that of the bytes, which a program sends before it sets another.
                    rate = port.rate()
                    bus.receive(port.read(), rate, now)
                if out := bus.due(now):
                    port.write(out)
        return last
