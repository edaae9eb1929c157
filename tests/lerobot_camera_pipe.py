# SPDX-License-Identifier: Apache-2.0
"""A plugin for LeRobot's programs: its OpenCV camera on a pipe of video, which has a size and takes no other.

The type is ``pipe``, once a distribution of this name is on the path.
"""

from __future__ import annotations

from dataclasses import dataclass

from lerobot.cameras import CameraConfig
from lerobot.cameras.opencv import OpenCVCamera, OpenCVCameraConfig


@CameraConfig.register_subclass("pipe")
@dataclass
class PipeCameraConfig(OpenCVCameraConfig):
    """Width, height and rate are those of the pipe; LeRobot's robots ask for them."""


class PipeCamera(OpenCVCamera):
    """Does not set what is given, which fails on a pipe, but compares it."""

    def _configure_capture_settings(self) -> None:
        wanted = self.width, self.height
        self.width = self.height = self.fps = None
        super()._configure_capture_settings()
        if (self.width, self.height) != wanted:
            raise RuntimeError(f"{self} delivers {self.width}x{self.height} instead of {wanted}")
