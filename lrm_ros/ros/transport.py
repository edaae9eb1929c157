# SPDX-License-Identifier: Apache-2.0
"""How messages travel: a DDS transport that carries images, and the files shipped beside the package."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import sys
import time
from pathlib import Path

from lrm_ros.environment_variables import PROFILES, TRANSPORTS
from lrm_ros.versions import fast_dds_profiles_variable

# What one node allocates of /dev/shm with config/fastdds.xml.
SEGMENT_BYTES = 68 * 2**20

SHARED_MEMORY = Path("/dev/shm")
# Fast DDS's lock beside each of its segments, which whoever made the segment holds for as long as it lives.
_LOCK = re.compile(r"fast(?:dds|rtps)_[0-9a-f]{16}_el")
_MADE_S = 10.0  # who makes a segment makes the lock file first and takes the lock within this [s]


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
    if not any(os.environ.get(name) for name in (*PROFILES, TRANSPORTS)):
        os.environ[fast_dds_profiles_variable()] = str(share_file("config/fastdds.xml"))
        if SHARED_MEMORY.is_dir() and (free := shutil.disk_usage(SHARED_MEMORY).free) < SEGMENT_BYTES:
            print(
                f"warning: /dev/shm has {free // 2**20} MiB free, a node takes {SEGMENT_BYTES // 2**20}: images go "
                "over UDP, slower; give it more, e.g. docker run --shm-size=1g",
                file=sys.stderr,
            )


def free_left_over() -> int:
    """Free the shared memory of DDS that killed nodes have left, 68 MiB each, and return of how many segments.

    Nobody else does before the computer is started again. What another user left is not ours to free.
    """
    freed = 0
    for lock in SHARED_MEMORY.glob("fast*_el"):
        if not _LOCK.fullmatch(lock.name):
            continue
        with contextlib.suppress(OSError):  # gone, another user's, or held: its node lives
            if time.time() - lock.stat().st_mtime < _MADE_S:
                continue
            held = os.open(lock, os.O_RDONLY)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                lock.with_name(lock.name.removesuffix("_el")).unlink(missing_ok=True)
                lock.unlink()
                freed += 1
            finally:
                os.close(held)
    return freed
