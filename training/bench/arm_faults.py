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
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lrm_ros.config_arm import ArmNodeConfig
from lrm_ros.errors import one_line
from lrm_ros.options import whole
from lrm_ros.progress import progress_bar
from lrm_ros.record.journal import read_journal
from lrm_ros.record.recover import recover
from lrm_ros.ros.control import EpisodeError
from lrm_ros.sim.servo_bus.faults import Fault
from lrm_ros.training.bench.arm_bed import STEP
from lrm_ros.training.bench.arm_bus import NAME
from lrm_ros.training.bench.arm_desk import NEAR, SPEED, SWING, Desk

LATEST_S = 0.1  # after the time-out
LASTS_S = 1.25  # how long a fault lasts: longer than a second between two diagnostics
LOOK_S = 0.6  # so long nothing may move after it
STAYS_RAD = 0.12  # goals and joints that go no further stay: an arm that is taken up again sags a little
BURST_S, BURSTS = 0.04, 20  # of a node that is slow
# Goals over so long [s] may be so much faster than the envelope: a node that stood still then sends what it missed.
WINDOW_S, LEAP = 0.5, 1.2
KEYS = ("seconds", "beyond_s", "wandered_rad", "of_max_velocity")  # of which the greatest is shown
ARRIVE_S = 6.0  # the way takes 2.5 s


@dataclass(frozen=True)
class Row:
    """A fault.

    Attributes:
        strike: a line or a fault for the bus, or what makes it; returns the end of its time-out [monotonic s].
        reads: what a person reads, a regular expression; empty: nothing is to be read.
        mend: takes it away.
        word: of a person, before which nothing moves: ``reset`` (``arm/reset``), ``release``, or
            ``start`` of the node.
        timeout_s: that the fault has by its nature, beside what ``strike`` returns.
        limp: the power is gone: no goal may come that would switch the torque on.
        last_point: the arm goes to the last point of its newest command.
        arrives: it goes on and arrives, without a leap.
    """

    strike: str | Fault | Callable[[Desk], float]
    reads: str = ""
    mend: str | Callable[[Desk], None] = ""
    word: str = ""
    timeout_s: float = 0.0
    limp: bool = False
    last_point: bool = False
    arrives: bool = False


# -- what strikes and what mends -------------------------------------------------------------------------------------


def _now(desk: Desk, name: str, number: int) -> float:
    at_s = time.monotonic()
    os.kill(desk.pid(name), number)
    return at_s


def _stop_node(desk: Desk) -> float:
    return _now(desk, "arm", signal.SIGSTOP)


def _go_on(desk: Desk) -> None:
    desk.swing(time.time_ns())  # waits for the node, and is an old one then
    time.sleep(0.01)
    _now(desk, "arm", signal.SIGCONT)


def _bursts(desk: Desk) -> float:
    at_s = time.monotonic()
    for _ in range(BURSTS):
        for number in (signal.SIGSTOP, signal.SIGCONT):
            _now(desk, "arm", number)
            time.sleep(BURST_S)
    return at_s


def _kill_node(desk: Desk) -> float:
    at_s = time.monotonic()
    if (died := desk.kill("arm")) != "arm":
        raise RuntimeError(f"the graph of the killed arm node names '{died}'")
    return at_s


def _kill_recorder(desk: Desk) -> float:
    at_s = time.monotonic()
    desk.kill("recorder")
    return at_s


def _start_recorder(desk: Desk) -> None:
    desk.stop("recorder")
    for part in (desk.file.parent / "episodes").glob("*.part"):
        with contextlib.suppress(ValueError):  # killed before anything of it was written
            read_journal(recover(part))
    desk.start("recorder")


def _last_point(desk: Desk) -> float:
    """Return when the newest command is over and braked: its last point, and velocity / acceleration."""
    time.sleep(0.05)
    chunk = desk.last
    assert chunk is not None
    over_s = (chunk.stamp_ns - time.time_ns()) / 1e9 + len(chunk.actions) * chunk.dt_s
    return time.monotonic() + over_s + SPEED / desk.section.max_acceleration[0]


def _kill_policy(desk: Desk) -> float:
    desk.kill("policy")
    return _last_point(desk)


def _stop_all_others(desk: Desk) -> float:
    for name in ("policy", "recorder"):
        _now(desk, name, signal.SIGSTOP)
    return _last_point(desk)


def _start_others(desk: Desk) -> None:
    desk.kill("policy")
    _now(desk, "recorder", signal.SIGCONT)


def _slow_policy(desk: Desk) -> float:
    """Command the next third of a second, then nothing."""
    pan = desk.pan
    direction = 1 if pan < 0 else -1
    points = np.repeat(desk.commander.find()[None], 10, axis=0)
    points[:, 0] = pan + direction * np.arange(1, 11) * SPEED * desk.contract.dt_s
    desk.commander.command(points, time.time_ns())
    return _last_point(desk)


def _estop(desk: Desk) -> float:
    return desk.commander.stop() + SPEED / desk.section.max_acceleration[0]


def _replug(desk: Desk) -> None:
    desk.bus.do(f"plug {desk.file.parent / NAME}")


def _cut_power(desk: Desk) -> None:
    """As a person ends an overload that does not go away by itself."""
    desk.bus.do("brownout 0.3")
    time.sleep(0.6)


def _sometimes(desk: Desk) -> float:
    for fault in (Fault("lost", share=0.002), Fault("corrupt", share=0.002), Fault("late", share=0.002, seconds=0.02)):
        at_s = desk.bus.do(fault)
    return at_s


POLICY = {"the policy is killed", "all other programs stand still"}  # the policy moves the arm there
SILENT, SILENT_S = "no joint state for", ArmNodeConfig.state_timeout_s
ROWS: dict[str, Row] = {
    "all servos silent": Row("silent", SILENT, "clear", timeout_s=SILENT_S),
    "one servo silent": Row(Fault("silent", id=3), SILENT, "clear", timeout_s=SILENT_S),
    "a servo is unplugged": Row("gone elbow_flex", SILENT, "back elbow_flex", timeout_s=SILENT_S),
    "all answers late": Row("late 0.2", SILENT, "clear", timeout_s=SILENT_S),
    "bytes lost in all answers": Row("lost", SILENT, "clear", timeout_s=SILENT_S),
    "bits turned in all answers": Row("corrupt", SILENT, "clear", timeout_s=SILENT_S),
    "answers damaged or late now and then": Row(_sometimes, mend="clear", arrives=True),
    "overload": Row("overload shoulder_pan", "servo shoulder_pan reports overload; the arm holds", _cut_power, "reset"),
    "heat": Row("hot shoulder_lift 90", "servo shoulder_lift has switched its torque off: heat",
                "hot shoulder_lift 30", "reset"),
    "brown-out": Row("brownout 0.3", "the servos have lost power", word="reset", limp=True),
    "unplugged, back under another name": Row("unplug", "serial port .* is gone", _replug, "reset"),
    "the node is stopped": Row(_stop_node, f"{SILENT}|answered late", _go_on, timeout_s=SILENT_S),
    "the node is slow": Row(_bursts, arrives=True),
    "the node is killed": Row(_kill_node, word="start"),
    "the policy is killed": Row(_kill_policy, last_point=True),
    "commands come slowly": Row(_slow_policy, last_point=True),
    "all other programs stand still": Row(_stop_all_others, mend=_start_others, last_point=True),
    "the recorder is killed": Row(_kill_recorder, mend=_start_recorder, arrives=True),
    "e-stop": Row(_estop, "the arm is stopped by topic 'estop'", word="release"),
}  # fmt: skip


# -- a trial ---------------------------------------------------------------------------------------------------------


def trial(desk: Desk, name: str) -> dict[str, Any]:
    """Make one fault happen; returns what became of it: ``stands``, and the figures behind that.

    Raises:
        EpisodeError: the recorder refuses.
        TimeoutError: the arm does not come back.
    """
    row = ROWS[name]
    desk.begin_episode()
    desk.go(random.choice((-SWING, SWING)))
    desk.end_episode()
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
    os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randrange(1, 101)))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
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
