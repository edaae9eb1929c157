# SPDX-License-Identifier: Apache-2.0
"""Queries to the reward node about recorded frames: the completion head of its model, beside the live rewards.

Who asks publishes up to ``BATCH`` frames on ``~/recorded/image_raw``, each with its own stamp and the query's id as
frame_id, and a message on ``~/query`` with frame_id ``recorded``: one status a frame, name the id, message the task,
value ``stamp_ns``. When all frames are there they are judged in one batch. The answers go to ``~/recorded/reward``: a
message a frame as on ``reward``, with the frame's stamp and the id as frame_id; or one for the whole query, whose
status ``query`` is an ERROR that says why nothing was judged. Nothing of it touches topic ``reward`` or its windows.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from lrm_ros import messages, topics
from lrm_ros.config import RewardConfig
from lrm_ros.reward.engine import RewardEngine
from lrm_ros.reward.models import RewardModel
from lrm_ros.ros.base import LrmNode
from lrm_ros.types import Frame, Reward, RewardQuery, Unscored

KIND = "recorded"  # frame_id of a query
REFUSED = "query"  # name of the status that says why a query is not answered
BATCH = 16  # frames of a query at most: a live frame waits for one batch at most
_WAITING = 8 * BATCH  # frames that may wait for their query
_QUERIES = 8  # that may wait for their frames or for the model
_LOST = 10  # seconds, as the timer counts them, without a frame of a query: it is lost


def recorded_query(query_id: str, frames: Sequence[Frame], task: str) -> DiagnosticArray:
    """Return the query about frames that are published with its id."""
    statuses = [messages.status(DiagnosticStatus.OK, query_id, task, {"stamp_ns": frame.stamp_ns}) for frame in frames]
    return DiagnosticArray(header=Header(frame_id=KIND), status=statuses)


def recorded_image(query_id: str, frame: Frame) -> Image:
    """Return a frame of a query."""
    image = messages.from_frame(frame)
    image.header.frame_id = query_id
    return image


@dataclass
class _Query:
    """A query that waits: the task of each of its frames by stamp [ns], and how long no frame of it has come [s]."""

    query_id: str
    tasks: dict[int, str]
    silent: int = 0


class RecordedQueries:
    """Collects recorded frames and has each query judged as soon as all its frames are there."""

    def __init__(
        self, node: LrmNode[Any], model: RewardModel, min_mass: float, run: Callable[[Callable[[], None]], None]
    ) -> None:
        """Subscribe.

        Args:
            node: whose topics these are.
            model: answers; never by two threads at once.
            min_mass: least mass of an answer.
            run: calls what it is given in the thread that uses the model, now or later.
        """
        self._node, self._model, self._run = node, model, run
        # The judge's own settings: one pass over each frame, whatever the live rewards are read by.
        self._config = RewardConfig(model=model.name, mode="completion", min_mass=min_mass)
        self._frames: OrderedDict[tuple[str, int], Frame] = OrderedDict()
        self._waiting: dict[str, _Query] = {}  # for frames
        self._lock = threading.Lock()  # of what follows, and of publishing
        self._due: dict[str, tuple[dict[int, str], list[Frame]]] = {}  # waits for the model: tasks and frames
        self._closed = False
        self._answers = topics.RECORDED_REWARD.owned().publisher(node)
        topics.RECORDED.owned().subscribe(node, self._on_image)
        topics.REWARD_QUERY.owned().subscribe(node, self._on_query)
        node.create_timer(1.0, self._on_second, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def forget(self) -> None:
        """Refuse what waits; a batch that is being judged is still answered."""
        with self._lock:
            due, self._due = list(self._due), {}
        self._frames.clear()
        for query_id in [*due, *self._waiting]:
            self._refuse(query_id, self._inactive())
        self._waiting.clear()

    def close(self) -> None:
        """Publish nothing any more."""
        with self._lock:
            self._closed = True

    def _on_image(self, message: Image) -> None:
        if not self._node.active:
            return
        query_id = message.header.frame_id
        try:
            frame = messages.to_frame(message, KIND)
        except ValueError as error:
            self._node.diagnostics.count("rejected")
            self._refuse(query_id, f"a recorded frame cannot be judged: {error}")
            self._waiting.pop(query_id, None)
            return
        self._frames[query_id, frame.stamp_ns] = frame
        if len(self._frames) > _WAITING:
            self._frames.popitem(last=False)
            self._node.diagnostics.count("never asked about")
        if query := self._waiting.get(query_id):
            query.silent = 0
            self._hand_over(query)

    def _on_query(self, message: DiagnosticArray) -> None:
        query_id = message.status[0].name if message.status else ""
        try:
            query = self._read(message)
        except ValueError as error:
            self._node.diagnostics.count("rejected")
            self._node.diagnostics.fault("query", str(error))
            self._refuse(query_id, str(error))
            return
        self._node.diagnostics.recovered("query", "queries are answered again")
        if not self._node.active:
            self._refuse(query_id, self._inactive())
            return
        self._waiting[query_id] = query
        self._hand_over(query)

    def _read(self, message: DiagnosticArray) -> _Query:
        """Return a query.

        Raises:
            ValueError: it is none that this node answers, or too many wait.
        """
        if message.header.frame_id != KIND:
            raise ValueError(
                f"query '{message.header.frame_id}' is not answered: this node answers '{KIND}'; queries about "
                "simulated worlds need its parameter 'worlds'"
            )
        if not 0 < len(message.status) <= BATCH or len({status.name for status in message.status}) != 1:
            raise ValueError(
                f"a query about {len(message.status)} frames of {len({status.name for status in message.status})} ids "
                f"is not answered: ask about 1 to {BATCH} frames with one id"
            )
        if len(self._waiting) + len(self._due) >= _QUERIES:
            raise ValueError(f"{_QUERIES} queries wait already; ask the next when one has been answered")
        tasks: dict[int, str] = {}
        for status in message.status:
            text = messages.status_values(status).get("stamp_ns", "")
            if not text.isdecimal() or int(text) in tasks or not status.message.strip():
                raise ValueError(
                    f"a frame with stamp_ns '{text}' and task '{status.message}' is not judged: each needs a stamp "
                    "of its own and a task that is not blank"
                )
            tasks[int(text)] = status.message
        return _Query(message.status[0].name, tasks)

    def _hand_over(self, query: _Query) -> None:
        """Have a query judged if all its frames are there."""
        keys = [(query.query_id, stamp) for stamp in query.tasks]
        if not all(key in self._frames for key in keys):
            return
        del self._waiting[query.query_id]
        frames = [self._frames.pop(key) for key in keys]
        with self._lock:
            self._due[query.query_id] = query.tasks, frames
        self._run(self._judge)

    def _on_second(self) -> None:
        """Refuse queries of which no frame comes any more; a second in which the node did something else is one."""
        for query in list(self._waiting.values()):
            query.silent += 1
            if query.silent > _LOST:
                del self._waiting[query.query_id]
                here = sum((query.query_id, stamp) in self._frames for stamp in query.tasks)
                self._refuse(query.query_id, f"{here} of its {len(query.tasks)} frames came, and no more in {_LOST} s")

    def _refuse(self, query_id: str, reason: str) -> None:
        """Answer a whole query with the reason why it is not judged, and drop its frames."""
        for key in [key for key in self._frames if key[0] == query_id]:
            del self._frames[key]
        self._say_why_not(query_id, reason)

    def _inactive(self) -> str:
        name = self._node.get_name()
        return f"node '{name}' is not active: 'ros2 lifecycle set {name} activate', or start it anew"

    # -- in any thread -----------------------------------------------------------------------------------------------

    def _say_why_not(self, query_id: str, reason: str) -> None:
        self._node.diagnostics.count("refused")
        status = messages.status(DiagnosticStatus.ERROR, REFUSED, reason)
        self._publish([DiagnosticArray(header=Header(frame_id=query_id), status=[status])])

    def _publish(self, answers: Sequence[DiagnosticArray]) -> None:
        with self._lock:
            if not self._closed:
                for answer in answers:
                    self._answers.publish(answer)

    # -- in the thread that uses the model ---------------------------------------------------------------------------

    def _judge(self) -> None:
        """Judge the query that has waited longest, if there still is one."""
        with self._lock:
            if not self._due:
                return
            query_id = next(iter(self._due))
            tasks, frames = self._due.pop(query_id)
        started = time.perf_counter()
        try:
            answers = self._score(tasks, frames)
        except BaseException as error:  # what a model raises by rights the engine has caught
            self._say_why_not(query_id, f"the reward model failed: {type(error).__name__}: {error}")
            raise
        found = []
        for answer in answers:
            message = messages.from_rewards([answer], KIND)
            message.header.frame_id = query_id
            found.append(message)
        self._node.diagnostics.latency("recorded", time.perf_counter() - started)
        self._node.diagnostics.count("recorded", len(found))
        self._publish(found)

    def _score(self, tasks: Mapping[int, str], frames: Sequence[Frame]) -> list[Reward | Unscored]:
        # A model keeps what it has made of the newest frames, for its next answer. A copy has the same weights and
        # keeps its own, so that the next live answer is the same to the last bit, and nothing of these frames stays.
        engine = RewardEngine(self._config, copy(self._model))
        queries = [RewardQuery(tasks[frame.stamp_ns], "completion", (frame,)) for frame in frames]
        return engine.score(queries)
