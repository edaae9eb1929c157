# SPDX-License-Identifier: Apache-2.0
"""Observations to commands: a policy's chunk is predicted, in a thread in real time, and asked of the arm."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from lrm_ros import messages, topics
from lrm_ros.chunk_timing import ChunkTiming
from lrm_ros.config import PolicyConfig
from lrm_ros.errors import one_line
from lrm_ros.policy import Policy
from lrm_ros.robot.so100.explore import Exploration
from lrm_ros.ros.arm_client import ArmClient
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.worker import Worker
from lrm_ros.types import ActionChunk, Observation


@dataclass(frozen=True)
class _Job:
    """An observation to be answered.

    Attributes:
        observation: what is seen.
        policy: who answers.
        holds: how many holds there were before: after another one the answer is not asked for.
        begun_s: steady time [s].
        renew: it begins an episode, with this seed; ``None``: it goes on with one.
    """

    observation: Observation
    policy: Policy
    holds: int
    begun_s: float
    renew: int | None


class Predictor:
    """Answers one observation after the other.

    Attributes:
        policy: who answers; may be exchanged while nothing is predicted.
        timing: of the predictions in real time.
        newest_ns: stamp of the newest joint state [ns], set by the node.
        exploration: what is added to what the policy wants.
    """

    def __init__(
        self, node: LrmNode[PolicyConfig], arm: ArmClient, held: Callable[[str], None], done: Callable[[], None]
    ) -> None:
        """Create the publisher of the policy's wish, in real time the thread, too.

        Args:
            node: for its parameters and diagnostics.
            arm: who is asked.
            held: called with the reason when the policy has raised anything, in the thread that predicts; holds.
            done: called there after each prediction in real time: the next one may be due.
        """
        self._node, self._arm, self._held, self._done = node, arm, held, done
        self._wish = topics.WISH.publisher(node)
        self._renew: int | None = None
        self.policy: Policy | None = None
        self.timing = ChunkTiming(node.contract.dt_s, node.config.execute_steps)
        self.newest_ns = 0
        self.exploration = Exploration()
        self._running: tuple[int, int] | None = None  # what the newest chunk answers, and how much later it is due [ns]
        self._worker: Worker[_Job] | None = None
        if node.config.realtime:
            self._worker = Worker("policy", self._realtime, self._failed)

    @property
    def busy(self) -> bool:
        """Whether an observation is being answered."""
        return self._worker is not None and self._worker.busy

    def wait(self, seconds: float) -> bool:
        """Wait until nothing is predicted; returns whether that came in time [s]."""
        return self._worker is None or self._worker.wait(seconds)

    def stop(self, seconds: float) -> bool:
        """End the thread; returns whether it has ended in time [s]. If not, it ends after what it predicts now."""
        return self._worker is None or self._worker.stop(seconds)

    def begin_episode(self) -> None:
        """Draw the exploration offset of a new episode and drop what is being predicted of the last.

        Raises:
            ValueError: exploration does not know this arm.
        """
        self.exploration.begin(self._node.config, self._node.contract)
        self._arm.drop()
        self._renew = self.exploration.episode_seed

    def answer(self, observation: Observation) -> None:
        """Answer an observation: in the thread in real time, else before this returns."""
        assert self.policy is not None
        job = _Job(observation, self.policy, self._arm.holds, time.monotonic(), self._renew)
        self._renew = None
        if self._worker is not None:
            self._worker.put(job)
            return
        try:
            self._lock_step(job)
        except KeyboardInterrupt:  # a signal's
            raise
        except BaseException as error:
            self._failed(error)

    def _begin(self, job: _Job) -> None:
        """Reset the policy if an episode begins; what it raises leaves that to the next prediction."""
        if job.renew is None:
            return
        try:
            job.policy.reset(job.renew)
        except BaseException:
            self._renew = job.renew
            raise

    def _lock_step(self, job: _Job) -> None:
        self._begin(job)
        chunk = job.policy.act(job.observation)
        self._node.diagnostics.latency("act", time.monotonic() - job.begun_s)
        self._ask(chunk, job.holds)

    def _realtime(self, job: _Job) -> None:
        """Predict in the thread; the arm has gone on meanwhile."""
        node, timing = self._node, self.timing
        self._begin(job)
        running = self._running if self._arm.asked is not None else None
        whole = job.policy.predict(job.observation, timing.delay_steps, running)
        taken_s = time.monotonic() - job.begun_s
        node.diagnostics.latency("act", taken_s)
        timing.took(taken_s)
        if short := timing.shortage(len(whole.actions)):
            node.diagnostics.fault("speed", short)
        else:
            node.diagnostics.recovered("speed", "predictions are fast enough again")
        actions = whole.actions[: timing.steps(len(whole.actions))]
        later_ns = self._stood_ns(whole.stamp_ns)
        chunk = ActionChunk(whole.stamp_ns + later_ns, actions, whole.dt_s)
        if self.newest_ns >= chunk.stamp_ns + round(1e9 * len(chunk.actions) * chunk.dt_s):
            node.diagnostics.count("late")  # the time of all its actions has passed
        else:
            if self._ask(chunk, job.holds):
                self._running = (whole.stamp_ns, later_ns)
            age_ns = node.get_clock().now().nanoseconds - whole.stamp_ns
            node.diagnostics.latency("observation_to_command", age_ns / 1e9)
        self._done()

    def _stood_ns(self, stamp_ns: int) -> int:
        """Return how long the arm has stood since an observation [ns]: so much later each action is due.

        While a chunk is executed time passes as the next one expects it; an arm that stands is where it was seen.
        """
        running = self._arm.asked
        end_ns = stamp_ns
        if running is not None:
            end_ns = max(end_ns, running.stamp_ns + round(1e9 * len(running.actions) * running.dt_s))
        return max(0, self.newest_ns - end_ns)

    def _ask(self, chunk: ActionChunk, holds: int) -> bool:
        """Publish the policy's wish and ask the arm for it, with exploration; returns whether that came in time."""
        node = self._node
        wish = messages.from_chunk(chunk, node.contract.joints)
        asked = self.exploration.moved(chunk, node.config)
        node.diagnostics.recovered("policy", "the policy acts again")
        if not self._arm.ask(asked, holds, lambda: self._wish.publish(wish)):
            return False
        node.diagnostics.count("chunks")
        return True

    def _failed(self, error: BaseException) -> None:
        self._held(one_line(error))
