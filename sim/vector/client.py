# SPDX-License-Identifier: Apache-2.0
"""Clients of the worlds node and the reward node, with the interfaces of ``VectorWorlds``, ``RewardEngine``.

Calls publish and wait, so they belong in another thread than the one that spins the node.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Header, Int64MultiArray
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages, topics
from lrm_ros.config import RobotContract
from lrm_ros.reward.engine import Held
from lrm_ros.sim.vector.node import JUDGED
from lrm_ros.sim.vector.worlds import ChunkResult
from lrm_ros.types import ActionChunk, Frame, Observation, Reward, Unscored

TIMEOUT_S = 300.0  # the first picture may compile shaders on a busy machine

T = TypeVar("T")


class NoReply(RuntimeError):
    """A node did not answer in time, or the wait was ended."""


class Inbox:
    """Waiting for messages: callbacks of the spinning thread wake the thread that waits."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        """Set how long a wait may last without any message [s]."""
        self._changed = threading.Condition()
        self._timeout_s, self._news, self._closed = timeout_s, 0, False

    def deliver(self, store: Callable[[], Any]) -> None:
        """Change what is stored, e.g. by a message, and wake whoever waits."""
        with self._changed:
            store()
            self._news += 1
            self._changed.notify_all()

    def wait(self, what: str, take: Callable[[], T | None]) -> T:
        """Return what ``take`` returns as soon as that is not None.

        Raises:
            NoReply: no message came for ``timeout_s``, or ``close`` was called.
        """
        with self._changed:
            while (found := take()) is None:
                news = self._news
                if self._closed:
                    raise NoReply(f"no longer waiting for {what}")
                if not self._changed.wait(self._timeout_s) and self._news == news:
                    raise NoReply(f"{what}: nothing came for {self._timeout_s:.0f} s; look at that node's output")
            return found

    def open(self) -> None:
        """Allow waits again after ``close``."""
        with self._changed:
            self._closed = False

    def close(self) -> None:
        """End all waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class RemoteWorlds:
    """The worlds of a worlds node; see ``lrm_ros.sim.vector.worlds.VectorWorlds``."""

    def __init__(self, node: Node, inbox: Inbox, count: int, contract: RobotContract) -> None:
        """Subscribe.

        Args:
            node: that spins in another thread.
            inbox: the inbox of the messages.
            count: number of worlds.
            contract: joints and cameras.
        """
        self._inbox, self.count, self._contract = inbox, count, contract
        self._camera = contract.cameras[0].name
        self._images: list[dict[int, Frame]] = [{} for _ in range(count)]
        self._judged: list[dict[int, Frame]] = [{} for _ in range(count)]
        self._states: list[dict[int, NDArray[np.float32]]] = [{} for _ in range(count)]
        self._sent: list[dict[int, NDArray[np.float32]]] = [{} for _ in range(count)]
        self._news: deque[DiagnosticArray] = deque()
        self._stamps: list[int] = []
        self._seeds = topics.WORLDS_SEEDS.publisher(node)
        self._commands = []
        topics.WORLDS.subscribe(node, partial(self._on, self._news.append))
        for world in range(count):
            name = messages.stream_name(world)
            self._commands.append(topics.JOINT_COMMAND.under(name).publisher(node))
            for topic, take in (
                (topics.IMAGE_RAW.of(self._camera), partial(self._on_image, self._images[world])),
                (topics.IMAGE_RAW.of(JUDGED), partial(self._on_image, self._judged[world])),
                (topics.JOINT_STATES, partial(self._on_state, world)),
                (topics.JOINT_COMMAND_SENT, partial(self._on_sent, world)),
            ):
                topic.under(name).subscribe(node, partial(self._on, take))

    @property
    def connected(self) -> bool:
        """Whether the worlds node listens to the seeds and to every command."""
        return all(publisher.get_subscription_count() for publisher in (self._seeds, *self._commands))

    def reset(self, seeds: Sequence[Sequence[int]], rebuild: bool = True) -> list[Observation]:
        """Start a new episode in every world; see ``VectorWorlds.reset``. Scenes are always built anew."""
        if len(seeds) != self.count or len({len(own) for own in seeds}) != 1 or not seeds[0] or not rebuild:
            raise ValueError(f"{self.count} worlds need the same number of seeds each and scenes built anew")
        self._seeds.publish(Int64MultiArray(data=[int(seed) for own in seeds for seed in own]))
        about = self._next("reset")
        return [self._observation(world, status) for world, status in enumerate(about)]

    def step(self, chunks: Sequence[NDArray[np.float32]]) -> list[ChunkResult]:
        """Execute a chunk of absolute joint targets in each world; see ``VectorWorlds.step``."""
        if len(chunks) != self.count:
            raise ValueError(f"{self.count} worlds need a chunk each, got {len(chunks)}")
        before = self._stamps
        for publisher, actions, stamp_ns in zip(self._commands, chunks, before, strict=True):
            chunk = ActionChunk(stamp_ns, actions, self._contract.dt_s)
            publisher.publish(messages.from_chunk(chunk, self._contract.joints))
        about = self._next("step")
        return [self._result(world, before[world], status) for world, status in enumerate(about)]

    def clear(self) -> None:
        """Drop received messages that were not used, of an iteration that was interrupted."""

        def clear_all() -> None:
            self._news.clear()
            for world in range(self.count):
                self._drop(world)

        self._inbox.deliver(clear_all)

    def close(self) -> None:
        """End all waits; the worlds belong to their node."""
        self._inbox.close()

    # ---- messages in -------------------------------------------------------------------------------------------------

    def _on(self, take: Callable[[Any], Any], message: Any) -> None:
        self._inbox.deliver(lambda: take(message))

    def _on_image(self, frames: dict[int, Frame], message: Image) -> None:
        frame = messages.to_frame(message, self._camera)
        frames[frame.stamp_ns] = frame

    def _on_state(self, world: int, message: JointState) -> None:
        stamp_ns = messages.to_ns(message.header.stamp)
        self._states[world][stamp_ns] = messages.to_state(message, self._contract.joints)

    def _on_sent(self, world: int, message: JointTrajectory) -> None:
        chunk = messages.to_chunk(message, self._contract.joints, self._contract.dt_s)
        self._sent[world][chunk.stamp_ns] = chunk.actions

    # ---- replies -----------------------------------------------------------------------------------------------------

    def _next(self, what: str) -> list[dict[str, str]]:
        """Return what the next message says about each world, once all that belongs to it is here."""

        def take() -> list[dict[str, str]] | None:
            while self._news and self._news[0].header.frame_id != what:
                self._news.popleft()  # of a learner before this one
            if not self._news:
                return None
            about = [messages.status_values(s) | {"task": s.message} for s in self._news[0].status]
            if not all(self._complete(world, status) for world, status in enumerate(about)):
                return None
            self._news.popleft()
            return about

        about = self._inbox.wait(f"the worlds' {what}", take)
        self._stamps = [int(status["stamp_ns"]) for status in about]
        return about

    def _complete(self, world: int, status: Mapping[str, str]) -> bool:
        """Return whether everything a status speaks of has come."""
        shown = [int(status[name]) for name in ("stamp_ns", "final_ns") if name in status]
        judged = [stamp for _, stamp in _judged_frames(status)]
        seen = all(stamp in self._images[world] and stamp in self._states[world] for stamp in shown)
        executed = "progress" not in status or self._stamps[world] in self._sent[world]
        return seen and executed and all(stamp in self._judged[world] for stamp in judged)

    def _observation(self, world: int, status: Mapping[str, str], final: bool = False) -> Observation:
        stamp_ns = int(status["final_ns" if final else "stamp_ns"])
        task = status["final_task" if final else "task"]
        frame, state = self._images[world][stamp_ns], self._states[world][stamp_ns]
        return Observation(stamp_ns, {self._camera: frame}, state, task)

    def _result(self, world: int, before: int, status: Mapping[str, str]) -> ChunkResult:
        done = "final_ns" in status
        result = ChunkResult(
            self._sent[world][before],
            np.array([float(word) for word in status["progress"].split()], np.float32),
            np.array([word == "1" for word in status["success"].split()]),
            tuple((step, self._judged[world][stamp]) for step, stamp in _judged_frames(status)),
            done,
            status.get("cut_off") == "true",
            self._observation(world, status, final=True) if done else None,
            self._observation(world, status),
            int(status["seed"]),
        )
        self._inbox.deliver(partial(self._drop, world, result.observation.stamp_ns))
        return result

    def _drop(self, world: int, before_ns: float = math.inf) -> None:
        """Drop a world's messages, or those before a stamp."""
        for kept in (self._images, self._judged, self._states, self._sent):
            for stamp in [stamp for stamp in kept[world] if stamp < before_ns]:
                del kept[world][stamp]


class RemoteEngine:
    """The reward node's engine; what ``lrm_ros.sim.vector.rewards.WorldRewards`` asks of a ``RewardEngine``."""

    def __init__(self, node: Node, inbox: Inbox, count: int, mode: str, scale: float) -> None:
        """Subscribe.

        Args:
            node: that spins in another thread.
            inbox: the inbox of the messages.
            count: number of worlds; their streams are called "0", "1", ...
            mode: of the reward node.
            scale: factor on the signal.
        """
        self._inbox, self._mode, self._scale = inbox, mode, scale
        self._new = {str(world) for world in range(count)}
        self._queries = topics.REWARD_QUERY.publisher(node)
        self._answers: dict[str, deque[list[Reward | Unscored]]] = {str(world): deque() for world in range(count)}
        for stream in self._answers:
            answer = topics.REWARD.under(messages.stream_name(int(stream)))
            answer.subscribe(node, partial(self._on_answer, stream))

    @property
    def connected(self) -> bool:
        """Whether the reward node listens."""
        return self._queries.get_subscription_count() > 0

    def clear(self) -> None:
        """Drop received answers that were not used, of an iteration that was interrupted."""

        def clear_all() -> None:
            for answers in self._answers.values():
                answers.clear()

        self._inbox.deliver(clear_all)

    def reset(self, stream: str) -> None:
        """Begin a new episode of a stream with its next frame."""
        self._new.add(stream)

    def step(self, frames: Mapping[str, Frame], tasks: Mapping[str, str]) -> dict[str, Held]:
        """Judge the next frame of each stream; see ``RewardEngine.step``."""
        new = [stream in self._new for stream in frames]
        if len(set(new)) > 1:
            raise ValueError("begin the episodes of some streams and go on with others in calls of their own")
        self._new -= set(frames)
        found = {}
        for stream, answers in self._ask("first" if any(new) else "step", frames, tasks).items():
            by_head = {answer.head: answer for answer in answers}
            active = by_head[self._mode]
            signal = self._scale * active.value if isinstance(active, Reward) else None
            found[stream] = Held(by_head, signal, True)
        return found

    def completion(self, frames: Mapping[str, Frame], tasks: Mapping[str, str]) -> dict[str, Reward | Unscored]:
        """Return p(done) of one frame of each stream; see ``RewardEngine.completion``."""
        return {stream: answers[0] for stream, answers in self._ask("end", frames, tasks).items()}

    def _on_answer(self, stream: str, message: DiagnosticArray) -> None:
        answers = messages.to_rewards(message)
        self._inbox.deliver(lambda: self._answers[stream].append(answers))

    def _ask(
        self, ask: str, frames: Mapping[str, Frame], tasks: Mapping[str, str]
    ) -> dict[str, list[Reward | Unscored]]:
        """Send one query and wait for all its answers."""
        if not frames:
            return {}
        statuses = [
            messages.status(
                DiagnosticStatus.OK,
                messages.stream_name(int(stream)),
                tasks[stream],
                {"stamp_ns": frame.stamp_ns},
            )
            for stream, frame in frames.items()
        ]
        newest = messages.to_time(max(frame.stamp_ns for frame in frames.values()))
        self._queries.publish(DiagnosticArray(header=Header(stamp=newest, frame_id=ask), status=statuses))

        def take() -> dict[str, list[Reward | Unscored]] | None:
            if not all(self._answers[stream] for stream in frames):
                return None
            return {stream: self._answers[stream].popleft() for stream in frames}

        found = self._inbox.wait(f"the reward node's answers to '{ask}'", take)
        for stream, answers in found.items():
            if any(answer.stamp_ns != frames[stream].stamp_ns for answer in answers):
                raise RuntimeError(
                    f"world {stream}: the reward node answered about {answers[0].stamp_ns} ns, asked was "
                    f"{frames[stream].stamp_ns} ns; does another learner ask the same node?"
                )
        return found


def _judged_frames(status: Mapping[str, str]) -> list[tuple[int, int]]:
    """Return (step in the chunk, stamp) of each judged frame."""
    pairs = (word.split(":") for word in status.get("judged", "").split())
    return [(int(step), int(stamp)) for step, stamp in pairs]


def wait_until(
    what: str, predicate: Callable[[], bool], stopped: Callable[[], bool], seconds: float = TIMEOUT_S
) -> None:
    """Poll while nodes find each other.

    Raises:
        NoReply: it did not become true in time, or ``stopped``.
    """
    deadline = time.monotonic() + seconds
    while not predicate():
        if stopped() or time.monotonic() > deadline:
            raise NoReply(f"{what}: not within {seconds:.0f} s; is that node running?")
        time.sleep(0.05)
