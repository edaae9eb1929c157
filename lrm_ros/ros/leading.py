# SPDX-License-Identifier: Apache-2.0
"""Who leads the arm in a rollout, the policy or the person, and the orderly hand-over between the two.

Never both: the policy's node is inactive, and has told the arm to hold, before the person's first command, and the
person's hold is sent before the policy is activated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import State, Transition
from std_srvs.srv import Trigger

from lrm_ros import messages, topics
from lrm_ros.config_teleop import TeleopConfig
from lrm_ros.ros.arm_client import DELIVER_S, ArmClient
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.control import EpisodeError
from lrm_ros.ros.estop import RELEASE
from lrm_ros.ros.teleop_episodes import TeleopEpisodes

POLICY, PERSON, NOBODY = "policy", "person", "nobody"


class Leading:
    """Hands the arm over, in the thread of the episodes; services ``~/take_over`` and ``~/give_back``.

    Topic ``intervention`` says who leads from which stamp on.

    Attributes:
        who: leads now: ``POLICY``, ``PERSON``, or ``NOBODY``: then the arm holds.
        taken: the person has taken over; she leads from her first motion on.
    """

    def __init__(
        self,
        node: LrmNode[TeleopConfig],
        episodes: TeleopEpisodes,
        arm: ArmClient,
        let_go: Callable[[], None],
        newest_ns: Callable[[], int],
        is_stopped: Callable[[], bool],
        say: Callable[[str], None],
    ) -> None:
        """Create publisher and services; nobody leads.

        Args:
            node: the person's.
            episodes: the policy acts in them; their control knows node ``policy`` as a lifecycle node.
            arm: what the person asks of the arm.
            let_go: makes the person's target none.
            newest_ns: stamp of the newest joint state [ns].
            is_stopped: whether the arm is stopped; known before :meth:`stopped` is called.
            say: tells the person a line; from any thread.
        """
        self._node, self._episodes, self._arm, self._say = node, episodes, arm, say
        self._let_go, self._newest_ns, self._is_stopped = let_go, newest_ns, is_stopped
        self._publisher = topics.INTERVENTION.publisher(node)
        self.who, self.taken = NOBODY, False
        episodes.begun, episodes.ending = self._give, self._pause
        node.create_service(Trigger, "~/take_over", lambda _, answer: self._answer(self.take_over(), answer))
        node.create_service(Trigger, "~/give_back", lambda _, answer: self._answer(self.give_back(), answer))
        self._tell(NOBODY)

    def _answer(self, refused: str, answer: Any) -> Any:
        answer.success, answer.message = not refused, refused or "topic 'intervention' says who leads"
        return answer

    # -- what a person wants -----------------------------------------------------------------------------------------

    def take_over(self) -> str:
        """Make the policy hold; then the person may lead. Returns why not, empty if it begins."""
        return "the person leads already" if self.taken else self._episodes.begin("taking over", self._take)

    def give_back(self) -> str:
        """Let the policy lead again. Returns why not, empty if it begins."""
        if self.who == POLICY:
            return "the policy leads already"
        if not self._episodes.name:
            return "no episode is being recorded: the policy leads once one begins"
        return self._episodes.begin("giving back", self._give)

    def turn(self) -> None:
        """Take over, or give back, as one key or button does."""
        if refused := self.give_back() if self.taken else self.take_over():
            self._say(refused)

    def led(self) -> None:
        """The person asks for a motion now: from here on she leads."""
        if self.who != PERSON:
            self._tell(PERSON)

    def stopped(self) -> None:
        """The arm was stopped: nobody leads, and the policy waits until the arm is given to it."""
        self.taken = False
        if self.who != NOBODY:
            self._tell(NOBODY)

    # -- in the thread of the episodes -------------------------------------------------------------------------------

    def _take(self) -> None:
        """Let the person lead from her first motion on; raises EpisodeError if the arm is stopped."""
        self._stop_policy()
        self._let_go()  # a target of before, if the device has set one while the arm was given back
        self.taken = True
        self._refuse_stopped()
        self._say("you have the arm: move it (a leader must stand where the arm does); p gives it back")

    def _give(self) -> None:
        """Let go, and activate the policy; raises EpisodeError if it cannot be."""
        self._release()
        control = self._episodes.control
        self._stop_policy()  # one that an e-stop has halted begins anew
        if control.state("policy") == State.PRIMARY_STATE_UNCONFIGURED:
            self._say("the policy is being loaded ...")
            control.change("policy", Transition.TRANSITION_CONFIGURE)
        self._tell(POLICY)
        try:
            control.change("policy", Transition.TRANSITION_ACTIVATE)
        except EpisodeError:
            self._tell(NOBODY)
            raise
        self._refuse_stopped()
        self._say("the policy leads; p takes over")

    def _refuse_stopped(self) -> None:
        """Take the arm from both, and raise EpisodeError, if it was stopped while it was handed over."""
        if self._is_stopped():
            self.taken = False
            self._stop_policy()
            raise EpisodeError(f"nobody leads, the arm is stopped; {RELEASE}")

    def _pause(self) -> None:
        """Let nobody lead: the episode ends, and is recorded whatever became of the policy's node."""
        self._release()
        try:
            self._stop_policy()
        except EpisodeError as error:
            self._say(str(error))

    def _release(self) -> None:
        """End what the person asks for: the arm holds, and has been told."""
        self.taken = False
        self._let_go()
        if self._arm.asked is not None:
            self._arm.hold(DELIVER_S)
        else:
            self._arm.drop()
        if self.who == PERSON:
            self._tell(NOBODY)

    def _stop_policy(self) -> None:
        """Deactivate the policy: its node tells the arm to hold before it answers."""
        control = self._episodes.control
        if control.state("policy") == State.PRIMARY_STATE_ACTIVE:
            control.change("policy", Transition.TRANSITION_DEACTIVATE)
        if self.who == POLICY:
            self._tell(NOBODY)

    def _tell(self, who: str) -> None:
        self.who = who
        message = DiagnosticArray()
        message.header.stamp = messages.to_time(self._newest_ns())
        device = self._node.config.input
        message.status = [messages.status(DiagnosticStatus.OK, "intervention", who, {"input": device})]
        self._publisher.publish(message)

    def status(self) -> str:
        """Return who leads, for the status line."""
        waits = self.taken and self.who != PERSON
        return "yours: move the arm" if waits else f"{self.who} leads"
