# SPDX-License-Identifier: Apache-2.0
"""Batches in front of a model: who is asked with whom, in which order, and what a failure spoils."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from lrm_ros.reward.batching import Batch, Batcher, Full
from lrm_ros.types import Frame, Reward, RewardQuery, Unscored

PATIENCE_S = 30.0


def query(stamp_ns: int, task: str = "task") -> RewardQuery:
    return RewardQuery(task, "completion", (Frame(stamp_ns, "front", np.zeros((2, 2, 3), np.uint8)),))


class Gated:
    """A model that answers a batch when it is let, and keeps what it was asked; tasks "bad" make it raise."""

    name = "gated"

    def __init__(self) -> None:
        self.calls: list[tuple[list[int], str]] = []
        self.begun, self.go_on = threading.Semaphore(0), threading.Semaphore(0)

    def score(self, queries: Sequence[RewardQuery], readout: str = "forward") -> list[Reward | Unscored]:
        self.calls.append(([query.stamp_ns for query in queries], readout))
        self.begun.release()
        assert self.go_on.acquire(timeout=PATIENCE_S)
        if any(query.task == "bad" for query in queries):
            raise MemoryError("no room")
        return [Reward(query.stamp_ns, query.head, query.stamp_ns / 100, self.name) for query in queries]

    def answer(self, batches: int = 1) -> None:
        for _ in range(batches):
            self.go_on.release()

    def wait_begun(self) -> None:
        assert self.begun.acquire(timeout=PATIENCE_S)


@pytest.fixture
def model() -> Gated:
    return Gated()


@pytest.fixture
def batcher(model: Gated) -> Iterator[Batcher]:
    made = Batcher(model, max_batch=4, max_waiting=10)
    yield made
    model.answer(100)
    assert made.close(PATIENCE_S)


def values(answers: Sequence[Reward | Unscored]) -> list[float | str]:
    return [answer.value if isinstance(answer, Reward) else answer.reason for answer in answers]


def test_what_comes_while_the_model_is_busy_is_its_next_batch(model: Gated, batcher: Batcher) -> None:
    first = batcher.submit([query(1)])
    model.wait_begun()
    others = [batcher.submit([query(stamp)]) for stamp in (2, 3, 4)]
    assert batcher.waiting == 3
    model.answer(2)
    assert [values(f.result(PATIENCE_S)) for f in (first, *others)] == [[0.01], [0.02], [0.03], [0.04]]
    assert model.calls == [([1], "forward"), ([2, 3, 4], "forward")]


def test_the_most_urgent_goes_first_and_a_large_request_holds_up_no_other(model: Gated, batcher: Batcher) -> None:
    batcher.submit([query(0)])
    model.wait_begun()
    large = batcher.submit([query(stamp) for stamp in range(10, 16)], timeout_s=100.0)
    small = batcher.submit([query(1)], timeout_s=50.0)
    model.answer(3)
    assert values(small.result(PATIENCE_S)) == [0.01]
    assert values(large.result(PATIENCE_S)) == [0.10, 0.11, 0.12, 0.13, 0.14, 0.15]
    assert [stamps for stamps, _ in model.calls] == [[0], [1, 10, 11, 12], [13, 14, 15]]


def test_a_batch_has_one_readout(model: Gated, batcher: Batcher) -> None:
    batcher.submit([query(0)])
    model.wait_begun()
    futures = [batcher.submit([query(stamp)], readout) for stamp, readout in ((1, "generate"), (2, "forward"))]
    futures.append(batcher.submit([query(3)], "generate"))
    model.answer(3)
    assert [values(f.result(PATIENCE_S)) for f in futures] == [[0.01], [0.02], [0.03]]
    assert model.calls[1:] == [([1, 3], "generate"), ([2], "forward")]
    with pytest.raises(ValueError, match="unknown readout 'guess'"):
        batcher.submit([query(1)], "guess")


def test_what_nobody_waits_for_or_is_too_late_is_not_asked(model: Gated, batcher: Batcher) -> None:
    batcher.submit([query(0)])
    model.wait_begun()
    gone, late, fine = (batcher.submit([query(stamp)], timeout_s=t) for stamp, t in ((1, 9.0), (2, 0.0), (3, 99.0)))
    assert gone.cancel()
    model.answer(2)
    assert values(late.result(PATIENCE_S)) == ["not judged within 0 s: 2 queries waited"]
    assert values(fine.result(PATIENCE_S)) == [0.03]
    assert [stamps for stamps, _ in model.calls] == [[0], [3]]
    assert batcher.waiting == 0


def test_a_query_that_makes_the_model_fail_spoils_no_other(model: Gated, batcher: Batcher) -> None:
    batcher.submit([query(0)])
    model.wait_begun()
    good = batcher.submit([query(1)])
    mixed = batcher.submit([query(2), query(3, "bad"), query(4)])
    model.answer(100)
    assert values(good.result(PATIENCE_S)) == [0.01]
    assert values(mixed.result(PATIENCE_S)) == [0.02, "model 'gated' failed: MemoryError: no room", 0.04]


def test_a_full_queue_refuses_and_says_when_to_come_again(model: Gated, batcher: Batcher) -> None:
    batcher.submit([query(0)])
    model.wait_begun()
    batcher.submit([query(stamp) for stamp in range(10)])
    with pytest.raises(Full, match="10 queries wait and 10 is the most") as refused:
        batcher.submit([query(1)])
    assert refused.value.retry_after_s > 0
    with pytest.raises(ValueError, match="11 queries at once; 10 is the most that may wait"):
        batcher.submit([query(stamp) for stamp in range(11)])  # it could wait for ever


def test_a_closed_queue_answers_what_it_can_and_says_so_of_the_rest(model: Gated) -> None:
    batcher = Batcher(model, max_batch=1)
    first = batcher.submit([query(1)])
    model.wait_begun()
    second = batcher.submit([query(2)])
    assert not batcher.close(0.0)  # the model is still busy
    assert values(second.result(PATIENCE_S)) == ["the server stops"]
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit([query(3)])
    model.answer()
    assert values(first.result(PATIENCE_S)) == [0.01]
    assert batcher.close(PATIENCE_S)


def test_it_is_a_model_itself_for_many_threads_and_counts_its_batches(model: Gated) -> None:
    counted: list[Batch] = []
    batcher = Batcher(model, max_batch=64, on_batch=counted.append)
    model.answer(1000)
    found: dict[int, list[float | str]] = {}

    def ask(first: int) -> None:
        for stamp in range(first, first + 50):
            found[stamp] = values(batcher.score([query(stamp)]))

    threads = [threading.Thread(target=ask, args=(50 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert batcher.score([]) == [] and batcher.name == "gated"
    assert batcher.close(PATIENCE_S)
    assert found == {stamp: [stamp / 100] for stamp in range(400)}
    assert sum(batch.queries for batch in counted) == 400 and not any(batch.failed for batch in counted)


def test_a_model_that_answers_too_little_has_failed() -> None:
    class Mute:
        name = "mute"

        def score(self, queries: Sequence[RewardQuery], readout: str = "forward") -> list[Reward | Unscored]:
            return []

    batcher = Batcher(Mute())
    assert values(batcher.score([query(1)])) == ["model 'mute' failed: ValueError: 0 answers to 1 queries"]
    assert batcher.close(PATIENCE_S)
    with pytest.raises(ValueError, match="max_batch"):
        Batcher(Mute(), max_batch=0)
