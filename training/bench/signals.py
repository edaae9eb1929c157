# SPDX-License-Identifier: Apache-2.0
"""Start nodes and small graphs, ask them to stop at random moments from exec to exit, and count what ends badly.

Each gets one to three signals, SIGINT or SIGTERM, the later ones within a second of the one before; a graph gets some
as a terminal sends them, to its whole group. Bad is an exit code other than 0, a traceback, a process or shared memory
of DDS that is left, or an end later than 8 s after the first signal. Teleoperation has no terminal here: until a signal
comes it may end with code 2 and say so. Programs start as ``lrm up`` starts them: a signal before their handlers stand
waits for them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from lrm_ros.options import whole
from lrm_ros.programs import ASK_TO_STOP
from lrm_ros.progress import progress_bar

LATEST_S = 8.0  # after the first signal; then a graph kills its nodes
_DOMAINS = 100
_SEGMENT = re.compile(r"/dev/shm/fast(?:dds|rtps)_[0-9a-f]{16}")
_SMALL = ["--ros-args", "-p", "source:=synthetic", "-p", "width:=96", "-p", "height:=96"]
_GRAPH = """
from lrm_ros.graph.graphs import NodeSpec
from lrm_ros.graph.runner import run_graph
camera = NodeSpec("camera", "camera", {"source": "synthetic", "width": 96, "height": 96})
nodes = [camera, NodeSpec("recorder", "recorder")%s]
raise SystemExit(run_graph(nodes))
"""
_TELEOP = ', NodeSpec("teleop", "teleop", foreground=True, ends_graph=True)'
# name -> (words after python, seconds within which the first signal comes: somewhat longer than the start takes)
PROGRAMS: dict[str, tuple[list[str], float]] = {
    "camera": (["-m", "lrm_ros.nodes.camera", *_SMALL], 2.5),
    "recorder": (["-m", "lrm_ros.nodes.recorder"], 2.5),
    "reward": (["-m", "lrm_ros.nodes.reward", "--ros-args", "-p", "model:=fake"], 4.0),
    "reward tiny": (["-m", "lrm_ros.nodes.reward", "--ros-args", "-p", "model:=tiny"], 15.0),
    "policy": (["-m", "lrm_ros.nodes.policy", "--ros-args", "-p", "checkpoint:=fake"], 2.5),
    "teleop": (["-m", "lrm_ros.nodes.teleop"], 2.5),
    "graph": (["-c", _GRAPH % ""], 4.0),
    "graph with teleop": (["-c", _GRAPH % _TELEOP], 4.0),
    "lrm up teleop": (["-m", "lrm_ros.cli", "up", "teleop"], 10.0),
}


@dataclass
class Start:
    """One start and stop.

    Attributes:
        program: a key of ``PROGRAMS``.
        signals: (seconds after exec or the signal before, name, whether the whole group got it).
        code: exit code, negative for a signal.
        seconds: from the first signal to the end; 0 if it had ended before.
        fault: what was bad; empty: nothing.
        output: all of it, where something was bad.
    """

    program: str
    signals: list[tuple[float, str, bool]]
    code: int = 0
    seconds: float = 0.0
    fault: str = ""
    output: str = field(default="", repr=False)


def plan(count: int, seed: int, programs: list[str]) -> list[Start]:
    """Return ``count`` starts with their signals; the same for the same seed."""
    rng = random.Random(seed)
    starts = []
    for index in range(count):
        program = programs[index % len(programs)]
        signals = []
        for number in range(rng.choice((1, 2, 2, 3))):
            after = rng.uniform(0.0, PROGRAMS[program][1] if number == 0 else 1.0)
            name = rng.choice(("SIGINT", "SIGTERM"))
            signals.append((after, name, ("graph" in program or "up" in program) and rng.random() < 0.3))
        starts.append(Start(program, signals))
    return starts


def run_once(start: Start, folder: Path, domain: int) -> Start:
    """Start the program in a ROS domain of its own, send the signals and record how it ended.

    To be called in a thread of its own, whose signals are blocked from then on: the programs inherit that.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, ASK_TO_STOP)
    env = {
        **os.environ,
        "ROS_DOMAIN_ID": str(domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_LOG_DIR": str(folder / "log"),
        "PYTHONUNBUFFERED": "1",
    }
    with tempfile.TemporaryFile(dir=folder) as output:
        words = [sys.executable, *PROGRAMS[start.program][0]]
        process = subprocess.Popen(
            words, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        first_s, memory = 0.0, set[Path]()
        for after, name, group in start.signals:
            try:
                process.wait(after)
                break
            except subprocess.TimeoutExpired:
                first_s = first_s or time.monotonic()
                memory |= shared_memory(process.pid)
                (os.killpg if group else os.kill)(process.pid, signal.Signals[name])  # not waited for: the pid is ours
        try:
            start.code = process.wait(4 * LATEST_S)
        except subprocess.TimeoutExpired:
            start.fault = f"still there {4 * LATEST_S:.0f} s after the last signal"
            os.killpg(process.pid, signal.SIGKILL)
            start.code = process.wait()
        start.seconds = time.monotonic() - first_s if first_s else 0.0
        left = _left(process.pid)
        output.seek(0)
        start.output = output.read().decode(errors="replace")
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    asked = start.code == 0 and bool(first_s)
    no_terminal = "teleop" in start.program and "there is no terminal to read keys from" in start.output
    if not start.fault:
        if left:
            start.fault = f"left {len(left)} processes"
        elif kept := sorted(path.name for path in memory if path.exists()):
            start.fault = f"left shared memory: {', '.join(kept)}"
        elif not asked and not (start.code == 2 and no_terminal):
            start.fault = f"exit code {start.code}"
        elif asked and "Traceback" in start.output and not no_terminal:
            start.fault = "a traceback"
        elif start.seconds > LATEST_S:
            start.fault = f"ended {start.seconds:.1f} s after the signal"
    if not start.fault:
        start.output = ""
    return start


def shared_memory(session: int) -> set[Path]:
    """Return the segments in /dev/shm that participants of DDS in a session's processes have of their own."""
    found = set()
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        if _session(pid) == session:
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/maps").read_text()
                found |= {Path(word) for word in _SEGMENT.findall(text)}
    return found


def _left(session: int) -> list[int]:
    """Return the processes of a session that have not ended a second after its first has."""
    deadline = time.monotonic() + 1.0
    while found := [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _session(pid) == session]:
        if time.monotonic() > deadline:
            return found
        time.sleep(0.05)
    return []


def _session(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return -1
    return -1 if fields[0] == "Z" else int(fields[3])


def main(argv: list[str] | None = None) -> int:
    """Measure and print; 1 if one ended badly."""
    parser = argparse.ArgumentParser(
        prog="lrm bench signals", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--starts", type=whole(1), default=500, help="how many starts and stops (default 500)")
    parser.add_argument("--seed", type=whole(0), default=0, help="of the moments and signals")
    parser.add_argument(
        "--at-once", type=whole(1), default=2 * (os.cpu_count() or 1), help="the load (default 2 a core)"
    )
    parser.add_argument("--only", nargs="+", choices=list(PROGRAMS), metavar="PROGRAM", help=", ".join(PROGRAMS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the metrics to this file")
    options = parser.parse_args(argv)
    if options.starts < 1 or not 1 <= options.at_once <= _DOMAINS:
        parser.error(f"give at least 1 start, and 1 to {_DOMAINS} at once")
    lock = threading.Lock()
    with (
        tempfile.TemporaryDirectory(prefix="lrm_bench_") as folder,
        progress_bar(options.starts, "signals", "start") as bar,
        ThreadPoolExecutor(options.at_once) as pool,
    ):

        def one(start: Start, index: int) -> Start:
            run_once(start, Path(folder), 1 + index % _DOMAINS)  # those of a domain see each other's shared memory
            with lock:
                bar.update()
                if start.fault:
                    bar.write(f"{start.program}, {start.signals}: {start.fault}\n{start.output}")
            return start

        planned = plan(options.starts, options.seed, options.only or list(PROGRAMS))
        starts = list(pool.map(one, planned, range(len(planned))))
    bad = [start for start in starts if start.fault]
    asked = [start.seconds for start in starts if start.seconds]
    p50, p99, most = np.percentile(asked or [0.0], (50, 99, 100))
    figures = {
        "starts": len(starts),
        "signals": sum(len(start.signals) for start in starts),
        "asked_to_stop": len(asked),
        "at_once": options.at_once,
        "seed": options.seed,
        "seconds_to_end": {"p50": round(p50, 3), "p99": round(p99, 3), "max": round(most, 3)},
        "bad": [asdict(start) for start in bad],
    }
    for program, count in Counter(start.program for start in starts).items():
        print(f"{program:18s} {count:4d} starts, {sum(start.program == program for start in bad)} ended badly")
    print(f"{len(starts)} starts, {len(asked)} ended by signals, {len(bad)} badly", end="; ")
    print(f"from the first signal to the end p50 {p50:.2f}, p99 {p99:.2f}, at most {most:.2f} s")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
