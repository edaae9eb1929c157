# SPDX-License-Identifier: Apache-2.0
"""The reward of an episode's last frame: the recorder asks for it on topic ``episode`` and waits for the answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rclpy.node import Node

from lrm_ros.topics import Topic
from lrm_ros.types import Reward, Unscored

ENDING = "ending"  # event on topic ``episode``: the last frames are known, their rewards are not all there
_FRAME = "last_frame_"  # with a camera's name: stamp of its last frame [ns]


def last_frame_values(last: Mapping[str, int]) -> dict[str, Any]:
    """Return the values of the event ``ENDING``: the stamp of each camera's last frame [ns]."""
    return {_FRAME + camera: str(stamp_ns) for camera, stamp_ns in last.items()}


def last_frame_ns(values: Mapping[str, str], camera: str) -> int | None:
    """Return the stamp of a camera's last frame in the values of ``ENDING`` [ns]; ``None``: it has none."""
    text = values.get(_FRAME + camera)
    return None if text is None else int(text)


def publishes_and_hears(node: Node, published: Topic, heard: Topic) -> bool:
    """Return whether one node publishes the one topic and listens to the other; an inactive reward node does not."""
    publishers = node.get_publishers_info_by_topic(published.name)
    hearers = node.get_subscriptions_info_by_topic(heard.name)
    names = [{(each.node_namespace, each.node_name) for each in found} for found in (publishers, hearers)]
    return bool(names[0] & names[1])


class LastReward:
    """The answers that have come in one episode, and what is missing at its end."""

    def __init__(self, has_frame: Callable[[str, int], bool] = lambda camera, stamp_ns: True) -> None:
        """Begin an episode: no answer has come; ``has_frame``: whether a camera has a frame of a stamp [ns] in it."""
        self._has_frame = has_frame
        self._judged: dict[str, set[int]] = {}  # camera -> stamps of the frames judged
        self._heads: dict[str, dict[str, None]] = {}  # camera -> heads of all reward nodes, in their order
        self._came_s, self._end_ns = 0.0, 0  # of the last frames that are waited for [ns]; 0: none is

    def came(self, camera: str, rewards: Sequence[Reward | Unscored]) -> None:
        """Note the answers about one frame of a camera; held ones are none."""
        stamp_ns, judged = rewards[0].stamp_ns, self._judged.setdefault(camera, set())
        new = stamp_ns not in judged
        judged.add(stamp_ns)
        self._heads.setdefault(camera, {}).update(dict.fromkeys(reward.head for reward in rewards))
        # Each frame once: one who says the same for ever, or judges others, does not prolong the wait.
        if not self._end_ns or (new and stamp_ns <= self._end_ns and self._has_frame(camera, stamp_ns)):
            self._came_s = time.monotonic()

    def missing(self, last: Mapping[str, int]) -> list[str]:
        """Return the cameras that are judged and whose last frame has no answer; all, if no answer has come at all.

        Args:
            last: stamp of each camera's last frame [ns].
        """
        if not self._judged:
            return sorted(last)
        return sorted(
            camera for camera in self._judged.keys() & last.keys() if last[camera] not in self._judged[camera]
        )

    def wait(
        self,
        last: Mapping[str, int],
        timeout_s: float | None,
        attend: Callable[[Callable[[], bool]], None],
        in_order: bool = False,
    ) -> str:
        """Wait for the answers about the last frames.

        Args:
            last: stamp of each camera's last frame [ns].
            timeout_s: give up when no answer about a frame of the episode has come for so long [s]: a camera goes on,
                and later frames are judged; ``None``: nobody hears the end, none will come.
            attend: takes messages until it is told that it is done; see ``Streams.attend``.
            in_order: answers come in the order of the frames, as in lock-step: after one about a later frame none
                comes.

        Returns:
            What has not come, empty if everything has.
        """
        if timeout_s is None:
            return (
                f"no reward came for the last frame of camera {', '.join(self.missing(last))}: no node that publishes "
                "rewards hears the end of an episode; is the reward node active?"
            )
        self._came_s, self._end_ns = time.monotonic(), max(last.values(), default=0)
        attend(lambda: not self._may_come(last, in_order) or time.monotonic() - self._came_s > timeout_s)
        missing = self.missing(last)
        if not missing:
            return ""
        if not self._judged:
            return (
                f"the reward node answered nothing in the episode, nor in the {timeout_s:g} s after it; is it active, "
                "and does it judge one of these cameras?"
            )
        return f"no reward came for the last frame of camera {', '.join(missing)}"

    def _may_come(self, last: Mapping[str, int], in_order: bool) -> bool:
        """Return whether an answer is missing that may come."""
        missing = self.missing(last)
        if not in_order:
            return bool(missing)
        return any(max(self._judged.get(camera, {0})) < last[camera] for camera in missing)

    def unscored(self, last: Mapping[str, int], reason: str) -> dict[str, list[Unscored]]:
        """Return the missing answers: for each camera one a head that has answered before."""
        return {
            camera: [Unscored(last[camera], head, reason) for head in self._heads[camera]]
            for camera in self.missing(last)
            if camera in self._heads
        }
