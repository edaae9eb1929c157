# SPDX-License-Identifier: Apache-2.0
"""``lrm bench arm-faults``: when an arm holds, what goes on, and one fault through all processes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from servo_buses import needs_driver  # type: ignore[import-not-found]

from lrm_ros.config import RobotContract
from lrm_ros.record.writer import JournalWriter
from lrm_ros.training.bench import arm_desk, arm_faults
from lrm_ros.training.bench.arm_bus import Course


def course(joints: list[float], goals: list[float], torque: list[bool] | None = None) -> Course:
    """Ten milliseconds from sample to sample, from 100 s on; one joint."""
    at_s = 100.0 + 0.01 * np.arange(len(joints))
    on = np.ones(len(joints), bool) if torque is None else np.array(torque)
    return Course(at_s, np.array(joints)[:, None], np.array(goals)[:, None], on[:, None])


def test_an_arm_holds_once_no_goal_changes_and_it_is_where_it_stands():
    moving = [0.0, 0.1, 0.2, 0.27, 0.295, 0.3, 0.3]
    assert course(moving, [10, 20, 30, 30, 30, 30, 30]).held_s(100.0) == pytest.approx(0.03)
    assert course(moving, [10, 20, 30, 30, 30, 35, 35]).held_s(100.0) == pytest.approx(0.04)
    assert course([0.3] * 7, [30] * 7).held_s(100.0) == 0.0
    assert course(moving, [30] * 7, [True, True] + [False] * 5).held_s(100.0) == 0.0, "limp, it holds nothing"


def test_what_moves_an_arm_that_held_is_seen_and_what_a_limp_one_does_is_not():
    assert course([0.0, 0.1, 0.0], [10, 20, 10]).wandered() == 10
    assert course([0.0, 0.1, 0.0], [10, 20, 10]).moved() == pytest.approx(0.1)
    limp = course([0.0, 0.1, 0.0], [10, 20, 10], [True, False, True])
    assert limp.wandered() == limp.moved() == 0.0
    both = course([0.0], [10]).then(course([0.4], [50]))
    assert both.wandered() == 40 and len(both.at_s) == 2


def test_the_fastest_is_the_mean_over_a_window():
    assert course([0.0] * 5, [0, 0, 30, 30, 30]).fastest(0.02) == pytest.approx([1500.0])


def test_the_way_of_a_swing_begins_a_control_step_on_and_keeps_its_speed():
    points = arm_desk.way(-1.0, 1.0, 0.1)
    assert points[0, 0] == pytest.approx(-0.89) and points[-1, 0] == pytest.approx(1.0, abs=0.11)
    np.testing.assert_allclose(np.diff(points[:, 0]), 0.11, atol=1e-6)


def test_a_row_stands_only_if_each_of_its_trials_does():
    trials = [{"seconds": 0.1, "beyond_s": 0.0, "stands": True}, {"seconds": 0.3, "beyond_s": 0.2, "stands": False}]
    found = arm_faults.summary(trials)
    assert not found["stands"] and found["max"] == {"seconds": 0.3, "beyond_s": 0.2}


def test_a_finished_journal_that_cannot_be_read_is_lost(tmp_path):
    empty = tmp_path / "empty.mcap"
    writer = JournalWriter(empty, "swing", RobotContract(), "policy")
    path = writer.finish(None, {})
    (tmp_path / "cut.mcap").write_bytes(b"no journal")
    lost = arm_faults.unread([path, tmp_path / "cut.mcap", tmp_path / "gone.mcap"])
    assert len(lost) == 3


@needs_driver
def test_a_fault_strikes_in_motion_and_its_figures_are_written(tmp_path, capsys):
    words = ["--times", "1", "--only", "all servos silent", "--json", str(tmp_path / "faults.json")]
    assert arm_faults.main(words) == 0, capsys.readouterr().err
    figures = json.loads((tmp_path / "faults.json").read_text())
    found = figures["faults"]["all servos silent"]
    assert found["stands"] and found["trials"][0]["read"] == "no joint state for"
    assert figures["episodes_finished"] >= 1 and figures["episodes_lost"] == []
