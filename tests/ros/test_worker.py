# SPDX-License-Identifier: Apache-2.0
"""The worker: the newest item wins, nothing that is raised ends the thread, a stop never waits for ever."""

from __future__ import annotations

import threading

import pytest

from lrm_ros.ros.worker import Worker

LONG_S = 30.0


class Slow:
    """Work that the test begins and ends by hand."""

    def __init__(self) -> None:
        self.done: list[object] = []
        self.errors: list[BaseException] = []
        self.begun, self.go_on = threading.Semaphore(0), threading.Semaphore(0)
        self.worker: Worker[object] = Worker("slow", self.work, self.errors.append)

    def work(self, item: object) -> None:
        self.begun.release()
        assert self.go_on.acquire(timeout=LONG_S)
        if isinstance(item, BaseException):
            raise item
        self.done.append(item)

    def put_and_begin(self, item: object) -> None:
        assert not self.worker.put(item)
        assert self.begun.acquire(timeout=LONG_S)


@pytest.fixture
def slow():
    slow = Slow()
    yield slow
    slow.go_on.release(100)
    assert slow.worker.stop(LONG_S)


def test_only_the_newest_of_the_items_that_wait_is_worked_on(slow):
    slow.put_and_begin(1)
    assert [slow.worker.put(item) for item in (2, 3, 4)] == [False, True, True]
    slow.go_on.release(2)
    assert slow.worker.wait(LONG_S) and slow.done == [1, 4]


def test_it_is_busy_while_it_works_and_while_an_item_waits(slow):
    assert not slow.worker.busy
    slow.put_and_begin(1)
    assert slow.worker.busy and not slow.worker.wait(0.0)
    slow.worker.put(2)
    slow.go_on.release()
    assert slow.begun.acquire(timeout=LONG_S) and slow.worker.busy
    slow.go_on.release()
    assert slow.worker.wait(LONG_S) and not slow.worker.busy


def test_clear_drops_what_waits_and_nothing_else(slow):
    assert not slow.worker.clear()
    slow.put_and_begin(1)
    slow.worker.put(2)
    assert slow.worker.clear() and not slow.worker.clear()
    assert not slow.worker.put(3)
    slow.go_on.release(2)
    assert slow.worker.wait(LONG_S) and slow.done == [1, 3]


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_what_the_work_raises_is_reported_and_the_next_item_is_worked_on(slow, error):
    slow.put_and_begin(error)
    slow.worker.put("next")
    slow.go_on.release(2)
    assert slow.worker.wait(LONG_S)
    assert slow.errors == [error] and slow.done == ["next"]


def test_a_report_that_fails_does_not_end_the_thread_either(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: said.append(f"{args.thread.name}: {args.exc_value}"))
    done: list[int] = []

    def failed(error: BaseException) -> None:
        raise RuntimeError("no report")

    worker: Worker[int] = Worker("odd", lambda item: done.append(1 // item), failed)
    worker.put(0)
    assert worker.wait(LONG_S)
    worker.put(1)
    assert worker.wait(LONG_S) and worker.stop(LONG_S)
    assert done == [1] and said == ["odd: no report"]


def test_stop_does_not_wait_for_work_that_blocks_and_drops_what_waits(slow):
    slow.put_and_begin(1)
    slow.worker.put(2)
    assert not slow.worker.stop(0.0)
    with pytest.raises(RuntimeError, match="'slow' has been stopped; make a new one"):
        slow.worker.put(3)
    slow.go_on.release()
    assert slow.worker.stop(LONG_S) and slow.worker.stop(0.0)
    assert slow.done == [1] and not slow.worker.busy


def test_work_may_stop_its_own_worker():
    answers: list[bool] = []
    worker: Worker[int] = Worker("self", lambda _: answers.append(worker.stop(LONG_S)), answers.append)  # type: ignore[arg-type]
    worker.put(1)
    assert worker.wait(LONG_S) and worker.stop(LONG_S) and answers == [False]


def test_a_job_put_aside_comes_after_one_item_at_the_latest_and_is_not_replaced(slow):
    def job(name: str):
        return lambda: slow.done.append(name)

    slow.put_and_begin(1)
    for name in ("a", "b", "c"):
        slow.worker.put_aside(job(name))
    slow.worker.put(2)
    slow.go_on.release()
    assert slow.begun.acquire(timeout=LONG_S)
    assert slow.done == [1, "a"]  # not b: an item waits
    slow.go_on.release()
    ended = threading.Event()
    slow.worker.put_aside(ended.set)
    slow.put_and_begin(3)
    slow.go_on.release()
    assert ended.wait(LONG_S) and slow.worker.wait(LONG_S)
    assert slow.done[:4] == [1, "a", 2, "b"] and sorted(slow.done[4:], key=str) == [3, "c"]


def test_a_job_that_raises_is_reported_and_one_that_waits_at_the_stop_is_not_done(slow):
    raised = threading.Event()

    def odd() -> None:
        raised.set()
        raise ValueError("odd")

    slow.worker.put_aside(odd)
    assert raised.wait(LONG_S) and slow.worker.wait(LONG_S)
    assert [str(error) for error in slow.errors] == ["odd"]
    slow.put_and_begin(1)
    slow.worker.put_aside(lambda: slow.done.append("late"))
    assert not slow.worker.stop(0.0)
    with pytest.raises(RuntimeError, match="has been stopped"):
        slow.worker.put_aside(lambda: None)
    slow.go_on.release()
    assert slow.worker.stop(LONG_S) and slow.done == [1]
