# SPDX-License-Identifier: Apache-2.0
"""Shared memory of DDS: what a killed node has left is freed by the next one, what a living one has is not."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from shared_memory import remove, segments  # type: ignore[import-not-found]

from lrm_ros.ros import transport

NODE = """
import rclpy, sys
from lrm_ros.ros.transport import set_transport
set_transport()
rclpy.init()
node = rclpy.create_node("held")
print("ready", flush=True)
sys.stdin.read()
"""


def _start() -> tuple[subprocess.Popen[str], set[str]]:
    """Return a node that runs until it is killed, and the names of what it has."""
    process = subprocess.Popen([sys.executable, "-c", NODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and "ready\n" in process.stdout  # DDS prints there, too
    return process, {name for name in segments(process.pid) if _of(name, process.pid)}


def _of(name: str, pid: int) -> bool:
    """Return whether the lock of a segment is open in a process: it made it; another that talks with it has not."""
    return any(
        os.path.realpath(f"/proc/{pid}/fd/{number}") == str(transport.SHARED_MEMORY / f"{name}_el")
        for number in os.listdir(f"/proc/{pid}/fd")
    )


def _there(names: set[str]) -> set[str]:
    return {name for name in names if (transport.SHARED_MEMORY / name).exists()}


@pytest.mark.skipif(not transport.SHARED_MEMORY.is_dir(), reason="no shared memory here")
def test_what_killed_nodes_left_is_freed_and_what_living_ones_have_is_not():
    (killed, left), (living, kept) = _start(), _start()
    try:
        killed.kill()
        killed.wait()
        assert left and kept and _there(left) == left
        transport.free_left_over()
        assert _there(left) == left, "it may just be made, and not locked yet"
        for name in left | kept:
            past_s = time.time() - 60
            os.utime(transport.SHARED_MEMORY / f"{name}_el", (past_s, past_s))
        assert transport.free_left_over() > 0
        assert not _there(left) and _there(kept) == kept
        assert not any((transport.SHARED_MEMORY / f"{name}_el").exists() for name in left)
    finally:
        living.kill()
        living.wait()
        remove(left | kept)


def test_what_is_not_of_dds_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(transport, "SHARED_MEMORY", tmp_path)
    names = [
        "fastdds_0123456789abcdef",
        "fastdds_mine",
        "fastdds_mine_el",
        "fastdds_port7411_el",
        "fast_el",
        "other_el",
    ]
    for name in [*names, "fastdds_0123456789abcdef_el"]:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    assert transport.free_left_over() == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])
