# SPDX-License-Identifier: Apache-2.0
"""Where versions of other people's libraries differ: what each has, and the one way to use them all."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from pathlib import Path


def rclpy_version() -> str:
    """Return the version of the rclpy that is imported here, "" if none is or it does not say.

    The wheels call their package ``ros-rclpy``, a ROS installation ``rclpy``; both can be there, one hides the other.
    """
    spec = importlib.util.find_spec("rclpy")
    if spec is None or spec.origin is None:
        return ""
    folder = Path(spec.origin).parent.resolve()
    for name in ("ros-rclpy", "rclpy"):
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if Path(str(found.locate_file("rclpy"))).resolve() == folder:
            return found.version
    return ""


def fast_dds_profiles_variable() -> str:
    """Return the environment variable that names Fast DDS's file of profiles.

    Fast DDS 2 (to ROS 2 Jazzy, rclpy 7) reads only the old name; Fast DDS 3 (ROS 2 Kilted, rclpy 9) warns about it.
    """
    version = rclpy_version()
    old = int(version.split(".")[0]) < 8 if version else os.environ.get("ROS_DISTRO") in ("iron", "jazzy")
    return "FASTRTPS_DEFAULT_PROFILES_FILE" if old else "FASTDDS_DEFAULT_PROFILES_FILE"
