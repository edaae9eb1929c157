# SPDX-License-Identifier: Apache-2.0
"""A leader on one emulated bus, through the real teleoperation and arm nodes, to the follower on another."""

from __future__ import annotations

import os

import numpy as np
import pytest
from arm_bench import Bench  # type: ignore[import-not-found]
from servo_buses import needs_driver  # type: ignore[import-not-found]
from so101 import FILE, angles, leader_and_follower, patiently, place  # type: ignore[import-not-found]

from lrm_ros.nodes.teleop import TeleopNode
from lrm_ros.robot.lerobot_types import TELEOPERATORS, config_class

pytestmark = needs_driver
HOME = np.array([0.2, -0.5, 0.5, 0.3, 0.4, 0.5])


@pytest.fixture
def bench(spin, probe, tmp_path, monkeypatch):
    monkeypatch.setattr("lrm_ros.robot.devices.input_thread.AGAIN_S", 0.05)
    patiently(monkeypatch)
    config_class(TELEOPERATORS, "so101_leader", "input")  # imported before the arm moves: one process does it all
    with leader_and_follower(tmp_path) as server:
        bench = Bench(spin, probe, server, tmp_path)
        bench.start()
        bench.go(HOME)
        yield bench
        spin.close()  # before the ports go


@pytest.fixture
def terminal():
    master, slave = os.openpty()
    yield slave
    os.close(master)
    os.close(slave)


def test_the_follower_goes_where_the_leader_is_once_they_agree_and_holds_when_it_is_gone(bench, terminal, tmp_path):
    link = tmp_path / "by-id"
    link.symlink_to(bench.server.ports["leader"].path)
    place(bench.server, HOME + 0.6 * np.eye(6)[1])
    given = {
        "contract": str(FILE),
        "input_port": str(link),
        "input_id": "leader",
        "input_calibration_dir": str(tmp_path),
    }
    teleop = bench.spin.start(TeleopNode(terminal, input="so101_leader", **given))
    hand = teleop._hand
    bench.spin.until(lambda: "shoulder_lift is +0.6" in hand.status(), what="the leader is off")
    assert teleop.diagnostics.total("commands") == 0
    place(bench.server, teleop._pose())
    bench.spin.until(lambda: hand.leads, what="they agree")
    wanted = HOME + np.array([0.3, -0.2, 0.2, 0.2, -0.3, 0.3])
    place(bench.server, wanted)
    bench.spin.until(lambda: bench.at(wanted), what="the follower is where the leader is")
    bench.server.unplug("leader")
    link.unlink()
    bench.spin.until(lambda: "input" in teleop.diagnostics.faults)
    assert not hand.leads and teleop._arm.asked is None, "the arm was told to hold"
    link.symlink_to(bench.server.plug("leader"))
    place(bench.server, HOME - 0.5)
    bench.spin.until(lambda: "input" not in teleop.diagnostics.faults)
    bench.spin.until(lambda: "rad off" in hand.status(), what="it must come to the arm again")
    assert np.array(angles(bench.server)) == pytest.approx(wanted, abs=0.1)
