# SPDX-License-Identifier: Apache-2.0
"""The node in front of ros2_control: what arrives at the controllers, limits, e-stop, names, its end, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from control_bench import (  # type: ignore[import-not-found]
    ACCELERATION,
    ARM,
    CONTRACT,
    FAR,
    FILE,
    GRIPPER,
    HIGHEST,
    HOME,
    SETTINGS,
    contract,
    running,
)
from controllers import PositionController, TrajectoryController  # type: ignore[import-not-found]
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import JointState

from lrm_ros import messages
from lrm_ros.nodes.ros2_control import ControlNode
from lrm_ros.robot.urdf import LinkPoints, Urdf
from lrm_ros.topics import STREAM


@pytest.fixture
def bench(spin, probe):
    with running(spin, probe) as bench:
        yield bench


def test_a_command_arrives_in_the_controllers_order_and_the_gripper_at_its_own(bench):
    order = [CONTRACT.joints[i] for i in (3, 0, 4, 2, 1)]
    bench.manage({ARM: TrajectoryController(order), GRIPPER: PositionController(["gripper"])}, best_effort=True)
    # The controller's own parameter has another order than the file, as its positions come by name.
    bench.start()
    assert bench.at == pytest.approx(HOME, abs=1e-3), "held where it was"
    bench.go(np.array([0.3, -0.6, 0.4, 0.2, 0.9, 0.1]))
    bench.go()
    first = bench.manager.received[ARM][0]
    assert list(first.joint_names) == list(CONTRACT.joints[:5])
    assert messages.to_ns(first.header.stamp) == 0 and not first.points[0].velocities
    assert not any(controller.refused for controller in bench.manager.controllers.values())


def test_a_position_controller_gets_its_joints_in_its_order(bench, tmp_path):
    order = [CONTRACT.joints[i] for i in (5, 2, 0, 1, 4, 3)]
    text = FILE.read_text()
    begin, end = text.index("    - name: arm_controller"), text.index("  # Where the controllers")
    file = contract(
        tmp_path, (text[begin:end], f"    - {{name: /all, type: position, joints: [{', '.join(order)}]}}\n")
    )
    bench.manage({"all": PositionController(order)})
    bench.start(contract=file)
    bench.go(FAR)
    assert not bench.manager.controllers["all"].refused


def test_what_the_controllers_are_sent_is_inside_the_limits_and_the_box(bench):
    bench.manage()
    bench.start()
    points = LinkPoints(Urdf(SETTINGS.urdf), CONTRACT.joints, SETTINGS.points)
    through = np.array([-0.6, 0.9, 0.6, 0.2, 0.8, 0.2], np.float32)
    assert points(through[None].astype(float))[0, :, 2].min() < -0.08, "through the table"
    bench.command(through)
    bench.spin.until(lambda: bench.node._loop.held_back > 20, what="at the table")
    bench.still()
    bench.more(3)
    targets = np.array([message.points[0].positions for message in bench.manager.received[ARM]])
    seconds = np.array([messages.to_ns(m.points[0].time_from_start) / 1e9 for m in bench.manager.received[ARM]])
    assert (np.abs(np.diff(targets, axis=0)) <= HIGHEST[:5] * seconds[1:, None] + 1e-6).all()
    grip = np.full((len(targets), 1), 0.2)
    assert points(np.hstack([targets, grip]))[..., 2].min() >= SETTINGS.box_lower[2]
    assert targets[-1][4] == pytest.approx(0.8, abs=1e-3), "what is free to move does"


def test_an_e_stop_brakes_within_its_messages_and_only_a_command_after_the_release_moves_it(bench):
    bench.manage()
    bench.start()
    bench.move()
    received = bench.manager.received[ARM]
    count, velocity = len(received), np.abs(bench.node._loop.server.envelope.velocity[0])
    at = bench.at
    bench.node._estop.stop("this test")
    bench.still()
    bench.more(3)
    targets = np.array([message.points[0].positions for message in received[count:]])
    changes = (np.diff(targets, axis=0) != 0).any(axis=1)
    brake_s = (velocity / ACCELERATION).max()
    assert 0 < changes.sum() <= np.ceil(brake_s / bench.node._loop.period_s) + 2
    assert (np.abs(targets[-1] - at[:5]) <= (velocity**2 / (2 * ACCELERATION) + HIGHEST * 0.1)[:5]).all()
    held = bench.arrived()
    bench.refused()
    assert "lrm estop --release" in bench.node.diagnostics.faults["joint_command"]
    same = bench.more(20)
    assert list(same[-1].points[0].positions) == list(same[0].points[0].positions)
    assert bench.call("release").success
    bench.more(20)
    assert bench.at == pytest.approx(held, abs=0.01)
    bench.go(FAR)


def test_other_names_on_another_topic_are_published_as_the_contracts(bench, tmp_path):
    bench.names = ["1", "2", "3", "4", "5", "jaw"]
    file = contract(
        tmp_path,
        (
            "joints: [shoulder_pan, shoulder_lift, elbow_flex, wrist_flex, wrist_roll]\n",
            'joints: ["5", "4", "3", "2", "1"]\n',
        ),
        ("joints: [gripper]}", "joints: [jaw]}"),
        ("  joints: []", f"  joints: {bench.names}"),
        ("joint_states: joint_states", "joint_states: /driver/joint_states"),
    )
    controllers = {ARM: TrajectoryController(["1", "2", "3", "4", "5"]), GRIPPER: PositionController(["jaw"])}
    bench.manage(controllers, states="/driver/joint_states")
    states: list[JointState] = bench.spin.collect(bench.probe, JointState, "joint_states", STREAM)
    bench.start(contract=file)
    bench.go(FAR)
    bench.spin.until(lambda: states and np.allclose(states[-1].position, FAR, atol=0.02), what="states")
    assert list(states[-1].name) == list(CONTRACT.joints)
    assert list(bench.manager.received[ARM][0].joint_names) == ["5", "4", "3", "2", "1"]


def test_with_the_contracts_names_it_publishes_no_joint_states_of_its_own(bench):
    bench.manage()
    bench.start()
    bench.go(FAR)
    publishers = bench.probe.get_publishers_info_by_topic("joint_states")
    assert [publisher.node_name for publisher in publishers] == ["joint_state_broadcaster"]
    assert len(publishers) == 1


def test_inactive_it_holds_and_at_its_end_the_hold_is_the_last_that_is_sent(bench):
    manager = bench.manage()
    node = bench.start()
    bench.move()
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    bench.still()
    bench.refused()
    assert not np.allclose(bench.at, FAR, atol=0.2)
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    bench.move()
    node.close()
    bench.spin.nodes.remove(node)
    received = manager.received[ARM]
    count = [0]

    def quiet() -> bool:
        """Whether nothing has come since the last turn."""
        before, count[0] = count[0], len(received)
        return before == count[0]

    bench.spin.until(quiet, what="all messages")
    bench.spin.until(lambda: np.allclose(bench.at[:5], received[-1].points[0].positions, atol=1e-4), what="at the hold")
    last, before = received[-1].points[0], received[-2].points[0]
    assert list(last.positions) == list(before.positions) and not np.allclose(bench.at, FAR, atol=0.2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (None, "needs parameter 'contract'"),
        (
            [("joints: [gripper]}", "joints: [jaw]}"), ("  joints: []", "  joints: [a, b, c, d, e, jaw]")],
            "no controller has",
        ),
        ([("name: gripper_controller", "name: hand_controller")], "'hand_controller' does not listen on '/hand_contr"),
        ([("joint_states: joint_states", "joint_states: other")], "'other': nothing publishes it"),
    ],
)
def test_what_cannot_work_is_one_line(bench, tmp_path, changes, says):
    bench.manage()
    file = "" if changes is None else contract(tmp_path, *changes)
    node = bench.spin.add(ControlNode(contract=file, wait_s=0.5))
    bench.spin.until(lambda: bench.probe.count_publishers("joint_states"), what="discovered")
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert says in node.diagnostics.faults["configure"] and node.fault_code == 2


def test_other_names_on_our_own_topic_are_refused(bench, tmp_path):
    file = contract(
        tmp_path,
        ("joints: [gripper]}", "joints: [jaw]}"),
        ("  joints: []", f"  joints: [{', '.join(CONTRACT.joints[:5])}, jaw]"),
    )
    node = bench.spin.add(ControlNode(contract=file, wait_s=0.0))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "set ros2_control.joint_states" in node.diagnostics.faults["configure"]
