# SPDX-License-Identifier: Apache-2.0
"""The real replay node before the real arm node and the emulated SO-101."""

from __future__ import annotations

import numpy as np
import pytest
from arm_bench import HOME, running  # type: ignore[import-not-found]
from rclpy.lifecycle import TransitionCallbackReturn
from servo_buses import needs_driver  # type: ignore[import-not-found]
from so101 import CONTRACT, FILE  # type: ignore[import-not-found]
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages
from lrm_ros.config import RobotContract
from lrm_ros.nodes.replay import ReplayNode
from lrm_ros.record.writer import JournalWriter
from lrm_ros.topics import STREAM

PATH = HOME + np.linspace(0, 0.4, 20)[:, None] * np.array([1, 0.5, -0.5, 1, 1, 0.5], np.float32)


def journal(folder, contract: RobotContract = CONTRACT):
    """An episode that goes along ``PATH``."""
    writer = JournalWriter(folder / "e.mcap", "go there", contract, "teleop")
    for k, target in enumerate(PATH.astype(np.float32)):
        stamp_ns = 1_000_000_000 + round(k * 1e9 * contract.dt_s)
        writer.state(stamp_ns, target)
        writer.sent(stamp_ns, target)
    return str(writer.finish(True))


@pytest.fixture
def bench(spin, probe, tmp_path, monkeypatch):
    with running(spin, probe, tmp_path, monkeypatch) as bench:
        yield bench


def replay(bench, codes: list[int]) -> ReplayNode:
    node = ReplayNode(contract=str(FILE), episode=journal(bench.folder), approach_speed=3.0)
    node.on_exit = codes.append
    return bench.spin.start(node)


@needs_driver
def test_an_episode_is_replayed_through_the_limiter_from_its_first_pose_on(bench):
    bench.start()
    codes: list[int] = []
    node = replay(bench, codes)
    bench.spin.until(lambda: codes, what="the end of the replay")
    assert codes == [0]
    node.trigger_deactivate()
    bench.spin.until(lambda: bench.at(PATH[-1]), what="the arm goes on to the last point")
    assert np.max(node._errors) < 0.3 and len(node._errors) > len(PATH) / 2
    targets = np.array([message.points[0].positions for message in bench.sent])
    first = int(np.argmax(np.abs(targets - PATH[0]).max(axis=1) < 0.01))
    assert first > 5, "the way to the first pose takes its time"
    bench.spin.until(lambda: np.abs(bench.sent[-1].points[0].positions - PATH[-1]).max() < 0.02, what="the last point")


@needs_driver
def test_an_e_stop_ends_the_replay_and_nothing_is_asked_for_any_more(bench):
    bench.start()
    codes: list[int] = []
    node = replay(bench, codes)
    bench.spin.until(lambda: node.diagnostics.total("commands") > 3)
    assert bench.call("estop").success
    bench.spin.until(lambda: codes)
    asked = node.diagnostics.total("commands")
    bench.wait_states(20)
    assert codes == [1] and node.diagnostics.total("commands") == asked and node._arm.asked is None


def test_while_the_arm_does_not_follow_its_first_pose_is_asked_for_as_of_now(spin, probe, tmp_path):
    node = spin.start(ReplayNode(contract=str(FILE), episode=journal(tmp_path)))
    commands = spin.collect(probe, JointTrajectory, "joint_command", STREAM)
    spin.until(lambda: probe.count_publishers("joint_command") and node._arm._command.get_subscription_count())
    dt_ns = round(1e9 * CONTRACT.dt_s)
    for step in range(90):  # 3 s, longer than a command may be late
        node._on_state(1_000_000_000 + step * dt_ns + (step > 0) * dt_ns // 4, PATH[0].astype(np.float32))
    spin.until(lambda: len(commands) == 90)
    assert messages.to_ns(commands[-1].header.stamp) == pytest.approx(1_000_000_000 + 89 * dt_ns, abs=dt_ns)
    assert [tuple(point.positions) for point in commands[-1].points] == [pytest.approx(PATH[0])]


def test_an_episode_of_another_robot_is_refused(spin, tmp_path):
    node = spin.add(ReplayNode(contract=str(FILE), episode=journal(tmp_path, RobotContract())))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    node = spin.add(ReplayNode())
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
