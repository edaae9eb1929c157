# SPDX-License-Identifier: Apache-2.0
"""The node in front of ros2_control over DDS, a stand-in of the controllers' topics below it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from controllers import Manager, PositionController, TrajectoryController  # type: ignore[import-not-found]
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages, topics
from lrm_ros.config import RobotContract
from lrm_ros.config_arm import SECTIONS, load_control
from lrm_ros.config_files import load_yaml
from lrm_ros.nodes.ros2_control import ControlNode
from lrm_ros.robot.urdf import LinkPoints, Urdf
from lrm_ros.topics import STREAM
from lrm_ros.types import ActionChunk

FILE = Path(__file__).parents[2] / "config" / "ros2_control.yaml"
CONTRACT = load_yaml(FILE, RobotContract, SECTIONS)
SETTINGS = load_control(FILE, CONTRACT)
HIGHEST, ACCELERATION = np.array(SETTINGS.max_velocity), np.array(SETTINGS.max_acceleration)
HOME = np.array([0.2, -0.5, 0.5, 0.3, 0.4, 0.5], np.float32)
FAR = np.array([1.5, -1.2, 1.0, -1.0, 1.5, 1.2], np.float32)
ARM, GRIPPER = "arm_controller", "gripper_controller"


class Bench:
    """The node, the stand-in, and a probe that commands and listens."""

    def __init__(self, spin, probe) -> None:
        self.spin, self.probe = spin, probe
        self.sent: list[JointTrajectory] = spin.collect(probe, JointTrajectory, "joint_command_sent", STREAM)
        self.stopped: list[Bool] = spin.collect(probe, Bool, "stopped", topics.STOPPED.qos)
        self.commands = probe.create_publisher(JointTrajectory, "joint_command", STREAM)
        self.estop = topics.ESTOP.publisher(probe)
        self.names = list(CONTRACT.joints)  # as the controllers have them
        self.manager: Manager | None = None

    def manage(self, controllers=None, **given) -> Manager:
        shipped = {ARM: TrajectoryController(CONTRACT.joints[:5]), GRIPPER: PositionController(["gripper"])}
        start = dict(zip(self.names, HOME.tolist(), strict=True))
        self.manager = Manager(controllers or shipped, start, **given)
        return self.manager

    def start(self, **overrides) -> ControlNode:
        given = {"contract": str(FILE), "approach_speed": 5.0, "state_timeout_s": 1.0, **overrides}
        self.node = self.spin.start(ControlNode(**given))
        self.spin.until(lambda: self.commands.get_subscription_count(), what="the node listens")
        return self.node

    def command(self, *points) -> None:
        chunk = ActionChunk(0, np.array(points, np.float32), CONTRACT.dt_s)
        self.commands.publish(messages.from_chunk(chunk, CONTRACT.joints))

    @property
    def at(self) -> np.ndarray:
        return np.array([self.manager.positions[name] for name in self.names])

    def go(self, target=HOME) -> None:
        self.ask(target, lambda: np.abs(self.at - target).max() < 0.02)

    def move(self) -> None:
        self.ask(FAR, lambda: np.abs(self.node._loop.server.envelope.velocity).max() > 1.0)

    def ask(self, target, done) -> None:
        """Command until something is true; on a busy machine joint states may be late, and a command means nothing."""
        ignored = [-1]

        def asked() -> bool:
            if (count := self.node.diagnostics.total("ignored")) != ignored[0]:
                ignored[0] = count
                self.command(target)
            return done()

        self.spin.until(asked, what=f"{target}, not {self.at}, {self.node.diagnostics.faults}")

    def still(self) -> None:
        self.spin.until(lambda: self.node._loop.server.envelope.standing, what="standing")

    def arrived(self) -> np.ndarray:
        """Where the arm is once it is at what was sent last."""
        self.spin.until(lambda: np.abs(self.at - self.node._loop.server.sent).max() < 1e-3, what="at its target")
        return self.at

    def more(self, count: int, name: str = ARM) -> list:
        """The next messages of a controller."""
        received = self.manager.received[name]
        have = len(received)
        self.spin.until(lambda: len(received) >= have + count, what="messages")
        return received[have:]

    def fault(self, words: str) -> None:
        self.spin.until(lambda: words in " ".join(self.node.diagnostics.faults.values()), what=words)

    def well(self) -> None:
        faults: dict = {}

        def over() -> bool:
            faults.clear()
            faults.update(self.node.diagnostics.faults)
            return not faults

        self.spin.until(over, what=faults)

    def refused(self) -> None:
        """A command from now on moves nothing."""
        diagnostics = self.node.diagnostics
        before = diagnostics.total("ignored") + diagnostics.total("rejected")
        self.command(FAR)
        self.spin.until(lambda: diagnostics.total("ignored") + diagnostics.total("rejected") > before, what="refused")

    def call(self, name: str) -> Trigger.Response:
        return self.spin.call(self.probe, Trigger, f"arm/{name}")


@pytest.fixture
def bench(spin, probe):
    bench = Bench(spin, probe)
    yield bench
    if bench.manager is not None:
        bench.manager.close()


def contract(folder, *changes: tuple[str, str]) -> str:
    """A copy of the shipped file with other lines."""
    text = FILE.read_text().replace("urdf: so101.urdf", f"urdf: {FILE.parent / 'so101.urdf'}")
    for before, after in changes:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    path = folder / "ros2_control.yaml"
    path.write_text(text)
    return str(path)


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
    file = contract(tmp_path, (text[begin:end], f"    - {{name: /all, type: position, joints: [{', '.join(order)}]}}\n"))
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
    moving = [k for k in range(count, len(received)) if received[k].points != received[k - 1].points]
    targets = np.array([message.points[0].positions for message in received[count:]])
    changes = np.abs(np.diff(targets, axis=0)).max(axis=1) > 0
    brake_s = (velocity / ACCELERATION).max()
    assert changes.sum() <= np.ceil(brake_s / bench.node._loop.period_s) + 2 and moving
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
    count = len(manager.received[ARM])
    bench.refused()
    assert len(manager.received[ARM]) == count and not np.allclose(held, FAR, atol=0.2)
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
    bench.refused()
    counts = {one: len(manager.received[one]) for one in manager.received}
    moved = dict(manager.positions, wrist_roll=manager.positions["wrist_roll"] + 0.5)
    manager.place(moved)
    bench.refused()
    assert counts == {one: len(manager.received[one]) for one in manager.received}
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


def test_other_names_on_another_topic_are_published_as_the_contracts(bench, tmp_path):
    bench.names = ["1", "2", "3", "4", "5", "jaw"]
    file = contract(
        tmp_path,
        ("joints: [shoulder_pan, shoulder_lift, elbow_flex, wrist_flex, wrist_roll]\n", 'joints: ["5", "4", "3", "2", "1"]\n'),
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
        ([("joints: [gripper]}", "joints: [jaw]}"), ("  joints: []", "  joints: [a, b, c, d, e, jaw]")], "no controller has"),
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
        tmp_path, ("joints: [gripper]}", "joints: [jaw]}"),
        ("  joints: []", f"  joints: [{', '.join(CONTRACT.joints[:5])}, jaw]"),
    )
    node = bench.spin.add(ControlNode(contract=file, wait_s=0.0))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "set ros2_control.joint_states" in node.diagnostics.faults["configure"]
