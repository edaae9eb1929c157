# SPDX-License-Identifier: Apache-2.0
"""Lets the policy node act for the time of an episode, and brings the arm to where one begins; both in real time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import JointState

from lrm_ros import messages, topics
from lrm_ros.robot.joint_states import JointStates
from lrm_ros.ros.arm_client import DELIVER_S, ArmClient
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.control import Control, EpisodeControl, EpisodeError, SentSteps, Stopped
from lrm_ros.types import ActionChunk

NEAR = 0.15  # so near its start pose an arm has come there; servos sag [rad]
_AGAIN_S = 1.0  # the way is asked for again so often, from where the arm is then [s]
_AHEAD_S = 0.5  # of the way the arm is asked for so much [s]
_REACH_S = 15.0  # beyond what the way takes at its speed [s]
_GOOD_S = 10.0  # inputs that are not good become so within this, if at all [s]
_TURN_S = 0.2
PARTS = ("policy/reset", "policy/reload")


class PolicyRuns:
    """The policy acts between :meth:`act`'s begin and end only; else its node is inactive, and the arm holds."""

    def __init__(self, node: Node, control: Control, sent: SentSteps) -> None:
        """Use a control with ``PARTS`` among its triggers, and ``policy`` among its nodes and lifecycles."""
        self._control, self._sent = control, sent
        self._change = node.create_client(ChangeState, "policy/change_state")

    def begin(self) -> None:
        """Look at the policy's node, and let it stand.

        Raises:
            EpisodeError: it is in lock-step, where nobody can watch.
        """
        if not self._control.get("policy", "realtime"):
            raise EpisodeError(
                "node 'policy' is in lock-step (realtime false); a person watches in real time: start the graph with "
                "'lrm up trial', or 'lrm up self_improve sim:=false contract:=FILE'"
            )
        self.stand()

    def stand(self) -> None:
        """Deactivate the policy: the arm holds."""
        if self._control.state("policy") == State.PRIMARY_STATE_ACTIVE:
            self._control.change("policy", Transition.TRANSITION_DEACTIVATE)

    def use(self, checkpoint: str | Path) -> None:
        """Load a policy."""
        self.stand()
        self._control.set("policy", {"checkpoint": str(checkpoint)})
        self._control.trigger("policy/reload")

    def act(self, steps: int, ended: Callable[[], bool], seed: int, explore_std: float, what: str) -> int:
        """Let the policy act for a number of control steps, or until ``ended()``; returns how many there were.

        Args:
            steps: at most so many.
            ended: asked after every control step and whenever the person answers.
            seed: of what the policy draws.
            explore_std: see ``PolicyConfig``.
            what: the episode, for people.

        Raises:
            EpisodeError: the arm was stopped, or nothing moves it; the policy is inactive again.
            Stopped: see :meth:`Control.stop`.
        """
        self._control.set("policy", {"explore_std": explore_std, "seed": seed})
        self._control.trigger("policy/reset")
        self._sent.restart()
        try:
            self._control.change("policy", Transition.TRANSITION_ACTIVATE)
            self._control.wait_until(lambda: ended() or self._sent.count >= steps, f"the end of {what}")
            steps = self._sent.count
            self.stand()
        except Stopped:
            # Also while it is made active or inactive. Who stops may be the thread that would take the answer, so none
            # is waited for.
            down = Transition(id=Transition.TRANSITION_DEACTIVATE)
            self._change.call_async(ChangeState.Request(transition=down))
            raise
        except EpisodeError:
            self.stand()
            raise
        return steps


def start_recording(control: Control, episodes: EpisodeControl, **parameters: Any) -> Path:
    """Begin to record as soon as all inputs are good: a policy that was loaded just now may have kept the host busy.

    Args:
        control: its waits.
        episodes: whose recorder.
        **parameters: of the recorder.

    Raises:
        EpisodeError: the recorder still refuses after ten seconds; its reason.
        Stopped: see :meth:`Control.stop`.
    """
    end_s = time.monotonic() + _GOOD_S
    while True:
        try:
            return episodes.start(**parameters)
        except EpisodeError:
            if time.monotonic() > end_s:
                raise
            control.holds(lambda: False, _TURN_S)


class ArmMover:
    """Brings an arm to a pose by ``joint_command``, slowly, while nobody else commands it.

    Whatever ends the way before its end (an e-stop, a stop of this node) makes the arm stay where it is then, and a
    release moves nothing.
    """

    def __init__(self, node: LrmNode[Any], control: Control) -> None:
        """Listen to the joint states; to be called in ``configure``.

        Args:
            node: who asks.
            control: its waits; an e-stop is a fault of it, see :class:`SentSteps`.
        """
        self._node, self._control, self._arm = node, control, ArmClient(node)
        self._states = JointStates(node.contract)
        self._state: NDArray[np.float32] | None = None
        topics.JOINT_STATES.hear(node, self._on_state)

    def pose(self, timeout_s: float = 10.0) -> NDArray[np.float32]:
        """Return where the arm is, (D,) [rad].

        Raises:
            EpisodeError: nothing says it, or the arm is stopped.
            Stopped: see :meth:`Control.stop`.
        """
        self._state, end_s = None, time.monotonic() + timeout_s
        self._control.wait_until(
            lambda: self._state is not None or time.monotonic() >= end_s, "a joint state", timeout_s
        )
        state = self._newest()
        if state is None:
            raise EpisodeError(f"no joint state comes for {timeout_s:.0f} s; look at the arm's node")
        return state

    def _newest(self) -> NDArray[np.float32] | None:
        return self._state

    def go(self, target: Sequence[float] | NDArray[np.float32], speed: float) -> None:
        """Go to a pose in a straight line of the joints.

        Args:
            target: (D,) [rad].
            speed: of the fastest joint [rad/s], above 0.

        Raises:
            EpisodeError: it does not come there, or is stopped.
            Stopped: see :meth:`Control.stop`.
        """
        try:
            self._go(np.asarray(target, np.float32), speed)
        except BaseException:
            if self._arm.asked is not None:
                self._arm.drop()  # so that it stays where it is: at the way's end may be what is in its way
                self._arm.hold(DELIVER_S)
            raise
        self._arm.drop()

    def _go(self, goal: NDArray[np.float32], speed: float) -> None:
        dt_s = self._node.contract.dt_s
        end_s = time.monotonic() + _REACH_S + float(np.abs(goal - self.pose()).max()) / speed
        while (far := float(np.abs(goal - (now := self.pose())).max())) > NEAR:
            if time.monotonic() > end_s:
                raise EpisodeError(
                    f"the arm is {far:.2f} rad off the pose that an episode begins in and does not come there; is "
                    "something in its way, or is it stopped? Its node's output says more"
                )
            count = max(1, math.ceil(far / (speed * dt_s)))
            parts = np.arange(1, count + 1, dtype=np.float32)[:, None] / count  # (K, 1)
            way = (now + (goal - now) * parts).astype(np.float32)  # (K, D)
            self._lead(way, goal, time.monotonic() + max(_AGAIN_S, count * dt_s))

    def _lead(self, way: NDArray[np.float32], goal: NDArray[np.float32], end_s: float) -> None:
        """Ask for a way (K, D) [rad], half a second ahead at most: who asks may be killed, and the arm then stands."""
        dt_s = self._node.contract.dt_s
        ahead = max(1, math.ceil(_AHEAD_S / dt_s))
        passed, asked = 0.0, 0  # points of the way whose time has passed, and to which the arm may go
        begun_s = time.monotonic()
        while not self._at(goal, end_s):
            first = min(int(passed), asked, len(way) - 1)  # after a pause it goes on where it stands
            asked = min(first + ahead, len(way))
            self._arm.ask(ActionChunk(0, way[first:asked], dt_s), self._arm.holds)
            # Ends at an e-stop: what is asked for after its release is asked for by nobody.
            next_s = min(begun_s + _AHEAD_S / 2, end_s)
            self._control.wait_until(partial(self._at, goal, next_s), "the arm's way to where an episode begins")
            passed, begun_s = min(passed + (time.monotonic() - begun_s) / dt_s, float(asked)), time.monotonic()

    def _at(self, goal: NDArray[np.float32], end_s: float) -> bool:
        near = self._state is not None and float(np.abs(self._state - goal).max()) < NEAR
        return near or time.monotonic() >= end_s

    def _on_state(self, message: JointState) -> None:
        stamp_ns = messages.to_ns(message.header.stamp)
        try:
            state = self._states.add(stamp_ns, message.name, message.position, time.monotonic())
        except ValueError as error:
            self._node.diagnostics.fault("joint_states", str(error))
            return
        if state is not None:
            self._state = state
            self._arm.on_state(state)
            self._node.diagnostics.recovered("joint_states", "joint_states are good again")
            self._control.notify()
