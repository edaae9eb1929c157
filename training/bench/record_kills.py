# SPDX-License-Identifier: Apache-2.0
"""``lrm bench record --kills``: what SIGKILL in the third episode leaves of a recording session, ours and LeRobot's.

All have the same videos, the same emulated arm and two episodes that ended before. What is killed is our recorder
alone, all of our nodes at once, or lerobot-record, whose arm follows an emulated leader that is moved. Then the files
are read: ours as journals, the unfinished one by ``lrm_ros.record.recover``; LeRobot's by LeRobotDataset. At last one
more episode is recorded in the same folder, with LeRobot's ``--resume=true``.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from lrm_ros.commit import source_commit
from lrm_ros.record.recover import recover
from lrm_ros.record.writer import SYNC_S
from lrm_ros.ros.control import EpisodeError
from lrm_ros.training.bench import record_count as counting
from lrm_ros.training.bench.arm_desk import TRIES
from lrm_ros.training.bench.record_lerobot import OPTIONS, LeRobotRecord, what_is_left
from lrm_ros.training.bench.record_session import ARM, CAMERAS, LEADER, SWAY, Bus, Session

BEFORE = 2  # episodes that end before the kill
EARLIEST_S = 1.0  # of the kill, in its episode [s]
ONCE_MORE_S = 2.0  # length of the episode after it [s]
_UNHEARD = ("ConnectionError", "motor check failed")  # lerobot-record on a busy computer: it gives a servo 50 ms
_JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")


def kill_ours(folder: Path, sources: dict[str, Path], victim: str, episode_s: float, at_s: float) -> dict[str, Any]:
    """Kill the recorder or the session; returns what is left.

    Args:
        folder: for everything.
        sources: of the cameras.
        victim: ``"recorder"`` or ``"session"``.
        episode_s: length of the episodes before [s].
        at_s: moment of the kill in its episode [s].

    Raises:
        RuntimeError: a node ended by itself, or something does not come.
        EpisodeError: an episode cannot begin.
    """
    session = Session(folder, sources)
    try:
        finished = []
        for _ in range(BEFORE):
            path = session.begin()
            time.sleep(episode_s)
            finished.append(session.end(path)[0])
        path, begun_ns = session.begin(), time.time_ns()
        time.sleep(at_s)
        killed_ns = session.kill(["recorder"] if victim == "recorder" else list(session.graphs))
        left = _left_of_ours(finished, path, begun_ns, killed_ns, folder)
        if victim == "recorder":
            session.start("recorder")
            return left | _once_more(session)
    finally:
        session.close()
    session = Session(folder, sources)
    try:
        return left | _once_more(session)
    finally:
        session.close()


def _left_of_ours(finished: list[Path], path: Path, begun_ns: int, killed_ns: int, folder: Path) -> dict[str, Any]:
    """Return what can be read of the finished episodes and of the one that was open."""
    whole = [counting.read(one, CAMERAS) for one in finished]
    frames = sum(len(held.stamps[camera]) for held in whole for camera in CAMERAS)
    steps = sum(len(held.stamps[counting.SENT]) for held in whole)
    copies = folder / "recovered"
    copies.mkdir(exist_ok=True)
    copy = Path(shutil.copy(path.with_name(path.name + ".part"), copies))
    error, last_ns = "", begun_ns
    try:
        held = counting.read(recover(copy), CAMERAS)
        last_ns = min(int(held.stamps[name].max(initial=begun_ns)) for name in (*CAMERAS, counting.JOINTS))
        frames += sum(len(held.stamps[camera]) for camera in CAMERAS)
        steps += len(held.stamps[counting.SENT])
    except ValueError as nothing:
        error = str(nothing)
    seconds = sum(np.ptp(held.stamps[CAMERAS[0]]) for held in whole) / 1e9
    return {
        "episodes": len(whole),
        "frames": frames // len(CAMERAS),
        "steps": steps,
        "seconds": round(float(seconds) + max(0, last_ns - begun_ns) / 1e9, 2),
        "unfinished_s": round((killed_ns - begun_ns) / 1e9, 2),
        "unfinished_lost_s": round((killed_ns - last_ns) / 1e9, 3),
        "error": error,
    }


def _once_more(session: Session) -> dict[str, Any]:
    """Record one more episode in the same folder; returns whether it and those before are there, and why not."""
    try:
        path = session.begin()
        time.sleep(ONCE_MORE_S)
        session.end(path)
    except (EpisodeError, RuntimeError) as error:
        return {"goes_on": False, "then": str(error)}
    there = [*session.episodes.glob("*.mcap"), *session.episodes.glob("*.faulty")]
    return {"goes_on": len(there) == BEFORE + 1, "then": f"{len(there)} episodes are there"}


class Hand:
    """Moves the emulated leader until it is closed."""

    def __init__(self, bus: Bus) -> None:
        """Begin."""
        self._bus, self._stop = bus, threading.Event()
        self._thread = threading.Thread(target=self._move, name="hand")
        self._thread.start()

    def _move(self) -> None:
        while not self._stop.wait(1 / 30):
            for joint, (amplitude, period) in SWAY.items():
                angle = amplitude * np.sin(2 * np.pi * time.monotonic() / period)
                self._bus.tell(f"{LEADER} place {_JOINTS[joint]} {angle + (0.6 if joint == 5 else 0.0):.4f}")

    def close(self) -> None:
        """Let go."""
        self._stop.set()
        self._thread.join()


def kill_lerobot(folder: Path, sources: dict[str, Path], option: str, episode_s: float, at_s: float) -> dict[str, Any]:
    """Kill lerobot-record; returns what is left. Arguments as of :func:`kill_ours`; ``option``: a key of ``OPTIONS``.

    Raises:
        RuntimeError: it does not record.
    """
    more = OPTIONS[option]
    with contextlib.ExitStack() as stack:
        bus = Bus(folder / "arms", (ARM, LEADER))
        stack.callback(bus.close)
        stack.callback(Hand(bus).close)
        program = _begun(stack, folder, sources, episode_s, more)
        begun_s = time.monotonic()
        time.sleep(at_s)
        program.kill()
        unfinished_s = time.monotonic() - begun_s
        left = what_is_left(folder)
        again = LeRobotRecord(folder, folder / "arms", sources, 1, ONCE_MORE_S, [*more, "--resume=true"])
        stack.callback(again.kill)
        code = again.ended()
        after = what_is_left(folder)
    said = [line for line in again.said.splitlines() if line.strip()]
    return {
        **left,
        "steps": left["frames"],
        "unfinished_s": round(unfinished_s, 2),
        "unfinished_lost_s": round(unfinished_s, 3),
        "goes_on": code == 0 and after["episodes"] == BEFORE + 1,
        "episodes_after_resume": after["episodes"],
        "resume_says": "" if code == 0 and not after["error"] else after["error"] if code == 0 else said[-1][:300],
    }


def _begun(
    stack: contextlib.ExitStack, folder: Path, sources: dict[str, Path], episode_s: float, more: tuple[str, ...]
) -> LeRobotRecord:
    """Return lerobot-record as its third episode begins, which ``stack`` ends.

    It is started anew where the arm did not answer in time.

    Raises:
        RuntimeError: it ends each time.
    """
    for left in reversed(range(TRIES)):
        program = LeRobotRecord(folder, folder / "arms", sources, BEFORE + 1, episode_s, more)
        stack.callback(program.kill)
        try:
            program.expect(f"Recording episode {BEFORE}")
            return program
        except RuntimeError:
            if not left or not any(word in program.said for word in _UNHEARD):
                raise
            shutil.rmtree(folder / "set", ignore_errors=True)
    raise AssertionError


def kill_sessions(
    times: int, only: list[str], seed: int, episode_s: float, folder: Path, sources: dict[str, Path]
) -> dict[str, Any]:
    """Kill so many sessions of each kind; returns what was left of each, and ``faults``: where ours lost too much.

    Raises:
        RuntimeError: something did not start.
    """
    rng, rows = random.Random(seed), []
    load = os.getloadavg()[0]
    kinds: list[tuple[str, str]] = [(one, "") for one in ("recorder", "session") if one in only]
    kinds += [("lerobot", option) for option in OPTIONS] if "lerobot" in only else []
    for number in range(times):
        for victim, option in kinds:
            at_s = rng.uniform(EARLIEST_S, episode_s)
            place = folder / f"kill_{number}_{victim}{'_streaming' if option != 'its defaults' and option else ''}"
            place.mkdir(parents=True)
            print(f"kill {number + 1} of {times}: {victim} {option}, {at_s:.1f} s into an episode", flush=True)
            kill = kill_lerobot if option else kill_ours
            row = kill(place, sources, option or victim, episode_s, at_s)
            rows.append({"victim": victim, "option": option, **row})
            print("  " + ", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    faults = []
    for row in rows:
        if row["option"]:
            continue
        if row["episodes"] < BEFORE or not row["goes_on"]:
            faults.append(f"{row['victim']}: {row['episodes']} of {BEFORE} episodes are left, {row['then']}")
        if row["unfinished_lost_s"] > SYNC_S:
            faults.append(f"{row['victim']}: the last {row['unfinished_lost_s']:.2f} s of the unfinished one are lost")
    about = {"commit": source_commit(), "seed": seed, "episode_s": episode_s, "before": BEFORE}
    return {**about, "load": [round(load, 2), round(os.getloadavg()[0], 2)], "kills": rows, "faults": faults}


def kills_table(figures: dict[str, Any]) -> str:
    """Return the figures as Markdown, a line for each kind."""
    names = {"recorder": "recorder of `lrm up teleop`", "session": "all nodes of `lrm up teleop`"}
    kinds: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in figures["kills"]:
        kinds.setdefault((row["victim"], row["option"]), []).append(row)
    lines = [
        f"{figures['before']} episodes of {figures['episode_s']:g} s, then SIGKILL in the third; load "
        f"{figures['load'][0]} to {figures['load'][1]}; commit {figures['commit']}",
        "",
        "| killed | n | finished episodes left | steps left | of the unfinished one lost | recording goes on there |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (victim, option), rows in kinds.items():
        name = names.get(victim, f"lerobot-record, {option}")
        lost = [row["unfinished_lost_s"] for row in rows]
        open_s = [row["unfinished_s"] for row in rows]
        lines.append(
            f"| {name} | {len(rows)} | {sum(row['episodes'] for row in rows)} of {figures['before'] * len(rows)} | "
            f"{sum(row['steps'] for row in rows)} | {min(lost):.2f} to {max(lost):.2f} s of {min(open_s):.1f} to "
            f"{max(open_s):.1f} s | {sum(row['goes_on'] for row in rows)} of {len(rows)} |"
        )
    return "\n".join(lines)
