# SPDX-License-Identifier: Apache-2.0
"""Kill nodes of a recording session at random moments; nothing finished may be lost, nothing partial taken for whole.

The session is that of ``lrm up self_improve``, in lock-step: twin, reward node, policy and recorder, and the improver,
of whose loop only the rollouts run. One of the five gets SIGKILL at a random moment; it is started again, the improver
is stopped within 3 s where the loss has not ended it, and goes on in the same folder. After each kill:

* every episode that the recorder has called ended, and every one with a verdict, is there under its name and whole;
* every finished journal has all steps of a rollout, one control period apart, and its last frame;
* what a kill has left unfinished is not read as an episode; recovered, it is marked and has no step that was not sent.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from lrm_ros.config import RobotContract
from lrm_ros.graph.graphs import NodeSpec, nodes_of
from lrm_ros.nodes.improver import ImproverNode
from lrm_ros.options import whole
from lrm_ros.private_domain import use_private_domain
from lrm_ros.progress import progress_bar
from lrm_ros.record.journal import JournalError, read_info, read_journal, recover
from lrm_ros.ros.collector import read_verdicts
from lrm_ros.ros.program import run
from lrm_ros.training.bench.signals import shared_memory
from lrm_ros.types import Episode

NODES = ("twin", "reward", "policy", "recorder", "improver")
STEPS = 24  # control steps of a rollout
_ITERATION = 1
_READY_S = 300.0  # a session that has not begun an episode by then does not go on; an answer may take 60
_CHILD = "LRM_BENCH_KILLS"  # environment variable: this process is the improver


class RolloutNode(ImproverNode):
    """The improver, of whose loop only the rollouts of an iteration run."""

    def _loop(self) -> None:
        assert self._control is not None
        services = ("reward/reset", "twin/reset", "policy/reset", "recorder/start_episode")
        self._control.wait_ready(services)
        self._collector.abandon()
        self._collector.roll_out(self._run / f"iter_{_ITERATION:03d}", _ITERATION)


class Session:
    """The nodes' processes, and the recorder's events as another node hears them."""

    def __init__(self, folder: Path) -> None:
        """Start nothing yet; everything is written in ``folder``."""
        import rclpy
        from rclpy.signals import SignalHandlerOptions

        from lrm_ros import topics
        from lrm_ros.ros.base import set_transport
        from lrm_ros.ros.executor import make_executor

        values = {"run": folder / "run", "model": "fake", "episodes": 5000, "tries": 2, "rollout_steps": STEPS}
        values |= {"checkpoint": "fake", "explore_std": 0.0, "min_free_mb": 1, "policy.autostart": True}
        specs = {node.name: node for node in nodes_of("self_improve", {k: str(v) for k, v in values.items()})}
        self._specs: dict[str, NodeSpec] = {name: specs[name] for name in NODES}
        self.folder, self._log = folder, (folder / "log.txt").open("ab")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._lifeline = os.pipe()  # the nodes stop when this process is gone
        self.events: list[tuple[str, str]] = []  # (episode, what happened)
        set_transport()
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node("witness")
        topics.EPISODE.subscribe(self._node, lambda message: self.events.append((message.name, message.message)))
        self._executor = make_executor(self._node.get_logger())
        self._executor.add_node(self._node)

    @property
    def episodes(self) -> Path:
        """The folder of the journals."""
        return self.folder / "run" / f"iter_{_ITERATION:03d}" / "episodes"

    def start(self) -> None:
        """Start every node that does not run."""
        for name, spec in self._specs.items():
            if name in self.processes and self.processes[name].poll() is None:
                continue
            env = {**os.environ, "LRM_LIFELINE": str(self._lifeline[0]), "OMP_NUM_THREADS": "1"}
            env["PYTHONFAULTHANDLER"] = "1"  # for show_stacks
            words = spec.command()
            if name == "improver":
                env[_CHILD] = "1"
                words[2] = "lrm_ros.training.bench.kills"
            self.processes[name] = subprocess.Popen(
                words, env=env, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
                pass_fds=[self._lifeline[0]], start_new_session=True,
            )  # fmt: skip

    def spin(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Hear events for a while, or until something is so; returns whether it was."""
        deadline = time.monotonic() + seconds
        while not until():
            if time.monotonic() >= deadline:
                return False
            self._executor.spin_once(timeout_sec=min(0.02, seconds))
        return True

    def goes_on(self) -> bool:
        """Wait until an episode begins, with all nodes there; starts again what ends by itself."""
        seen = len(self.events)

        def begun() -> bool:
            self.start()
            return any(event == "started" for _, event in self.events[seen:])

        return self.spin(_READY_S, begun)

    def kill(self, name: str) -> None:
        """Kill a node and remove the shared memory that it leaves."""
        process = self.processes[name]
        mapped = shared_memory(process.pid)
        process.kill()
        process.wait()
        for segment in mapped:
            _release(segment)

    def ask_to_stop(self, name: str) -> int:
        """Stop a node as ``lrm up`` does; returns its exit code."""
        process = self.processes[name]
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            return process.wait(20.0)
        except subprocess.TimeoutExpired:
            self.kill(name)
            return -signal.SIGKILL

    def show_stacks(self) -> None:
        """Have every node write to the log where its threads are; it ends by that."""
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGABRT)

    def close(self) -> None:
        """Stop everything."""
        import rclpy

        for name in reversed(NODES):
            if name in self.processes:
                self.ask_to_stop(name)
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown()
        self._log.close()


def _release(segment: Path) -> None:
    """Remove a segment of DDS whose owner is gone: it holds a lock on the file beside it while it lives."""
    lock = segment.with_name(segment.name + "_el")
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            segment.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
    except (BlockingIOError, FileNotFoundError):
        pass


class Check:
    """What is in the episodes' folder after each kill, and what is wrong with it."""

    def __init__(self, session: Session) -> None:
        """Check the journals of a session."""
        self._session = session
        self._read: set[Path] = set()  # found whole
        self._parts: set[tuple[Path, int]] = set()
        self.told: set[str] = set()
        self.counts: Counter[str] = Counter()

    def wrong(self) -> list[str]:
        """Return what is wrong now, one line each."""
        found = []
        self.told |= {episode for episode, event in self._session.events if event == "ended"}
        names = sorted(path.name for path in self._session.episodes.iterdir())
        for name in names:
            path = self._session.episodes / name
            try:
                if name.endswith(".mcap"):
                    found += self._finished(path)
                elif name.endswith(".mcap.part"):
                    found += self._part(path)
                elif not name.endswith(".mcap.faulty"):
                    found.append(f"'{name}' is neither a journal nor an unfinished one")
            except FileNotFoundError:  # renamed or discarded between the list and here
                continue
            except Exception as error:
                found.append(f"'{name}': {type(error).__name__}: {error}")
        lost = [name for name in sorted(self.told) if not (self._session.episodes / f"{name}.mcap").is_file()]
        return found + [f"episode '{name}' was finished and is not there" for name in lost]

    def judged(self) -> list[str]:
        """Return what is wrong with the verdicts while the improver stands."""
        rows = read_verdicts(self._session.episodes.parent)
        self.told |= rows.keys()
        self.counts["verdicts"] = len(rows)
        return self.wrong()

    def _finished(self, path: Path) -> list[str]:
        if path in self._read:
            return []
        episode = read_journal(path)
        self._read.add(path)
        self.counts["whole"] += 1
        found = _partial(path, episode)
        if read_info(path).recovered or len(episode.steps) != STEPS or episode.final is None:
            found.append(f"'{path.name}' has {len(episode.steps)} of {STEPS} steps and passes for whole")
        return found

    def _part(self, path: Path) -> list[str]:
        """Recover a copy of an unfinished journal, which is an open one where the recorder lives."""
        key = (path, path.stat().st_mtime_ns)
        if key in self._parts:
            return []
        self._parts.add(key)
        self.counts["unfinished"] += 1
        with tempfile.TemporaryDirectory(prefix="lrm_bench_") as folder:
            copy = Path(shutil.copy(path, folder))
            try:
                recovered = recover(copy)
            except ValueError as error:
                return [] if "holds nothing readable" in str(error) else [f"'{path.name}': {error}"]
            if not read_info(recovered).recovered:
                return [f"'{path.name}' is recovered and passes for whole"]
            self.counts["recovered"] += 1
            try:
                episode = read_journal(recovered)
            except JournalError as error:
                return [] if "so no step" in str(error) else [f"'{path.name}': {error}"]
            return _partial(path, episode)


def _partial(path: Path, episode: Episode) -> list[str]:
    """Return whether steps are missing inside an episode."""
    stamps = [step.observation.stamp_ns for step in episode.steps]
    dt_ns = round(1e9 * RobotContract().dt_s)
    apart = {later - earlier for earlier, later in pairwise(stamps)}
    return [f"'{path.name}' has steps {sorted(apart)} ns apart"] if apart - {dt_ns} else []


def kill_nodes(times: int, seed: int, only: list[str], folder: Path) -> dict[str, Any]:
    """Kill nodes and check; returns the figures."""
    rng = random.Random(seed)
    session = Session(folder)
    check = Check(session)
    killed: Counter[str] = Counter()
    faults: list[str] = []
    in_episode = 0
    try:
        with progress_bar(times, "kills", "kill") as bar:
            for number in range(times):
                if not session.goes_on():
                    faults.append(f"kill {number}: no episode began within {_READY_S:.0f} s; the log has the stacks")
                    session.show_stacks()
                    break
                session.spin(rng.uniform(0.0, 2.5))
                victim = rng.choice(only)
                in_episode += session.events[-1][1] in ("started", "ending")
                session.kill(victim)
                killed[victim] += 1
                found = check.wrong()
                session.start()
                if victim != "improver":
                    session.spin(rng.uniform(0.0, 3.0), lambda: session.processes["improver"].poll() is not None)
                    session.ask_to_stop("improver")
                    session.spin(0.1)
                    found += check.judged()
                for line in found:
                    faults.append(f"kill {number}, {victim}: {line}")
                    bar.write(faults[-1])
                bar.update()
        session.ask_to_stop("improver")
        session.ask_to_stop("recorder")
        faults += check.judged()
    finally:
        session.close()
    return {
        "kills": sum(killed.values()),
        "seed": seed,
        "by_node": dict(sorted(killed.items())),
        "in_an_episode": in_episode,
        "steps": STEPS,
        "told_finished": len(check.told),
        **check.counts,
        "faulty": sum(1 for path in session.episodes.glob("*.faulty")),
        "faults": faults,
    }


def main(argv: list[str] | None = None) -> int:
    """Measure and print; 1 if anything was lost or passes for what it is not."""
    parser = argparse.ArgumentParser(
        prog="lrm bench kills", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=whole(1), default=200, help="how many kills (default 200)")
    parser.add_argument("--seed", type=whole(0), default=0, help="of the moments and nodes")
    parser.add_argument("--only", nargs="+", choices=NODES, default=list(NODES), metavar="NODE", help=", ".join(NODES))
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keep run folder and log there (default: nowhere)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(argv)
    use_private_domain()
    with tempfile.TemporaryDirectory(prefix="lrm_bench_") as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        figures = kill_nodes(options.times, options.seed, options.only, folder)
    by_node = ", ".join(f"{name} {count}" for name, count in figures["by_node"].items())
    print(f"{figures['kills']} kills ({by_node}), {figures['in_an_episode']} in an open episode")
    print(f"{figures['told_finished']} episodes finished, {figures['whole']} journals whole", end="; ")
    print(f"{figures.get('unfinished', 0)} unfinished, {len(figures['faults'])} faults")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 1 if figures["faults"] else 0


if __name__ == "__main__":
    raise SystemExit(run(RolloutNode) if os.environ.get(_CHILD) else main())
