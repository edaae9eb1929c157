# SPDX-License-Identifier: Apache-2.0
"""Which sizes of Qwen3-VL fit the memory of this machine as reward models, and how their weights must be held."""

from __future__ import annotations

import shutil
from pathlib import Path

from lrm_ros.graph.finding import OK, WARN, Finding, run
from lrm_ros.reward.qwen.memory import QUERIES, needed_gib, what_fits

SPARE = 0.92  # of a GPU's memory: its driver and a display take some
_FREE = 0.8  # of a machine's memory: the other programs have the rest


def gpus() -> list[int]:
    """Return the memory of each NVIDIA GPU [MiB]."""
    if not shutil.which("nvidia-smi"):
        return []
    code, output, _ = run(["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"], 30)
    return [int(line) for line in output.split() if line.isdigit()] if code == 0 else []


def ram() -> int:
    """Return the memory of this machine, of its control group where that has less [KiB]."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    found = next(int(line.split()[1]) for line in lines if line.startswith("MemTotal:"))
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        found = min(found, int(text) // 1024)
    return found


def finding(gpus_mib: list[int], ram_kib: int) -> Finding:
    """Return what fits.

    Args:
        gpus_mib: memory of each GPU [MiB]; empty: there is none, and the machine's own counts.
        ram_kib: memory of the machine [KiB].
    """
    if gpus_mib:
        said, most = [], 0.0
        for number, mib in enumerate(gpus_mib):
            most = max(most, mib / 1024 * SPARE)
            said.append(f"GPU {number}, {mib / 1024:.1f} GiB: {_fitting(mib / 1024 * SPARE, True)}")
        detail = "; ".join(said)
    else:
        most = ram_kib / 2**20 * _FREE
        detail = f"no GPU; {ram_kib / 2**20:.1f} GiB of memory: {_fitting(most, False)}, slowly"
    detail += f" (computed: three adapters, batches of {QUERIES})"
    cure = "" if not gpus_mib or what_fits(most, True)["8b"] else _cure(most)
    return Finding("memory", WARN if cure else OK, detail, cure)


def _fitting(gib: float, gpu: bool) -> str:
    """Return which sizes fit, how held, and what each then takes."""
    words = []
    for size, needs in what_fits(gib, gpu).items():
        held = ", ".join(f"{load} {need:.0f}" for load, need in needs.items())
        words.append(f"{size.upper()} {f'in {held} GiB' if held else 'not'}")
    return ", ".join(words)


def _cure(gib: float) -> str:
    need = needed_gib("8b", "4bit", QUERIES)
    return (
        f"8B takes {need:.0f} GiB even with ?load=4bit: ask it on another machine (model:=http://HOST:5001, "
        f"docs/serving.md), or use a smaller one; there are {gib:.1f} GiB to use"
    )
