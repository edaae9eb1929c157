# SPDX-License-Identifier: Apache-2.0
"""The program around a node: start, spin, stop cleanly on a signal, and an exit code that tells how it ended."""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from lrm_ros.environment import fault
from lrm_ros.environment_variables import REACH
from lrm_ros.programs import ASK_TO_STOP, leave, stopping_signals
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.executor import make_executor, spin_until
from lrm_ros.ros.transport import free_left_over, set_transport


def _watch_lifeline() -> None:
    """Stop this process when the graph that started it is gone.

    ``LRM_LIFELINE`` is a pipe of ``lrm_ros.graph.runner``, ``LRM_PARENT`` the process that ``lrm_ros.graph.launch`` is
    in.
    """
    lifeline, parent = os.environ.pop("LRM_LIFELINE", ""), os.environ.pop("LRM_PARENT", "")
    if lifeline:
        end = int(lifeline)  # nobody writes: it is readable when the last writer is gone
    elif parent:
        try:
            end = os.pidfd_open(int(parent))
        except ProcessLookupError:
            os.kill(os.getpid(), signal.SIGTERM)
            return
    else:
        return

    def watch() -> None:
        select.select([end], [], [])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


class _Stop:
    """The signals that ask a node to stop: the first counts, later ones are the same request.

    No handler raises where that could tear something: a node that starts is asked at the next step of its start, and
    one that spins ends its spinning. Only a start that goes on (a model that loads) is interrupted, once, and where
    the interrupt is lost, too, the process ends: nothing is open then that another start would not open again.

    Attributes:
        future: done with the exit code when the node is to end.
        asked: whether a signal has come.
    """

    # Seconds after the first signal until a start is interrupted, and until the process ends; the graph sends SIGTERM
    # after 5 s and kills after 8 s.
    INTERRUPT_S, END_S = 1.0, 3.0

    def __init__(self) -> None:
        """Take the signals; needs the main thread."""
        self.future: Future[int] = Future()
        self.asked = False
        self._starting = True
        self._interrupt = False
        self._started = threading.Event()
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in stopping_signals():
            signal.signal(number, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASK_TO_STOP)
        self._thread = threading.Thread(target=self._wait, name="signals", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, which may hold the executor while it ends the spinning."""
        signal.set_wakeup_fd(-1)
        self._writer.close()
        self._thread.join()

    def started(self) -> None:
        """From here on the start is not interrupted any more: the node spins or closes."""
        self._starting = False
        self._started.set()

    def end(self, code: int) -> None:
        """End the spinning; the first code counts."""
        if not self.future.done():
            self.future.set_result(code)

    def _on_signal(self, number: int, _: Any) -> None:
        self.asked = True
        if self._interrupt and self._starting:
            self._interrupt = False
            raise KeyboardInterrupt

    def _wait(self) -> None:
        """Wait for the first signal; runs in a thread, for the main thread may be waiting for messages."""
        if not self._reader.recv(1):
            return
        self.end(0)
        if self._started.wait(self.INTERRUPT_S):
            return
        self._interrupt = True
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGTERM)
        if not self._started.wait(self.END_S - self.INTERRUPT_S):
            os._exit(0)


def run(node_type: Callable[[], LrmNode[Any]], argv: list[str] | None = None) -> int:
    """Run one node until SIGINT, SIGTERM or SIGHUP: the body of every node's ``main``. Ends the process.

    Args:
        node_type: the node class.
        argv: command line (ROS arguments included); default ``sys.argv``.

    Returns:
        Never; the process's exit code is 0 after ``--help``, a clean stop, or what the node gave to ``exit``; 1 if
        configuring or activating failed, or after an exception; 2 for a wrong parameter, file or environment.
    """
    stop = _Stop()
    try:
        code = _run(node_type, argv, stop)
    except BaseException:
        traceback.print_exc()
        code = 1
    stop.close()
    gc.collect()  # what still holds the DDS participant: it gives back its shared memory (70 MB) only when it is freed
    leave(code)


def _of_rcl(error: RuntimeError) -> str:
    """Return what rcl says; of what C file it is nobody needs to know."""
    return " ".join(str(error).split()).split(", at /")[0].strip()


def _run(node_type: Callable[[], LrmNode[Any]], argv: list[str] | None, stop: _Stop) -> int:
    if wrong := fault():
        print(f"error: {wrong}", flush=True)
        return 2
    free_left_over()
    set_transport()
    _watch_lifeline()
    node: LrmNode[Any] | None = None
    try:
        # rclpy's own handlers would close the context before a node can finish its episode or hold its arm.
        try:
            rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
        except RuntimeError as error:
            print(f"error: ROS does not start: {_of_rcl(error)}; correct the --ros-args or ROS_LOG_DIR", flush=True)
            return 2
        try:
            if stop.asked:
                return 0
            try:
                node = node_type()
            except rclpy_implementation.RCLError as error:
                given = [name for name in REACH if os.environ.get(name)]
                cure = f"correct {', '.join(given)}" if given else "see what it says above, and 'lrm doctor'"
                print(f"error: ROS makes no node: {_of_rcl(error)}; {cure}", flush=True)
                return 2
            if {"-h", "--help"} & set(sys.argv if argv is None else argv):
                print(node.usage(), flush=True)
                return 0
            node.on_exit = stop.end
            executor = make_executor(node.get_logger())
            executor.add_node(node)
            if node.autostart:
                for step in (node.trigger_configure, node.trigger_activate):
                    if stop.asked:
                        return 0  # type: ignore[unreachable]  # a signal handler sets it
                    if step() != TransitionCallbackReturn.SUCCESS:
                        return 0 if stop.asked else node.fault_code
        finally:
            stop.started()
        spin_until(executor, stop.future)
        return stop.future.result() or 0
    except KeyboardInterrupt:
        return 0
    except ValueError as error:
        if node is not None:
            raise
        print(f"error: {error}", flush=True)
        return 2
    finally:
        stop.started()  # the interrupt may have come just before
        if node is not None:
            node.close()
        rclpy.try_shutdown()
