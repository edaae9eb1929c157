# SPDX-License-Identifier: Apache-2.0
"""The policy node in real time with real topics: every way to a hold, by what the arm is told, and slow policies."""

from __future__ import annotations

from unittest.mock import Mock

import numpy as np
import pytest
from played_robot import (  # type: ignore[import-not-found]
    CONTRACT,
    DT_NS,
    TARGET,
    Slow,
    is_hold,
    keep_moving,
    moving,
    stamps,
    start,
)
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from lrm_ros import messages
from lrm_ros.policy import FakePolicy
from lrm_ros.types import ActionChunk


def test_it_replans_before_the_executed_part_of_a_chunk_runs_out(spin, probe):
    node, robot = start(spin, probe, execute_steps=4)
    begin = robot.stamp_ns + DT_NS
    for k in range(9):
        robot.observe()
        due = 1 + k // 3
        spin.until(
            lambda due=due: (
                len(robot.commands) >= due
                and "front" in node._frames
                and node._frames["front"].stamp_ns == robot.stamp_ns
            )
        )
    assert [round((ns - begin) / DT_NS) for ns in stamps(robot.commands)] == [0, 3, 6]


def bad_state(spin, node, robot) -> None:
    robot.stamp_ns += DT_NS
    robot.state([0, np.nan, 0, 0, 0, 0])


def degrees(spin, node, robot) -> None:
    robot.stamp_ns += DT_NS
    robot.state([60.0, 0, 0, 0, 0, 0])


def unstamped(spin, node, robot) -> None:
    robot.stamp_ns = 0
    robot.state()


def clock_set_back(spin, node, robot) -> None:
    robot.stamp_ns -= 5 * DT_NS
    robot.image()


def bad_image(spin, node, robot) -> None:
    robot.stamp_ns += DT_NS
    robot.images.publish(Image(header=Header(stamp=messages.to_time(robot.stamp_ns)), encoding="rgb8"))


def deactivated(spin, node, robot) -> None:
    node.trigger_deactivate()


def shut_down(spin, node, robot) -> None:
    node.trigger_shutdown()


def reloaded(spin, node, robot) -> None:
    assert spin.call(robot.probe, Trigger, "policy/reload").success


def reload_refused(spin, node, robot) -> None:
    node.set_parameters([Parameter("checkpoint", value="/no/such/folder")])
    assert not spin.call(robot.probe, Trigger, "policy/reload").success


def raising(error: BaseException):
    def cause(spin, node, robot) -> None:
        policy = Slow(type(error)(*error.args))  # the parameter stays, and its traceback would keep the node
        policy.go.set()
        node._predictor.policy = policy
        robot.observe(8)

    cause.__name__ = type(error).__name__
    return cause


@pytest.mark.parametrize("known", ["sent", "asked", "measured"])
@pytest.mark.parametrize(
    "cause",
    [bad_state, degrees, unstamped, clock_set_back, bad_image, deactivated, shut_down, reloaded, reload_refused,
     raising(RuntimeError("CUDA error")), raising(KeyError("observation.state")), raising(SystemExit(3))],
)  # fmt: skip
def test_the_arm_is_told_to_stay_whatever_happens_and_whatever_is_known_of_it(spin, probe, cause, known):
    node, robot = moving(spin, probe)
    target = TARGET
    if known != "sent":
        node._arm.sent = None
        target = np.zeros(6)  # what the policy asked for; it holds still
    if known == "measured":
        node._arm.asked = None
    cause(spin, node, robot)
    # Not the second command always: what was forgotten here had it act once more.
    spin.until(lambda: is_hold(robot.commands[-1], target), what="the hold")


def test_a_state_in_parts_that_come_at_once_is_whole(spin, probe):
    node, robot = start(spin, probe)
    for k in range(1, 20):
        robot.stamp_ns += DT_NS
        for part in (slice(0, 5), slice(5, 6)):
            message = messages.from_state(robot.stamp_ns, CONTRACT.joints[part], np.full(6, k / 100)[part])
            robot.states.publish(message)
    spin.until(lambda: node._state is not None and node._state[0] == robot.stamp_ns)
    assert not node._streams.faults()


def test_inputs_that_stop_make_it_hold_with_the_cause_and_good_ones_make_it_act_again(spin, probe):
    node, robot = moving(spin, probe, timeout_s=0.3)
    spin.until(lambda: {"front/image_raw", "joint_states"} <= node.diagnostics.faults.keys())
    assert "the policy holds: 'front/image_raw' stopped" in node.diagnostics.faults["front/image_raw"]
    spin.until(lambda: len(robot.commands) >= 2)
    assert all(is_hold(command) for command in robot.commands[1:])
    robot.observe()
    spin.until(lambda: len(robot.commands[-1].points) > 1)
    assert not {"front/image_raw", "joint_states"} & node.diagnostics.faults.keys()


def test_a_policy_that_takes_its_time_starves_neither_the_watch_nor_the_hold_and_comes_too_late_for_it(spin, probe):
    node, robot = moving(spin, probe, timeout_s=0.3)
    slow = Slow()
    node._predictor.policy = slow
    robot.observe(8)
    spin.until(lambda: slow.asked == 1)
    spin.until(lambda: len(robot.commands) >= 2)  # the inputs have stopped while it predicts
    assert all(is_hold(command) for command in robot.commands[1:])
    held = len(robot.commands)
    slow.go.set()
    assert node._predictor.wait(30)
    robot.say_sent()
    robot.observe()  # good again: the next command is of a new prediction
    spin.until(lambda: len(robot.commands) > held and len(robot.commands[-1].points) > 1)
    assert stamps(robot.commands)[-1] == robot.stamp_ns and slow.asked == 2


def test_while_a_slow_policy_predicts_nothing_queues_up(spin, probe):
    node, robot = moving(spin, probe)
    keep_moving(node, robot)
    slow = Slow()
    node._predictor.policy = slow
    robot.observe()
    spin.until(lambda: slow.asked == 1)
    asked_ns = slow.stamp_ns  # the newest one's, or that of the one before whose image came late
    for _ in range(5):
        robot.observe()
        spin.until(lambda: node._state is not None and node._state[0] == robot.stamp_ns)
    slow.go.set()
    spin.until(lambda: len(robot.commands) >= 2)
    assert stamps(robot.commands)[1] == asked_ns  # the arm skips what is over by its stamp
    robot.observe(20)
    spin.until(lambda: len(robot.commands) >= 3)
    assert stamps(robot.commands)[2] == robot.stamp_ns


def test_an_arm_that_stood_while_its_first_chunk_was_predicted_gets_all_of_it(spin, probe):
    node, robot = start(spin, probe)
    slow = Slow()
    node._predictor.policy = slow
    robot.observe()
    spin.until(lambda: slow.asked == 1)
    robot.observe(6)  # it has not moved meanwhile: no action's time has passed
    spin.until(lambda: node._state is not None and node._state[0] == robot.stamp_ns)
    slow.go.set()
    spin.until(lambda: robot.commands)
    assert stamps(robot.commands)[0] == robot.stamp_ns and slow.running is None
    first_ns = robot.stamp_ns - 6 * DT_NS
    robot.observe(8)
    spin.until(lambda: slow.asked == 2)
    assert slow.running == (first_ns, 6 * DT_NS)


def test_an_arm_that_stood_at_the_end_of_a_chunk_skips_only_what_it_moved_meanwhile(spin, probe):
    node, robot = moving(spin, probe)
    begun, steps = robot.stamp_ns, len(robot.commands[0].points)
    slow = Slow()
    node._predictor.policy = slow
    robot.observe(steps - 1)
    spin.until(lambda: slow.asked == 1)
    robot.observe(10)  # one step of motion, nine at rest
    spin.until(lambda: node._state is not None and node._state[0] == robot.stamp_ns)
    slow.go.set()
    spin.until(lambda: len(robot.commands) == 2)
    assert stamps(robot.commands)[1] == begun + (steps - 1 + 9) * DT_NS


def test_a_chunk_whose_time_is_over_when_it_comes_is_not_asked_for(spin, probe):
    node, robot = moving(spin, probe)
    node._arm.asked = ActionChunk(
        robot.stamp_ns, np.zeros((100, 6), np.float32), 0.1
    )  # it has been moving all the time
    node._predictor.timing.execute_steps = 0
    slow = Slow()
    node._predictor.policy = slow
    robot.observe()
    spin.until(lambda: slow.asked == 1)
    robot.observe(30)
    spin.until(lambda: node._state is not None and node._state[0] == robot.stamp_ns)
    slow.go.set()
    spin.until(lambda: node.diagnostics.total("late") == 1)
    assert len(robot.commands) == 1


def test_a_new_episode_drops_what_was_being_predicted_and_resets_the_policy_before_the_next(spin, probe):
    node, robot = moving(spin, probe)
    slow = Slow()
    node._predictor.policy = slow
    robot.observe(8)
    spin.until(lambda: slow.asked == 1)
    old_ns = robot.stamp_ns
    assert spin.call(probe, Trigger, "policy/reset").success
    slow.go.set()
    assert node._predictor.wait(30)
    robot.observe()
    spin.until(lambda: len(robot.commands) == 2)
    assert old_ns not in stamps(robot.commands) and slow.resets == 1


def test_a_reset_that_fails_is_tried_again(spin, probe):
    node, robot = moving(spin, probe)
    outcomes = iter([RuntimeError("no memory"), None])
    node._predictor.policy = Mock(wraps=node._predictor.policy, **{"reset.side_effect": outcomes})
    assert spin.call(probe, Trigger, "policy/reset").success
    for held in (2, 3):  # a hold, then a chunk
        robot.observe(8)
        spin.until(lambda held=held: len(robot.commands) >= held)
    assert is_hold(robot.commands[1]) and next(outcomes, "none") == "none"


def test_a_reload_waits_for_no_prediction_that_never_ends_and_says_so(spin, probe, monkeypatch):
    monkeypatch.setattr("lrm_ros.nodes.policy._PREDICTION_S", 0.05)
    node, robot = moving(spin, probe)
    slow = Slow()
    node._predictor.policy = slow
    robot.observe(8)
    spin.until(lambda: slow.asked == 1)
    answer = spin.call(probe, Trigger, "policy/reload")
    assert not answer.success and "predicting for more than" in answer.message
    assert node._predictor.policy is slow
    slow.go.set()


def test_what_waited_while_a_policy_was_loaded_is_not_acted_on(spin, probe):
    node, robot = moving(spin, probe)
    old_ns = robot.stamp_ns + DT_NS
    load = node._load

    def slowly() -> None:
        robot.observe()  # arrives while the node loads
        load()

    node._load = slowly
    assert spin.call(probe, Trigger, "policy/reload").success
    robot.observe()
    spin.until(lambda: len(robot.commands) >= 3)
    assert old_ns not in stamps(robot.commands) and stamps(robot.commands)[-1] == robot.stamp_ns


class LooksBack(FakePolicy):
    """Notes what it sees; looks at two control steps."""

    def __init__(self, contract, execute_steps: int) -> None:
        super().__init__(contract, execute_steps)
        self.observed_steps, self.seen = 2, []

    def predict(self, observation, delay_steps=0, running=None):
        self.seen.append(observation)
        return super().predict(observation, delay_steps, running)


def test_in_real_time_a_policy_that_looks_back_sees_the_control_step_before(spin, probe, monkeypatch):
    monkeypatch.setattr("lrm_ros.nodes.policy.FakePolicy", LooksBack)
    node, robot = start(spin, probe, execute_steps=4)
    policy = node._predictor.policy

    def observe() -> None:
        robot.observe()
        spin.until(lambda: node._state[0] == robot.stamp_ns and node._frames["front"].stamp_ns == robot.stamp_ns)
        assert node._predictor.wait(30)

    robot.observe()
    spin.until(lambda: len(policy.seen) == 1)
    for _ in range(8):
        observe()
    assert len(policy.seen) >= 3 and policy.seen[0].before == ()
    for one in policy.seen[1:]:
        (before,) = one.before
        assert one.stamp_ns - before.stamp_ns == one.frames["front"].stamp_ns - before.frames["front"].stamp_ns == DT_NS
    count = len(policy.seen)
    assert spin.call(probe, Trigger, "policy/reset").success
    spin.until(lambda: len(policy.seen) > count)
    assert policy.seen[count].before == (), "an episode begins"
