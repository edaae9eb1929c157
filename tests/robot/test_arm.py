# SPDX-License-Identifier: Apache-2.0
"""The server in front of an arm: which point a moment asks for, what is refused, what a hold sends."""

import numpy as np
import pytest

from lrm_ros.config import RobotContract
from lrm_ros.robot.arm import ArmServer
from lrm_ros.types import ActionChunk

CONTRACT = RobotContract(
    joints=("a", "b"), lower=(-1.0, -1.0), upper=(1.0, 1.0), max_step=(0.1, 0.5), control_hz=10.0
)  # fmt: skip
DT = 100_000_000


class Motors:
    """An arm that remembers what it was sent, and is not quite there."""

    def __init__(self) -> None:
        self.targets: list[list[float]] = []
        self.now_ns = 5_000_000_000
        self.position = np.zeros(2, np.float32)

    def read(self):
        return self.now_ns, self.position

    def send(self, target) -> None:
        self.targets.append(np.round(target.astype(float), 4).tolist())
        self.position = target - np.float32(0.01)


@pytest.fixture
def motors() -> Motors:
    return Motors()


@pytest.fixture
def server(motors) -> ArmServer:
    return ArmServer(motors, CONTRACT)


def chunk(stamp_ns: int, *actions) -> ActionChunk:
    return ActionChunk(stamp_ns, np.array(actions, np.float32), 0.1)


def test_the_point_of_a_moment_is_sent_and_the_last_one_is_held(motors, server):
    begin = motors.now_ns
    server.follow(server.accept(chunk(begin, [0.0, 0.1], [0.0, 0.2], [0.0, 0.3]), begin))
    lasts = [server.step(begin + k * DT)[1] for k in range(5)]
    assert motors.targets == [[0.0, 0.1], [0.0, 0.2], [0.0, 0.3], [0.0, 0.3], [0.0, 0.3]]
    assert lasts == [False, False, True, False, False]


def test_a_late_command_begins_with_the_point_of_now_and_an_early_one_with_its_first(motors, server):
    begin = motors.now_ns
    server.follow(server.accept(chunk(begin, [0.0, 0.1], [0.0, 0.2], [0.0, 0.3]), begin + DT))
    server.step(begin + DT)
    assert motors.targets == [[0.0, 0.2]]
    server.follow(server.accept(chunk(begin + 8 * DT, [0.0, 0.0], [0.0, 0.9]), begin + 2 * DT))
    server.step(begin + 2 * DT)
    assert motors.targets[-1] == [0.0, 0.0]


def test_limits_count_from_what_was_sent_last_and_a_far_target_is_reached_in_steps(motors, server):
    server.follow(server.accept(chunk(0, [0.25, 3.0]), motors.now_ns))
    for k in range(4):
        server.step(motors.now_ns + k * DT)
    assert motors.targets == [[0.1, 0.5], [0.2, 1.0], [0.25, 1.0], [0.25, 1.0]]


def test_before_any_command_a_step_keeps_the_arm_where_it_started(motors, server):
    motors.position = np.array([0.3, 0.3], np.float32)
    server.start()
    server.step(motors.now_ns)
    server.step(motors.now_ns + DT)
    assert motors.targets == [[0.3, 0.3], [0.3, 0.3]], "where it was, not where it sags to"


def test_stamp_zero_means_now(motors, server):
    assert server.accept(chunk(0, [0.0, 0.1]), 7).stamp_ns == 7


def test_a_command_from_before_the_start_is_void(motors, server):
    assert server.accept(chunk(motors.now_ns - 1, [0.0, 0.1]), motors.now_ns) is None
    assert server.accept(chunk(motors.now_ns, [0.0, 0.1]), motors.now_ns) is not None


def test_a_command_that_was_accepted_before_the_arm_began_anew_is_not_followed(motors, server):
    before = server.accept(chunk(motors.now_ns, [0.0, 0.1]), motors.now_ns)
    assert before is not None
    motors.now_ns += 10 * DT
    server.start()  # by the thread of a bus, before another has handed the command over
    server.follow(before)
    server.step(motors.now_ns)
    assert motors.targets[-1:] in ([], [[0.0, 0.0]])
    server.follow(chunk(motors.now_ns, [0.0, 0.1]))
    server.step(motors.now_ns)
    assert motors.targets[-1] == [0.0, 0.1], "a new one is"


@pytest.mark.parametrize(
    ("shift_s", "says"),
    [(1.1, "1.1 s ahead"), (0.9, None), (-1.1, None), (-1.3, r"due 1\.1 s ago"), (-3600.0, r"due 3599\.8 s ago")],
)
def test_a_command_that_is_not_of_now_is_refused(motors, server, shift_s, says):
    now_ns = motors.now_ns + 4_000 * 10**9  # long after the start
    command = chunk(now_ns + round(shift_s * 1e9), [0.0, 0.1], [0.0, 0.2])
    if says is None:
        assert server.accept(command, now_ns) is command
    else:
        with pytest.raises(ValueError, match=says):
            server.accept(command, now_ns)


@pytest.mark.parametrize(("measured", "target"), [(False, [0.1, 0.2]), (True, [0.09, 0.19])], ids=["sent", "measured"])
def test_a_hold_always_sends_and_ends_the_command(motors, server, measured, target):
    server.follow(server.accept(chunk(0, [0.1, 0.2], [0.0, 0.9]), motors.now_ns))
    server.step(motors.now_ns)
    held = server.hold(measured)
    assert np.round(held.astype(float), 4).tolist() == target and motors.targets[-1] == target
    server.step(motors.now_ns + DT)
    assert motors.targets[-1] == target and len(motors.targets) == 3


def test_a_hold_before_anything_was_sent_sends_where_the_arm_is(motors, server):
    server.hold()
    assert motors.targets == [[0.0, 0.0]]


def test_a_target_that_is_not_finite_sends_nothing(motors, server):
    with pytest.raises(ValueError, match="b = nan"):
        server.send(np.array([0.0, np.nan], np.float32))
    assert motors.targets == [] and server.sent.tolist() == [0.0, 0.0]


def test_a_command_in_degrees_is_refused_and_those_that_follow_until_a_new_start(motors, server):
    for action in ([0.5, 55.0], [0.1, 0.1]):
        with pytest.raises(ValueError, match=r"joint b is 55.0, its limits are -1 to 1 rad: .*degrees"):
            server.accept(chunk(0, [0.0, 0.0], action), motors.now_ns)
    server.start()
    assert server.accept(chunk(0, [0.1, 0.1]), motors.now_ns) is not None


def test_a_dropped_command_is_not_followed_and_nothing_is_sent_for_it(motors, server):
    server.follow(server.accept(chunk(0, [0.25, 0.3]), motors.now_ns))
    server.step(motors.now_ns)
    server.drop()
    assert motors.targets == [[0.1, 0.3]]
    server.step(motors.now_ns + DT)
    assert motors.targets[-1] == [0.1, 0.3], "where it was sent last, not where the command went"
