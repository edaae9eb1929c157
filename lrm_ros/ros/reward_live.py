# SPDX-License-Identifier: Apache-2.0
"""The reward node in real time: a thread judges the newest frame that is due, so it is late by one inference at most.

Every K-th frame of an episode is due. One that comes while the model is busy waits, and gives way to a newer one; the
last frame of an episode does not. All methods but ``_work`` are called by the node's executor.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lrm_ros.config import RewardConfig
from lrm_ros.reward.cameras import together
from lrm_ros.reward.engine import Held, RewardEngine
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.worker import Worker
from lrm_ros.types import HEADS, Frame, Unscored

RECENT = 32  # frames that are kept: one of them may turn out to be the last of its episode


@dataclass(frozen=True)
class _Look:
    """A frame to judge, of one or several cameras.

    Attributes:
        frames: camera -> its frame, the first camera's first.
        task: what is to be done in it.
        config: how to judge it.
        episode: number of the episode it belongs to.
        number: of the frame in it, in the order in which they came; stamps may go back.
    """

    frames: Mapping[str, Frame]
    task: str
    config: RewardConfig
    episode: int
    number: int

    @property
    def frame(self) -> Frame:
        """The first camera's frame, whose stamp the answers have."""
        return next(iter(self.frames.values()))


class LiveRewards:
    """Judges frames of one camera, or of several at one time, in a thread; only that touches the engine."""

    def __init__(
        self, node: LrmNode[RewardConfig], engine: RewardEngine, publish: Callable[[Held, RewardConfig], None]
    ) -> None:
        """Start the thread.

        Args:
            node: for its diagnostics and its clock.
            engine: who answers.
            publish: called, one call at a time, with the reward that holds and how it was asked for.
        """
        self._node, self._engine, self._publish = node, engine, publish
        self._lock = threading.Lock()  # of what follows, and of publishing
        self._config = engine.config
        self._episode = 0
        self._oldest = 0  # answers for frames of earlier episodes are not published
        self._held: Held | None = None  # of this episode
        self._held_number = 0  # of the frame it is about
        self._ends: list[_Look] = []  # last frames of episodes, not begun yet
        self._begun: deque[_Look] = deque(maxlen=RECENT)
        # Only the executor's:
        self._count = 0  # frames of this episode
        self._newest: _Look | None = None
        self._newest_due = False
        self._recent: deque[_Look] = deque(maxlen=RECENT)  # of this episode
        self._last_ns: int | None = None  # stamp of the last frame of this episode, which has not come yet
        self._handed: _Look | None = None
        self._frame_waits = False  # the worker was given a frame last
        # Only the thread's:
        self._judging = 0  # episode
        self._judged: deque[_Look] = deque(maxlen=RECENT)  # in it
        self._worker: Worker[_Look | None] = Worker("reward", self._work, self._broken)

    def take(self, frames: Mapping[str, Frame], task: str) -> None:
        """Take the next frame, of each camera (the first one's first): hand it over if it is due, else repeat."""
        due = self._count % self._config.interval == 0
        self._count += 1
        self._newest, self._newest_due = _Look(frames, task, self._config, self._episode, self._count), due
        self._recent.append(self._newest)
        self._node.diagnostics.count("frames")
        if due:
            self._hand_over(self._newest)
        last = self._newest.frame.stamp_ns == self._last_ns
        if self._last_ns is not None:
            self.end(self._last_ns)
        if due or last:
            return
        with self._lock:
            if self._held is not None:
                self._publish(Held(self._held.answers, self._held.signal, fresh=False), self._config)

    def end(self, stamp_ns: int) -> None:
        """Judge the frame of a stamp [ns], which was the last of its episode, whatever has come since; no reset."""
        look = next((look for look in self._recent if look.frame.stamp_ns == stamp_ns), None)
        self._last_ns = None
        if look is None:
            if self._newest is None or self._newest.frame.stamp_ns < stamp_ns:
                self._last_ns = stamp_ns
                return
            with self._lock:
                reason = "the episode's last frame did not come to the reward node, or too long ago"
                self._publish(_unscored(self._config.mode, stamp_ns, reason), self._config)
            return
        waited = self._take_back()  # what waits cannot begin while this looks what has
        with self._lock:
            if look not in self._begun:
                self._ends.append(look)
        self._hand_over(self._handed if waited and self._handed is not look else None)

    def adopt(self, config: RewardConfig) -> None:
        """Judge by other parameters from the next frame on, which begins an episode."""
        self._config = config
        self._begin()

    def reset(self) -> bool:
        """Begin a new episode at once. Returns whether the old one's last frame is still to be judged."""
        last, waited = self._newest, self._take_back()
        unjudged = last is not None and (waited or not self._newest_due)
        if waited and not self._newest_due:
            self._node.diagnostics.count("dropped")
        with self._lock:
            if unjudged and last not in self._begun and last not in self._ends:
                assert last is not None
                self._ends.append(last)
            unjudged = last in self._ends
            more = bool(self._ends)
        if more:
            self._hand_over(None)
        self._begin()
        return unjudged

    def forget(self) -> None:
        """Begin a new episode; no answer for an earlier frame is published any more."""
        self._take_back()
        with self._lock:
            self._ends = []
        self._begin()
        with self._lock:
            self._oldest = self._episode

    def aside(self, job: Callable[[], None]) -> None:
        """Have a job done in the thread: when no frame waits, or after one inference at the latest."""
        self._worker.put_aside(job)

    def stop(self, timeout_s: float) -> bool:
        """End the thread after the inference that runs, if any. Returns whether it has ended within ``timeout_s``."""
        return self._worker.stop(timeout_s)

    def _begin(self) -> None:
        with self._lock:
            self._episode += 1
            self._held, self._held_number = None, 0
        self._count, self._newest, self._last_ns = 0, None, None
        self._recent.clear()

    def _hand_over(self, look: _Look | None) -> None:
        if self._worker.put(look) and self._frame_waits:
            self._node.diagnostics.count("dropped")
        self._frame_waits, self._handed = look is not None, look
        self._node.diagnostics.value("queue", self._worker.waiting)

    def _take_back(self) -> bool:
        """Take back what the worker has not begun. Returns whether that was a frame."""
        return self._worker.clear() and self._frame_waits

    # -- in the thread -----------------------------------------------------------------------------------------------

    def _work(self, look: _Look | None) -> None:
        """Judge the last frames of episodes that have ended, then the frame."""
        with self._lock:
            ends, self._ends = self._ends, []
            looks = [*ends, look] if look is not None and look not in ends else ends
            self._begun.extend(looks)
        for each in looks:
            if each.episode < self._oldest:
                continue
            try:
                held = self._judge(each)
            except BaseException as error:  # what the model raises the engine has caught
                self._broken(error)
                held = _unscored(each.config.mode, each.frame.stamp_ns, f"{type(error).__name__}: {error}")
            else:
                self._node.diagnostics.recovered("judging", "frames are judged again")
            self._answer(each, held)

    def _judge(self, look: _Look) -> Held:
        if look.episode != self._judging:
            for camera in look.config.cameras:
                self._engine.reset(camera)
            self._engine.config, self._judging = look.config, look.episode
            self._judged.clear()
        in_time, helds = dict(look.frames), {}
        for camera, frame in look.frames.items():
            judged = [(each.number, each.frames[camera]) for each in self._judged if camera in each.frames]
            earlier = [each for number, each in judged if number < look.number]
            later = [each for number, each in judged if number > look.number]
            if later:  # it was not due, and turned out to be the last of its episode
                del in_time[camera]
                helds[camera] = self._engine.late(camera, frame, look.task, earlier[-1] if earlier else None, later)
        helds |= self._engine.step(in_time, look.task, list(in_time))
        self._judged.append(look)
        return together(helds, look.config)

    def _answer(self, look: _Look, held: Held) -> None:
        """Publish an answer, with its frame's own stamp; it holds on in its own episode alone."""
        with self._lock:
            if look.episode < self._oldest:
                return
            if look.episode == self._episode and look.number > self._held_number:
                self._held, self._held_number = held, look.number
            age_s = (self._node.get_clock().now().nanoseconds - look.frame.stamp_ns) / 1e9
            self._node.diagnostics.latency("age", age_s)
            self._node.diagnostics.value("age_s", f"{age_s:.3f}")
            self._node.diagnostics.value("queue", self._worker.waiting)
            self._publish(held, look.config)

    def _broken(self, error: BaseException) -> None:
        self._node.diagnostics.fault("judging", f"a frame is not judged: {type(error).__name__}: {error}")


def _unscored(mode: str, stamp_ns: int, reason: str) -> Held:
    """Return the missing answer of every head that is asked about a frame."""
    heads = (*HEADS, mode) if mode == "tri" else (mode,)
    return Held({head: Unscored(stamp_ns, head, reason) for head in heads}, None, fresh=True)
