# SPDX-License-Identifier: Apache-2.0
"""What several cameras show at one time, put together from frames that come one by one."""

from __future__ import annotations

from collections.abc import Sequence

from lrm_ros.reward.views import TOGETHER_NS
from lrm_ros.types import Frame

_WAITING = 8  # times that wait for the frames of all cameras, in lock-step


class Views:
    """Frames of several cameras by time; the first camera's stamps are those of the scene."""

    def __init__(self, cameras: Sequence[str], realtime: bool) -> None:
        """Wait for the first frame.

        Args:
            cameras: who shows the scene.
            realtime: each frame of the first camera is a view, with the others' newest that are near enough. False:
                frames of one stamp are one, as in lock-step, and one without all cameras is none.
        """
        self._cameras, self._realtime = tuple(cameras), realtime
        self._newest: dict[str, Frame] = {}
        self._waiting: dict[int, dict[str, Frame]] = {}

    def take(self, frame: Frame) -> dict[str, Frame] | None:
        """Take a frame; returns camera -> frame when it makes a view, the first camera's first."""
        if len(self._cameras) == 1:
            return {frame.camera: frame}
        found = self._take_newest(frame) if self._realtime else self._take_stamp(frame)
        return found and {camera: found[camera] for camera in self._cameras if camera in found}

    def _take_newest(self, frame: Frame) -> dict[str, Frame] | None:
        self._newest[frame.camera] = frame
        if frame.camera != self._cameras[0]:
            return None
        return {
            camera: other
            for camera, other in self._newest.items()
            if abs(other.stamp_ns - frame.stamp_ns) <= TOGETHER_NS
        }

    def _take_stamp(self, frame: Frame) -> dict[str, Frame] | None:
        at = self._waiting.setdefault(frame.stamp_ns, {})
        at[frame.camera] = frame
        if len(at) < len(self._cameras):
            if len(self._waiting) > _WAITING:
                del self._waiting[next(iter(self._waiting))]
            return None
        while next(iter(self._waiting)) != frame.stamp_ns:  # what came before it will not be whole any more
            del self._waiting[next(iter(self._waiting))]
        return self._waiting.pop(frame.stamp_ns)
