# SPDX-License-Identifier: Apache-2.0
"""Real key presses on a real pseudo terminal drive the real node."""

import os
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages
from lrm_ros.config import RobotContract
from lrm_ros.nodes.recorder import RecorderNode
from lrm_ros.nodes.teleop import TeleopNode
from lrm_ros.record.journal import read_info, read_journal
from lrm_ros.robot.devices.terminal import Terminal
from lrm_ros.robot.so100.kinematics import approach, forward
from lrm_ros.ros.diagnostics import SETTLED_S
from lrm_ros.topics import ESTOP, EVENTS, LATCHED, STOPPED, STREAM
from lrm_ros.types import ActionChunk

CONTRACT = RobotContract()
REST = np.array([0.0, -1.2, 1.1, 1.2, 0.0, 0.2], np.float32)


class Person:
    """A pseudo terminal: what a person types and sees."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self.before = termios.tcgetattr(self.slave)
        self._seen = ""

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def sees(self, text: str) -> bool:
        while select.select([self.master], [], [], 0)[0]:
            self._seen += os.read(self.master, 65536).decode()
        return text in self._seen

    def forget(self) -> None:
        self.sees("")
        self._seen = ""

    @property
    def has_echo_and_lines(self) -> bool:
        flags = termios.tcgetattr(self.slave)[3]
        return bool(flags & termios.ECHO) and bool(flags & termios.ICANON)


@pytest.fixture
def person() -> Iterator[Person]:
    person = Person()
    yield person
    os.close(person.master)
    os.close(person.slave)


class Desk:
    """A running teleop node, its terminal, and an arm whose joint states the test publishes."""

    def __init__(self, spin, probe, person: Person, **overrides) -> None:
        self.spin, self.person = spin, person
        self.node = spin.start(TeleopNode(person.slave, **{"rate_hz": 50.0, "timeout_s": 60.0} | overrides))
        self.states = probe.create_publisher(JointState, "joint_states", STREAM)
        self.commands: list[JointTrajectory] = spin.collect(probe, JointTrajectory, "joint_command", STREAM)
        spin.until(lambda: self.states.get_subscription_count() and probe.count_publishers("joint_command"))
        spin.until(lambda: person.sees("no joint_states"))

    def arm_at(self, state: np.ndarray, stamp_ns: int = 5_000_000_000) -> None:
        self.states.publish(messages.from_state(stamp_ns, CONTRACT.joints, state))
        self.spin.until(lambda: self.node._state is not None)

    def press(self, keys: str) -> np.ndarray:
        """Press keys and return the target of the next command."""
        heard = len(self.commands)
        self.person.press(keys)
        self.spin.until(lambda: len(self.commands) >= heard + 2)
        return messages.to_chunk(self.commands[-1], CONTRACT.joints, 0.1).actions[0]

    def hears(self, text: str) -> None:
        self.spin.until(lambda: self.person.sees(text), what=f"'{text}' on the screen")


@pytest.fixture
def desk(spin, probe, person) -> Desk:
    return Desk(spin, probe, person)


def test_nothing_moves_before_the_first_joint_state(desk):
    desk.person.press("1io")
    desk.hears("no joint_states yet")
    assert not desk.commands
    desk.arm_at(REST)
    desk.hears("+0.00 -1.20 +1.10")
    assert not desk.commands


def test_a_key_moves_its_joint_from_where_the_arm_is_and_the_command_is_repeated(desk):
    desk.arm_at(REST, 7_000_000_000)
    target = desk.press("3")
    np.testing.assert_allclose(target, REST + 0.05 * np.eye(6)[2], atol=1e-6)
    command = desk.commands[-1]
    assert len(command.points) == 1 and messages.to_ns(command.header.stamp) == 7_000_000_000
    np.testing.assert_allclose(desk.press("e"), REST, atol=1e-6)
    assert desk.press("o")[5] == pytest.approx(0.4)
    assert desk.press("cc")[5] == pytest.approx(0.0, abs=1e-6)


def test_joint_states_best_effort_in_parts_and_in_degrees(desk, probe):
    probe.destroy_publisher(desk.states)
    states = probe.create_publisher(JointState, "joint_states", qos_profile_sensor_data)
    desk.spin.until(states.get_subscription_count)
    for part in (slice(0, 5), slice(5, 6)):
        states.publish(messages.from_state(5_000_000_000, CONTRACT.joints[part], REST[part]))
    desk.hears("+0.00 -1.20 +1.10")
    np.testing.assert_allclose(desk.press("3"), REST + 0.05 * np.eye(6)[2], atol=1e-6)
    states.publish(messages.from_state(6_000_000_000, CONTRACT.joints, np.full(6, 60.0)))
    desk.hears("joint shoulder_pan is 60.0, its limits are -2 to 2 rad: does the driver publish degrees?")
    states.publish(messages.from_state(7_000_000_000, CONTRACT.joints, np.zeros(6)))
    desk.spin.until(lambda: desk.node._state is None)
    heard = len(desk.commands)
    desk.person.press("1")
    desk.hears("no joint_states")
    assert len(desk.commands) == heard


def test_a_held_key_never_exceeds_step_and_joint_limits(desk):
    desk.arm_at(REST)
    desk.press("o" * 400 + "1" * 400)
    targets = [messages.to_chunk(command, CONTRACT.joints, 0.1).actions[0] for command in desk.commands]
    change = np.abs(np.diff(np.stack([REST, *targets]), axis=0))
    assert (change <= np.array(CONTRACT.max_step) + 1e-5).all()
    assert (targets[-1] <= np.array(CONTRACT.upper) + 1e-6).all() and targets[-1][5] == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("keys", "way"), [("i", (0.01, 0, 0)), ("\x1b[D", (0, 0.01, 0)), ("mm", (0, 0, -0.02))], ids=["i", "arrow", "mm"]
)
def test_cartesian_keys_move_the_gripper_straight_and_keep_its_pitch(desk, keys, way):
    desk.arm_at(REST)
    target = desk.press(keys)
    np.testing.assert_allclose(forward(target)[0], forward(REST)[0] + way, atol=1.5e-3)
    assert approach(target)[2] == pytest.approx(approach(REST)[2], abs=0.01)
    assert target[4:].tolist() == pytest.approx(REST[4:].tolist())


def test_a_place_out_of_reach_is_a_message_and_no_motion(desk):
    stretched = np.array([0.0, 1.3, -1.2, 0.2, 0.0, 0.2], np.float32)
    desk.arm_at(stretched)
    held = desk.press("i")
    desk.hears("cannot reach")
    np.testing.assert_allclose(held, stretched, atol=1e-6)


def test_joint_states_that_stop_stop_the_commands_and_the_next_key_starts_from_the_new_state(desk):
    desk.arm_at(REST)
    desk.press("1")
    desk.node._arrived_s -= 100.0  # instead of waiting: the last joint state is that old
    desk.hears("joint_states stopped")
    sent = desk.node.diagnostics.total("commands")
    desk.person.press("1")
    desk.hears("no joint_states yet")
    assert desk.node.diagnostics.total("commands") == sent
    desk.arm_at(REST + np.float32(0.1))
    desk.spin.until(lambda: "joint_states" not in desk.node.diagnostics.faults)
    desk.node.diagnostics.now = lambda: time.monotonic() + SETTLED_S  # instead of waiting
    desk.hears("joint_states are good again")
    assert desk.press("1")[0] == pytest.approx(0.15, abs=1e-5)
    assert "joint_states" not in desk.node.diagnostics.faults


@pytest.mark.parametrize("end", ["deactivate", "states stop"])
def test_an_arm_that_was_jogged_is_told_to_hold_where_it_was_sent(desk, probe, end):
    sent = probe.create_publisher(JointTrajectory, "joint_command_sent", STREAM)
    desk.arm_at(REST)
    desk.press("1")
    target = REST + np.float32(0.02)  # it is still on its way
    desk.spin.until(sent.get_subscription_count)
    sent.publish(messages.from_chunk(ActionChunk(5_000_000_000, target[None], 0.1), CONTRACT.joints))
    desk.spin.until(lambda: desk.node._arm.sent is not None)
    if end == "deactivate":
        desk.node.trigger_deactivate()
    else:
        desk.node._arrived_s -= 100.0  # instead of waiting
    desk.spin.until(lambda: messages.to_ns(desk.commands[-1].header.stamp) == 0)
    assert np.allclose(desk.commands[-1].points[0].positions, target)


def test_the_space_bar_stops_the_arm_and_no_key_moves_it_before_its_release(desk, probe):
    asked, stopped = desk.spin.collect(probe, Bool, ESTOP.name, LATCHED), STOPPED.publisher(probe)
    desk.spin.until(lambda: probe.count_publishers(ESTOP.name) and stopped.get_subscription_count() == 3)
    desk.arm_at(REST)
    desk.press("1 ")
    desk.hears("E-STOP sent, no arm has said that it is stopped")
    desk.spin.until(lambda: [message.data for message in asked] == [True])
    stopped.publish(Bool(data=True))
    desk.hears("[STOPPED]")
    heard = desk.node.diagnostics.total("commands")
    desk.person.press("1")
    desk.hears("the arm is stopped; when it is safe, release it: lrm estop --release")
    assert desk.node.diagnostics.total("commands") == heard and "estop" in desk.node.diagnostics.faults
    stopped.publish(Bool(data=False))
    desk.spin.until(lambda: [message.data for message in asked] == [True, False], what="nothing that stops a new arm")
    assert desk.press("3")[2] == pytest.approx(REST[2] + 0.05) and not desk.node.diagnostics.faults


def test_without_a_recorder_an_episode_key_names_what_is_missing(desk):
    desk.person.press("s")
    desk.hears("is node 'recorder' running?")
    desk.person.forget()
    desk.person.press("h")
    desk.hears("again (discard, start anew)")


def test_keys_come_apart_and_escape_sequences_hold_together(person):
    terminal = Terminal(person.slave)
    terminal.open()
    person.press("1\x1b[A\x1b[5~q\x1b[")
    assert terminal.read() == ["1", "\x1b[A", "\x1b[5~", "q"]
    person.press("C\x1bi")
    assert terminal.read() == ["\x1b[C", "i"]
    assert not person.has_echo_and_lines
    terminal.close()
    assert termios.tcgetattr(person.slave) == person.before


def program(person: Person | None, code: str = "from lrm_ros.nodes.teleop import main; raise SystemExit(main())"):
    """Start the node as a program of its own on the person's terminal."""
    stdio = subprocess.DEVNULL if person is None else person.slave
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=stdio,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        cwd=Path(__file__).parents[2],
    )


def wait_for(predicate, process: subprocess.Popen, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not predicate():
        assert time.monotonic() < deadline and process.poll() is None, "the program did not get that far"
        select.select([], [], [], 0.02)


BROKEN = """
from lrm_ros.nodes import teleop
from lrm_ros.ros.program import run
class Broken(teleop.TeleopNode):
    def _on_key(self, key, refused):
        raise RuntimeError("a defect")
raise SystemExit(run(Broken))
"""


@pytest.mark.parametrize(
    ("code", "end", "exit_code"),
    [
        (None, lambda process, person: person.press("x"), 0),
        (None, lambda process, person: process.send_signal(signal.SIGTERM), 0),
        (BROKEN, lambda process, person: person.press("1"), 1),
    ],
    ids=["key", "signal", "exception"],
)
def test_the_terminal_is_put_back_however_the_program_ends(person, code, end, exit_code):
    process = program(person, code) if code else program(person)
    wait_for(lambda: person.sees("no joint_states"), process)
    assert not person.has_echo_and_lines
    end(process, person)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == exit_code, output
    assert termios.tcgetattr(person.slave) == person.before


def test_without_a_terminal_the_program_says_what_to_do():
    process = program(None)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "ssh -t" in output


@pytest.fixture
def recorder(spin, tmp_path) -> Iterator[RecorderNode]:
    node = spin.start(RecorderNode(folder=str(tmp_path), min_free_mb=1))
    yield node
    node.close()  # its thread would keep the test run alive
    spin.nodes.remove(node)


def test_a_demonstration_in_the_twin_is_recorded_from_the_keyboard(spin, probe, person, recorder, tmp_path):
    from lrm_ros.sim.twin.node import TwinNode

    twin = spin.start(TwinNode(realtime=True))
    node = spin.start(TeleopNode(person.slave, seed=3))
    events = spin.collect(probe, DiagnosticStatus, "episode", EVENTS)
    control = node.episodes.control
    spin.until(lambda: all(map(control.ready, control._clients)))
    spin.until(lambda: node._state is not None and recorder._task and probe.count_publishers("episode"))

    def until_seen(text: str) -> None:
        spin.until(lambda: person.sees(text), 30.0, f"'{text}' on the screen")

    person.press("s")
    until_seen("RECORDING")
    assert twin._seed == 3
    commands = node.diagnostics.total("commands")
    person.press("111")
    spin.until(lambda: node.diagnostics.total("commands") >= commands + 8)
    person.press("x")
    until_seen("x again quits")
    person.press("g")
    until_seen("success 1")
    path = next(tmp_path.glob("*.mcap"))
    episode, info = read_journal(path), read_info(path)
    assert info.outcome is True and info.source == "teleop" and episode.task.startswith("put the ")
    assert len(episode.steps) >= 8
    moved = episode.steps[-1].action[0] - episode.steps[0].action[0]
    assert moved == pytest.approx(0.15, abs=0.03)
    assert episode.steps[-1].observation.frames["front"].image.shape == (96, 96, 3)

    person.press("s")
    until_seen("seed 4")
    spin.until(lambda: node.episodes.name)
    person.forget()
    person.press("a")
    until_seen("discarded 1")
    spin.until(lambda: node.episodes.name and not node.episodes.busy)
    assert twin._seed == 4
    person.press("f")
    until_seen("failure 1")
    person.press("d")
    until_seen("no episode is being recorded")
    spin.until(lambda: len(events) == 6)
    assert [event.message for event in events] == ["started", "ended", "started", "discarded", "started", "ended"]
    assert len(list(tmp_path.glob("*.mcap"))) == 2 and not list(tmp_path.glob("*.part"))
