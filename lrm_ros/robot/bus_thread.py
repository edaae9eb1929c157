# SPDX-License-Identifier: Apache-2.0
"""A thread that does one thing at a fixed rate, and at once what others ask of it: who has a bus to itself."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any


class BusThread:
    """Calls ``step`` once a period and ``woken`` after each :meth:`wake`, never two things at once.

    Attributes:
        cycle: number of the period; those that came too late are left out.
        late: how many were left out.
    """

    def __init__(self, name: str, period_s: float, step: Callable[[], None], woken: Callable[[], None]) -> None:
        """Take what is to be called; none of it may raise anything but what is to end the thread.

        Args:
            name: of the thread.
            period_s: time between two steps [s].
            step: called once a period.
            woken: called as soon as possible after :meth:`wake`.
        """
        self.cycle = self.late = 0
        self._period_s, self._step, self._woken = period_s, step, woken
        self._wake = threading.Event()
        self._requests: deque[tuple[Callable[[], Any], list[Any], threading.Event]] = deque()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after what is being done; may be called before :meth:`start`, and again."""
        self._stopping = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()

    def wake(self) -> None:
        """Have ``woken`` called; any thread may."""
        self._wake.set()

    def call(self, work: Callable[[], Any], timeout_s: float) -> Any:
        """Do a piece of work in the thread and return what it returns; any other thread may ask.

        Raises:
            TimeoutError: the thread does not come to it in time, or has ended; unless it has begun it is not done.
            Exception: whatever ``work`` raises.
        """
        done = threading.Event()
        result: list[Any] = []
        request = work, result, done
        self._requests.append(request)
        self._wake.set()
        if not self._thread.is_alive() or not done.wait(timeout_s):
            with contextlib.suppress(ValueError):  # it is being done
                self._requests.remove(request)  # what was given up is not done later
            raise TimeoutError("the arm's bus thread does not answer; start the node again")
        found, error = result
        if error is not None:
            raise error
        return found

    def _run(self) -> None:
        began = time.monotonic()
        while not self._stopping:
            left = began + self.cycle * self._period_s - time.monotonic()
            if self._wake.wait(max(left, 0.0)):
                self._wake.clear()
                self._serve()
                self._woken()
                if left > 0:
                    continue
            self._step()
            following = max(self.cycle + 1, math.ceil((time.monotonic() - began) / self._period_s - 1.0))
            self.late += following - self.cycle - 1
            self.cycle = following

    def _serve(self) -> None:
        while self._requests:
            work, result, done = self._requests.popleft()
            try:
                result[:] = work(), None
            except Exception as error:
                result[:] = None, error
            done.set()
