# SPDX-License-Identifier: Apache-2.0
"""The defaults of the camera node, and of how the other nodes hear its images; see ``lrm_ros.config``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lrm_ros.config_files import option as _opt

PIXELS = (1, 8192)  # of a side of an image; a frame of the most is 201 MB


def _fix(*default_help_range: Any) -> Any:
    """Return a field that takes effect when the node is configured; it is refused at run time."""
    return _opt(*default_help_range, fixed=True)


def transport_option() -> Any:
    """Return the field of a node that takes images."""
    text = "hear images as 'raw' (NAME/image_raw) or 'compressed' (NAME/image_raw/compressed, JPEG or PNG)"
    return _opt("raw", text, fixed=True, choices=("raw", "compressed"))


def camera_names(text: str) -> tuple[str, ...]:
    """Return the cameras that are named, separated by commas."""
    return tuple(name.strip() for name in text.split(","))


@dataclass(frozen=True)
class CameraConfig:
    """The camera node."""

    camera: str = _fix("front", "camera name")
    source: str = _fix("0", "OpenCV device index or path, a video file, a folder of images, or 'synthetic'")
    width: int = _fix(640, "image width [pixels]", *PIXELS)
    height: int = _fix(480, "image height [pixels]", *PIXELS)
    rate_hz: float = _fix(30.0, "frames per second", 0.1, 1000.0)
    compressed: str = _opt(
        "jpeg",
        "what NAME/image_raw/compressed has while somebody listens: 'jpeg', 'png' (lossless) or 'none'",
        choices=("jpeg", "png", "none"),
    )
    jpeg_quality: int = _opt(95, "JPEG quality, 1 to 100", 1, 100)
    camera_info_url: str = _fix(
        "", "calibration for camera_info: a file of camera_calibration, file:// or package://; empty: uncalibrated"
    )
    stall_s: float = _opt(1.0, "report the camera as stopped after this long without a frame [s]", 0.05, 3600.0)
