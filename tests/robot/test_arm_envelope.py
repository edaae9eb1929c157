# SPDX-License-Identifier: Apache-2.0
"""The server of an arm with an envelope: the points of a command between control steps, speeds, holds."""

from __future__ import annotations

import numpy as np
import pytest

from lrm_ros import messages
from lrm_ros.config import RobotContract
from lrm_ros.config_arm import EnvelopeSettings
from lrm_ros.robot.arm import ArmServer, NotSent
from lrm_ros.robot.arm_envelope import EnvelopeServer
from lrm_ros.robot.envelope import Envelope
from lrm_ros.types import ActionChunk

CONTRACT = RobotContract(
    joints=("a", "b"), lower=(-1.0, -1.0), upper=(1.0, 1.0), max_step=(0.1, 0.5), control_hz=10.0
)  # fmt: skip
SETTINGS = EnvelopeSettings(max_velocity=(9.0, 9.0), max_acceleration=(10.0, 10.0))
AT_ONCE = EnvelopeSettings(max_velocity=(9.0, 9.0), max_acceleration=(1e6, 1e6))
DT = 100_000_000
BEGIN = 5_000_000_000


class Motors:
    """An arm that remembers what it was sent, and is not quite there."""

    def __init__(self) -> None:
        self.targets: list[list[float]] = []
        self.position = np.zeros(2, np.float32)

    def read(self):
        return BEGIN, self.position

    def send(self, target) -> None:
        assert target.dtype == np.float32
        self.targets.append(np.round(target.astype(float), 4).tolist())
        self.position = target - np.float32(0.01)


@pytest.fixture
def motors() -> Motors:
    return Motors()


def server(motors, settings=SETTINGS) -> EnvelopeServer:
    return EnvelopeServer(motors, CONTRACT, Envelope(CONTRACT, settings))


def chunk(stamp_ns: int, *actions) -> ActionChunk:
    return ActionChunk(stamp_ns, np.array(actions, np.float32), 0.1)


def track(arm: EnvelopeServer, after_ns: float, speed: float = np.inf) -> bool:
    return arm.track(BEGIN + round(after_ns), 100.0 + after_ns / 1e9, speed)


def test_between_the_points_of_a_command_the_target_is_interpolated_and_at_the_control_steps_it_is_theirs(motors):
    arm = server(motors, AT_ONCE)
    track(arm, 0)
    arm.follow(arm.accept(chunk(BEGIN, [0.0, 0.1], [0.08, 0.3], [0.08, 0.2]), BEGIN))
    for k in range(1, 31):
        track(arm, k * DT / 10)
    targets = np.array(motors.targets[1:])  # of 10, 20, ... 300 ms
    assert targets[9].tolist() == [0.08, 0.3] and targets[19:].tolist() == [[0.08, 0.2]] * 11
    assert targets[4] == pytest.approx([0.04, 0.2], abs=1e-4) and targets[14] == pytest.approx([0.08, 0.25], abs=1e-4)
    assert targets[0] == pytest.approx([0.008, 0.05], abs=1e-3), "the step limit of a tenth of a control step"


@pytest.mark.parametrize(("speed", "most"), [(np.inf, 0.1), (0.2, 0.02), (5.0, 0.1)])
def test_however_often_targets_are_sent_a_control_step_moves_no_further_than_its_limit(motors, speed, most):
    arm = server(motors, AT_ONCE)
    assert track(arm, 0, speed)
    arm.follow(arm.accept(chunk(0, [1.0, -1.0]), BEGIN))
    for k in range(1, 8):
        assert not track(arm, k * DT // 7, speed)
    assert motors.targets[-1] == pytest.approx([most, max(-0.5, -speed * 0.1)], abs=1e-3)
    assert track(arm, 200 * DT) is False, "a pause is no leave to jump"
    assert motors.targets[-1][0] <= most + 2 * 0.1 + 1e-3
    for k in range(201, 212):
        track(arm, k * DT)
    assert motors.targets[-1] == [1.0, -1.0] and track(arm, 212 * DT)


def moving(motors) -> EnvelopeServer:
    """An arm in the middle of a motion of 1 rad/s of joint a, of more of joint b."""
    arm = server(motors)
    track(arm, 0)
    arm.follow(arm.accept(chunk(0, [1.0, -1.0]), BEGIN))
    for k in range(1, 31):
        track(arm, k * DT / 10)
    assert abs(arm.envelope.velocity[0]).min() > 0.9
    return arm


def test_a_hold_brakes_within_the_acceleration_and_stays(motors):
    arm = moving(motors)
    arm.drop()
    for k in range(31, 100):
        track(arm, k * DT / 10)
    a = np.array(motors.targets)[-75:, 0]
    speeds = np.diff(a) / 0.01
    assert np.abs(np.diff(speeds)).max() / 0.01 <= 10.0 + 2.5, "the targets here are rounded to 0.1 mrad"
    assert speeds[3] > 0.9 and speeds[-1] == 0 and arm.envelope.standing
    assert a[-1] == pytest.approx(a[5] + 0.05, abs=0.01), "v^2 / 2a from where it was"


def test_after_targets_that_were_not_sent_the_motion_begins_at_the_last_one_that_was(motors, monkeypatch):
    arm = moving(motors)
    heard = motors.targets[-1]

    def fail(target) -> None:
        raise NotSent("not sent")

    monkeypatch.setattr(motors, "send", fail)
    for k in range(31, 60):
        with pytest.raises(NotSent):
            track(arm, k * DT / 10)
        assert arm.sent == pytest.approx(heard, abs=1e-4)
    monkeypatch.undo()
    track(arm, 6 * DT)
    assert np.abs(np.array(motors.targets[-1]) - heard).max() <= 10.0 * 0.01**2


def test_a_hold_where_the_arm_is_is_sent_at_once(motors):
    arm = moving(motors)
    motors.position = motors.position - np.float32(0.05)
    assert arm.hold(measured=True) == pytest.approx(motors.targets[-1], abs=1e-4)
    assert arm.envelope.standing and track(arm, 31 * DT / 10)
    assert motors.targets[-1] == motors.targets[-2]


def test_a_new_beginning_in_a_motion_brakes_it_and_one_at_rest_is_where_the_arm_is(motors):
    arm = moving(motors)
    before = arm.sent.copy()
    arm.start_anew()
    assert arm.sent.tolist() == before.tolist() and not arm.envelope.standing
    assert arm.accept(chunk(BEGIN - 1, [0.0, 0.0]), BEGIN) is None, "older commands mean nothing"
    while not arm.envelope.standing:
        track(arm, len(motors.targets) * DT / 10)
    arm.start_anew()
    assert arm.sent.tolist() == motors.position.tolist()


def test_an_arm_that_is_faster_than_it_may_be_now_brakes_first(motors):
    arm = moving(motors)
    speeds = []
    for k in range(31, 60):
        track(arm, k * DT / 10, 0.3)
        speeds.append(abs(arm.envelope.velocity[0]).max())
    assert speeds[0] > 1 and speeds[-1] == pytest.approx(0.3) and np.diff(speeds).max() <= 0.1 + 1e-9


WAY = 0.06 * np.sin(np.arange(30) / 4.0)[:, None] * np.array([1.0, 2.0])  # (K, D) of one command
MESSAGE = messages.from_chunk(chunk(BEGIN, *WAY), CONTRACT.joints)


def test_at_the_control_steps_the_targets_are_those_of_the_twins_server_for_the_same_message(motors):
    """What is recorded as a step's action is the command's point of that step, in the twin and here."""
    other = Motors()
    twin, arm = ArmServer(other, CONTRACT), server(motors, AT_ONCE)
    for each in (twin, arm):
        each.follow(each.accept(messages.to_chunk(MESSAGE, CONTRACT.joints, CONTRACT.dt_s), BEGIN))
    for k in range(len(WAY)):
        twin.step(BEGIN + k * DT)
        for part in range(10):
            track(arm, k * DT + part * DT / 10)
            if part == 0 and k:  # the first one is where the arm begins
                assert motors.targets[-1] == pytest.approx(other.targets[-1], abs=2e-4), k
    assert other.targets[-1] == pytest.approx(WAY[-1], abs=1e-4)


def test_the_joints_are_nearer_to_the_twins_than_if_points_were_reached_at_time_from_start(motors):
    """Drives as the twin's (a first-order system of 0.1 s), envelope and bus rate as of config/so100_bus.yaml."""
    fast = EnvelopeSettings(max_velocity=(3.0, 3.0), max_acceleration=(40.0, 40.0))
    twin = np.repeat(WAY, 12, axis=0)  # its target stands for a control step

    def targets(late_steps: int) -> np.ndarray:
        arm = server(Motors(), fast)
        given = messages.to_chunk(MESSAGE, CONTRACT.joints, CONTRACT.dt_s)
        arm.follow(arm.accept(ActionChunk(BEGIN + late_steps * DT, given.actions, given.dt_s), BEGIN))
        for cycle in range(len(twin)):
            track(arm, cycle * DT / 12)
        return np.array(arm._arm.targets)

    def apart(given: np.ndarray) -> float:
        joints = [np.zeros((2, 2))]
        for both in np.stack([given, twin], axis=1):
            joints.append(joints[-1] + (both - joints[-1]) * (0.1 / 12) / 0.1)
        here, there = np.moveaxis(np.array(joints[24:]), 1, 0)
        return float(np.abs(here - there).mean())

    assert apart(targets(0)) < 0.85 * apart(targets(1))
