# SPDX-License-Identifier: Apache-2.0
"""``lrm bench arm``: which packet is a command's, and one run through all three processes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from servo_buses import needs_driver  # type: ignore[import-not-found]

from lrm_ros.training.bench import arm


def test_a_command_is_over_with_the_first_goal_on_its_side():
    sent = [(10.0, False), (11.0, True), (12.0, False), (13.0, True)]
    goals = [(9.0, 2047), (10.001, 2060), (10.002, 2040), (10.5, 2040), (11.004, 2060), (12.5, 2060), (13.003, 2049)]
    assert arm.latencies(sent, goals) == pytest.approx([0.002, 0.004, np.inf, 0.003])


@needs_driver
def test_it_measures_and_writes_its_figures(tmp_path, capsys):
    assert arm.main(["--commands", "10", "--rate-hz", "20", "--json", str(tmp_path / "arm.json")]) == 0
    figures = json.loads((tmp_path / "arm.json").read_text())
    assert figures["commands"] == 10 and figures["states_per_s"] > 0
    assert set(figures["command_to_bus_ms"]) == {"p50", "p95", "p99", "max"}
    assert "state_age_ms" in capsys.readouterr().out
