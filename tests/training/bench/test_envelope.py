# SPDX-License-Identifier: Apache-2.0
"""The bench of the envelope: a small one passes, its audit sees each limit that is passed, and servos stay near."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lrm_ros.robot.envelope import Envelope
from lrm_ros.robot.urdf import LinkPoints
from lrm_ros.training.bench import envelope as bench


def test_random_and_adversarial_wishes_pass_no_limit() -> None:
    figures = bench.merged([bench.trial(seed, 40, 150, servos=False) for seed in (0, 1)])
    assert bench.passed(figures) == []
    assert figures["commands"] == 12_000 and figures["refused"] > 500 and figures["blocked"] > 1000
    assert all(np.isfinite(excess) for excess in figures["sent"].values()), "some arms began outside"


def test_the_emulated_servos_joints_stay_near_the_envelope() -> None:
    servos = bench.trial(3, 6, 150)["servos"]
    assert servos["joint_rad"] < 0.001 and servos["box_m"] < 0.02
    assert 0.001 < servos["lag_rad"] < 0.5


@pytest.fixture
def audit() -> bench.Audit:
    description = bench.urdf()
    points = LinkPoints(description, bench.JOINTS, bench.SETTINGS.points)
    start = np.array([[0.0, -0.5, 0.5, 0.5, 0.0, 0.0]])
    return bench.Audit(Envelope(bench.CONTRACT, bench.SETTINGS, description), points, start)


@pytest.mark.parametrize(
    ("change", "dt", "seen"),
    [
        ([0, 0, 0, 0, 0, 1.71], 10.0, "joint_rad"),
        ([0, 1.9, -1.0, 0.9, 0, 0], 10.0, "box_m"),
        ([0.06, 0, 0, 0, 0, 0], 1 / 30, "step_rad"),
        ([0.02, 0, 0, 0, 0, 0], 0.01, "velocity"),
        ([0.004, 0, 0, 0, 0, 0], 0.01, "acceleration"),
    ],
)
def test_the_audit_sees_each_limit_that_is_passed(audit: bench.Audit, change, dt: float, seen: str) -> None:
    audit.look(np.array([[0.0, -0.5, 0.5, 0.5, 0.0, 0.0]]), np.array([0.01]))
    assert bench.passed({"sent": audit.worst}) == []
    audit.look(audit._last + change, np.array([dt]))
    assert seen in bench.passed({"sent": audit.worst})


def test_the_command_writes_its_figures(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(bench, "ROWS", 4)
    monkeypatch.setattr(bench, "COMMANDS", 10)
    monkeypatch.setattr(bench.trial, "__defaults__", (4, 10, True))
    monkeypatch.setattr(bench, "ProcessPoolExecutor", __import__("concurrent.futures").futures.ThreadPoolExecutor)
    out = tmp_path / "figures/envelope.json"
    assert bench.main(["--commands", "41", "--json", str(out)]) == 0
    figures = json.loads(out.read_text())
    assert figures["commands"] == 80 and {"box_m", "velocity"} <= figures["sent"].keys()
    assert "80 commands" in capsys.readouterr().out
