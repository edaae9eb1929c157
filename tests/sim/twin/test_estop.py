# SPDX-License-Identifier: Apache-2.0
"""The twin obeys the e-stop as an arm does, in real time and in lock-step, over real topics."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from rclpy.parameter import Parameter
from spinner import Spinner  # type: ignore[import-not-found]
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages, topics
from lrm_ros.config import RobotContract
from lrm_ros.sim.twin.node import TwinNode
from lrm_ros.types import ActionChunk

JOINTS = RobotContract().joints


class Bench:
    """A running twin, who commands it and who stops it."""

    def __init__(self, spin: Spinner) -> None:
        import rclpy

        self.spin = spin
        self.node = spin.start(TwinNode(realtime=False))
        self.probe = spin.add(rclpy.create_node("probe"))
        self.sent = spin.collect(self.probe, JointTrajectory, "joint_command_sent", topics.STREAM)
        self.stopped = spin.collect(self.probe, Bool, "stopped", topics.LATCHED)
        self.command = topics.JOINT_COMMAND.publisher(self.probe)
        self.estop = topics.ESTOP.publisher(self.probe)
        spin.until(lambda: self.command.get_subscription_count() and self.estop.get_subscription_count() == 4)
        spin.until(lambda: self.probe.count_publishers("joint_command_sent") and self.stopped)

    def call(self, what: str) -> tuple[bool, str]:
        response = self.spin.call(self.probe, Trigger, f"twin/{what}")
        return response.success, response.message

    def begin(self, realtime: bool) -> None:
        """Start an episode that is not stopped."""
        assert self.call("release")[0]
        self.node.set_parameters([Parameter("realtime", value=realtime)])
        assert self.call("reset")[0]
        self.spin.until(lambda: not self.stopped[-1].data)
        self.sent.clear()

    def ask(self, change: float, steps: int) -> None:
        """Command the first joint to move evenly, from now on."""
        actions = np.repeat(self.node._world.state[None], steps, axis=0)
        actions[:, 0] += change * np.arange(1, steps + 1) / steps
        self.command.publish(messages.from_chunk(ActionChunk(0, actions, 0.1), JOINTS))

    def targets(self) -> list[float]:
        return [message.points[0].positions[0] for message in self.sent]

    def stop(self) -> None:
        self.estop.publish(Bool(data=True))
        self.spin.until(lambda: self.stopped[-1].data, what="the arm's word that it is stopped")


@pytest.fixture(scope="module")
def module_bench() -> Iterator[Bench]:
    spinner = Spinner()
    yield Bench(spinner)
    spinner.close()


@pytest.fixture
def bench(module_bench: Bench) -> Iterator[Bench]:
    yield module_bench
    module_bench.begin(realtime=False)


def refused(bench: Bench) -> str:
    """Ask for a motion and return why it is refused."""
    before = bench.node.diagnostics.total("rejected")
    bench.ask(0.5, 5)
    bench.spin.until(lambda: bench.node.diagnostics.total("rejected") == before + 1)
    return bench.node.diagnostics.faults["joint_command"]


def test_in_real_time_it_holds_at_once_and_moves_only_for_a_command_after_the_release(bench: Bench) -> None:
    bench.begin(realtime=True)
    bench.ask(0.9, 9)
    bench.spin.until(lambda: len(set(bench.targets())) >= 3, what="motion")
    bench.stop()
    held = float(bench.node._server.sent[0])
    before = len(bench.sent)
    bench.spin.until(lambda: len(bench.sent) >= before + 4, what="control steps while it is stopped")
    assert bench.targets()[-4:] == pytest.approx([held] * 4) and held < bench.targets()[0] + 0.8
    assert "the arm is stopped by topic 'estop'" in refused(bench)
    assert "the arm is stopped" in bench.node.diagnostics.faults["estop"]
    bench.estop.publish(Bool(data=False))
    before = len(bench.sent)
    bench.spin.until(lambda: len(bench.sent) >= before + 4)
    assert bench.node._estop.latched and bench.targets()[-4:] == pytest.approx([held] * 4)
    assert bench.call("release") == (True, "released")
    before = len(bench.sent)
    bench.spin.until(lambda: len(bench.sent) >= before + 4)
    assert np.ptp(bench.targets()[-3:]) == 0 and bench.targets()[-1] == pytest.approx(held, abs=0.05), "nothing resumes"
    bench.ask(0.3, 3)
    bench.spin.until(lambda: abs(bench.targets()[-1] - held) > 0.2, what="a new command is executed")


def test_in_lock_step_commands_resets_and_demonstrations_are_refused_with_the_reason(bench: Bench) -> None:
    bench.begin(realtime=False)
    bench.ask(0.2, 4)
    bench.spin.until(lambda: len(bench.sent) == 4)
    assert bench.call("estop") == (True, "stopped by service 'twin/estop'")
    assert "the arm is stopped by service 'twin/estop'; when it is safe" in refused(bench)
    for what in ("reset", "demonstrate"):
        done, why = bench.call(what)
        assert not done and why.startswith("the arm is stopped by service 'twin/estop'"), what
    assert len(bench.sent) == 4, "nothing was sent"
    assert bench.call("release") == (True, "released")
    bench.ask(0.2, 4)
    bench.spin.until(lambda: len(bench.sent) == 8)


def test_it_is_stopped_through_a_deactivation(bench: Bench) -> None:
    bench.begin(realtime=True)
    bench.stop()
    bench.node.trigger_deactivate()
    bench.node.trigger_activate()
    assert "the arm is stopped" in refused(bench)
