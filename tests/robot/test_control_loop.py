# SPDX-License-Identifier: Apache-2.0
"""What controllers are sent, in time that the tests make: limits at their joints, stops, hindrances, stuck joints."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from controllers import TrajectoryController  # type: ignore[import-not-found]
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from lrm_ros import messages
from lrm_ros.config import RobotContract
from lrm_ros.config_arm import SECTIONS, ControlNodeConfig, load_control
from lrm_ros.config_files import load_yaml
from lrm_ros.robot.control_loop import LONGEST, ControlLoop
from lrm_ros.robot.envelope import Envelope
from lrm_ros.types import ActionChunk

FILE = Path(__file__).parents[2] / "config" / "ros2_control.yaml"
CONTRACT = load_yaml(FILE, RobotContract, SECTIONS)
SETTINGS = dataclasses.replace(load_control(FILE, CONTRACT), box_lower=(), box_upper=())
HIGHEST, ACCELERATION = np.array(SETTINGS.max_velocity), np.array(SETTINGS.max_acceleration)
HOME = np.array([0.2, -0.5, 0.5, 0.3, 0.4, 0.5])
FAR = np.array([1.5, -1.2, 1.0, -1.0, 1.5, 1.2])
BEGAN_NS = 10**18
ROUNDING = 2e-4  # of targets in float32 over a period, and of times in ns [rad/s]


class Line:
    """A loop, a controller that follows exactly, and the clock of both."""

    def __init__(self) -> None:
        self.now_s, self.hindrance, self.faults = 0.0, "", {}
        self.sent: list[np.ndarray] = []
        self.times: list[float] = []
        self.published: list[np.ndarray] = []
        self.controller = TrajectoryController(CONTRACT.joints)
        self.controller.activate(HOME, 0.0)
        self.stuck = np.zeros(6, bool)
        self.position = HOME.copy()
        envelope = Envelope(CONTRACT, SETTINGS)
        state = BEGAN_NS, HOME.astype(np.float32)
        config = ControlNodeConfig(approach_speed=10.0)
        self.loop = ControlLoop(
            CONTRACT, SETTINGS, envelope, state, self.put, lambda: self.hindrance, lambda: config, self
        )
        self.loop.activate()

    # -- who the loop sends to and tells

    def put(self, target, seconds):
        self.sent.append(np.array(target, float))
        self.times.append(self.now_s)
        point = JointTrajectoryPoint(positions=self.sent[-1].tolist(), time_from_start=messages.to_duration(seconds))
        message = JointTrajectory(joint_names=list(CONTRACT.joints), points=[point])
        self.controller.take(message, self.now_s, BEGAN_NS)

    def on_sent(self, stamp_ns, target):
        self.published.append(target)

    def on_fault(self, key, message):
        self.faults[key] = message

    def on_good(self, key, message):
        del self.faults[key]

    # -- what happens

    @property
    def now(self) -> tuple[int, float]:
        return BEGAN_NS + round(1e9 * self.now_s), self.now_s

    def follow(self, target) -> bool:
        return self.loop.follow(ActionChunk(self.now[0], np.float32([target]), CONTRACT.dt_s), *self.now)

    def step(self, seconds: float | None = None) -> None:
        """Let a period pass."""
        self.now_s += self.loop.period_s if seconds is None else seconds
        self.position = np.where(self.stuck, self.position, self.controller.at(self.now_s))
        if self.hindrance != "states":
            self.loop.on_state(self.now[0], self.position.astype(np.float32), self.now[0])
        self.loop.cycle(*self.now)

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.step()

    def until_still(self) -> int:
        """Steps until the motion stands."""
        for count in range(1000):
            if self.loop.server.envelope.standing:
                return count
            self.step()
        raise AssertionError("it does not come to a stand")


@pytest.fixture
def line():
    return Line()


@pytest.mark.parametrize("seed", range(3))
def test_no_controllers_joint_is_faster_than_its_limit_whatever_the_periods(line, seed):
    rng = np.random.default_rng(seed)
    period = line.loop.period_s
    for _ in range(1500):
        if rng.random() < 0.02:
            line.follow(rng.uniform(CONTRACT.lower, CONTRACT.upper))
        line.step(period * rng.choice([1.0, 0.3, 1.7, 4.0, 9.0, 30.0], p=[0.8, 0.05, 0.1, 0.03, 0.01, 0.01]))
    assert not line.controller.refused and line.loop.late > 0 and not line.faults
    assert (line.controller.fastest <= HIGHEST + ROUNDING).all()
    assert (line.controller.fastest[:3] > 0.9 * HIGHEST[:3]).all(), "they were driven to it"
    sent = np.array(line.sent)
    assert (sent >= np.float32(CONTRACT.lower)).all() and (sent <= np.float32(CONTRACT.upper)).all()


def test_at_its_own_period_the_acceleration_of_the_controllers_joints_is_limited(line):
    line.step()
    line.follow(FAR)
    line.steps(40)
    line.follow(HOME)
    line.steps(150)
    velocity = np.diff(line.sent, axis=0) / np.diff(line.times)[:, None]
    change = np.abs(np.diff(velocity, axis=0)) / line.loop.period_s
    assert (change <= ACCELERATION + 2 * ROUNDING / line.loop.period_s).all()
    assert (change.max(axis=0) > 0.9 * ACCELERATION).all()
    assert line.controller.at(line.now_s) == pytest.approx(HOME, abs=1e-5)


def test_after_a_pause_the_motion_begins_anew_where_the_controller_stands(line):
    line.follow(FAR)
    line.steps(30)
    assert np.abs(line.loop.server.envelope.velocity).max() > 1.0
    last = line.sent[-1]
    line.step(0.2)
    assert (np.abs(line.sent[-1] - last) <= ACCELERATION * (LONGEST * CONTRACT.dt_s) ** 2 / 2 + 1e-5).all(), "no leap"
    assert (line.controller.fastest <= HIGHEST + ROUNDING).all()
    line.steps(200)
    assert line.controller.at(line.now_s) == pytest.approx(FAR, abs=1e-5), "its command goes on"


def test_where_every_cycle_is_late_it_still_arrives(line):
    line.follow(FAR)
    for _ in range(250):
        line.step(1.1 * LONGEST * CONTRACT.dt_s)
    assert line.loop.late > 200 and line.controller.at(line.now_s) == pytest.approx(FAR, abs=1e-3)
    assert (line.controller.fastest <= HIGHEST + ROUNDING).all()


def test_a_program_that_stood_still_forgets_its_command_and_says_so(line):
    line.follow(FAR)
    line.steps(30)
    last = line.sent[-1]
    line.step(0.5)
    assert line.faults["cycles"].startswith("this program stood still for 0.5 s")
    line.steps(100)
    assert line.sent[-1] == pytest.approx(last, abs=1e-5) and not line.faults
    assert line.follow(FAR)


def test_a_stop_brakes_in_a_known_number_of_messages_and_holds(line):
    line.follow(FAR)
    line.steps(30)
    velocity = np.abs(line.loop.server.envelope.velocity[0])
    at, count = line.sent[-1], len(line.sent)
    line.loop.stop(*line.now)
    assert len(line.sent) == count + 1, "at once"
    line.until_still()
    assert len(line.sent) - count <= np.ceil((velocity / ACCELERATION).max() / line.loop.period_s) + 2
    assert (np.abs(line.sent[-1] - at) <= velocity**2 / (2 * ACCELERATION) + 1e-3).all()
    held = line.sent[-1]
    assert not line.follow(FAR)
    line.steps(50)
    assert (line.sent[-1] == held).all() and len(line.sent) > count + 50, "the hold is sent again and again"
    line.loop.release()
    line.steps(20)
    assert line.sent[-1] == pytest.approx(held, abs=1e-5), "the command from before means nothing"
    assert line.follow(FAR)


@pytest.mark.parametrize("what", ["states", "controllers"])
def test_what_hinders_makes_it_brake_then_silent_and_the_arm_begins_where_it_is(line, what):
    line.follow(FAR)
    line.steps(30)
    line.hindrance = what
    assert not line.follow(FAR), "at once"
    line.step()
    assert not line.follow(FAR)
    line.until_still()
    line.step()
    count = len(line.sent)
    line.steps(50)
    assert len(line.sent) == count and line.loop.silent
    with pytest.raises(ValueError, match=what):
        line.loop.activate()
    with pytest.raises(ValueError, match=what):
        line.loop.reset()
    line.position = line.position + 0.25  # moved by hand meanwhile
    line.controller.activate(line.position, line.now_s)
    line.hindrance = ""
    line.step()
    assert line.sent[-1] == pytest.approx(line.position, abs=1e-6), "not where it was before"
    line.steps(20)
    assert line.sent[-1] == pytest.approx(line.position, abs=1e-6) and line.loop.late == 0


def test_a_joint_that_does_not_follow_is_a_fault_and_the_targets_go_back_to_the_arm(line):
    line.follow(FAR)
    line.stuck[0] = True
    for _ in range(200):
        line.step()
        if line.loop.fault:
            break
    off = np.abs(line.sent[-1] - line.position)[0]
    assert SETTINGS.follow_tolerance - 0.05 < off < SETTINGS.follow_tolerance + 0.05
    assert line.faults["arm"].startswith("joint shoulder_pan is 0.3") and "~/reset" in line.faults["arm"]
    found = line.position.copy()
    for _ in range(300):
        line.step()
    assert line.loop.silent and line.sent[-1] == pytest.approx(found, abs=1e-5)
    assert not line.follow(FAR)
    line.loop.stop(*line.now)
    with pytest.raises(ValueError, match="release it first"):
        line.loop.reset()
    line.loop.release()
    assert line.loop.silent
    line.stuck[0] = False
    line.loop.reset()
    assert not line.faults and line.follow(FAR)
    line.steps(300)
    assert line.controller.at(line.now_s) == pytest.approx(FAR, abs=1e-5)


def test_a_gripper_that_presses_on_something_is_no_fault(line):
    line.stuck[5] = True
    line.follow(FAR)
    line.steps(300)
    assert not line.faults and abs(line.sent[-1][5] - line.position[5]) > SETTINGS.follow_tolerance


def test_the_end_brakes_and_its_last_message_is_the_hold(line):
    line.follow(FAR)
    line.steps(30)
    passed = []

    def wait(seconds):
        passed.append(seconds)
        line.now_s += seconds

    assert line.loop.finish(lambda: line.now, wait)
    assert len(passed) * line.loop.period_s < (HIGHEST / ACCELERATION).max() + 0.1
    assert (line.sent[-1] == line.sent[-2]).all() and line.loop.server.envelope.standing
    assert not line.follow(FAR)


def test_what_was_sent_is_told_once_a_control_step(line):
    line.follow(FAR)
    before = len(line.published)
    line.steps(4 * 30)
    assert len(line.published) - before == pytest.approx(30, abs=1)
