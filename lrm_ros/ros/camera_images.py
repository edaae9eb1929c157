# SPDX-License-Identifier: Apache-2.0
"""The images of one camera as a node hears them: raw or compressed, any encoding -> frames."""

from __future__ import annotations

from typing import Any

from sensor_msgs.msg import CompressedImage, Image

from lrm_ros import image_files, images, messages, topics
from lrm_ros.ros.base import LrmNode
from lrm_ros.types import Frame


class CameraImages:
    """Converts the messages of one camera; make it in ``configure``.

    Attributes:
        topic: where they come.
    """

    def __init__(self, node: LrmNode[Any], camera: str, transport: str) -> None:
        """Look for cv_bridge, which takes a while where one is installed.

        Args:
            node: whose log and diagnostics tell what an encoding does not say itself.
            camera: camera name.
            transport: ``"raw"`` or ``"compressed"``.
        """
        self.topic = (topics.IMAGE_COMPRESSED if transport == "compressed" else topics.IMAGE_RAW).of(camera)
        self._node, self._camera = node, camera
        self._told: set[str] = set()
        images.bridge()

    def frame(self, message: Image | CompressedImage) -> Frame:
        """Convert a message.

        Raises:
            ValueError: see :func:`lrm_ros.messages.to_frame`.
        """
        frame = messages.to_frame(message, self._camera)
        encoding = getattr(message, "encoding", "")
        if encoding in images.NOTES and encoding not in self._told:
            self._told.add(encoding)
            note = f"camera '{self._camera}': {images.NOTES[encoding]}"
            self._node.diagnostics.value(f"{self._camera}_encoding", note)
            self._node.get_logger().warning(note)
        return frame


def for_journal(message: Image | CompressedImage, frame: Frame, kind: str) -> tuple[Any, ...]:
    """Return what the journal's writer is given of an image: the camera's own file, if it is one of this kind already.

    Args:
        message: as it came.
        frame: what it shows.
        kind: ``"jpeg"``, ``"png"`` or ``"raw"``, as the journal has its images.
    """
    if isinstance(message, CompressedImage) and image_files.kind_of(message.data) == kind:
        return "file", frame, message.format, bytes(message.data)
    return "frame", frame
