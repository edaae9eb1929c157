# SPDX-License-Identifier: Apache-2.0
"""``lrm bench arm-faults``: what an arm in motion does at each fault of its bus, its servos, its node and its policy.

Arm node (LeRobot's driver, limits of config/so101.yaml), recorder, policy and emulated SO-101 are processes. The pan
swings at 1.1 rad/s when the fault comes. Times are the servos': from the fault until no goal changes and no driven
joint is further than 0.02 rad from where it stands; ``beyond_s`` is what is left of it after the time-out that the
fault has by its nature. From then on the goals must stay until a person's word or the recovery that docs/faults.md
names, which is then tried. Before each fault an episode is recorded; at the end all of them are read. Exit code 1: a
row does not stand.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from lrm_ros.errors import one_line
from lrm_ros.options import whole
from lrm_ros.private_domain import use_private_domain
from lrm_ros.progress import progress_bar
from lrm_ros.record.journal import read_journal
from lrm_ros.ros.control import EpisodeError
from lrm_ros.training.bench.arm_bed import STEP
from lrm_ros.training.bench.arm_desk import NEAR, SWING, Desk
from lrm_ros.training.bench.arm_fault_rows import POLICY, ROWS, Row

LATEST_S = 0.1  # after the time-out
LASTS_S = 1.25  # how long a fault lasts: longer than a second between two diagnostics
LOOK_S = 0.6  # so long nothing may move after it
STAYS_RAD = 0.12  # goals and joints that go no further stay: an arm that is taken up again sags a little
# Goals over so long [s] may be so much faster than the envelope: a node that stood still then sends what it missed.
WINDOW_S, LEAP = 0.5, 1.2
KEYS = ("seconds", "beyond_s", "wandered_rad", "of_max_velocity")  # of which the greatest is shown
ARRIVE_S = 6.0  # the way takes 2.5 s


# -- a trial ---------------------------------------------------------------------------------------------------------


def trial(desk: Desk, name: str) -> dict[str, Any]:
    """Make one fault happen; returns what became of it: ``stands``, and the figures behind that.

    Raises:
        EpisodeError: the recorder refuses.
        TimeoutError: the arm does not come back.
    """
    row = ROWS[name]
    desk.record_going(lambda: random.choice((-SWING, SWING)))
    desk.begin_episode()
    begin = desk.pan
    if name in POLICY:
        desk.start_policy()
        desk.until(lambda: desk.last and time.time_ns() - desk.last.stamp_ns < 5e8, "command of the policy")
    else:
        desk.swing(time.time_ns())
    desk.until(lambda: abs(desk.pan - begin) > 0.3, "motion")  # at its speed
    time.sleep(random.uniform(0.0, 0.2))
    desk.bus.course()
    since = time.monotonic(), desk.log_bytes
    strike = row.strike
    begin_s = strike(desk) if callable(strike) else desk.bus.do(strike)
    found = _arrival(desk, row, since[0], -np.sign(begin) * SWING) if row.arrives else _hold(desk, row, begin_s, since)
    with contextlib.suppress(EpisodeError):  # the fault may have made it faulty
        desk.end_episode()
    return found


def _mend(desk: Desk, row: Row) -> None:
    if callable(row.mend):
        row.mend(desk)
    elif row.mend:
        desk.bus.do(row.mend)


def _hold(desk: Desk, row: Row, begin_s: float, since: tuple[float, int]) -> dict[str, Any]:
    """Look whether the arm holds, what is read, whether it stays, and whether it comes back."""
    time.sleep(max(0.0, begin_s - time.monotonic()) + LASTS_S)
    course = desk.bus.course().between(since[0], np.inf)
    held_s = course.held_s(begin_s)
    beyond_s = max(0.0, held_s - row.timeout_s)
    at_last_point = True
    if row.last_point:
        assert desk.last is not None
        at_last_point = bool(np.abs(course.joints[-1] - desk.last.actions[-1]).max() < NEAR)
    if row.word:  # commands are not obeyed before it
        desk.swing()
        time.sleep(LOOK_S)
    _mend(desk, row)
    time.sleep(LOOK_S)
    course = course.between(begin_s + held_s, np.inf).then(desk.bus.course())
    read = desk.read(row.reads, since) if row.reads else ""
    stayed = not course.torque.any() if row.limp else course.wandered() * STEP <= STAYS_RAD
    if row.word == "reset":
        desk.reset()
    elif row.word == "release":
        desk.commander.release()
    elif row.word == "start":
        desk.stop("arm")
        desk.start("arm")
    desk.bus.course()
    time.sleep(LOOK_S)
    lay = desk.bus.course().moved() <= STAYS_RAD
    desk.go(random.choice((-SWING, SWING)))
    return {
        "seconds": round(held_s, 4),
        "beyond_s": round(beyond_s, 4),
        "read": read,
        "wandered_rad": round(course.wandered() * STEP, 4),
        "stands": bool(
            beyond_s <= LATEST_S and stayed and lay and at_last_point and (read or not row.reads)
        ),
    }  # fmt: skip


def _arrival(desk: Desk, row: Row, begin_s: float, end: float) -> dict[str, Any]:
    """Look whether the arm arrives without a leap; it is commanded again and again, as by a policy."""
    with contextlib.suppress(TimeoutError):
        desk.go(end, ARRIVE_S)
    arrived = abs(desk.pan - end) < NEAR
    seconds = time.monotonic() - begin_s
    fastest = desk.bus.course().fastest(WINDOW_S) * STEP
    _mend(desk, row)
    share = float((fastest / desk.section.max_velocity).max())
    return {
        "seconds": round(seconds, 4),
        "of_max_velocity": round(share, 3),
        "stands": bool(arrived and share <= LEAP),
    }


def unread(journals: list[Path]) -> list[str]:
    """Return the finished journals that cannot be read, or have no steps."""
    lost = []
    for path in journals:
        try:
            if not read_journal(path).steps:
                lost.append(f"{path.name}: no steps")
        except (OSError, ValueError) as error:
            lost.append(one_line(error))
    return lost


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what became of a fault's trials: whether it stands each time, and the greatest figures."""
    most = {key: max(found[key] for found in trials) for key in KEYS if key in trials[0]}
    return {"stands": all(found["stands"] for found in trials), "max": most, "trials": trials}


def main(argv: list[str] | None = None) -> int:
    """Measure and print; 1 if a row does not stand."""
    parser = argparse.ArgumentParser(
        prog="lrm bench arm-faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=whole(1), default=3, help="how often each fault happens (default 3)")
    parser.add_argument("--seed", type=whole(0), default=0, help="of the moments")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), metavar="FAULT", help=", ".join(ROWS))
    parser.add_argument("--log", type=Path, metavar="FILE", help="write the nodes' output to FILE")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(argv)
    use_private_domain()
    random.seed(options.seed)
    names = options.only or list(ROWS)
    name = "the start"
    figures: dict[str, Any] = {"times": options.times, "seed": options.seed, "faults": {}}
    with tempfile.TemporaryDirectory(prefix="lrm_bench_") as folder:
        desk = Desk(Path(folder), options.log or Path(folder) / "log")
        try:
            desk.run()
            with progress_bar(len(names) * options.times, "faults", "fault") as bar:
                for name in names:
                    trials = []
                    for _ in range(options.times):
                        trials.append(trial(desk, name))
                        bar.update()
                    figures["faults"][name] = found = summary(trials)
                    shown = ", ".join(f"{key} {value:.3f}" for key, value in found["max"].items())
                    bar.write(f"{name:38s} {shown}; {'stands' if found['stands'] else 'DOES NOT STAND'}")
        except (EpisodeError, RuntimeError, TimeoutError) as error:
            print(f"lrm bench arm-faults: {name}: {one_line(error)}", file=sys.stderr)
            figures["faults"][name] = {"stands": False, "error": one_line(error)}
        finally:
            desk.close()
        lost = unread(desk.finished)
    figures["load"] = round(os.getloadavg()[0] / (os.cpu_count() or 1), 2)
    figures |= {"episodes_finished": len(desk.finished), "episodes_lost": lost}
    bad = [name for name, found in figures["faults"].items() if not found["stands"]]
    print(f"{len(desk.finished)} episodes were finished, {len(lost)} of them cannot be read")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    if bad or lost:
        print(f"lrm bench arm-faults: does not stand: {', '.join([*bad, *lost])}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
