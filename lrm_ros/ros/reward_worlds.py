# SPDX-License-Identifier: Apache-2.0
"""Queries to the reward node about frames of many simulated worlds, all worlds in one batch.

Frames arrive on ``world_NN/<camera>/image_raw`` and wait. A message on ``~/query`` says which of them to judge:
its frame_id is what is asked (``first``: begin an episode with this frame, ``step``: judge the next frame of the
episode, ``end``: completion alone), one status a world: name ``world_NN``, message the task, value ``stamp_ns``. The
answers go to ``world_NN/reward``, in the order of the queries.
"""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import Image

from lrm_ros import messages, topics
from lrm_ros.reward.engine import RewardEngine
from lrm_ros.ros.base import LrmNode
from lrm_ros.types import Frame

QUERY_KINDS = ("first", "step", "end")
_MAX_WAITING = 128  # frames of a world that may wait for their query


class WorldQueries:
    """Collects frames and answers queries as soon as all their frames are there."""

    def __init__(self, node: LrmNode[Any], engine: RewardEngine, worlds: int, camera: str) -> None:
        """Subscribe.

        Args:
            node: whose topics these are.
            engine: who answers; interval 1, for only frames that are due are asked about.
            worlds: how many.
            camera: the part of the topics' names after the world's.
        """
        self._node, self._engine, self._camera = node, engine, camera
        names = [messages.stream_name(world) for world in range(worlds)]
        self._frames: dict[str, dict[int, Frame]] = {name: {} for name in names}
        self._queries: deque[DiagnosticArray] = deque()
        self._answers = {name: topics.REWARD.under(name).publisher(node) for name in names}
        for name in names:
            topics.IMAGE_RAW.of(camera).under(name).subscribe(node, partial(self._on_image, name))
        topics.REWARD_QUERY.owned().subscribe(node, self._on_query)

    def forget(self) -> None:
        """Drop waiting frames and queries."""
        self._queries.clear()
        for name, frames in self._frames.items():
            frames.clear()
            self._engine.reset(name)

    def _on_image(self, name: str, message: Image) -> None:
        if not self._node.active:
            return
        try:
            frame = messages.to_frame(message, self._camera)
        except ValueError as error:
            self._node.diagnostics.count("rejected")
            self._node.diagnostics.fault("input", f"{name}: frame not taken: {error}")
            return
        frames = self._frames[name]
        frames[frame.stamp_ns] = frame
        if len(frames) > _MAX_WAITING:
            del frames[next(iter(frames))]
            self._node.diagnostics.count("never asked about")
        self._serve()

    def _on_query(self, message: DiagnosticArray) -> None:
        if not self._node.active:
            return
        unknown = [status.name for status in message.status if status.name not in self._frames]
        if message.header.frame_id not in QUERY_KINDS or unknown:
            self._node.diagnostics.count("rejected")
            self._node.diagnostics.fault(
                "query",
                f"query '{message.header.frame_id}' about {', '.join(unknown) or 'known worlds'} not answered: ask one "
                f"of {', '.join(QUERY_KINDS)} about worlds below {len(self._frames)} (parameter 'worlds')",
            )
            return
        self._queries.append(message)
        self._serve()

    def _serve(self) -> None:
        """Answer the queries whose frames are all there, oldest first."""
        while self._queries:
            query = self._queries[0]
            stamps = {s.name: int(messages.status_values(s)["stamp_ns"]) for s in query.status}
            if any(stamp not in self._frames[name] for name, stamp in stamps.items()):
                return
            self._queries.popleft()
            frames = {name: self._frames[name][stamp] for name, stamp in stamps.items()}
            self._answer(query.header.frame_id, frames, {status.name: status.message for status in query.status})

    def _answer(self, ask: str, frames: dict[str, Frame], tasks: dict[str, str]) -> None:
        """Judge one batch and publish; frames older than the judged ones are dropped."""
        started = time.perf_counter()
        found: dict[str, Any]
        if ask == "end":
            found = {name: [answer] for name, answer in self._engine.completion(frames, tasks).items()}
        else:
            if ask == "first":
                for name in frames:
                    self._engine.reset(name)
            found = {name: list(held.answers.values()) for name, held in self._engine.step(frames, tasks).items()}
        self._node.diagnostics.latency("batch", time.perf_counter() - started)
        self._node.diagnostics.count("judged", len(frames))
        for name, answers in found.items():
            self._answers[name].publish(messages.from_rewards(answers, self._camera))
            for stamp in [stamp for stamp in self._frames[name] if stamp < frames[name].stamp_ns]:
                del self._frames[name][stamp]
