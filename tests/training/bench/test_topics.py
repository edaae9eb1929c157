# SPDX-License-Identifier: Apache-2.0
"""The frame path through real processes: two cameras, the recorder, its journal; no frame may be lost."""

from __future__ import annotations

import json

import pytest

from lrm_ros.training.bench import topics as bench_topics


@pytest.mark.slow
def test_no_frame_is_lost_between_two_cameras_and_the_journal(tmp_path):
    file = tmp_path / "topics.json"
    assert bench_topics.main(["--seconds", "2", "--json", str(file)]) == 0
    figures = json.loads(file.read_text())
    assert set(figures) == {"cameras", "hz", "seconds", "sent", "received", "latency_ms"}
    assert (figures["cameras"], figures["hz"]) == (2, 30.0)
    assert figures["received"] == figures["sent"] > 60
    assert 0 < figures["latency_ms"]["p50"] <= figures["latency_ms"]["p95"] <= figures["latency_ms"]["p99"]
