# SPDX-License-Identifier: Apache-2.0
"""The arm node's e-stop and envelope over DDS: what the emulated servos are sent, and where their joints go."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rclpy
from arm_bench import FAR, HOME, URDF, contract, running  # type: ignore[import-not-found]
from rclpy.lifecycle import TransitionCallbackReturn
from servo_buses import needs_driver, wait_until  # type: ignore[import-not-found]
from so101 import CONTRACT, FILE, angles  # type: ignore[import-not-found]
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages, topics
from lrm_ros.config_arm import load_arm
from lrm_ros.robot.urdf import LinkPoints, Urdf
from lrm_ros.sim.servo_bus.faults import Fault
from lrm_ros.sim.servo_bus.units import STEP
from lrm_ros.topics import STREAM
from lrm_ros.types import ActionChunk

pytestmark = needs_driver
SETTINGS = load_arm(FILE, CONTRACT)
SAG_M = 0.006  # docs/safety.md: the emulated servos need so much of the box
MARGIN_RAD = 0.003


@pytest.fixture
def bench(spin, probe, tmp_path, monkeypatch):
    with running(spin, probe, tmp_path, monkeypatch) as bench:
        bench.estop = topics.ESTOP.publisher(probe)
        bench.stopped = []
        probe.create_subscription(Bool, "stopped", lambda m: bench.stopped.append(m.data), topics.STOPPED.qos)
        yield bench


def stop(bench) -> None:
    bench.estop.publish(Bool(data=True))
    bench.spin.until(lambda: bench.stopped and bench.stopped[-1], what="stopped")


def test_a_stop_in_motion_brakes_and_holds_and_only_a_command_after_the_release_moves_it(bench):
    node = bench.start()
    bench.move()
    stop(bench)
    at = np.array(bench.goals)
    held = bench.still()
    brake = np.array(SETTINGS.max_velocity) ** 2 / (2 * np.array(SETTINGS.max_acceleration)) / STEP
    assert (np.abs(np.array(held) - at) <= brake + 2).all(), "no further than the braking"
    assert not bench.at(FAR, 0.2) and node.diagnostics.faults["estop"].startswith("the arm is stopped by topic 'estop'")
    for _ in range(5):
        bench.command(FAR)
    bench.spin.until(lambda: node.diagnostics.total("rejected") >= 5, what="refused")
    assert "the arm is stopped by topic 'estop'" in node.diagnostics.faults["joint_command"]
    bench.wait_states(30)
    assert bench.goals == held and bench.torque == [1] * 6
    bench.estop.publish(Bool(data=False))
    bench.wait_states(30)
    assert node._estop.latched, "false releases nothing"
    assert bench.call("release").success
    bench.spin.until(lambda: not bench.stopped[-1], what="released")
    bench.wait_states(30)
    assert np.abs(np.array(bench.goals) - held).max() * STEP < 0.1, "where it was found, and no way on"
    bench.go(FAR)


def test_a_stop_by_the_service_is_latched_through_a_cleanup_and_refuses_reset_and_torque_off(bench, tmp_path):
    node = bench.start(**contract(tmp_path, rest="[0.0, -1.7, 1.6, 0.9, 0.0, 0.0]"))
    bench.move()
    assert bench.call("estop").success
    held = bench.still()
    for name in ("reset", "torque_off"):
        answer = bench.call(name)
        assert not answer.success and "lrm estop --release" in answer.message
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert bench.torque == [1] * 6 and bench.goals == held, "not to its resting pose"
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    rejected = node.diagnostics.total("rejected")
    bench.spin.until(lambda: bench.commands.get_subscription_count(), what="the node listens")
    bench.command(HOME)
    bench.spin.until(lambda: node.diagnostics.total("rejected") > rejected, what="refused")
    assert bench.call("release").success
    bench.go(HOME)


def stop_on_the_way_to_rest(bench, tmp_path, by: str, **overrides):
    """Clean up an arm that has a resting pose and stop it on its way; returns the node and the service's answers."""
    node = bench.start(**contract(tmp_path, rest="[0.0, -1.7, 1.6, 0.9, 0.0, 0.0]"), rest_speed=0.5, **overrides)
    bench.go(FAR)
    far, client = np.array(bench.goals), bench.probe.create_client(Trigger, "arm/estop")
    bench.spin.until(client.service_is_ready, what="the service")
    answers = []

    def someone() -> None:
        wait_until(lambda: np.abs(np.array(bench.goals) - far).max() * STEP > 0.1, "on its way to rest")
        if by == "topic":
            bench.estop.publish(Bool(data=True))
        else:
            answers.append(client.call_async(Trigger.Request()))

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(someone)
        assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
        asked.result()
    return node, answers


@pytest.mark.parametrize("by", ["topic", "service"])
def test_a_stop_on_the_way_to_the_resting_pose_brakes_and_the_torque_stays_on(bench, tmp_path, by, capfd):
    node, answers = stop_on_the_way_to_rest(bench, tmp_path, by)
    assert node._estop.latched and bench.torque == [1] * 6
    resting = np.array([0.0, -1.7, 1.6, 0.9, 0.0, 0.0])
    assert np.abs(np.array(angles(bench.server)) - resting).max() > 0.3, "it is on its way still"
    bench.spin.until(lambda: bench.stopped and bench.stopped[-1], what="stopped")
    for answer in answers:
        bench.spin.until(answer.done, what="an answer")
        assert answer.result().success, answer.result().message
    assert "on the way to its resting pose" in "".join(capfd.readouterr())
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node._loop.stopped, "taken up again it is stopped still"


def test_a_break_on_the_way_to_the_resting_pose_is_no_end_of_it(bench, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("lrm_ros.nodes.arm.REST_S", 30.0)
    resting = np.array([0.0, -1.7, 1.6, 0.9, 0.0, 0.0])
    node = bench.start(**contract(tmp_path, rest=str(resting.tolist())), rest_speed=1.0)
    bench.go(FAR)
    far = np.array(bench.goals)

    def pull_out() -> None:
        wait_until(lambda: np.abs(np.array(bench.goals) - far).max() * STEP > 0.1, "on its way to rest")
        bench.bus.wire.set(Fault("silent"))
        wait_until(lambda: node._loop._silent, "silent")
        assert not bench.at(resting, 0.3)
        bench.bus.wire.clear()

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(pull_out)
        assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
        asked.result()
    assert bench.torque == [0] * 6 and bench.at(resting, 0.15), angles(bench.server)
    assert "left with its torque on" not in "".join(capfd.readouterr())


def test_where_it_is_asked_for_a_stop_on_the_way_to_the_resting_pose_switches_the_torque_off(bench, tmp_path):
    node, _ = stop_on_the_way_to_rest(bench, tmp_path, "topic", estop_torque_off=True)
    assert node._estop.latched and bench.torque == [0] * 6


def test_where_it_is_asked_for_a_stop_switches_the_torque_off_and_the_release_on_again(bench):
    bench.start(estop_torque_off=True)
    bench.move()
    stop(bench)
    assert bench.torque == [0] * 6
    bench.command(FAR)
    bench.wait_states(30)
    assert bench.torque == [0] * 6
    assert bench.call("release").success
    assert bench.torque == [1] * 6
    bench.go(HOME)


def test_a_stop_of_an_arm_that_does_not_answer_says_so_and_what_it_does_when_it_answers(bench):
    bench.start()
    bench.move()
    bench.bus.wire.set(Fault("silent"))
    bench.fault("no joint state for")
    answer = bench.call("estop")
    assert not answer.success and "do not answer" in answer.message
    held = bench.goals
    bench.bus.wire.clear()
    bench.spin.until(lambda: "joint_states" not in bench.arm.diagnostics.faults, what="over")
    assert bench.call("estop").success
    bench.wait_states(30)
    assert np.abs(np.array(bench.goals) - held).max() * STEP < 0.2 and not bench.at(FAR, 0.2)


def lowest(bench, points: LinkPoints) -> float:
    """Where the lowest of the box's points is [m], of the joints behind the servos."""
    return float(points(np.array(angles(bench.server)))[:, 2].min())


def test_a_command_through_the_table_ends_above_it(bench):
    node = bench.start()
    points = LinkPoints(Urdf(URDF), CONTRACT.joints, SETTINGS.points)
    bench.go()
    table = SETTINGS.box_lower[2]
    through = np.array([-0.6, 0.9, 0.6, 0.2, 0.8, 0.2], np.float32)
    assert points(through[None].astype(float))[0, :, 2].min() < -0.08
    heights = []

    def down() -> bool:
        heights.append(lowest(bench, points))
        return heights[-1] < table + 0.01

    bench.lead(through, until=down, what="at the table")
    for _ in range(60):
        bench.command(through)
        bench.wait_states(1)
        heights.append(lowest(bench, points))
    bench.still()
    heights.append(lowest(bench, points))
    assert min(heights) > table - SAG_M
    assert np.array(angles(bench.server))[[4, 5]] == pytest.approx([0.8, 0.2], abs=0.05), "what is free to move does"
    bench.spin.until(lambda: int(bench.values()["cycles_held_back_by_the_box"]) > 0, what="diagnostics")
    bench.go()
    assert "joint_command" not in node.diagnostics.faults


def test_a_resting_pose_outside_of_the_box_is_refused(bench, tmp_path):
    given = contract(tmp_path, rest="[0.0, 0.9, 0.6, 0.2, 0.0, 0.0]")
    node = bench.spin.add(bench.node(**given))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "in the resting pose 'gripperframe' would be at" in node.diagnostics.faults["configure"]
    assert node.fault_code == 2


def test_what_was_sent_is_what_came_out_of_the_envelope(bench):
    bench.start()
    bench.go()
    bench.sent.clear()
    bench.go(FAR)
    sent = [messages.to_chunk(m, CONTRACT.joints, CONTRACT.dt_s).actions[0] for m in bench.sent]
    stamps = np.array([messages.to_ns(m.header.stamp) for m in bench.sent]) / 1e9
    steps, seconds = np.abs(np.diff(sent, axis=0)), np.diff(stamps)[:, None]
    assert (steps <= np.array(SETTINGS.max_velocity) * seconds + MARGIN_RAD + 0.05 * seconds).all()
    assert np.abs(sent[0] - HOME).max() < 0.1, "no jump"


def test_two_nodes_that_command_the_arm_are_named_and_it_stays(bench, spin):
    node = bench.start()
    bench.go()
    other = spin.add(rclpy.create_node("second_policy"))
    second = other.create_publisher(JointTrajectory, "joint_command", STREAM)
    spin.until(lambda: second.get_subscription_count(), what="discovered")
    chunk = ActionChunk(0, FAR[None], CONTRACT.dt_s)

    def both() -> bool:
        bench.command(HOME)
        second.publish(messages.from_chunk(chunk, CONTRACT.joints))
        return "several nodes command the arm" in node.diagnostics.faults.get("joint_command", "")

    spin.until(both, what="named")
    assert "second_policy" in node.diagnostics.faults["joint_command"]


def test_its_description_and_diagnostics_are_there_for_people(bench, probe):
    texts: list[String] = []
    probe.create_subscription(String, "robot_description", texts.append, topics.ROBOT_DESCRIPTION.qos)
    bench.start()
    bench.spin.until(lambda: texts, what="robot_description")
    assert texts[0].data == URDF.read_text()
    wanted = {"late_cycles", "cycles_held_back_by_the_box", "frames", "torque"}
    bench.spin.until(lambda: wanted <= bench.values().keys(), what="diagnostics")


def test_a_description_of_another_arm_is_refused(bench, tmp_path):
    path = tmp_path / "other.urdf"
    path.write_text(URDF.read_text().replace('name="gripper" type', 'name="jaw" type'))
    node = bench.spin.add(bench.node(**contract(tmp_path, urdf=str(path))))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "joint 'jaw' has no position" in node.diagnostics.faults["configure"]


def test_an_unconfigured_node_is_stopped_too(bench):
    node = bench.spin.add(bench.node())
    answer = bench.spin.call(bench.probe, Trigger, "arm/estop")
    assert answer.success
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node._loop.stopped and bench.torque == [1] * 6
