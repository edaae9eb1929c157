# SPDX-License-Identifier: Apache-2.0
"""What ``lrm doctor`` says of pictures: who converts the colours of images, and whether videos can be read."""

from __future__ import annotations

import importlib.metadata
import sys

from lrm_ros import images
from lrm_ros.graph.finding import OK, WARN, Finding, run

# Prints what keeps torchcodec from being loaded, and which FFmpeg there is; nothing if it loads.
_TORCHCODEC = """
import ctypes.util
try:
    import torchcodec.decoders
except (ImportError, OSError, RuntimeError) as error:
    print(type(error).__name__, ctypes.util.find_library("avutil") or "")
"""


def check_images() -> Finding:
    """Say who converts the colours of images: cv_bridge where a working one is installed, else OpenCV."""
    found = images.bridge()
    if not found.origin:
        return Finding("images", OK, "OpenCV converts, no cv_bridge is installed; the pixels are the same")
    if not found.fault:
        return Finding("images", OK, f"cv_bridge in {found.origin} converts, with the pixels that OpenCV makes")
    part = "some" if found.encodings else "none"
    cure = (
        "nothing is wrong with the pixels; PyPI's is ROS 1's ('pip uninstall cv-bridge'), ROS 2's must be built for "
        "this Python and NumPy"
    )
    detail = f"OpenCV converts; cv_bridge in {found.origin} is used for {part}: {found.fault}"
    return Finding("images", WARN, detail, cure)


def check_video() -> Finding:
    """Load torchcodec, with which LeRobot reads videos where it is installed."""
    try:
        version = importlib.metadata.version("torchcodec")
    except importlib.metadata.PackageNotFoundError:
        return Finding("video", OK, "no torchcodec: LeRobot reads videos with PyAV")
    code, output, error = run([sys.executable, "-c", _TORCHCODEC], 120)
    if code == 0 and not output:
        return Finding("video", OK, f"torchcodec {version}, LeRobot's default reader")
    kind, _, library = output.partition(" ")
    detail = f"torchcodec {version} cannot be loaded ({kind or error}): LeRobot's default reader reads no videos"
    if code == 0 and not library:
        return Finding(
            "video",
            WARN,
            f"{detail}; no FFmpeg libraries are found",
            "run 'sudo apt install ffmpeg', or give LeRobot's programs --dataset.video_backend=pyav",
        )
    cure = "install the torchcodec that its README names for this torch and FFmpeg 4 to 7 ('sudo apt install ffmpeg')"
    return Finding("video", WARN, f"{detail}; FFmpeg: {library or 'not known'}", cure)
