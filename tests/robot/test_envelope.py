# SPDX-License-Identifier: Apache-2.0
"""The envelope of a real arm: every limit holds for every wish, it gets where it may and comes back from outside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lrm_ros.config import RobotContract
from lrm_ros.config_files import load_yaml
from lrm_ros.robot.envelope import _LATE, Envelope, EnvelopeSettings, _Motion
from lrm_ros.robot.profile import approach, brake, stop_point
from lrm_ros.robot.urdf import LinkPoints, Urdf

JOINTS = RobotContract().joints
URDF = Urdf(Path(__file__).resolve().parents[2] / "config/so101.urdf")
CONTRACT = RobotContract(
    name="so101", joints=JOINTS, lower=(-1.7,) * 6, upper=(1.6,) * 6, max_step=(0.1,) * 5 + (0.02,), control_hz=30.0
)
FREE = EnvelopeSettings((2.0,) * 6, (10.0,) * 6)
BOXED = replace(FREE, box_lower=(-0.2, -0.35, 0.05), box_upper=(0.25, 0.3, 0.45))
WILD = replace(BOXED, max_velocity=(1000.0,) * 6, max_acceleration=(2000.0,) * 6)
BOX = np.array([BOXED.box_lower, BOXED.box_upper])
DT = 1 / 30
HOME = np.array([0.0, -0.5, 0.5, 0.5, 0.0, 0.0])
DOWN = np.array([0.0, 1.5, -0.5, 1.5, 0.0, 0.0])  # would take the tool below the table
POINTS = LinkPoints(URDF, JOINTS, BOXED.points)


def envelope(settings: EnvelopeSettings = FREE, start=HOME, arms: int = 1) -> Envelope:
    made = Envelope(CONTRACT, settings, URDF, arms)
    made.start(start)
    return made


def out_of_box(q: np.ndarray) -> float:
    at = POINTS(q)
    return float(np.maximum(BOX[0] - at, at - BOX[1]).max())


# -- the motion --------------------------------------------------------------------------------------------------------


def test_the_quickest_way_to_a_goal_is_inside_its_limits_at_every_moment_and_ends_there() -> None:
    rng = np.random.default_rng(0)
    n, step = 300, 1e-3
    a, top = rng.uniform(1, 20, (n, 1)), rng.uniform(0.2, 3, (n, 1))
    p, v, goal = rng.uniform(-2, 2, (n, 1)), rng.uniform(-1, 1, (n, 1)) * top, rng.uniform(-2, 2, (n, 1))
    time = np.arange(0, 25, step)[None]
    q, speed = approach(p, v, goal, top, a, time)
    np.testing.assert_allclose(q[:, :1], p, atol=1e-12)
    np.testing.assert_allclose(speed[:, :1], v, atol=1e-12)
    np.testing.assert_array_equal(q[:, -1:], goal)
    assert not speed[:, -1].any()
    assert (np.abs(speed) <= top + 1e-12).all()
    assert (np.abs(np.diff(speed)) <= a * step + 1e-12).all()
    np.testing.assert_allclose(np.diff(q), (speed[:, 1:] + speed[:, :-1]) / 2 * step, atol=1e-4 * 3)
    first = stop_point(p, v, a)
    reach = stop_point(q, speed, a)
    assert (reach <= np.maximum(first, goal) + 1e-9).all() and (reach >= np.minimum(first, goal) - 1e-9).all()
    stood = brake(p, v, a, np.array([[10.0]]))
    np.testing.assert_allclose(stood[0], first, atol=1e-12)
    assert not stood[1].any()


def test_no_way_to_a_goal_is_quicker() -> None:
    """Of rest to rest: 2 sqrt(d / a) without the highest velocity, d / v + v / a with it."""
    for distance, top, seconds in ((0.1, 9.0, 0.2), (-0.1, 9.0, 0.2), (2.0, 1.0, 2.1)):
        at = [approach(0.0, 0.0, distance, top, 10.0, np.array([t]))[0][0] for t in (seconds - 0.01, seconds + 1e-9)]
        assert abs(at[0]) < abs(distance) and at[1] == distance


# -- limits ------------------------------------------------------------------------------------------------------------


def test_a_wish_beyond_everything_ends_at_the_limits_in_float32_too() -> None:
    for wish, limit in ((np.full(6, 1e9), CONTRACT.upper), (np.full(6, -1e9), CONTRACT.lower)):
        arm = envelope()
        for _ in range(400):
            sent = arm.step(wish, DT).astype(np.float32).astype(np.float64)
            assert (sent >= CONTRACT.lower).all() and (sent <= CONTRACT.upper).all()
        np.testing.assert_allclose(sent, limit, atol=2e-7)
        assert arm.standing


def test_the_contracts_step_for_a_control_period_holds_at_every_rate() -> None:
    for dt in (1e-3, DT, 2 * DT):
        arm, last = envelope(), HOME
        for _ in range(200):
            sent = arm.step(np.ones(6), dt)
            assert (np.abs(sent - last) <= np.multiply(CONTRACT.max_step, dt / DT) + 1e-12).all()
            last = sent
        assert arm.highest[5] == pytest.approx(0.02 * 30) and arm.highest[0] == 2.0


def test_a_wish_that_can_be_had_is_had() -> None:
    rng = np.random.default_rng(1)
    arm = envelope()
    for wish in rng.uniform(-1.5, 1.5, (10, 6)):
        steps = 0
        while not np.array_equal(arm.step(wish, DT), wish):
            steps += 1
            assert steps < 220  # the gripper takes up to 3 rad / 0.6 rad/s
        assert arm.standing


def test_a_hold_brakes_and_then_stands() -> None:
    arm = envelope()
    for _ in range(8):
        arm.step(np.ones(6), DT)
    assert not arm.standing and not arm.blocked[0]
    speed = arm.velocity[0].copy()
    for _ in range(int(np.ceil(speed.max() / 10.0 / DT)) + 1):
        arm.hold(DT)
    assert arm.standing
    at = arm.target.copy()
    np.testing.assert_array_equal(arm.hold(DT), at)


def test_a_pause_is_braked_through_and_no_leap_follows() -> None:
    arm = envelope()
    for _ in range(8):
        arm.step(np.ones(6), DT)
    before, speed = arm.target.copy(), arm.velocity[0].copy()
    after = arm.step(np.ones(6), 5.0)
    longest = speed**2 / 20 + arm.highest * 2 * DT
    assert (np.abs(after - before) <= longest + 1e-12).all()


def test_what_cannot_be_a_wish_is_one_line_and_changes_nothing() -> None:
    arm = envelope()
    arm.step(np.ones(6), DT)
    before = arm.target.copy(), arm.velocity.copy()
    for wish, said in (
        (np.full(6, np.nan), "joint target is not finite: shoulder_pan = nan"),
        (np.array([0, 0, np.inf, 0, 0, 0]), "elbow_flex = inf"),
        (np.zeros(5), r"has shape \(5,\), the robot contract 'so101' has 6 joints"),
        (np.zeros((1, 6)), r"has shape \(1, 6\)"),
    ):
        with pytest.raises(ValueError, match=said):
            arm.step(wish, DT)
    for dt in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="the period is"):
            arm.step(HOME, dt)
        with pytest.raises(ValueError, match="the period is"):
            arm.hold(dt)
    with pytest.raises(ValueError, match="joint position is not finite: gripper = nan"):
        arm.start(np.array([0, 0, 0, 0, 0, np.nan]))
    np.testing.assert_array_equal(arm.target, before[0])
    np.testing.assert_array_equal(arm.velocity, before[1])
    with pytest.raises(RuntimeError, match="call start first"):
        Envelope(CONTRACT, FREE).step(HOME, DT)


def test_settings_that_cannot_be_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_velocity has 5 values, there are 6 joints"):
        Envelope(CONTRACT, replace(FREE, max_velocity=(1.0,) * 5))
    with pytest.raises(ValueError, match=r"max_acceleration is .*give finite numbers above 0"):
        replace(FREE, max_acceleration=(1.0, 0.0))
    for lower, upper in (((0, 0, 0), ()), ((0, 0), (1, 1)), ((0, 0, 0), (1, 1, 0)), ((0, 0, np.nan), (1, 1, 1))):
        with pytest.raises(ValueError, match="give x, y, z of two corners"):
            replace(FREE, box_lower=lower, box_upper=upper)
    with pytest.raises(ValueError, match="no points that it holds"):
        replace(BOXED, points=())
    with pytest.raises(ValueError, match="a box needs the arm's URDF"):
        Envelope(CONTRACT, BOXED)
    with pytest.raises(ValueError, match="has no link 'hand'"):
        Envelope(CONTRACT, replace(BOXED, points=("hand",)), URDF)
    with pytest.raises(ValueError, match="joint 'wrist_roll' has no position"):
        Envelope(replace(CONTRACT, joints=(*JOINTS[:4], "roll", "gripper")), BOXED, URDF)
    file = tmp_path / "envelope.yaml"
    file.write_text("max_velocity: [1, 1]\nmax_acceleration: [2, 2]\nbox_lower: [0, 0, 0]\nbox_upper: [1, 1, 1]\n")
    assert load_yaml(file, EnvelopeSettings).box_upper == (1.0, 1.0, 1.0)


# -- the box -----------------------------------------------------------------------------------------------------------


def random_inside(count: int, rng: np.random.Generator) -> np.ndarray:
    pool = rng.uniform(CONTRACT.lower, CONTRACT.upper, (40 * count, 6))
    at = POINTS(pool)
    return pool[((at > BOX[0] + 0.01) & (at < BOX[1] - 0.01)).all(axis=(1, 2))][:count]


def room(q: np.ndarray) -> np.ndarray:
    at = POINTS(q)
    return np.minimum(at - BOX[0], BOX[1] - at).min(axis=(-1, -2))


@pytest.mark.parametrize("settings", [BOXED, WILD], ids=["as an arm", "as no arm"])
def test_the_box_is_not_left_by_targets_nor_in_the_braking_from_any_of_them(settings: EnvelopeSettings) -> None:
    rng = np.random.default_rng(2)
    start = random_inside(25, rng)
    assert len(start) == 25
    arms = Envelope(replace(CONTRACT, max_step=(40.0,) * 6), settings, URDF, 25)
    arms.start(start)
    nearest, blocked = -np.inf, 0
    for period in range(60):
        if period % 6 == 0:
            wishes = rng.choice([-5.0, 5.0], start.shape)
        arms.advance(wishes, rng.uniform(0.005, 0.06, 25), np.zeros(25, bool))
        blocked += arms.blocked.sum()
        position, velocity = arms.position, arms.velocity
        for time in np.linspace(0, 0.25, 40):  # also between the targets that would be sent
            nearest = max(nearest, out_of_box(brake(position, velocity, arms.acceleration, np.array([[time]]))[0]))
    assert blocked > 150 and -0.01 < nearest < 0


def test_what_leaves_the_box_between_two_looks_is_seen() -> None:
    """The arm stretched out swings past the middle, where it reaches furthest, from one look to the next one."""
    reach = -POINTS(np.zeros(6))[0, 1]
    swing = 0.28 / (1 - (1 - _LATE[0, 0]) ** 2)  # of which the first look's part is 0.28 rad
    q = np.array([[-0.14, 0, 0, 0, 0, 0]])
    speed = np.array([[np.sqrt(2 * 10 * swing), 0, 0, 0, 0, 0]])
    limits = np.full((1, 6), 9.0), np.full((1, 6), 10.0)
    motion = _Motion(q, speed, q, *limits, np.array([[1e-9]]))
    for room_m, good in ((-0.001, False), (0.1, True)):
        arm = envelope(replace(BOXED, box_lower=(-0.5, -reach - room_m, 0.0), box_upper=(0.5, 0.5, 0.6)))
        ways = brake(q, speed, limits[1], np.linspace(0, 1, 2000)[:, None, None])[0][:, 0]
        looks = brake(q, speed, limits[1], speed.max() / 10 * np.array([0.0, *_LATE[:, 0]])[:, None, None])[0][:, 0]
        leaves = (POINTS(ways)[:, 0, 1] < -reach - room_m).any()
        assert leaves != good and (POINTS(looks)[:, 0, 1] > -reach - room_m + 0.002).all()
        assert arm._inside(motion, POINTS(q), np.zeros((1, 6)))[0] == good


def test_a_wish_through_the_table_ends_above_it_and_another_joint_still_moves() -> None:
    arm = envelope(BOXED)
    for _ in range(200):
        sent = arm.step(DOWN, DT)
        assert out_of_box(sent) < 0
    assert arm.blocked[0] and out_of_box(sent) > -0.02, "it goes near"
    turned = DOWN + np.array([0.4, 0, 0, 0, 0, 0])
    for _ in range(100):
        sent = arm.step(turned, DT)
        assert out_of_box(sent) < 0
    assert sent[0] == pytest.approx(0.4, abs=0.05), "it slides along the table"
    for _ in range(200):
        sent = arm.step(HOME, DT)
        assert out_of_box(sent) < 0
    np.testing.assert_array_equal(sent, HOME)
    assert not arm.blocked[0]


def test_no_arm_is_stuck_at_the_box() -> None:
    rng = np.random.default_rng(3)
    start = random_inside(60, rng)
    arms = envelope(BOXED, start, 60)
    dt, go = np.full(60, DT), np.zeros(60, bool)
    for _ in range(120):
        arms.advance(start + 3.0 * np.sign(np.sin(np.arange(60)))[:, None], dt, go)
    assert (np.abs(arms.position - start).max(axis=1) > 0.2).mean() > 0.9
    for _ in range(20):
        arms.advance(start, dt, ~go)
    at = arms.position.copy()
    assert arms.standing
    # Each by the one joint that takes it furthest from the side that is nearest.
    moves = 0.05 * np.concatenate([np.eye(6), -np.eye(6)])
    gain = np.stack([room(at + move) - room(at) for move in moves], axis=1)
    near = (room(at) < 0.004) & (gain.max(axis=1) > 0.001)
    assert near.sum() > 20
    away = np.clip(at + moves[gain.argmax(axis=1)], CONTRACT.lower, CONTRACT.upper)
    for _ in range(12):
        arms.advance(away, dt, go)
    np.testing.assert_allclose(arms.position[near], away[near], atol=2e-7)  # float32 of the limits


# -- from outside ------------------------------------------------------------------------------------------------------


def test_joints_found_outside_come_back_slowly_and_never_go_further_out() -> None:
    out = HOME + np.array([0, 0, 0, 0, 2.0, 0])
    arm = envelope(start=out)
    last = out
    for wish in [np.full(6, 9.0)] * 30 + [HOME] * 400:
        sent = arm.step(wish, DT)
        if last[4] > CONTRACT.upper[4]:
            assert sent[4] <= last[4] and last[4] - sent[4] <= 0.2 * 2.0 * DT + 1e-12
        else:
            assert sent[4] <= CONTRACT.upper[4]
        last = sent
    np.testing.assert_array_equal(last, HOME)
    arm.start(out)
    np.testing.assert_array_equal(arm.hold(DT), out)


def test_an_arm_found_outside_the_box_may_only_come_back() -> None:
    arm = envelope(BOXED, DOWN)
    first = last = out_of_box(DOWN)
    assert first > 0.02
    aside = DOWN + np.array([0.2, 0, 0, 0, 0, 0])  # along the side that it is outside of
    for _ in range(60):
        arm.step(aside, DT)
        assert out_of_box(arm.target) <= first + 1e-9
    np.testing.assert_array_equal(arm.target, aside)
    arm.start(DOWN)
    for _ in range(60):
        arm.step(DOWN + np.array([0, 0.1, 0, 0.1, 0, 0]), DT)
        assert out_of_box(arm.target) <= first + 1e-9
    for _ in range(400):
        sent = arm.step(HOME, DT)
        assert out_of_box(sent) <= max(last, 0) + 1e-9
        last = out_of_box(sent)
    np.testing.assert_array_equal(sent, HOME)


def test_one_arm_and_many_are_the_same() -> None:
    rng = np.random.default_rng(4)
    starts = random_inside(3, rng)
    many, alone = envelope(BOXED, starts, 3), [envelope(BOXED, start) for start in starts]
    for _ in range(40):
        wishes, dt = rng.uniform(-2, 2, (3, 6)), rng.uniform(0.01, 0.05, 3)
        sent = many.advance(wishes, dt, np.array([False, False, True]))
        for row, arm in enumerate(alone):
            one = arm.hold(dt[row]) if row == 2 else arm.step(wishes[row], dt[row])
            np.testing.assert_allclose(one, sent[row], atol=1e-12)
