# SPDX-License-Identifier: Apache-2.0
"""Memory, CPU and waiting of processes while they run, and whether a memory grows."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLAT_MB_H = 10.0  # memory is flat if the upper end of its slope's interval is below: 80 MB in a day of eight hours
BLOCKS = 20  # the slope is that of so many means: neighbouring samples are alike, which would make it look surer
WARM_UP_S = 120.0  # the slope's first sample: shared memory of DDS is filled and every branch has run once
_LEAST_S = 600.0  # no slope of less
_EVERY_S = 1.0
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def sample(pid: int) -> tuple[float, float, float, float] | None:
    """Return resident memory, of it private [MB], CPU time and time spent waiting for a CPU [s]; None: it is gone."""
    proc = Path(f"/proc/{pid}")
    try:
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        fields = (proc / "stat").read_text().rpartition(")")[2].split()
        waited = 0.0
        for thread in (proc / "task").iterdir():
            with contextlib.suppress(OSError):
                waited += int((thread / "schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return None
    if "VmRSS" not in status:  # it has ended and nobody has asked for its code yet
        return None
    memory = [int(status[key].split()[0]) * 1024 / 1e6 for key in ("VmRSS", "RssAnon")]
    return memory[0], memory[1], (int(fields[11]) + int(fields[12])) * _TICK_S, waited


def slope(at_s: NDArray[np.float64], megabytes: NDArray[np.float64]) -> dict[str, Any]:
    """Fit a line through a memory's course.

    Args:
        at_s: (N,) when [s].
        megabytes: (N,) how much [MB].

    Returns:
        ``mb_per_h``, its 95 % interval ``ci95`` (Student, of the means of ``BLOCKS`` blocks of equal duration) and
        whether it is ``flat``; all None if the course is shorter than 10 minutes.
    """
    if not len(at_s) or at_s[-1] - at_s[0] < _LEAST_S:
        return {"mb_per_h": None, "ci95": None, "flat": None}
    from scipy.stats import linregress, t

    edges = np.linspace(at_s[0], at_s[-1], BLOCKS + 1)
    block = np.clip(np.searchsorted(edges, at_s, side="right") - 1, 0, BLOCKS - 1)
    there = [k for k in range(BLOCKS) if (block == k).any()]
    means = [[values[block == k].mean() for k in there] for values in (at_s / 3600, megabytes)]
    line = linregress(*means)
    spread = line.stderr if np.isfinite(line.stderr) else 0.0  # of a course without any
    half = float(t.ppf(0.975, len(there) - 2)) * spread
    low, high = float(line.slope - half), float(line.slope + half)
    return {"mb_per_h": round(float(line.slope), 2), "ci95": [round(low, 2), round(high, 2)], "flat": high < FLAT_MB_H}


class Watch:
    """Samples processes once a second in a thread of its own."""

    def __init__(self, pids: Callable[[], Mapping[str, int]]) -> None:
        """Start; ``pids`` tells which processes there are, by name."""
        self._pids = pids
        self._rows: dict[str, list[tuple[float, ...]]] = {}
        self._stop = threading.Event()
        self._begin = (time.monotonic(), os.getloadavg(), machine())
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            for name, pid in self._pids().items():
                if (found := sample(pid)) is not None:
                    self._rows.setdefault(name, []).append((time.monotonic(), *found))
            if self._stop.wait(_EVERY_S):
                return

    def stop(self) -> dict[str, Any]:
        """Stop and return the figures of each process and of the machine."""
        self._stop.set()
        self._thread.join()
        begun_s, load, before = self._begin
        busy, stolen = (round(b - a, 1) for a, b in zip(before, machine(), strict=True))
        cores = os.cpu_count() or 1
        whole = (time.monotonic() - begun_s) * cores
        around = {
            "cores": cores,
            "load_at_begin": [round(value, 2) for value in load],
            "load_at_end": [round(value, 2) for value in os.getloadavg()],
            "busy": round(busy / whole, 3),
            "stolen": round(stolen / whole, 3),
        }
        return {"machine": around, "processes": {name: _figures(np.array(rows)) for name, rows in self._rows.items()}}


def _figures(rows: NDArray[np.float64]) -> dict[str, Any]:
    """Return the figures of one process; rows are time and what :func:`sample` returns."""
    at_s, rss, private, cpu, waited = rows.T
    seconds = max(at_s[-1] - at_s[0], 1e-9)
    warm = at_s >= at_s[0] + WARM_UP_S
    return {
        "cpu": round(float(cpu[-1] - cpu[0]) / seconds, 4),
        "waiting": round(float(waited[-1] - waited[0]) / seconds, 4),
        "rss_mb": {"begin": round(rss[0], 1), "end": round(rss[-1], 1), "max": round(rss.max(), 1)},
        "private_mb": {"begin": round(private[0], 1), "end": round(private[-1], 1)},
        "rss_slope": slope(at_s[warm], rss[warm]),
        "private_slope": slope(at_s[warm], private[warm]),
        "rss_course_mb": [round(float(value), 1) for value in rss[:: max(1, len(rss) // 120)]],
    }


def machine() -> tuple[float, float]:
    """Return how long all cores together have worked since the machine's start, and what its host took away [s]."""
    user, nice, system, _idle, _wait, irq, softirq, stolen = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq) * _TICK_S, stolen * _TICK_S
