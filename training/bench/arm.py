# SPDX-License-Identifier: Apache-2.0
"""``lrm bench arm``: from a command or an e-stop to its first byte on the servo bus, with an emulated SO-101.

The arm node, the emulated bus and this program are each a process. A command's time is from its publication here to the
first packet at the servos that has its target: through DDS, the node, LeRobot's driver and the pseudo-terminal, while
the node reads the joints. An e-stop's time is to the first packet with the goals that the arm then holds, in a motion
of 1 rad/s; both without limits of the acceleration, whose braking would be measured. The emulator takes no time on the
wire: on a real bus six positions take about 1 ms more. ``--adversary`` looks at where the arm goes (arm_adversary.py).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from bisect import bisect_left
from pathlib import Path
from typing import Any

import numpy as np

from lrm_ros.options import number, whole
from lrm_ros.private_domain import use_private_domain
from lrm_ros.training.bench.arm_adversary import attack, passed
from lrm_ros.training.bench.arm_bed import Commander, Seen, bed

SWING = 0.02  # the joint goes so far to either side [rad]
SPEED, SECONDS = 1.0, 1.2  # of the motion that is stopped [rad/s], [s]


def swing(commander: Commander, commands: int, rate_hz: float) -> list[tuple[float, bool]]:
    """Send commands; returns (monotonic time [s], whether it was to the upper side) of each.

    Raises:
        TimeoutError: no joint states come.
    """
    middle = commander.find()
    middle[0] = 0.0
    for _ in range(20):  # the first one is approached, and both ends get to know each other
        commander.command(middle[None])
        time.sleep(0.1)
    commander.states.clear()
    rng, sent = random.Random(0), []
    for k in range(commands):
        target = middle.copy()
        target[0] += SWING if k % 2 else -SWING
        sent.append((time.monotonic(), bool(k % 2)))
        commander.command(target[None])
        time.sleep(rng.uniform(0.5, 1.5) / rate_hz)
    return sent


def latencies(sent: list[tuple[float, bool]], goals: list[tuple[float, int]]) -> list[float]:
    """Return for each command how long until the first goal on its side of the middle [s]; ``inf``: none came."""
    stamps = [stamp for stamp, _ in goals]
    found = []
    for k, (began, upper) in enumerate(sent):
        until = sent[k + 1][0] if k + 1 < len(sent) else np.inf
        due = goals[bisect_left(stamps, began) : bisect_left(stamps, until)]
        found.append(next((stamp - began for stamp, goal in due if (goal > 2048) == upper), np.inf))
    return found


def spread(values: Any) -> dict[str, float]:
    """Return p50, p95, p99 and the greatest of times [s] in ms."""
    found = np.percentile(np.asarray(values), (50, 95, 99, 100)) * 1e3
    return dict(zip(("p50", "p95", "p99", "max"), found.round(3).tolist(), strict=True))


def stop_often(commander: Commander, stops: int, dt_s: float) -> list[float]:
    """Stop the arm in motion so often; returns when (monotonic time [s]).

    Raises:
        TimeoutError: it does not say that it is stopped or released.
    """
    rng, at_s = random.Random(1), []
    ramp = np.arange(1, round(SECONDS / dt_s) + 1)[:, None] * SPEED * dt_s
    for _ in range(stops):
        begin = commander.find()
        way = np.zeros(len(begin))
        way[0] = 1.0 if begin[0] < 0 else -1.0
        commander.command(begin + ramp * way)
        commander.wait(lambda at=begin: abs(commander.find()[0] - at[0]) > 0.1, "motion")
        time.sleep(rng.uniform(0.1, 0.4))
        at_s.append(commander.stop())
        time.sleep(0.1)
        commander.release()
    return at_s


def stop_times(at_s: list[float], seen: list[Seen]) -> list[float]:
    """Return for each stop how long until the first packet with the goals that were held 0.1 s later [s]."""
    stamps = [packet.at_s for packet in seen]
    found = []
    for began in at_s:
        after = seen[bisect_left(stamps, began) : bisect_left(stamps, began + 0.1)]
        held = len(after)
        while held and after[held - 1].goals == after[-1].goals:
            held -= 1
        found.append(after[held].at_s - began if after else np.inf)
    return found


def measure(commands: int, rate_hz: float, stops: int, log: Path | None) -> dict[str, Any]:
    """Measure and return the figures.

    Raises:
        RuntimeError: the arm node has died.
        TimeoutError: it does not start.
    """
    with bed(log, limits=False) as arm:
        sent = swing(arm.commander, commands, rate_hz)
        states = np.array(arm.commander.states)
        shown = arm.commander.values
        at_s = stop_often(arm.commander, stops, arm.contract.dt_s)
        late = arm.commander.values.get("late_cycles", "0")
    between = np.diff(states[:, 0])
    times = latencies(sent, [(packet.at_s, packet.goals[0]) for packet in arm.seen])
    stopped = stop_times(at_s, arm.seen)
    return {
        "load": round(os.getloadavg()[0] / (os.cpu_count() or 1), 2),
        "commands": len(times),
        "lost": int(np.isinf(times).sum()),
        "command_to_bus_ms": spread([value for value in times if np.isfinite(value)]),
        "through_the_node_ms": {name: value for name, value in shown.items() if name.startswith("command_ms")},
        "stops": len(stopped),
        "stop_to_bus_ms": spread(stopped),
        "states_per_s": round(1 / float(between.mean()), 1),
        "state_interval_ms": spread(between),
        "state_age_ms": spread(states[:, 1]),
        "late_cycles": int(late),
    }


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="lrm bench arm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commands", type=whole(2), default=1000, help="number of commands (default 1000)")
    parser.add_argument("--rate-hz", type=number(above=True), default=30.0, help="commands a second (default 30)")
    parser.add_argument("--stops", type=whole(2), default=100, help="number of e-stops in motion (default 100)")
    parser.add_argument(
        "--adversary", type=whole(1), metavar="N", help="instead: N commands that try to leave the envelope"
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="write the node's output to FILE")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(argv)
    use_private_domain()
    try:
        if options.adversary:
            figures = attack(options.adversary, options.log)
        else:
            figures = measure(options.commands, options.rate_hz, options.stops, options.log)
    except (RuntimeError, TimeoutError) as error:
        print(f"lrm bench arm: {error}")
        return 1
    for name, value in figures.items():
        print(f"{name:22s} {value}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    if options.adversary and (wrong := passed(figures)):
        print(f"lrm bench arm: passed {', '.join(wrong)}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
