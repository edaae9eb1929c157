# SPDX-License-Identifier: Apache-2.0
"""The program around a node: start, spin, stop cleanly on a signal, and an exit code that tells how it ended."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.executor import make_executor, spin_until
from lrm_ros.ros.transport import set_transport


def _watch_lifeline() -> None:
    """Stop this process when the graph that started it is gone (see ``lrm_ros.graph.runner``)."""
    lifeline = os.environ.pop("LRM_LIFELINE", "")
    if not lifeline:
        return

    def watch() -> None:
        os.read(int(lifeline), 1)  # nobody writes: it returns when the last writer is gone
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def run(node_type: Callable[[], LrmNode[Any]], argv: list[str] | None = None) -> int:
    """Run one node until SIGINT or SIGTERM: the body of every node's ``main``.

    Args:
        node_type: the node class.
        argv: command line (ROS arguments included); default ``sys.argv``.

    Returns:
        0 after ``--help``, a clean stop, or what the node gave to ``exit``; 1 if configuring or activating failed; 2
        for a wrong parameter.
    """
    set_transport()
    stop: Future[int] = Future()
    spinning = False
    _watch_lifeline()

    def on_signal(number: int, _: Any) -> None:
        if not spinning:
            raise KeyboardInterrupt

    # rclpy's own handlers would close the context before a node can finish its episode or hold its arm.
    rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)

    def wait_for_signal() -> None:
        if reader.recv(1):
            stop.set_result(0)

    threading.Thread(target=wait_for_signal, name="signals", daemon=True).start()
    node: LrmNode[Any] | None = None
    try:
        node = node_type()
        if {"-h", "--help"} & set(sys.argv if argv is None else argv):
            print(node.usage(), flush=True)
            return 0
        executor = make_executor(node.get_logger())
        executor.add_node(node)
        node.on_exit = stop.set_result
        if node.autostart:
            for step in (node.trigger_configure, node.trigger_activate):
                if step() != TransitionCallbackReturn.SUCCESS:
                    return 1
        spinning = True
        spin_until(executor, stop)
        return stop.result() or 0
    except KeyboardInterrupt:
        pass
    except ValueError as error:
        if node is not None:
            raise
        print(f"error: {error}", flush=True)
        return 2
    finally:
        if node is not None:
            node.close()
        rclpy.try_shutdown()
        signal.set_wakeup_fd(-1)  # a signal from here on has nobody to wake; its socket goes with this function
    return 0
