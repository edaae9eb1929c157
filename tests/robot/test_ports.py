# SPDX-License-Identifier: Apache-2.0
"""``lrm ports`` before two emulated arms: whose calibration, which supply, and which one a hand moves."""

from __future__ import annotations

import sys
import threading

import pytest
from servo_buses import needs_driver, wait_until  # type: ignore[import-not-found]
from so101 import leader_and_follower, place  # type: ignore[import-not-found]

from lrm_ros.robot import ports
from lrm_ros.sim.servo_bus.faults import Fault

pytestmark = needs_driver


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(ports, "places", lambda extra: {port: port for port in extra})  # none of this machine's
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    with leader_and_follower(tmp_path) as server:
        arm = server.buses["follower"].arm
        arm.supply = 12.1
        wait_until(lambda: arm.servos[0].memory["Present_Voltage"] > 110, "12 V")
        yield server
    sys.setswitchinterval(interval)


def test_leader_and_follower_are_told_apart_by_calibration_and_supply(server, tmp_path, capsys):
    paths = [server.ports[name].path for name in ("leader", "follower")]
    assert ports.main([*paths, "--calibration-dir", str(tmp_path)]) == 0
    leader, follower = capsys.readouterr().out.splitlines()
    assert leader.startswith(f"{paths[0]}: ") and "leader or follower" in leader and "/leader.json" in leader
    assert follower.startswith(f"{paths[1]}: 12.") and "follower (12 V supply)" in follower
    assert "/follower.json" in follower and "/leader.json" not in follower
    assert not any(servo.memory["Torque_Enable"] for bus in server.buses.values() for servo in bus.arm.servos), (
        "it has moved nothing"
    )


def test_the_arm_that_a_hand_moves_is_named_also_where_answers_are_lost(server, capsys):
    path = server.ports["leader"].path
    codes: list[int] = []
    program = threading.Thread(target=lambda: codes.append(ports.main([path, "--wiggle"])))
    program.start()
    said: list[str] = []

    def waits() -> bool:
        said.append(capsys.readouterr().out)
        return "move one arm by hand" in "".join(said)

    wait_until(waits, "asked")
    seen = len(server.buses["leader"].seen)
    wait_until(lambda: len(server.buses["leader"].seen) > seen + 3, "looked where it is")
    wire = server.buses["leader"].wire
    with server.lock:
        wire.set(Fault("silent", 12))
    wait_until(lambda: wire.struck >= 12, "answers are lost")
    place(server, [0.5] * 6)
    program.join()
    assert codes == [0] and f"moved: {path}" in capsys.readouterr().out


def test_no_arm_and_no_wiggle_are_said(server, capsys):
    assert ports.main([]) == 1
    assert "plug in an arm's USB cable" in capsys.readouterr().err
    assert ports.main([server.ports["leader"].path, "--wiggle", "--timeout", "0"]) == 1
    assert "no arm was moved" in capsys.readouterr().err
