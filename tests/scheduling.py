# SPDX-License-Identifier: Apache-2.0
"""Takes the right to real-time scheduling from this process and those it starts, as an ordinary user has none.

Run as root, SVT-AV1 (in PyAV) makes itself and the thread that encodes real-time (SCHED_FIFO 99): whatever that thread
starts from then on, too, and nothing else on the machine gets on while they compute.
"""

from __future__ import annotations

import ctypes
import os
import resource

_CAP_SYS_NICE = 23
_PR_CAPBSET_DROP = 24
_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Data(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


def without_real_time() -> None:
    """Drop CAP_SYS_NICE, also from what programs started from here may get.

    Raises:
        OSError: the kernel refuses.
    """
    resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = _Header(_VERSION_3, 0), (_Data * 2)()
    _check(libc.prctl(_PR_CAPBSET_DROP, _CAP_SYS_NICE, 0, 0, 0))
    _check(libc.capget(ctypes.byref(header), ctypes.byref(data)))
    for name in ("effective", "permitted", "inheritable"):
        setattr(data[0], name, getattr(data[0], name) & ~(1 << _CAP_SYS_NICE))
    _check(libc.capset(ctypes.byref(header), ctypes.byref(data)))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot drop CAP_SYS_NICE: {os.strerror(number)}")
