# SPDX-License-Identifier: Apache-2.0
"""The benchmark of replicas: its stub sleeps and judges brightness, and every answer is checked and counted."""

from __future__ import annotations

import asyncio
import time

import pytest
from served import grey, serving  # type: ignore[import-not-found]

from lrm_ros.reward.fake import FakeModel
from lrm_ros.training.bench import replicas
from lrm_ros.types import Frame, Reward, RewardQuery


def test_its_stub_sleeps_for_each_query_and_judges_brightness() -> None:
    stub = replicas.load("sleep:20", "cpu", "tri")
    assert stub.name == "sleep:20"
    asked = [RewardQuery("t", "progress", (Frame(0, "front", grey(light)),)) for light in (0, 51, 255)]
    started = time.perf_counter()
    answers = stub.score(asked)
    assert time.perf_counter() - started >= 0.06
    assert [answer.value for answer in answers if isinstance(answer, Reward)] == pytest.approx([0.0, 0.2, 1.0])


def test_it_counts_answers_and_finds_one_of_another_picture() -> None:
    class Mixed(FakeModel):
        def score(self, queries, readout="forward"):
            return super().score(queries[::-1], readout)

    with serving(lambda name, device, mode: replicas.Sleeper(5.0)) as url:
        found = asyncio.run(replicas.throughput(url, 2, 3.0, 0.0))
    assert found["answers_of_another_picture"] == 0 and set(found["statuses"]) == {"200"}
    assert found["queries_per_s"] == pytest.approx(replicas._QUERIES * found["statuses"]["200"] / 3.0)
    with serving(lambda name, device, mode: Mixed()) as url:
        assert asyncio.run(replicas.throughput(url, 1, 3.0, 0.0))["answers_of_another_picture"] > 0
