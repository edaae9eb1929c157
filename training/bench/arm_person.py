# SPDX-License-Identifier: Apache-2.0
"""The scripted person of ``lrm bench arm-loop``: a hand on a leader arm, and who answers the loop on the arm.

Both act on the emulated bus as a person acts on a desk: they move the leader, put toy and bowl back, look at the scene,
and call the services that keys and pedals call.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import JointState

from lrm_ros import messages, topics
from lrm_ros.config import RobotContract
from lrm_ros.ros.control import Control, EpisodeError
from lrm_ros.ros.person import OUTCOME, SCENE
from lrm_ros.sim.servo_bus.joints import SO101

if TYPE_CHECKING:
    from lrm_ros.sim.twin.world import World
    from lrm_ros.training.bench.bus import Emulator

HAND_HZ = 30.0  # how often the hand moves the leader
_NEAR_RAD = 0.15  # the follower is at the leader's pose
_LEAD_S = 60.0  # it may take so long
_EASY = 1.0  # rad/s of a hand that has time
_SHOWN_S = 0.15  # until the cameras show a scene
_SEE_S = 0.1  # between two looks at the scene
_ENDED = "has ended"  # of the question after a rollout


class Hand:
    """Leads the follower by the leader arm, and records demonstrations by the services of node ``teleop``."""

    SERVICES = ("teleop/start", "teleop/success", "teleop/failure", "teleop/discard")

    def __init__(self, node: Node, emulator: Emulator, contract: RobotContract, world: World) -> None:
        """Hold the leader.

        Args:
            node: who calls the services, spun in another thread.
            emulator: with the arm ``leader``.
            contract: of the follower, whose gripper's limits are closed and open.
            world: a twin of this process's own, in which the expert's way through a scene is computed.
        """
        self._control = Control(node, self.SERVICES)
        self._emulator, self._contract, self._world = emulator, contract, world
        self._events: list[str] = []
        self._follower: NDArray[np.float32] | None = None
        topics.EPISODE.subscribe(node, self._on_episode)
        topics.JOINT_STATES.subscribe(node, self._on_state)
        for line in ("leader supply 5", "leader carry"):
            self._ask(line)

    def begin(self) -> None:
        """Wait for the nodes.

        Raises:
            EpisodeError: they are not there; says which.
        """
        self._control.wait_ready(self.SERVICES)
        self._control.wait_until(lambda: self._follower is not None, "the follower's joint states", 60.0)

    def demonstrate(self, seed: int) -> bool:
        """Record a demonstration in the scene of a seed; returns whether it was a success.

        Raises:
            EpisodeError: a node refuses; says why.
        """
        from lrm_ros.sim.twin.expert import expert_targets

        self._world.reset(seed)
        home, way = self._world.state, expert_targets(self._world)
        self._lead_to(home)
        self._ask(f"toy {seed}")
        self._event("start", "started")
        self._move(way, self._contract.dt_s)
        self._move([way[-1]] * 3, self._contract.dt_s)
        done = self._ask("outcome") == "success"
        self._event("success" if done else "failure", "ended")
        return done

    def _lead_to(self, goal: NDArray[np.float32]) -> None:
        """Move the leader to where the follower is, so that it leads, and on to a pose (6,) [rad]."""
        assert self._follower is not None
        begun_s = time.monotonic()
        while np.abs(self._follower - goal).max() > _NEAR_RAD:
            if time.monotonic() - begun_s > _LEAD_S:
                raise EpisodeError(
                    f"the follower is at {self._follower.round(2)} and does not come with the leader to "
                    f"{goal.round(2)}; see what the teleoperation says"
                )
            self._place(self._follower)
            time.sleep(0.5)
            self._move([goal])
            time.sleep(0.3)

    def _move(self, way: Iterable[NDArray[np.float32]], step_s: float | None = None) -> None:
        """Lead along targets (6,) [rad], each reached in so many seconds, else with ease."""
        for target in way:
            begin, seconds = self._at, step_s or max(0.5, float(np.abs(target - self._at).max()) / _EASY)
            start_s = time.monotonic()
            while (share := (time.monotonic() - start_s) / seconds) < 1.0:
                self._place(begin + (target - begin) * share)
                time.sleep(1 / HAND_HZ)
            self._place(target)

    def _place(self, angles: NDArray[np.float32]) -> None:
        """Put the leader where the follower would be at these angles (6,) [rad].

        A leader's degrees are the follower's, from the middle of each one's range; the grippers' ranges correspond.
        """
        self._at = angles
        leader = angles + np.array([(joint.low + joint.high) / 2 for joint in SO101])
        low, high = self._contract.lower[-1], self._contract.upper[-1]
        jaws = SO101[-1]
        leader[-1] = jaws.low + (angles[-1] - low) / (high - low) * (jaws.high - jaws.low)
        pairs = " ".join(f"{joint.name} {angle:.5f}" for joint, angle in zip(SO101, leader, strict=True))
        self._ask(f"leader place {pairs}")

    def _ask(self, line: str) -> str:
        if (said := self._emulator.ask(line)).startswith("error"):
            raise RuntimeError(f"the emulated bus refuses '{line}': {said}")
        return said

    def _event(self, service: str, becomes: str) -> None:
        """Call a service of the teleoperation, and wait until the recorder says that it is so."""
        self._events.clear()
        self._control.trigger(f"teleop/{service}")
        self._control.wait_until(lambda: becomes in self._events, f"an episode that has {becomes}", 30.0)

    def _on_state(self, message: JointState) -> None:
        known = dict(zip(message.name, message.position, strict=True))
        self._follower = np.array([known[joint] for joint in self._contract.joints], np.float32)
        self._control.notify()

    def _on_episode(self, message: DiagnosticStatus) -> None:
        self._events.append(message.message)
        self._control.notify()


class Operator:
    """Puts the scene back when the loop asks for it, and says how rollouts end; may err on purpose."""

    SERVICES, SET_BOOLS = ("improver/ready",), ("improver/outcome",)

    def __init__(
        self,
        node: Node,
        emulator: Emulator,
        seeds: Iterable[int],
        wrong: float,
        forgets: float,
        seed: str,
        keep: Callable[[dict[str, Any]], None],
    ) -> None:
        """Listen to the questions of node ``improver``.

        Args:
            node: who answers, spun in another thread.
            emulator: whose scene it is.
            seeds: of the scenes, one after the other.
            wrong: share of answers that are the other one.
            forgets: share of scenes that are said to be in place and were not touched.
            seed: of these errors.
            keep: gets each answer, ``{question, was, said}``, and each scene, ``{question, seed, put_back}``.
        """
        self._control = Control(node, self.SERVICES, set_bools=self.SET_BOOLS)
        self._emulator, self._seeds = emulator, iter(seeds)
        self._wrong, self._forgets, self._random = wrong, forgets, random.Random(seed)
        self._asked, self._text = "", ""
        self._keep = keep
        topics.QUESTION.subscribe(node, self._on_question)

    def look(self) -> None:
        """Answer what is asked now, if it can be answered; to be called again and again."""
        asked, text = self._asked, self._text
        try:
            if asked == SCENE:
                self._put_back(text)
            elif asked == OUTCOME:
                self._watch(text)
        except EpisodeError:
            pass  # it is no longer asked
        time.sleep(_SEE_S)

    def _put_back(self, text: str) -> None:
        if "as in the picture" in text:  # else it is only whether the arm may move
            forgotten = self._random.random() < self._forgets
            seed = next(self._seeds)
            if not forgotten and "error" in (answer := self._emulator.ask(f"toy {seed}")):
                raise RuntimeError(answer)
            self._keep({"question": text, "seed": seed, "put_back": not forgotten})
            time.sleep(_SHOWN_S)
        self._control.trigger("improver/ready")
        self._answered(text)

    def _watch(self, text: str) -> None:
        done = self._emulator.ask("outcome") == "success"
        if not done and _ENDED not in text:
            return
        said = done != (self._random.random() < self._wrong)
        self._control.set_bool("improver/outcome", said)
        self._keep({"question": text, "was": done, "said": said})
        self._answered(text)

    def _answered(self, text: str) -> None:
        if self._text == text:
            self._asked = ""

    def _on_question(self, message: DiagnosticStatus) -> None:
        self._asked, self._text = message.name, message.message
        if "node" in (values := messages.status_values(message)) and not values["node"].endswith("improver"):
            self._asked = ""
