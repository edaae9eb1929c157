# SPDX-License-Identifier: Apache-2.0
"""How messages travel: a DDS transport that carries images, and the files shipped beside the package."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from lrm_ros.versions import fast_dds_profiles_variable

# What one node allocates of /dev/shm with config/fastdds.xml.
SEGMENT_BYTES = 68 * 2**20


def share_file(relative: str) -> Path:
    """Return a file shipped beside the package, from a source checkout, a pip or a colcon installation.

    Args:
        relative: e.g. ``"config/fastdds.xml"``.

    Raises:
        FileNotFoundError: naming where it was looked for.
    """
    here = Path(__file__).resolve()
    candidates = [here.parents[2] / relative] + [parent / "share/lrm_ros" / relative for parent in here.parents]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(
        f"'{relative}' of lrm_ros is not beside the package at {here.parents[2]} nor in share/lrm_ros of its "
        "installation; reinstall the package"
    )


def set_transport() -> None:
    """Choose the DDS transport for images unless the user has: Fast DDS with a 64 MiB shared-memory segment."""
    chosen = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE", "FASTDDS_BUILTIN_TRANSPORTS")
    if not any(os.environ.get(name) for name in chosen):
        os.environ[fast_dds_profiles_variable()] = str(share_file("config/fastdds.xml"))
        shared_memory = Path("/dev/shm")
        if shared_memory.is_dir() and (free := shutil.disk_usage(shared_memory).free) < SEGMENT_BYTES:
            print(
                f"warning: /dev/shm has {free // 2**20} MiB free, a node takes {SEGMENT_BYTES // 2**20}: images go "
                "over UDP, slower; give it more, e.g. docker run --shm-size=1g",
                file=sys.stderr,
            )
