# SPDX-License-Identifier: Apache-2.0
"""A frame's way through the real reward node and back: every frame has its own reward."""

from __future__ import annotations

import json

import pytest

from lrm_ros.training.bench import hop


@pytest.mark.slow
def test_every_frame_has_its_reward_and_the_time_is_measured(tmp_path):
    file = tmp_path / "hop.json"
    assert hop.main(["--frames", "20", "--json", str(file)]) == 0
    figures = json.loads(file.read_text())
    assert (figures["frames"], figures["lost"], figures["size"]) == (20, 0, [96, 96])
    assert 0 < figures["latency_ms"]["p50"] <= figures["latency_ms"]["p95"] <= figures["latency_ms"]["p99"]


@pytest.mark.slow
def test_frames_without_a_reward_are_no_time(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hop.messages, "to_rewards", lambda message: [])
    monkeypatch.setattr(hop, "START_S", 3.0)
    with pytest.raises(TimeoutError, match="answered nothing within 3 s; it said: "):
        hop.main(["--frames", "3"])
