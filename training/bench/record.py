# SPDX-License-Identifier: Apache-2.0
"""``lrm bench record``: an hour of recording as a person does it, and what a kill leaves of a session.

Two camera nodes with videos of numbered frames that were rendered beforehand (640x480, 30 Hz), the arm node before an
emulated SO-101 in motion (100 joint states a second), the recorder; each a process. Episodes follow one another.
Counted are frames and joint states in the journals against those sent, skew, memory, CPU. ``--kills N`` kills a
recorder or a session in the middle of an episode instead, and LeRobot's lerobot-record in the same harness.

Memory is flat if the slope of its line is below 10 MB/h with 95 % confidence, from two minutes after the start on; runs
of less than 12 minutes do not say.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrm_ros.commit import source_commit
from lrm_ros.options import number, whole
from lrm_ros.private_domain import use_private_domain
from lrm_ros.progress import progress_bar
from lrm_ros.ros.control import EpisodeError
from lrm_ros.training.bench import record_count as counting
from lrm_ros.training.bench.record_count import Episode, Held
from lrm_ros.training.bench.record_frames import HEIGHT, HZ, LOOP, WIDTH
from lrm_ros.training.bench.record_kills import kill_sessions, kills_table
from lrm_ros.training.bench.record_session import CAMERAS, Session, videos
from lrm_ros.training.bench.record_watch import FLAT_MB_H, Watch

KILL_EPISODE_S = 10.0  # length of the episodes of sessions that are killed, at most [s]


@dataclass(frozen=True)
class _Recorded:
    """An episode whose journal is being counted."""

    held: Future[Held]
    begin_ns: int
    end_ns: int
    heard: counting.Stamps
    shown: dict[str, counting.Stamps]
    fault: str


def count_and_delete(path: Path, keep: bool) -> Held:
    """Read a journal, in a process of its own; delete it unless it is to be kept."""
    held = counting.read(path, CAMERAS)
    if not keep:
        path.unlink()
    return held


def record(session: Session, seconds: float, episode_s: float, keep: bool) -> tuple[list[Episode], dict[str, Any]]:
    """Record episodes back to back for ``seconds``, the last one shorter; returns them and what was watched.

    Raises:
        RuntimeError: a node has ended.
        EpisodeError: an episode does not begin, or becomes no journal.
    """
    done: list[_Recorded] = []
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, context, initializer=os.nice, initargs=(19,))
    watch = Watch(session.pids)
    end_s = time.monotonic() + seconds
    try:
        with pool, progress_bar(round(seconds), "recording", "s") as bar:
            while (left_s := end_s - time.monotonic()) > 0.5:
                path = session.begin()
                begin_ns = time.time_ns()
                until_s = time.monotonic() + min(episode_s, left_s)
                while (wait_s := until_s - time.monotonic()) > 0:
                    time.sleep(min(1.0, wait_s))
                    session.alive()
                    bar.update(max(0, round(seconds - max(0.0, end_s - time.monotonic())) - bar.n))
                end_ns = time.time_ns()
                path, fault = session.end(path)
                heard, shown = session.take_heard()
                held = pool.submit(count_and_delete, path, keep)
                done.append(_Recorded(held, begin_ns, end_ns, heard, shown, fault))
            watched = watch.stop()
            episodes = [
                Episode(one.held.result(), one.begin_ns, one.end_ns, one.heard, one.shown, one.fault) for one in done
            ]
    finally:
        watch.stop()
    return episodes, watched


def figures_of(episodes: list[Episode], watched: dict[str, Any], loop: int = LOOP) -> dict[str, Any]:
    """Return everything that the table says."""
    seconds = sum(episode.end_ns - episode.begin_ns for episode in episodes) / 1e9
    size = sum(episode.held.bytes for episode in episodes) / 1e6
    return {
        "commit": source_commit(),
        "seconds": round(seconds, 1),
        "episodes": len(episodes),
        "faulty": [episode.fault for episode in episodes if episode.fault],
        "frames": {camera: counting.count_frames(episodes, camera, loop) for camera in CAMERAS},
        "joint_states": counting.count_states(episodes),
        "steps": sum(len(episode.held.stamps[counting.SENT]) for episode in episodes),
        "skew_ms": counting.skews(episodes, CAMERAS),
        "latency_ms": counting.latencies(episodes, (*CAMERAS, counting.JOINTS)),
        "megabytes": round(size, 1),
        "mb_per_s": round(size / max(seconds, 1e-9), 2),
        **watched,
    }


def table(figures: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    about, states = figures["machine"], figures["joint_states"]
    lines = [
        f"{figures['seconds'] / 60:.1f} minutes in {figures['episodes']} episodes, {len(figures['faulty'])} of them "
        f"faulty; commit {figures['commit']}, {about['cores']} cores, load {about['load_at_begin'][0]} at the begin, "
        f"{about['load_at_end'][0]} at the end, cores busy {100 * about['busy']:.0f} %; {figures['mb_per_s']} MB/s "
        "to disk",
        "",
        f"| {WIDTH}x{HEIGHT} at {HZ} Hz | sent | found | lost | doubled | out of order | unreadable | late |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for camera, row in figures["frames"].items():
        keys = ("sent", "found", "lost", "doubled", "out_of_order", "unreadable", "late")
        lines.append(f"| {camera} | " + " | ".join(str(row[key]) for key in keys) + " |")
    for camera, row in figures["frames"].items():
        lines += [
            f"\n{camera}: {gap['frames']} frames lost {gap['at_s']} s into an episode, between two that were sent "
            f"{gap['sent_apart_ms']:.0f} and received {gap['received_apart_ms']:.0f} ms apart"
            for gap in row["losses"][:5]
        ]
    lines += [
        "",
        f"joint states: {states['found']} of {states['expected']}, {states['lost']} lost, {states['doubled']} doubled; "
        f"{states['rate_hz']} a second, {states['gaps']} gaps above 25 ms, longest {states['longest_gap_ms']:.1f} ms",
        "",
        "| ms | p50 | p95 | p99 | max |",
        "| --- | --- | --- | --- | --- |",
    ]
    rows = {f"skew {name}": row for name, row in figures["skew_ms"].items()}
    rows |= {f"{name} to the recorder": row for name, row in figures["latency_ms"].items()}
    lines += [f"| {name} | " + " | ".join(str(value) for value in row.values()) + " |" for name, row in rows.items()]
    lines += ["", "| process | share of a core | waiting for one | memory begin, end, max MB | slope MB/h | flat |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for name, row in figures["processes"].items():
        memory, slope = row["rss_mb"], row["rss_slope"]
        grows, flat = "not said: too short", "not said"
        if slope["mb_per_h"] is not None:
            low, high = slope["ci95"]
            grows, flat = f"{slope['mb_per_h']} ({low} to {high})", "yes" if slope["flat"] else "no"
        lines.append(
            f"| {name} | {100 * row['cpu']:.1f} % | {100 * row['waiting']:.1f} % | "
            f"{memory['begin']}, {memory['end']}, {memory['max']} | {grows} | {flat} |"
        )
    return "\n".join(lines)


def wrong(figures: dict[str, Any]) -> list[str]:
    """Return what the session did not hold: nothing lost, doubled or out of order, memory of the nodes flat."""
    found = [
        f"{camera}: {row[key]} {key.replace('_', ' ')}"
        for camera, row in figures["frames"].items()
        for key in ("lost", "doubled", "out_of_order", "unreadable")
        if row[key]
    ]
    found += [f"joint states: {figures['joint_states']['lost']} lost"] if figures["joint_states"]["lost"] else []
    nodes = {name: row for name, row in figures["processes"].items() if not name.startswith("(")}
    grown = [name for name, row in nodes.items() if row["rss_slope"]["flat"] is False]
    return found + [f"memory of {name} is not below {FLAT_MB_H:g} MB/h" for name in grown]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lrm bench record", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=number(above=True), default=60.0, help="how long to record (default 60)")
    parser.add_argument("--episode-s", type=number(above=True), default=60.0, help="length of an episode (default 60)")
    parser.add_argument(
        "--image-format", choices=("jpeg", "png", "raw"), default="jpeg", help="of the recorder (default jpeg)"
    )
    parser.add_argument(
        "--kills", type=whole(1), metavar="N", help="instead: N sessions of each kind, killed in their third episode"
    )
    parser.add_argument("--seed", type=whole(0), default=0, help="of the moments of the kills")
    parser.add_argument(
        "--only", nargs="+", choices=("recorder", "session", "lerobot"), default=["recorder", "session", "lerobot"],
        help="what is killed (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--loop", type=whole(60), default=LOOP, help=f"frames of a video, played again and again (default {LOOP})"
    )
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keep journals and logs there (default: nowhere)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure and print; 1 if anything was lost or memory grows."""
    options = _parser().parse_args(argv)
    use_private_domain()
    with tempfile.TemporaryDirectory(prefix="lrm_bench_") as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        print("rendering the frames", flush=True)
        sources = videos(folder, options.loop)
        try:
            if options.kills:
                seconds = min(options.episode_s, KILL_EPISODE_S)
                figures = kill_sessions(options.kills, options.only, options.seed, seconds, folder, sources)
                text, found = kills_table(figures), figures["faults"]
            else:
                session = Session(folder, sources, options.image_format)
                try:
                    seconds, keep = 60 * options.minutes, options.folder is not None
                    episodes, watched = record(session, seconds, options.episode_s, keep)
                finally:
                    session.close()
                figures = figures_of(episodes, watched, options.loop)
                text, found = table(figures), wrong(figures)
        except (RuntimeError, EpisodeError, OSError) as error:
            print(f"lrm bench record: {error}")
            return 1
    print(text)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    for line in found:
        print(f"lrm bench record: {line}")
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main())
