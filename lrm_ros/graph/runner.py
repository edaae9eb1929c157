# SPDX-License-Identifier: Apache-2.0
"""The processes of a graph: ``lrm up GRAPH key:=value...`` starts its nodes, keeps them together and stops them.

Without ros2cli each node is a process of its own with prefixed output; SIGINT or SIGTERM stop all of them within 10 s,
and a node that dies ends the graph with a non-zero code and its name.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from lrm_ros.environment import fault, import_fault
from lrm_ros.graph.graphs import GRAPHS, KINDS, NodeSpec, nodes_of, parse_arguments, threads_of
from lrm_ros.programs import ASK_TO_STOP, exit_code, stopping_signals


class Graph:
    """The processes of a graph: ``with Graph(nodes) as graph: code = graph.wait()``.

    Attributes:
        failed: name of the node whose death ended the graph, else empty.
    """

    # SIGINT lets nodes finish; what is left after 5 s gets SIGTERM, after 8 s SIGKILL: everything is gone in 10 s.
    _ESCALATION = ((0.0, signal.SIGINT), (5.0, signal.SIGTERM), (8.0, signal.SIGKILL))

    def __init__(
        self,
        nodes: Sequence[NodeSpec],
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
        show: Collection[str] | None = None,
    ) -> None:
        """Prepare; nothing runs before :meth:`start`.

        Args:
            nodes: see :func:`nodes_of`.
            env: environment on top of this process's.
            log: file that gets all output.
            show: names of the nodes whose output is printed; default all.

        Raises:
            ValueError: two nodes have the same name.
        """
        names = [node.name for node in nodes]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"several nodes of the graph are called {', '.join(sorted(twice))}; give each its name")
        self.nodes = list(nodes)
        self.failed = ""
        self._env = dict(env or {})
        self._log_path, self._show = log, show
        self._log: IO[str] | None = None
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._readers: list[threading.Thread] = []
        self._lifeline: tuple[int, int] | None = None
        self._interrupted = False
        self._print_lock = threading.Lock()

    def __enter__(self) -> Graph:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def interrupt(self) -> None:
        """End :meth:`start` before its next node, and :meth:`wait`; a signal handler may call it."""
        self._interrupted = True

    def start(self) -> None:
        """Start every node as a process with this process's Python and environment."""
        root = str(Path(__file__).resolve().parents[2])
        env = {"OMP_NUM_THREADS": str(threads_of(len(self.nodes))), **os.environ, "PYTHONUNBUFFERED": "1", **self._env}
        env.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [root, env.get("PYTHONPATH", "")]))
        env.setdefault("RCUTILS_COLORIZED_OUTPUT", str(int(sys.stdout.isatty())))
        # Nodes stop when the other end of this pipe is gone, so that even a killed graph leaves no orphans.
        self._lifeline = os.pipe()
        env["LRM_LIFELINE"] = str(self._lifeline[0])
        if self._log_path is not None:
            self._log_path.parent.mkdir(parents=True, exist_ok=True)
            self._log = self._log_path.open("a", encoding="utf-8", errors="backslashreplace")
        for index, node in enumerate(self.nodes):
            if self._interrupted:
                return
            process = self._popen(node, env)
            self._processes[node.name] = process
            if not node.foreground:
                reader = threading.Thread(target=self._read, args=(node.name, index, process), daemon=True)
                reader.start()
                self._readers.append(reader)

    def _popen(self, node: NodeSpec, env: Mapping[str, str]) -> subprocess.Popen[str]:
        """Start one node."""
        assert self._lifeline is not None
        # A signal before the node has handlers would end it as if it had died: it waits until the node takes it. Other
        # programs than ours would never take it.
        ours = KINDS[node.kind].module.startswith("lrm_ros.")
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ASK_TO_STOP if ours else ())
        try:
            return subprocess.Popen(
                node.command(),
                env=env,
                stdin=None if node.foreground else subprocess.DEVNULL,
                stdout=None if node.foreground else subprocess.PIPE,
                stderr=None if node.foreground else subprocess.STDOUT,
                pass_fds=[self._lifeline[0]],
                text=True,
                errors="replace",
                # In a group of its own, a terminal's Ctrl+C reaches only this process, which stops the nodes in order.
                process_group=None if node.foreground else 0,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _read(self, name: str, index: int, process: subprocess.Popen[str]) -> None:
        """Print and log a node's output line by line."""
        width = max(len(node.name) for node in self.nodes)
        prefix = f"[{name:<{width}}] "
        if sys.stdout.isatty():
            prefix = f"\x1b[{31 + (index + 1) % 6}m{prefix}\x1b[0m"
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                with self._print_lock:
                    self._write(f"[{name}] {line}")
                    if self._show is None or name in self._show:
                        self._print(prefix + line)

    def _write(self, text: str) -> None:
        """Log; where the disk is full, nothing more is logged, and the nodes go on."""
        if self._log is None:
            return
        try:
            self._log.write(text)
            self._log.flush()
        except OSError as error:
            self._close_log()
            self._print(f"'{self._log_path}' cannot be written: {error.strerror}; nothing more is logged there\n")

    def _close_log(self) -> None:
        """Close the log, also one that cannot be written."""
        log, self._log = self._log, None
        if log is not None:
            with contextlib.suppress(OSError):
                log.close()

    def _print(self, text: str) -> None:
        """Print; where the terminal is gone, nothing more is printed, and the nodes go on."""
        try:
            print(text, end="", flush=True)
        except OSError:
            self._show = ()

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait until the graph ends.

        Args:
            timeout: seconds; ``None``: for ever.

        Returns:
            0 when a node with ``ends_graph`` finished cleanly, the code of the node that died (1 for an unexpected
            clean exit) with its name in ``failed``, ``None`` on time-out or :meth:`interrupt`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._interrupted and (deadline is None or time.monotonic() < deadline):
            code = self._ended()
            if code is not None:
                return None if self._interrupted else code
            time.sleep(0.1)
        return None

    def _ended(self) -> int | None:
        """Return what :meth:`wait` returns of a graph that has ended, None while all its nodes run."""
        for node in self.nodes:
            code = self._processes[node.name].poll()
            if code is None:
                continue
            if code == 0 and node.ends_graph:
                return 0
            if not self._interrupted:
                self.failed = node.name
            return code if code > 0 else 1 if code == 0 else 128 - code
        return None

    def check(self) -> None:
        """Look whether all nodes still run, without waiting.

        Raises:
            RuntimeError: one has died; says which, and where its output is.
        """
        code = self._ended()
        if self.failed:
            where = f"in '{self._log_path}'" if self._log_path else "above"
            raise RuntimeError(f"node '{self.failed}' died with code {code}; its output is {where}")

    def stop(self) -> None:
        """Stop every process within 10 s: SIGINT, then SIGTERM, then SIGKILL to the groups started here."""
        begin = time.monotonic()
        left = [node for node in self.nodes if node.name in self._processes]
        for after, number in self._ESCALATION:
            while (left := [node for node in left if self._alive(node)]) and time.monotonic() - begin < after:
                time.sleep(0.02)
            for node in left:
                if after:
                    self._print(f"node '{node.name}' has not stopped after {after:.0f} s: {number.name}\n")
                self._signal(node, number)
        for process in self._processes.values():
            process.wait()
        for reader in self._readers:
            reader.join(timeout=1.0)
        if self._lifeline is not None:
            os.close(self._lifeline[0])
            os.close(self._lifeline[1])
            self._lifeline = None
        self._close_log()

    def _alive(self, node: NodeSpec) -> bool:
        """Return whether a node or a process it started (training, say) still runs."""
        process = self._processes[node.name]
        running = process.poll() is None
        if node.foreground or running:
            return running
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def _signal(self, node: NodeSpec, number: signal.Signals) -> None:
        """Signal a node with its own children; a foreground node shares our group, so it alone."""
        process = self._processes[node.name]
        with contextlib.suppress(ProcessLookupError):
            if node.foreground:
                process.send_signal(number)
            else:
                os.killpg(process.pid, number)


def run_graph(nodes: Sequence[NodeSpec], interrupted: int = 0, **options: Any) -> int:
    """Run a graph until it ends or SIGINT, SIGTERM or SIGHUP arrives.

    Args:
        nodes: see :class:`Graph`.
        interrupted: exit code after a signal.
        **options: see :class:`Graph`.

    Returns:
        The exit code; 2 if the environment keeps ROS from working: nothing has been started then.
    """
    graph = Graph(nodes, **options)
    asked = False

    def ask(number: int, _: Any) -> None:
        nonlocal asked
        asked = True
        graph.interrupt()

    # Later signals are the same request: they must not interrupt the stopping, which takes 10 s at most.
    before = {number: signal.signal(number, ask) for number in stopping_signals()}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASK_TO_STOP)
    code: int | None = 0
    try:
        if wrong := fault():
            print(f"error: {wrong}", file=sys.stderr)
            return 2
        graph.start()
        code = graph.wait()
    finally:
        graph.stop()
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if asked else handler)
    if asked:
        return interrupted
    if graph.failed:
        print(f"error: node '{graph.failed}' died with code {code}; the graph has been stopped", file=sys.stderr)
    return code or 0


def main(argv: list[str] | None = None) -> int:
    """Run ``lrm up``."""
    parser = argparse.ArgumentParser(prog="lrm up", description="Start the nodes of a graph and keep them together.")
    parser.add_argument("graph", choices=list(GRAPHS))
    parser.add_argument(
        "arguments",
        nargs="*",
        metavar="key:=value",
        help="parameter of every node that has it, or node.parameter; ns:=NAME runs all in a namespace",
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="also write all output to FILE")
    parser.add_argument("--print", action="store_true", help="only print the commands of the nodes")
    options = parser.parse_intermixed_args(argv)  # options before, between and after key:=value
    try:
        nodes = nodes_of(options.graph, parse_arguments(options.arguments))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code(error)
    if options.print:
        for node in nodes:
            print(shlex.join(node.command()))
        return 0
    if wrong := import_fault():
        print(f"error: {wrong}", file=sys.stderr)
        return 2
    return run_graph(nodes, log=options.log)


if __name__ == "__main__":
    raise SystemExit(main())
