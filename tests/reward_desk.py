# SPDX-License-Identifier: Apache-2.0
"""A reward node in real time whose model waits for the test, and a probe that plays camera, task and recorder."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from lrm_ros import messages, topics
from lrm_ros.nodes.reward import RewardNode
from lrm_ros.reward.fake import FakeModel
from lrm_ros.ros.last_reward import ENDING, last_frame_values
from lrm_ros.topics import IMAGE, LATCHED, STREAM
from lrm_ros.types import Frame

LONG_S = 30.0
OK, ERROR, STALE = DiagnosticStatus.OK, DiagnosticStatus.ERROR, DiagnosticStatus.STALE


def shade(step: int, light: int = 100) -> Image:
    return messages.from_frame(Frame(step * 100_000_000, "front", np.full((8, 8, 3), light, np.uint8)))


class Slow(FakeModel):
    """The fake model; each batch waits for the test, and raises what the test says."""

    def __init__(self) -> None:
        self.asked: list[int] = []  # step of the newest frame of each batch
        self.raises: BaseException | None = None
        self.go_on = threading.Semaphore(0)

    def score(self, queries, readout="forward"):
        self.asked.append(max(query.stamp_ns for query in queries) // 100_000_000)
        assert self.go_on.acquire(timeout=LONG_S)
        if self.raises is not None:
            raise type(self.raises)(*self.raises.args)  # one that is kept would keep the node by its traceback
        return super().score(queries, readout)


class Desk:
    """A node in real time, and a probe that plays camera and task."""

    def __init__(self, spin, probe, slow: Slow | None = None, **parameters: Any) -> None:
        self.spin, self.probe, self.slow = spin, probe, slow
        self.node = spin.start(RewardNode(**{"mode": "progress", "interval": 1, **parameters}))
        self.images = probe.create_publisher(Image, "front/image_raw", IMAGE)
        self.tasks = probe.create_publisher(String, "task", LATCHED)
        self.rewards: list[DiagnosticArray] = spin.collect(probe, DiagnosticArray, "reward", STREAM)
        self.tasks.publish(String(data="put the toy in the bowl"))
        spin.until(lambda: self.images.get_subscription_count() and self.node._task)
        spin.until(lambda: probe.count_publishers("reward"))
        self.sent = 0
        self.episodes: Any = None

    def show(self, *steps: int, light: int = 100) -> None:
        """Publish frames; each has been taken by the node when this returns."""
        for step in steps:
            self.images.publish(shade(step, light))
            self.sent += 1
            self.spin.until(lambda: self.node.diagnostics.total("frames") == self.sent)

    def judges(self, *steps: int) -> None:
        """Wait until the model has been asked about these frames, in this order."""
        assert self.slow is not None
        self.spin.until(lambda: self.slow.asked == list(steps), what=f"to be asked about {steps}")

    def hears(self, *rewards: tuple[int, int]) -> None:
        """Wait until these are all rewards: step of the frame judged, and level."""
        self.spin.until(lambda: len(self.rewards) >= len(rewards))
        heard = [(messages.to_ns(m.header.stamp) // 100_000_000, m.status[0].level) for m in self.rewards]
        assert heard == [(step, level) for step, level in rewards]

    def total(self, counter: str) -> int:
        return self.node.diagnostics.total(counter)

    def reset(self) -> str:
        return self.spin.call(self.probe, Trigger, "reward/reset").message

    def ends(self, step: int) -> None:
        """Say as the recorder does that a frame was the last of its episode; the node has heard it on return."""
        if self.episodes is None:
            self.episodes = topics.EPISODE.publisher(self.probe)
            self.spin.until(self.episodes.get_subscription_count)
        heard, live = [], self.node._live
        take = live.end
        live.end = lambda stamp_ns: (take(stamp_ns), heard.append(stamp_ns))
        values = last_frame_values({"front": step * 100_000_000})
        self.episodes.publish(messages.status(OK, "e1", ENDING, values))
        self.spin.until(lambda: heard == [step * 100_000_000])
        live.end = take
