# SPDX-License-Identifier: Apache-2.0
"""The way to where an episode begins ends with a hold, whatever ends it; a policy is never left active by a stop."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages
from lrm_ros.config import RecorderConfig
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.control import Control, EpisodeError, SentSteps, Stopped
from lrm_ros.ros.policy_runs import ArmMover, PolicyRuns
from lrm_ros.topics import JOINT_COMMAND, JOINT_STATES, LATCHED, NEWEST

HERE = [0.1, -0.5, 0.5, 0.3, 0.0, 0.3]


class Mover(LrmNode[RecorderConfig]):
    """A node that moves an arm."""

    def __init__(self) -> None:
        super().__init__("mover", RecorderConfig)

    def configure(self) -> None:
        self.control = Control(self)
        self.sent = SentSteps(self, self.control)
        self.mover = ArmMover(self, self.control)


@pytest.fixture
def going(spin, probe):
    """An arm that does not come forward, and a node that wants it to; begins, and returns what the way ended with."""
    node = spin.start(Mover())
    states = JOINT_STATES.publisher(probe)
    joints = node.contract.joints
    probe.create_timer(
        0.02, lambda: states.publish(messages.from_state(probe.get_clock().now().nanoseconds, joints, HERE))
    )
    commands = spin.collect(probe, JointTrajectory, JOINT_COMMAND.name, JOINT_COMMAND.qos)
    errors: list[BaseException] = []

    def go() -> None:
        try:
            node.mover.go(np.zeros(6, np.float32), 0.1)
        except (EpisodeError, Stopped) as error:
            errors.append(error)

    def begin() -> threading.Thread:
        commands.clear()
        thread = threading.Thread(target=go)
        thread.start()
        spin.until(lambda: any(len(command.points) > 1 for command in commands), what="the way")
        return thread

    return node, begin, commands, errors


def test_best_effort_joint_states_say_where_the_arm_is(spin, probe):
    node = spin.start(Mover())
    states = probe.create_publisher(JointState, JOINT_STATES.name, NEWEST)
    joints = node.contract.joints
    probe.create_timer(
        0.02, lambda: states.publish(messages.from_state(probe.get_clock().now().nanoseconds, joints, HERE))
    )
    found: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: found.append(node.mover.pose()))
    thread.start()
    spin.until(lambda: not thread.is_alive(), 15, "the pose")
    assert found and found[0] == pytest.approx(HERE)


def held(commands: list[JointTrajectory]) -> bool:
    """Whether the arm was told last to stay where it is."""
    return len(commands[-1].points) == 1 and list(commands[-1].points[0].positions) == pytest.approx(HERE)


def test_an_e_stop_ends_the_way_and_nothing_is_asked_for_after_its_release(spin, probe, going):
    node, begin, commands, errors = going
    stopped = probe.create_publisher(Bool, "stopped", LATCHED)
    thread = begin()
    stopped.publish(Bool(data=True))
    spin.until(lambda: errors, what="the end of the way")
    thread.join()
    assert "the arm is stopped" in str(errors[0]) and isinstance(errors[0], EpisodeError)
    spin.until(lambda: held(commands), what="a hold")
    with pytest.raises(EpisodeError, match="the arm is stopped"):
        node.mover.pose()


def test_a_node_that_is_stopped_on_the_way_lets_the_arm_hold(spin, going):
    node, begin, commands, errors = going
    thread = begin()
    node.control.stop()
    spin.until(lambda: errors, what="the end of the way")
    thread.join()
    assert isinstance(errors[0], Stopped)
    spin.until(lambda: held(commands), what="a hold")


def test_the_arm_is_asked_for_half_a_second_of_the_way_so_that_it_stands_where_nobody_leads_it_any_more(spin, going):
    node, begin, commands, _ = going
    begun_s = time.monotonic()
    thread = begin()
    for count in range(2, 12):
        spin.until(lambda count=count: len(commands) >= count, what="the next piece")
        furthest = max(abs(x - h) for x, h in zip(commands[-1].points[-1].positions, HERE, strict=True))
        assert furthest <= 0.1 * (time.monotonic() - begun_s + 0.5 + 2 * node.contract.dt_s), "at 0.1 rad/s"
    assert furthest > 0.1, "it goes on"
    node.control.stop()
    thread.join()


@pytest.mark.parametrize("at", [Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE])
def test_a_stop_while_the_policy_is_made_active_or_inactive_deactivates_it(at):
    asked: list[int] = []

    class Client:
        def call_async(self, request) -> None:
            asked.append(request.transition.id)

    class Node:
        def create_client(self, *_) -> Client:
            return Client()

    class Asked:
        """A control that is stopped in one transition, whose request may have been sent already."""

        def set(self, *_) -> None: ...

        def trigger(self, *_) -> None: ...

        def wait_until(self, *_) -> None: ...

        def state(self, node: str) -> int:
            return 3

        def change(self, node: str, transition: int) -> None:
            if transition == at:
                raise Stopped

    class Sent:
        count = 0

        def restart(self) -> None: ...

    with pytest.raises(Stopped):
        PolicyRuns(Node(), Asked(), Sent()).act(5, lambda: False, 0, 0.0, "an episode")
    assert asked == [Transition.TRANSITION_DEACTIVATE]
