# SPDX-License-Identifier: Apache-2.0
"""A thread that works on the newest item: a mailbox with one slot, so that slow work is late by one item at most.

Other jobs may share the thread, so that what is not made for two threads is used by one.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

T = TypeVar("T")


class Worker(Generic[T]):
    """Runs ``work`` on the newest item put, one at a time, in a thread of its own.

    An item that is put while another is worked on waits; a newer one takes its place. A job that is put aside is not
    replaced: it is done when no item waits, or after one item at the latest, so neither keeps the other waiting for
    more than one piece of work. All methods may be called from any thread, those without a time limit return at once.
    """

    def __init__(self, name: str, work: Callable[[T], None], failed: Callable[[BaseException], None]) -> None:
        """Start the thread.

        Args:
            name: of the thread.
            work: called in the thread with each item that is not replaced.
            failed: called in the thread with whatever ``work`` has raised; the next item is worked on all the same.
        """
        self.name = name
        self._work, self._failed = work, failed
        self._changed = threading.Condition()
        self._slot: list[T] = []  # none or one
        self._aside: deque[Callable[[], None]] = deque()
        self._asides_turn = False  # an item was worked on last
        self._working = self._stopping = False
        # A daemon: work that never returns must not keep the process.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: T) -> bool:
        """Hand over an item; a newer one replaces one that waits.

        Returns:
            Whether an item that had not been begun was replaced.

        Raises:
            RuntimeError: the worker has been told to stop.
        """
        with self._changed:
            if self._stopping:
                raise RuntimeError(f"worker '{self.name}' has been stopped; make a new one")
            replaced = bool(self._slot)
            self._slot[:] = [item]
            self._changed.notify_all()
        return replaced

    def put_aside(self, job: Callable[[], None]) -> None:
        """Have a job done beside the items: the oldest first, one between two items.

        Raises:
            RuntimeError: the worker has been told to stop.
        """
        with self._changed:
            if self._stopping:
                raise RuntimeError(f"worker '{self.name}' has been stopped; make a new one")
            self._aside.append(job)
            self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """How many items and jobs wait."""
        with self._changed:
            return len(self._slot) + len(self._aside)

    @property
    def busy(self) -> bool:
        """Whether an item or a job is worked on, or an item waits."""
        with self._changed:
            return self._working or bool(self._slot)

    def clear(self) -> bool:
        """Drop the item that waits; what is worked on goes on. Returns whether there was one."""
        with self._changed:
            dropped = bool(self._slot)
            self._slot.clear()
            self._changed.notify_all()
        return dropped

    def wait(self, timeout_s: float) -> bool:
        """Wait until nothing is worked on and no item waits. Returns whether that came within ``timeout_s`` [s]."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._working and not self._slot, timeout_s)

    def stop(self, timeout_s: float) -> bool:
        """Drop the item and the jobs that wait and end the thread after what is worked on; may be called again.

        Args:
            timeout_s: how long to wait for that [s]. In the worker's own thread it does not wait.

        Returns:
            Whether the thread has ended. If not, it ends by itself as soon as ``work`` returns.
        """
        with self._changed:
            self._stopping = True
            self._slot.clear()
            self._aside.clear()
            self._changed.notify_all()
        if threading.current_thread() is self._thread:
            return False
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or bool(self._slot) or bool(self._aside))
                if self._stopping:
                    return
                aside = bool(self._aside) and (self._asides_turn or not self._slot)
                work = self._aside.popleft() if aside else partial(self._work, self._slot.pop())
                self._asides_turn = not aside
                self._working = True
            self._call(work)
            del work  # an image must not live until the next one comes
            with self._changed:
                self._working = False
                self._changed.notify_all()

    def _call(self, work: Callable[[], None]) -> None:
        """Do a piece of work; nothing that is raised ends the thread."""
        try:
            work()
        except BaseException as error:
            try:
                self._failed(error)
            except BaseException:
                # What reports failures has failed itself: Python's own report of threads is what is left.
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), self._thread)))
