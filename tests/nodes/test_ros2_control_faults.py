# SPDX-License-Identifier: Apache-2.0
"""Faults around ros2_control in motion: controllers that go or do not act, bad joint states, the program's end."""

from __future__ import annotations

import os
import signal
import subprocess

import numpy as np
import pytest
from control_bench import ARM, FAR, FILE, GRIPPER, HOME, running  # type: ignore[import-not-found]
from shared_memory import remove, segments  # type: ignore[import-not-found]
from std_msgs.msg import Bool

from lrm_ros.graph.graphs import NodeSpec


@pytest.fixture
def bench(spin, probe):
    with running(spin, probe) as bench:
        yield bench


def test_true_on_the_topic_stops_and_a_controller_that_is_gone_is_not_said_to_hold(bench):
    bench.manage()
    bench.start()
    bench.move()
    bench.estop.publish(Bool(data=True))
    bench.spin.until(lambda: bench.stopped and bench.stopped[-1].data, what="stopped")
    bench.still()
    assert bench.call("release").success
    bench.manager.unload(ARM)
    bench.fault(f"controller '{ARM}' does not listen")
    answer = bench.call("estop")
    assert not answer.success and f"switch_controllers --activate {ARM}" in answer.message


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda manager: setattr(manager, "publishing", False), "'joint_states' stopped"),
        (lambda manager: setattr(manager, "skew_ns", -2_000_000_000), "its stamp went back 2.0 s"),
        (lambda manager: setattr(manager, "skew_ns", 2_000_000_000), "its stamps are 2.0 s ahead"),
        (lambda manager: manager.nan.add("elbow_flex"), "elbow_flex = nan"),
    ],
    ids=["gone", "behind", "ahead", "nan"],
)
def test_joint_states_that_cannot_be_used_make_it_brake_and_hold(bench, spoil, says):
    manager = bench.manage()
    bench.start(state_timeout_s=0.3)
    bench.move()
    spoil(manager)
    bench.fault(says)
    assert bench.node.diagnostics.faults["joint_states"].startswith("the arm holds: 'joint_states'")
    bench.still()
    bench.refused()
    bench.spin.until(lambda: bench.node._loop.silent, what="silent")
    held = bench.arrived()
    counts = bench.counts()
    bench.refused()
    assert bench.counts() == counts and not np.allclose(held, FAR, atol=0.2)
    manager.publishing, manager.skew_ns = True, 0
    manager.nan.clear()
    bench.well()
    bench.more(20)
    assert bench.at == pytest.approx(held, abs=0.01), "the command from before means nothing"
    bench.go(FAR)


@pytest.mark.parametrize("name", [ARM, GRIPPER])
def test_a_controller_that_goes_in_motion_is_a_fault_and_the_arm_begins_where_it_is(bench, name):
    manager = bench.manage()
    bench.start()
    bench.move()
    manager.unload(name)
    bench.fault(f"controller '{name}' does not listen on '/{name}/")
    fault = bench.node.diagnostics.faults["controllers"]
    assert f"spawner {name}" in fault and f"ros2 control switch_controllers --activate {name}" in fault
    bench.spin.until(lambda: bench.node._loop.silent, what="silent")
    counts = bench.counts()
    moved = dict(manager.positions, wrist_roll=manager.positions["wrist_roll"] + 0.5)
    manager.place(moved)
    bench.refused()
    assert bench.counts() == counts
    manager.load(name)
    bench.well()
    first = bench.more(1)[0]
    assert first.points[0].positions[4] == pytest.approx(moved["wrist_roll"], abs=1e-3)
    bench.more(20)
    assert bench.at == pytest.approx(list(moved.values())[:6], abs=2e-3)
    bench.go(FAR)


def test_a_controller_that_listens_but_is_not_active_is_named_by_its_manager(bench):
    manager = bench.manage()
    bench.start()
    bench.go()
    manager.switch(ARM, False)
    bench.move()
    bench.spin.until(
        lambda: manager.say() or f"'{ARM}' is inactive" in bench.node.diagnostics.faults.get("controllers", ""),
        what="named",
    )
    assert f"ros2 control switch_controllers --activate {ARM}" in bench.node.diagnostics.faults["controllers"]
    held = bench.at
    bench.spin.until(lambda: bench.node._loop.silent, what="silent")
    manager.switch(ARM, True)
    bench.spin.until(lambda: manager.say() or "controllers" not in bench.node.diagnostics.faults, what="active again")
    if "arm" in bench.node.diagnostics.faults:
        assert bench.call("reset").success
    bench.more(20)
    assert bench.at[:5] == pytest.approx(held[:5], abs=0.01), "no leap"


def test_without_a_word_of_its_manager_an_arm_that_does_not_follow_is_found(bench):
    manager = bench.manage()
    bench.start()
    bench.go()
    manager.switch(ARM, False)
    held = bench.at
    bench.command(FAR)
    bench.fault("and does not follow")
    assert "ros2 control list_controllers" in bench.node.diagnostics.faults["arm"]
    bench.spin.until(lambda: bench.node._loop.silent, what="silent")
    manager.switch(ARM, True)
    bench.refused()
    assert bench.at[:5] == pytest.approx(held[:5], abs=0.01), "no leap when it is active"
    assert bench.call("reset").success
    bench.well()
    bench.go(FAR)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGKILL, -9)])
def test_the_program_ends_in_motion_and_the_controller_stands_at_what_it_was_sent_last(bench, number, code):
    manager = bench.manage()
    given = {"contract": str(FILE), "approach_speed": 5.0}
    others = segments(os.getpid())
    words = NodeSpec("arm", "ros2_control", given).command()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    received = manager.received[ARM]
    try:
        # Not before it is active: a command is followed.
        bench.spin.until(lambda: len(received) and bench.commands.get_subscription_count(), what="it holds the arm")
        bench.spin.until(lambda: bench.command(FAR) or np.abs(bench.at - HOME).max() > 0.3, what="in motion")
        left = segments(process.pid) - others
        process.send_signal(number)
        said, _ = process.communicate(timeout=30)
        remove(left)
        assert process.returncode == code, said
    finally:
        process.kill()
        process.wait()

    def stands() -> bool:
        return np.allclose(bench.at[:5], received[-1].points[0].positions, atol=1e-4)

    bench.spin.until(stands, what="at the last point")
    assert not np.allclose(bench.at, FAR, atol=0.2)
    last, before = (np.array(message.points[0].positions) for message in (received[-1], received[-2]))
    if code == 0:
        assert "was not sent a hold" not in said and np.abs(last - before).max() < 5e-3, "it has braked"
