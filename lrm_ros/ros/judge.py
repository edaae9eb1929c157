# SPDX-License-Identifier: Apache-2.0
"""The judge of recorded episodes whose model is the reward node's: asks it about their frames, batch after batch.

The rule of a verdict is ``lrm_ros.reward.verdict``'s, as for ``RewardEngine.judge``; what is asked stands in
``lrm_ros.ros.reward_recorded``. A query that is lost or refused is an EpisodeError, never a verdict.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from lrm_ros import messages, topics
from lrm_ros.config import ImproverConfig, RewardConfig
from lrm_ros.reward.engine import RewardEngine
from lrm_ros.reward.models import public_name
from lrm_ros.reward.verdict import completion_queries, judge_queries, verdict
from lrm_ros.reward.views import joined
from lrm_ros.ros.control import Control, EpisodeError
from lrm_ros.ros.reward_recorded import BATCH, REFUSED, recorded_image, recorded_query
from lrm_ros.types import VIDEO_HEADS, Frame, Reward, RewardQuery, Unscored, Verdict

BATCH_BYTES = 24 * 2**20  # of images in a query at most, if it is about more than one: shared memory has 64 MiB
_LOOK_S = 0.2  # how often to look whether the reward node is still there [s]
_NODE = topics.REWARD_QUERY.name.partition("/")[0]


@dataclass
class _Asked:
    """A query under way: answers by stamp [ns], why it is refused, and when the last answer came."""

    query_id: str
    wanted: frozenset[int]
    answers: dict[int, Reward | Unscored] = field(default_factory=dict)
    refused: str = ""
    moved_s: float = field(default_factory=time.monotonic)

    @property
    def ended(self) -> bool:
        return bool(self.refused) or len(self.answers) == len(self.wanted)


class Judge:
    """Judges by the completion head of the reward node's model; its methods wait, so they belong in a worker thread."""

    def __init__(
        self,
        node: Node,
        control: Control,
        config: ImproverConfig,
        answer_s: float = 600.0,
        find_s: float = 600.0,
        cameras: Sequence[str] = (),
    ) -> None:
        """Subscribe.

        Args:
            node: who asks; must be spinning in another thread.
            control: its waits, and the reward node's parameters; :meth:`Control.stop` ends waits for answers, too.
            config: model, frames and threshold of the judge.
            answer_s: how long no answer may come [s]. The answers of a batch come together, and a large model on a
                slow GPU takes minutes for one.
            find_s: how long to look for the reward node: it may be loading its model [s].
            cameras: whose frames are judged; with several the frames are given view by view
                (``lrm_ros.reward.views``), and an answer is the mean, unscored if one of them is.
        """
        self._cameras = tuple(cameras)
        self._node, self._control, self._config = node, control, config
        self._answer_s, self._find_s = answer_s, find_s
        self._id, self._count = uuid.uuid4().hex[:8], 0
        self._asked: _Asked | None = None
        self._own: RewardEngine | None = None
        self._images = topics.RECORDED.publisher(node)
        self._queries = topics.REWARD_QUERY.publisher(node)
        topics.RECORDED_REWARD.subscribe(node, self._on_answer, qos=topics.RECORDED_REWARD.qos)

    def begin(self, frame: Frame) -> None:
        """Find out who judges and have any frame judged, before hours of work rely on it.

        The reward node judges if the judge's model is its own. If it is not, as where the live rewards are those of a
        baseline, which has no completion head, the model is loaded here, beside the reward node's.

        Raises:
            EpisodeError: the reward node does not answer, or the model has no completion head.
            FileNotFoundError, ValueError: the model is loaded here and cannot be.
        """
        name, mode = (self._control.get(_NODE, parameter) for parameter in ("model", "mode"))
        self._own = None
        if name != self._config.model or mode in VIDEO_HEADS:
            print(
                f"node '{_NODE}' has model '{name}' in mode '{mode}', the judge is model '{self._config.model}': it is "
                "loaded here, beside that",
                flush=True,
            )
            self._own = RewardEngine(RewardConfig(model=self._config.model, mode="completion"))
        (answer,) = self._ask_all(completion_queries([frame], "anything"), "none")
        if isinstance(answer, Unscored):
            raise EpisodeError(f"model '{self._config.model}' cannot judge episodes: {answer.reason}")

    def judge(self, frames: Sequence[Frame], task: str, episode_id: str) -> Verdict:
        """Decide about one episode.

        Args:
            frames: of it, oldest first, each with a stamp of its own.
            task: language instruction.
            episode_id: which episode.

        Raises:
            EpisodeError: the reward node is not there, is inactive, does not answer or has another model.
            Stopped: see :meth:`Control.stop`.
        """
        queries = judge_queries(frames, task, self._config.judge_frames, self._cameras)
        answers = self._ask_all(queries, episode_id)
        answers = joined([query.frames[0] for query in queries], answers, self._cameras)
        return verdict(episode_id, task, answers, self._config.judge_threshold)

    def completion(self, frames: Sequence[Frame], task: str, episode_id: str) -> list[Reward | Unscored]:
        """Return p(done) of each frame or view, in order; arguments and errors as those of :meth:`judge`."""
        return joined(frames, self._ask_all(completion_queries(frames, task), episode_id), self._cameras)

    def _ask_all(self, queries: Sequence[RewardQuery], episode_id: str) -> list[Reward | Unscored]:
        """Ask the reward node batch after batch: the next one when the last has been answered.

        Each camera's frames by themselves, for those of one time may have one stamp; a frame that is in two views once.
        """
        if self._own is not None:
            return self._own.score(queries)
        found: dict[int, Reward | Unscored] = {}
        for camera in dict.fromkeys(query.frames[0].camera for query in queries):
            asked = {id(query.frames[0]): query for query in queries if query.frames[0].camera == camera}
            for batch in batches(list(asked.values())):
                answers = self._ask(batch, f"episode '{episode_id}'")
                found |= {id(query.frames[0]): answer for query, answer in zip(batch, answers, strict=True)}
        return [found[id(query.frames[0])] for query in queries]

    def _ask(self, queries: Sequence[RewardQuery], what: str) -> list[Reward | Unscored]:
        """Send one query and wait for all its answers."""
        listeners = self._find()
        self._count += 1
        frames = [query.frames[0] for query in queries]
        asked = _Asked(f"{self._id}.{self._count}", frozenset(frame.stamp_ns for frame in frames))
        if len(asked.wanted) != len(frames):
            raise ValueError(f"{what} has frames of the same stamp; each needs one of its own")
        self._asked = asked
        for frame in frames:
            self._images.publish(recorded_image(asked.query_id, frame))
        self._queries.publish(recorded_query(asked.query_id, frames, queries[0].task))
        asked.moved_s = time.monotonic()
        while not self._control.holds(lambda: asked.ended, _LOOK_S):
            if not listeners & self._listeners():
                raise EpisodeError(
                    f"node '{_NODE}' has gone or was configured anew while it judged {what}, which has no verdict; "
                    "look at its output and start again"
                )
            if time.monotonic() - asked.moved_s > self._answer_s:
                raise EpisodeError(
                    f"node '{_NODE}' has answered {len(asked.answers)} of {len(frames)} frames of {what}, and nothing "
                    f"for {self._answer_s:.0f} s; its own output says what it does"
                )
        if asked.refused:
            raise EpisodeError(f"node '{_NODE}' has not judged {what}: {asked.refused}")
        answers = [asked.answers[frame.stamp_ns] for frame in frames]
        for answer in answers:
            if isinstance(answer, Reward) and answer.model != public_name(self._config.model):
                raise EpisodeError(
                    f"node '{_NODE}' judges {what} by model '{answer.model}', the judge of this run is model "
                    f"'{self._config.model}': give both the same, model:={self._config.model}"
                )
        return answers

    def _on_answer(self, message: DiagnosticArray) -> None:
        """Take an answer to the query that is under way; any other is one of the past, or another's."""
        asked = self._asked
        if asked is None or message.header.frame_id != asked.query_id:
            return
        for status in message.status:
            if status.name == REFUSED:
                asked.refused = status.message
        try:
            answers = messages.to_rewards(message)
        except ValueError as error:
            asked.refused = f"an answer cannot be read: {error}"
        else:
            asked.answers |= {a.stamp_ns: a for a in answers if a.head == "completion" and a.stamp_ns in asked.wanted}
        asked.moved_s = time.monotonic()
        self._control.notify()

    def _find(self) -> frozenset[bytes]:
        """Wait until the reward node hears queries and frames; returns who hears queries."""
        ends = (self._images, self._queries)
        deadline = time.monotonic() + self._find_s
        while not (found := self._listeners()) or not all(end.get_subscription_count() for end in ends):
            self._control.holds(lambda: False, _LOOK_S)  # discovery tells nobody
            if time.monotonic() > deadline:
                raise EpisodeError(
                    f"nobody hears queries about recorded frames ('{self._queries.topic_name}') after "
                    f"{self._find_s:.0f} s; is node '{_NODE}' running and configured? If it is, its own output says "
                    "what it lacks"
                )
        return found

    def _listeners(self) -> frozenset[bytes]:
        """Return the ids of those who hear queries; another one of the same name has another id."""
        found = self._node.get_subscriptions_info_by_topic(topics.REWARD_QUERY.name)
        return frozenset(bytes(end.endpoint_gid) for end in found)


def batches(queries: Sequence[RewardQuery]) -> Iterator[list[RewardQuery]]:
    """Yield queries about one frame each in batches of at most ``BATCH`` frames and ``BATCH_BYTES``."""
    batch: list[RewardQuery] = []
    size = 0
    for query in queries:
        more = query.frames[0].image.nbytes
        if batch and (len(batch) == BATCH or size + more > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(query)
        size += more
    if batch:
        yield batch
