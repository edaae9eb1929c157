# SPDX-License-Identifier: Apache-2.0
"""Faults of an arm in motion, of its bus, of its node and of who commands it: what the emulated servos are sent."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from arm_bench import FAR, HOME, running  # type: ignore[import-not-found]
from servo_buses import needs_driver, wait_until  # type: ignore[import-not-found]
from so101 import FILE, angles  # type: ignore[import-not-found]

from lrm_ros.sim.servo_bus.faults import Fault
from lrm_ros.sim.servo_bus.units import STEP

pytestmark = needs_driver


@pytest.fixture
def bench(spin, probe, tmp_path, monkeypatch):
    with running(spin, probe, tmp_path, monkeypatch) as bench:
        yield bench


def not_on(bench, held: list[int], most_rad: float = 0.2) -> None:
    """The servos have been sent nothing that leads on to where the command went."""
    assert np.abs(np.array(bench.goals) - held).max() * STEP < most_rad and not bench.at(FAR, 0.2)


@pytest.mark.parametrize("who", [None, 3], ids=["all servos", "one servo"])
def test_silence_in_motion_sends_nothing_and_the_command_from_before_means_nothing(bench, who):
    bench.start()
    bench.move()
    bench.bus.wire.set(Fault("silent", id=who))
    bench.fault("no joint state for")
    held = bench.goals
    bench.command(FAR)
    bench.spin.until(lambda: bench.arm._loop.age_s > 1.0, what="silence goes on")
    assert bench.goals == held
    bench.bus.wire.clear()
    bench.spin.until(lambda: "joint_states" not in bench.arm.diagnostics.faults, what="over")
    bench.wait_states(30)
    not_on(bench, held)
    bench.go(FAR)


@pytest.mark.parametrize("kind", [ConnectionError, RuntimeError])
def test_goals_that_are_not_sent_in_motion_are_a_fault_and_afterwards_it_stays(bench, monkeypatch, kind):
    bench.start()
    bench.move()

    def fail(action):
        raise kind("goals are not written")

    monkeypatch.setattr(bench.arm._arm._robot, "send_action", fail)
    bench.fault("goals are not written")
    assert "check its power and cables" in bench.arm.diagnostics.faults["joint_command_sent"]
    held, states = bench.goals, len(bench.states)
    bench.command(FAR)
    bench.spin.until(lambda: len(bench.states) > states + 30, what="states go on")
    assert bench.goals == held
    monkeypatch.undo()
    bench.spin.until(lambda: "joint_command_sent" not in bench.arm.diagnostics.faults, what="over")
    bench.wait_states(30)
    assert np.abs(np.array(bench.goals) - held).max() <= 1, "it stays where it was sent before"
    bench.go(FAR)


def test_a_servo_that_is_unplugged_in_motion_is_silence_and_names_what_to_look_at(bench):
    bench.start()
    bench.move()
    with bench.server.lock:
        bench.bus.arm.servos[2].connected = False
    bench.fault("check its power and cables")
    held = bench.goals
    with bench.server.lock:
        bench.bus.arm.servos[2].connected = True
    bench.spin.until(lambda: "joint_states" not in bench.arm.diagnostics.faults, what="over")
    bench.wait_states(30)
    stands = [goal == before for goal, before in zip(bench.goals, held, strict=True)]
    assert all(stands[:2] + stands[3:]), "where it was sent, and does not sag"
    assert abs(bench.goals[2] - held[2]) * STEP < 0.1, "it missed what the others were sent last"


@pytest.mark.parametrize(
    "fault",
    [Fault("lost", share=0.004), Fault("corrupt", share=0.004), Fault("late", share=0.004, seconds=0.02)],
    ids=lambda fault: fault.kind,
)
def test_with_answers_that_are_damaged_or_late_in_motion_it_arrives_and_no_state_leaps(bench, fault):
    bench.start(state_timeout_s=5.0)
    was: list[list[float]] = []  # where the arm really was, step by step
    step = bench.bus.arm.step

    def stepped(dt: float) -> None:
        step(dt)
        was.append([state.position for state in bench.bus.arm.joints.states()])

    with bench.server.lock:
        bench.bus.arm.step = stepped
    bench.go()
    bench.bus.wire.set(fault)
    bench.states.clear()
    for target in (FAR, HOME, FAR):
        bench.go(target)
    assert bench.bus.wire.struck > 0 and bench.torque == [1] * 6
    seen, truth = np.array([state.position for state in bench.states]), np.array(was)
    at = 0  # each state is one that the arm was in, none before that of the state before it
    for state in seen:
        near = np.flatnonzero(np.abs(truth[at:] - state).max(axis=1) < 0.02)
        assert len(near), f"{state} after step {at} of {len(truth)}"
        at += near[0]


def test_an_overload_in_motion_holds_where_the_arm_is(bench):
    bench.start()
    bench.move()
    with bench.server.lock:
        bench.bus.arm.servos[0].trip_overload()
    bench.fault("servo shoulder_pan reports overload; the arm holds where it is")
    bench.wait_states(3)  # it is told before it is sent
    held = bench.goals
    bench.command(FAR)
    bench.wait_states(30)
    assert bench.goals == held and not bench.at(FAR, 0.2)


def test_heat_in_motion_ends_what_is_sent(bench):
    bench.start()
    bench.move()
    bench.bus.arm.servos[1].forced_temperature = 90.0
    bench.fault("servo shoulder_lift has switched its torque off: heat")
    held = bench.goals
    bench.command(FAR)
    bench.wait_states(30)
    assert bench.goals == held and bench.bus.arm.servos[1].memory["Torque_Enable"] == 0


def test_a_brown_out_in_motion_leaves_the_arm_limp_until_a_reset(bench):
    bench.start()
    bench.move()
    with bench.server.lock:
        bench.bus.arm.brown_out(0.3)
    bench.fault("have lost power")
    bench.command(FAR)
    bench.wait_states(30)
    assert bench.torque == [0] * 6 and bench.goals == [0] * 6, "not one goal was sent"
    answer = bench.call("reset")
    assert answer.success, answer.message
    bench.wait_states(30)
    assert bench.torque == [1] * 6 and not bench.at(FAR, 0.2), "it holds where it lies"
    bench.go()


def test_unplugged_in_motion_the_servos_hold_and_another_name_is_taken_up_by_its_link(bench, tmp_path):
    link = tmp_path / "port"
    link.symlink_to(bench.server.ports["follower"].name)
    bench.start(port=str(link))
    bench.move()
    before = bench.server.ports["follower"].name
    bench.server.unplug("follower")
    bench.fault("is gone")
    held = bench.goals
    wait_until(lambda: np.abs(np.array(angles(bench.server)) - _angles(held)).max() < 0.08, "at the last goal")
    bench.server.plug("follower", link)
    assert bench.torque == [1] * 6
    answer = bench.call("reset")
    assert answer.success, answer.message
    bench.wait_states(30)
    not_on(bench, held)
    assert before, "it had a name"
    bench.go(FAR)


def _angles(goals: list[int]) -> np.ndarray:
    return (np.array(goals) - 2048) * STEP


def test_when_commands_end_or_come_slowly_it_stands_at_the_last_point(bench):
    """A policy that was killed, and one that is too slow for its control rate."""
    bench.start()
    bench.go()
    points = [HOME + share * (FAR - HOME) for share in (0.2, 0.3, 0.4)]
    for k, point in enumerate(points):
        bench.go(point, points[:k])
        held = bench.still()
        bench.wait_states(30)
        assert bench.goals == held, "nothing goes on"


class Process:
    """The arm's node as a program of its own."""

    def __init__(self, bench, folder) -> None:
        port = bench.server.ports["follower"].path
        given = {"contract": FILE, "port": port, "calibration_dir": folder, "approach_speed": 3.0}
        words = [word for name, value in given.items() for word in ("-p", f"{name}:={value}")]
        said = folder / "node.txt"
        with said.open("w") as file:
            self.program = subprocess.Popen(
                [sys.executable, "-m", "lrm_ros.nodes.arm", "--ros-args", *words],
                cwd=FILE.parents[1],
                stdout=file,
                stderr=subprocess.STDOUT,
            )

        def runs() -> bool:
            assert self.program.poll() is None, said.read_text()
            return bool(bench.states and bench.commands.get_subscription_count())

        bench.spin.until(runs, 180.0, "the node runs")

    def tell(self, number: int) -> None:
        os.kill(self.program.pid, number)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.tell(signal.SIGCONT)
        self.program.kill()
        self.program.wait()


@pytest.fixture
def process(bench, tmp_path):
    process = Process(bench, tmp_path)
    yield process
    process.end()


def go(bench, target) -> None:
    """Command until the arm is there: a computer as busy as that of tests may have stood still meanwhile."""

    def there() -> bool:
        bench.command(target)
        return bench.at(target)

    bench.spin.until(there, what="there")


def away(bench) -> None:
    """Command a long way until the arm is on it."""
    go(bench, HOME)
    far = list(bench.goals)

    def off() -> bool:
        bench.command(FAR, stamp_ns=time.time_ns())  # as a policy's: one that waits for the node is an old one
        return np.abs(np.array(bench.goals) - far).max() * STEP > 0.3

    bench.spin.until(off, what="on its way")


def test_a_node_that_is_killed_in_motion_leaves_the_arm_at_its_last_goal_with_torque(bench, process):
    away(bench)
    process.tell(signal.SIGKILL)
    process.program.wait()
    held = bench.goals
    wait_until(lambda: np.abs(np.array(angles(bench.server)) - _angles(held)).max() < 0.08, "at the last goal")
    assert bench.goals == held and bench.torque == [1] * 6 and not bench.at(FAR, 0.2)


def test_a_node_that_was_stopped_in_motion_forgets_its_command(bench, process):
    away(bench)
    process.tell(signal.SIGSTOP)
    wait_until(lambda: "T" in _state(process.program.pid), "stopped")
    held = bench.goals
    wait_until(lambda: np.abs(np.array(angles(bench.server)) - _angles(held)).max() < 0.08, "at the last goal")
    began = bench.bus.arm.time
    wait_until(lambda: bench.bus.arm.time > began + 0.5, "longer than state_timeout_s")
    process.tell(signal.SIGCONT)
    bench.wait_states(60)
    not_on(bench, held)
    go(bench, FAR)


def _state(pid: int) -> str:
    """The process's state as the kernel shows it: T is stopped."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0]
