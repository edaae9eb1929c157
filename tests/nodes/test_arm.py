# SPDX-License-Identifier: Apache-2.0
"""The real arm node over DDS, LeRobot's real driver below it, the emulated SO-101 below that."""

from __future__ import annotations

import numpy as np
import pytest
from arm_bench import HOME, contract, running  # type: ignore[import-not-found]
from rclpy.lifecycle import TransitionCallbackReturn
from servo_buses import TIME_OUT, needs_driver  # type: ignore[import-not-found]
from so101 import CONTRACT, angles  # type: ignore[import-not-found]

from lrm_ros import messages
from lrm_ros.sim.servo_bus.faults import Fault

pytestmark = needs_driver
REST = "[0.0, -1.7, 1.6, 0.9, 0.0, 0.0]"


@pytest.fixture
def bench(spin, probe, tmp_path, monkeypatch):
    with running(spin, probe, tmp_path, monkeypatch) as bench:
        yield bench


@pytest.fixture
def resting(tmp_path):
    """A contract whose arm has a resting pose."""
    return contract(tmp_path, rest=REST)


def test_it_is_where_the_arm_is_and_goes_where_it_is_commanded(bench):
    bench.start()
    assert bench.newest() == pytest.approx(angles(bench.server), abs=0.03)
    assert list(bench.states[-1].name) == list(CONTRACT.joints)
    bench.go()
    assert bench.newest() == pytest.approx(angles(bench.server), abs=0.03)


def test_what_was_sent_is_published_once_a_control_step(bench):
    bench.start()
    bench.go()
    bench.sent.clear()
    bench.command(HOME + 0.05, HOME + 0.05, HOME)
    bench.spin.until(lambda: len(bench.sent) > 40)
    stamps = np.array([messages.to_ns(message.header.stamp) for message in bench.sent]) / 1e9
    assert (np.diff(stamps) > 0).all()
    assert len(stamps) <= 2 * (stamps[-1] - stamps[0]) * CONTRACT.control_hz, "not once a bus cycle, 4 to a step"
    targets = [messages.to_chunk(message, CONTRACT.joints, CONTRACT.dt_s).actions for message in bench.sent]
    assert all(len(target) == 1 for target in targets)
    assert targets[-1][0] == pytest.approx(HOME, abs=1e-3)


def test_the_first_command_is_approached_slowly(bench):
    bench.start(approach_speed=0.2)
    begin = bench.newest()
    bench.sent.clear()
    bench.command(HOME)
    bench.spin.until(lambda: len(bench.sent) > 25)
    stamps = np.array([messages.to_ns(message.header.stamp) for message in bench.sent]) / 1e9
    targets = [messages.to_chunk(message, CONTRACT.joints, CONTRACT.dt_s).actions[0] for message in bench.sent]
    passed = stamps[-1] - stamps[0]
    assert np.abs(targets[-1] - targets[0]).max() <= 0.2 * (1 + passed + 1) * passed + 1e-3
    assert np.abs(targets[-1] - begin).max() > 0.02, "it moves"


def test_a_first_command_that_begins_where_the_arm_is_is_followed_at_once(bench):
    bench.start(approach_speed=0.01)
    begin = bench.newest()
    end = np.array(begin) + np.eye(6)[0] / 2
    bench.sent.clear()
    bench.command(*np.linspace(begin, end, 21)[1:])
    bench.spin.until(lambda: bench.at(end))
    stamps = [messages.to_ns(message.header.stamp) / 1e9 for message in bench.sent]
    passed = stamps[-1] - stamps[0]
    assert 0.01 * (1 + passed + 1) * passed < 0.4, "so far it would have come slowly"


def test_inactive_it_holds_with_torque_and_follows_nothing(bench):
    node = bench.start()
    bench.go()
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    bench.command(np.zeros(6))
    ignored = node.diagnostics.total("ignored")
    bench.spin.until(lambda: node.diagnostics.total("ignored") > ignored or bench.at(np.zeros(6)))
    assert bench.torque == [1] * 6 and bench.at(HOME)
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    bench.go(np.zeros(6))


def test_without_a_resting_pose_the_torque_stays_on(bench):
    node = bench.start()
    bench.go()
    node.close()
    bench.spin.nodes.remove(node)
    assert bench.torque == [1] * 6 and bench.at(HOME)


def test_with_a_resting_pose_it_goes_there_before_the_torque_goes_off(bench, resting):
    node = bench.start(**resting, rest_speed=3.0)
    bench.go(np.array([0.1, -1.4, 1.3, 0.6, 0.1, 0.1]))
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert bench.torque == [1] * 6
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert bench.torque == [0] * 6 and bench.at([0.0, -1.7, 1.6, 0.9, 0.0, 0.0], 0.12)
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert bench.torque == [1] * 6


def test_a_person_switches_the_torque_off_and_takes_the_arm_up_again(bench):
    bench.start()
    bench.go()
    answer = bench.call("torque_off")
    assert answer.success and "call ~/reset" in answer.message
    assert bench.torque == [0] * 6
    bench.command(np.zeros(6))
    bench.newest()
    assert bench.torque == [0] * 6, "a command alone takes up nothing"
    assert bench.call("reset").success and bench.torque == [1] * 6
    bench.go()


def test_after_a_late_answer_no_state_lags(bench):
    node = bench.start(state_timeout_s=5.0)  # the driver here waits longer than 0.3 s
    bench.bus.wire.set(Fault("late", seconds=TIME_OUT + 0.03))
    bench.spin.until(lambda: node._arm.servos.failed > 0, what="a late answer")
    bench.bus.wire.clear()
    for target in (HOME, np.zeros(6), HOME):
        bench.go(target)
        assert bench.newest() == pytest.approx(angles(bench.server), abs=0.06)


def test_silence_is_named_and_passes_by_itself(bench):
    bench.start()
    bench.go()
    bench.bus.wire.set(Fault("silent"))
    bench.fault("no joint state for")
    bench.bus.wire.clear()
    bench.spin.until(lambda: not bench.arm.diagnostics.faults, what="over")
    bench.go(np.zeros(6))


def test_after_a_brown_out_nothing_moves_until_a_person_says_so(bench):
    bench.start()
    bench.go()
    with bench.server.lock:
        # Longer than a busy computer may stand still between two reads without noticing it (docs/arm.md, "Not seen").
        bench.bus.arm.brown_out(1.0)
    while not {"arm", "joint_states"} & bench.arm.diagnostics.faults.keys():
        bench.command(HOME + 0.1)  # a policy goes on
        bench.spin.executor.spin_once(timeout_sec=0.005)
    bench.fault("have lost power")
    bench.command(HOME + 0.1)
    bench.newest()
    assert bench.torque == [0] * 6 and bench.goals == [0] * 6, "not one goal was sent"
    answer = bench.call("reset")
    assert answer.success, answer.message
    assert bench.torque == [1] * 6
    bench.spin.until(lambda: not {"arm", "joint_states"} & bench.arm.diagnostics.faults.keys(), what="faults over")
    bench.go(np.zeros(6))


def test_heat_is_named_and_nothing_is_sent(bench):
    bench.start()
    bench.go()
    servo = bench.bus.arm.servos[1]
    servo.forced_temperature = 90.0
    bench.fault("servo shoulder_lift has switched its torque off: heat")
    bench.command(np.zeros(6))
    bench.newest()
    assert servo.memory["Torque_Enable"] == 0
    answer = bench.call("reset")
    assert not answer.success and "shoulder_lift heat (shoulder_lift 90 degrees)" in answer.message, answer.message
    servo.forced_temperature = None
    servo.temperature = 30.0
    bench.spin.until(lambda: bench.call("reset").success, what="cool again")
    bench.go(np.zeros(6))


def test_an_overload_of_a_joint_stops_the_arm_that_of_the_gripper_is_told(bench):
    bench.start()
    bench.go()
    bench.bus.arm.servos[5].trip_overload()
    bench.fault("servo gripper reports overload")
    bench.go(HOME + np.array([0.1, 0.1, 0.1, 0.1, 0.1, 0.0]))
    bench.bus.arm.servos[0].trip_overload()
    bench.fault("servo shoulder_pan reports overload; the arm holds where it is")
    answer = bench.call("reset")
    assert not answer.success and "shoulder_pan still reports" in answer.message
    with bench.server.lock:
        for servo in bench.bus.arm.servos:
            servo._latched = 0
            servo._show(0.0)
    bench.spin.until(lambda: bench.call("reset").success, what="well again")
    bench.go(np.zeros(6))


def test_an_unplugged_port_is_named_and_taken_up_again_on_a_persons_word(bench, tmp_path):
    link = tmp_path / "port"
    link.symlink_to(bench.server.ports["follower"].name)
    bench.start(port=str(link))
    bench.go()
    bench.server.unplug("follower")
    bench.fault("is gone")
    answer = bench.call("reset")
    assert not answer.success and "does not exist" in answer.message
    bench.server.plug("follower", link)
    bench.spin.executor.spin_once(timeout_sec=0.0)
    assert "is gone" in " ".join(bench.arm.diagnostics.faults.values()), "not by itself"
    answer = bench.call("reset")
    assert answer.success, answer.message
    bench.go(np.zeros(6))


def test_diagnostics_show_the_servos(bench):
    bench.start()

    def values():
        return {value.key: value.value for value in bench.arm.diagnostics.status().values}

    wanted = {"volts", "celsius", "load", "torque", "state_age_ms", "failed_reads", "states_per_s"}
    bench.spin.until(lambda: wanted <= values().keys() and "shoulder_pan=7.4" in values()["volts"])
    assert "gripper=25" in values()["celsius"] and values()["torque"] == "on"


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"contract": ""}, "needs parameter 'contract'"),
        ({"port": "/dev/none"}, "serial port '/dev/none' does not exist"),
        ({"id": "another"}, "another.json' does not exist; calibrate"),
    ],
)
def test_what_cannot_work_is_one_line(bench, overrides, says):
    node = bench.spin.add(bench.node(**overrides))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert says in node.diagnostics.faults["configure"] and node.fault_code == 2
