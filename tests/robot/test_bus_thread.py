# SPDX-License-Identifier: Apache-2.0
"""The thread that has a bus: steps, what wakes it, what is asked of it."""

from __future__ import annotations

import threading

import pytest
from servo_buses import PATIENCE  # type: ignore[import-not-found]

from lrm_ros.robot.bus_thread import BusThread

NEVER_S = 1e6


class Work:
    """Counts what the thread does, and lets a test wait for it."""

    def __init__(self, period_s: float) -> None:
        self.steps, self.woken = threading.Semaphore(0), threading.Semaphore(0)
        self.names: set[str] = set()
        self.thread = BusThread("bus", period_s, self._step, self.woken.release)

    def _step(self) -> None:
        self.names.add(threading.current_thread().name)
        self.steps.release()


@pytest.fixture
def work(request):
    work = Work(getattr(request, "param", NEVER_S))
    work.thread.start()
    yield work
    work.thread.stop()


@pytest.mark.parametrize("work", [0.001], indirect=True)
def test_it_steps_and_counts_its_cycles(work):
    assert all(work.steps.acquire(timeout=PATIENCE) for _ in range(20))
    assert work.thread.cycle >= 19 and work.names == {"bus"}


def test_what_wakes_it_does_not_wait_for_the_next_step(work):
    assert work.steps.acquire(timeout=PATIENCE), "the first one"
    work.thread.wake()
    assert work.woken.acquire(timeout=PATIENCE)
    assert work.thread.call(lambda: threading.current_thread().name, PATIENCE) == "bus"
    assert not work.steps.acquire(blocking=False)


def test_what_a_request_raises_is_the_callers(work):
    with pytest.raises(ZeroDivisionError):
        work.thread.call(lambda: 1 / 0, PATIENCE)
    assert work.thread.call(lambda: 5, PATIENCE) == 5, "the thread goes on"


def test_one_that_ended_or_never_began_says_so():
    work = Work(NEVER_S)
    with pytest.raises(TimeoutError, match="start the node again"):
        work.thread.call(lambda: 5, PATIENCE)
    work.thread.start()
    assert work.steps.acquire(timeout=PATIENCE)
    work.thread.stop()
    work.thread.stop()
    with pytest.raises(TimeoutError, match="start the node again"):
        work.thread.call(lambda: 5, PATIENCE)
