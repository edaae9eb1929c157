# SPDX-License-Identifier: Apache-2.0
"""A model that judges brightness, for tests of the graph."""

from __future__ import annotations

import time
from collections.abc import Sequence

from lrm_ros.reward.heads import HEADS
from lrm_ros.reward.video_heads import VIDEO_HEADS
from lrm_ros.types import Reward, RewardQuery, Unscored


class FakeModel:
    """Judges brightness, so that tests of the graph can predict every answer. It is no reward model.

    Brightness is the mean pixel of the judged frame over 255. Progress: brightness. Completion: 1 if brightness is at
    least 0.5, else 0. Contrastive: +1 if the later frame is brighter, -1 if darker; equally bright frames are Unscored.
    A video head: mean brightness of the frames that it shows.
    """

    name = "fake"

    def score(self, queries: Sequence[RewardQuery], readout: str = "forward") -> list[Reward | Unscored]:
        """Answer every query from the brightness of its frames."""
        return [self._score(query) for query in queries]

    def _score(self, query: RewardQuery) -> Reward | Unscored:
        start = time.perf_counter()
        head = (HEADS | VIDEO_HEADS)[query.head]
        try:
            head.check(query)
        except ValueError as error:
            return Unscored(query.stamp_ns, query.head, str(error))
        light = [float(frame.image.mean()) / 255 for frame in head.images(query)]
        if head.video:
            value = sum(light) / len(light)
        elif query.head == "progress":
            value = light[-1]
        elif query.head == "completion":
            value = float(light[-1] >= 0.5)
        elif light[1] == light[0]:
            return Unscored(query.stamp_ns, query.head, "the fake model sees two equally bright frames")
        else:
            value = 1.0 if light[1] > light[0] else -1.0
        return Reward(query.stamp_ns, query.head, value, self.name, time.perf_counter() - start)
