# SPDX-License-Identifier: Apache-2.0
"""What a node asks the person before the robot: to put the scene in place, and whether an episode was a success.

Topic ``question`` says what is asked; services of the node that asks, ``~/ready`` and ``~/outcome``, are the answers.
Keys, a pedal or a script call them (``lrm_ros.nodes.answer`` is the keyboard).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool, Trigger

from lrm_ros import messages, topics
from lrm_ros.files import write_bytes
from lrm_ros.image_files import encode
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.camera_images import CameraImages
from lrm_ros.ros.control import Control, EpisodeError
from lrm_ros.types import Frame

SAFE = "When it is safe, say ready: the arm goes to its start"
SCENE, OUTCOME, NOTHING = "scene", "outcome", "nothing"
_SHOW_S = 0.5  # a scene that is asked for is shown so often [s]
_GAP = 4  # white columns between the two pictures


class Person:
    """Asks, and waits for answers; the waits belong in a worker thread, and :meth:`Control.stop` ends them."""

    def __init__(
        self,
        node: LrmNode[Any],
        control: Control,
        camera: str,
        picture: Path,
        transport: str = "raw",
        others: Sequence[str] = (),
    ) -> None:
        """Create topics and services; to be called in ``configure``.

        Args:
            node: who asks.
            control: its waits.
            camera: whose picture shows how the scene is now.
            picture: file in which the start and the live picture stand side by side while a scene is asked for.
            transport: ``"raw"`` or ``"compressed"`` images.
            others: cameras whose images are looked at beside it, or it itself.
        """
        self._node, self._control, self._picture = node, control, picture
        self._lock = threading.Lock()
        self._asked, self._text = NOTHING, ""
        self._start: NDArray[np.uint8] | None = None
        self._ready = False
        self._outcome: bool | None = None
        self._keep: Callable[[bool], None] = lambda success: None
        self._question, self._shown = topics.QUESTION.publisher(node), topics.SCENE.publisher(node)
        self._camera = camera
        self._images = {name: CameraImages(node, name, transport) for name in dict.fromkeys((camera, *others))}
        self._newest: dict[str, Image | CompressedImage] = {}
        self._came = dict.fromkeys(self._images, 0)
        for name, images in self._images.items():
            images.topic.subscribe(node, partial(self._on_image, name), qos=topics.NEWEST)
        node.create_service(Trigger, "~/ready", self._on_ready)
        node.create_service(SetBool, "~/outcome", self._on_outcome)
        node.create_timer(_SHOW_S, self._show)

    # -- asking ------------------------------------------------------------------------------------------------------

    def scene(self, text: str, start: NDArray[np.uint8] | None = None) -> None:
        """Ask for a scene and wait, for as long as it takes, until the person says that it is in place.

        Args:
            text: what to do.
            start: (H, W, 3) how it is to look; ``None``: as the person likes.

        Raises:
            Stopped: see :meth:`Control.stop`.
        """
        self._start, self._ready = start, False
        self._ask(SCENE, text)
        try:
            while not self._control.holds(lambda: self._ready, 3600.0):
                pass
        finally:
            self.nothing()

    def begin(self, text: str, keep: Callable[[bool], None] = lambda success: None) -> None:
        """From now on take the outcome of an episode, until :meth:`nothing`.

        Args:
            text: what happens.
            keep: called with the answer before the person is told that it was taken; an OSError refuses it.
        """
        self._outcome, self._keep = None, keep
        self._ask(OUTCOME, text)

    @property
    def outcome(self) -> bool | None:
        """The outcome that was given since :meth:`begin`; ``None``: not yet."""
        return self._outcome

    def wait_outcome(self, text: str) -> bool:
        """Ask for the outcome of the episode that has ended, and wait until it is given.

        Raises:
            Stopped: see :meth:`Control.stop`.
        """
        if self._outcome is None:
            self._ask(OUTCOME, text)
        while not self._control.holds(lambda: self._outcome is not None, 3600.0):
            pass
        assert self._outcome is not None
        return self._outcome

    def nothing(self) -> None:
        """Ask nothing more."""
        self._ask(NOTHING, "")

    def live(self, cameras: Sequence[str] = (), timeout_s: float = 10.0) -> list[Frame]:
        """Wait for an image of each camera that is taken from now on, and return them in this order.

        Args:
            cameras: which; empty: the one whose picture is shown.
            timeout_s: give up after so long [s].

        Raises:
            EpisodeError: none comes, or one that cannot be used.
            Stopped: see :meth:`Control.stop`.
        """
        names = tuple(cameras) or (self._camera,)
        wanted = {name: self._came[name] + 1 for name in names}

        def missing() -> list[str]:
            return [name for name in names if self._came[name] <= wanted[name]]

        if not self._control.holds(lambda: not missing(), timeout_s):
            topic = self._images[next(iter(missing()), names[0])].topic.name
            raise EpisodeError(f"no image comes on '{topic}' for {timeout_s:.0f} s; look at the camera's node")
        frames = []
        for name in names:
            try:
                frames.append(self._images[name].frame(self._newest[name]))
            except ValueError as error:
                raise EpisodeError(f"the image on '{self._images[name].topic.name}' cannot be used: {error}") from error
        return frames

    # -- answers -----------------------------------------------------------------------------------------------------

    def _ask(self, what: str, text: str) -> None:
        with self._lock:  # an answer that is being kept counts, or is refused
            self._asked, self._text = what, text
        shown = what == SCENE and self._start is not None
        values = {"node": self._node.get_fully_qualified_name(), "picture": self._picture if shown else ""}
        self._question.publish(messages.status(DiagnosticStatus.OK, what, text, values))

    def _on_ready(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._asked != SCENE:
            response.success, response.message = False, "no scene is asked for; see topic 'question'"
            return response
        self._ready = True
        self._control.notify()
        response.success, response.message = True, "the episode begins"
        return response

    def _on_outcome(self, asked: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        with self._lock:
            if self._asked != OUTCOME or self._outcome is not None:
                response.success, response.message = False, "no outcome is asked for; see topic 'question'"
                return response
            try:
                self._keep(asked.data)
            except OSError as error:
                response.success, response.message = False, f"the answer was not kept, give it again: {error}"
                self._node.get_logger().error(response.message)
                return response
            self._outcome = asked.data
        self._control.notify()
        response.success, response.message = True, "success" if asked.data else "failure"
        return response

    # -- pictures ----------------------------------------------------------------------------------------------------

    def _on_image(self, camera: str, message: Image | CompressedImage) -> None:
        self._newest[camera] = message
        self._came[camera] += 1
        self._control.notify()

    def _show(self) -> None:
        """Show the scene as it was beside the scene as it is, in the file and on the topic."""
        start, newest = self._start, self._newest.get(self._camera)
        if self._asked != SCENE or start is None or newest is None:
            return
        try:
            frame = self._images[self._camera].frame(newest)
            both = side_by_side(start, frame.image)
            write_bytes(self._picture, encode(both, "png"))
        except (ValueError, OSError) as error:
            self._node.diagnostics.fault("scene", f"the scene is not shown: {error}")
            return
        self._node.diagnostics.recovered("scene", "the scene is shown again")
        self._shown.publish(messages.from_frame(Frame(frame.stamp_ns, frame.camera, both)))


def side_by_side(start: NDArray[np.uint8], live: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return two pictures (H, W, 3) in one, the start on the left; the start is scaled to the live one's size."""
    if start.shape != live.shape:
        import cv2

        start = np.asarray(cv2.resize(start, (live.shape[1], live.shape[0])), np.uint8)
    gap = np.full((live.shape[0], _GAP, 3), 255, np.uint8)
    return np.ascontiguousarray(np.hstack([start, gap, live]))
