# SPDX-License-Identifier: Apache-2.0
"""``lrm bench arm``: which packet is a command's, and one run through all three processes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from servo_buses import needs_driver  # type: ignore[import-not-found]

from lrm_ros.training.bench import arm, arm_adversary
from lrm_ros.training.bench.arm_bed import Seen


def test_a_command_is_over_with_the_first_goal_on_its_side():
    sent = [(10.0, False), (11.0, True), (12.0, False), (13.0, True)]
    goals = [(9.0, 2047), (10.001, 2060), (10.002, 2040), (10.5, 2040), (11.004, 2060), (12.5, 2060), (13.003, 2049)]
    assert arm.latencies(sent, goals) == pytest.approx([0.002, 0.004, np.inf, 0.003])


def test_a_stop_is_over_with_the_first_packet_of_the_goals_that_stay():
    def packet(at_s: float, goal: int) -> Seen:
        return Seen(at_s, (goal,) * 6, (0.0,) * 6)

    seen = [packet(9.99, 7), packet(10.004, 8), packet(10.012, 9), packet(10.02, 9), packet(10.5, 1), packet(11.003, 2)]
    assert arm.stop_times([10.0, 11.0, 12.0], seen) == pytest.approx([0.012, 0.003, np.inf])


def test_what_is_passed_by_more_than_its_margin_is_named():
    good = dict.fromkeys(arm_adversary.MARGINS, -0.1)
    assert arm_adversary.passed(good) == []
    assert arm_adversary.passed(good | {"box_m": 0.007, "goal_box_m": 0.001}) == ["goal_box_m", "box_m"]


@needs_driver
@pytest.mark.slow
def test_nothing_that_is_commanded_leads_the_arm_out_of_its_envelope(tmp_path):
    assert arm.main(["--adversary", "2000", "--json", str(tmp_path / "arm.json")]) == 0
    figures = json.loads((tmp_path / "arm.json").read_text())
    assert figures["commands"] == 2000 and int(figures["cycles_held_back_by_the_box"]) > 0


@needs_driver
def test_it_measures_and_writes_its_figures(tmp_path, capsys):
    assert arm.main(["--commands", "10", "--rate-hz", "20", "--stops", "2", "--json", str(tmp_path / "arm.json")]) == 0
    figures = json.loads((tmp_path / "arm.json").read_text())
    assert figures["commands"] == 10 and figures["states_per_s"] > 0
    assert set(figures["command_to_bus_ms"]) == {"p50", "p95", "p99", "max"}
    assert figures["stops"] == 2 and set(figures["stop_to_bus_ms"]) == {"p50", "p95", "p99", "max"}
    assert "state_age_ms" in capsys.readouterr().out
