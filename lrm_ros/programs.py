# SPDX-License-Identifier: Apache-2.0
"""How a program of this package begins and ends: signals before its own handlers stand, and its exit code.

Exit codes: nodes and graphs end with 0 when they are asked to stop, other commands with 130 when they are interrupted;
2 is for what the user gave, 1 for what went wrong.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import io
import os
import select
import signal
import sys
import time
from types import FrameType, TracebackType
from typing import NoReturn

from lrm_ros.errors import one_line

ASK_TO_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130
_GIVEN = (ValueError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)

_ours = False  # whether this process is a program of this package
_leaving = False  # whether its end and exit code are decided


def begin() -> None:
    """Take the signals, if this process is a program of this package: the first thing that the package does.

    The imports of a node or a command take a second or more, and a signal in the midst of them is no error. A node's
    environment is looked at here, too: afterwards its imports would fail with a traceback.
    """
    global _ours
    name = program()
    if not name:
        return
    _ours = True
    if sys.stderr is not None:
        faulthandler.enable()  # what crashes in a library says in which call
    _print_anything()
    node = name.startswith(("lrm_ros.nodes.", "lrm-")) or name.endswith(".node")
    if node or name == "lrm_ros.graph.runner" or (name in ("lrm", "lrm_ros.cli") and sys.argv[1:2] == ["up"]):
        for number in stopping_signals():
            signal.signal(number, _leave_at_once)
        # Blocked by the graph that started this process, until now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASK_TO_STOP)
    elif signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    if not node:
        sys.excepthook = _on_exception
        atexit.register(_flush_last)
    if node:
        from lrm_ros.environment import import_fault

        if fault := import_fault():
            print(f"error: {fault}", flush=True)
            leave(2)


def program() -> str:
    """Return which program of this package this process is, e.g. ``"lrm_ros.nodes.camera"`` or ``"lrm"``.

    Empty if it is another's, which imports this package. To be called while the package is imported.
    """
    first = sys.argv[0] if getattr(sys, "argv", None) else ""
    if "--multiprocessing-fork" in sys.orig_argv:  # a process that a program started for itself
        return ""
    if first == "-m":  # so it is called while Python looks for the module
        return next((word for word in sys.orig_argv if word.startswith("lrm_ros.")), "")
    folder, name = os.path.split(first)
    if name == "lrm" or name.startswith("lrm-"):
        return name
    # The programs of a colcon installation: lib/lrm_ros/camera.
    return f"lrm-{name}" if folder.endswith(os.path.join("lib", "lrm_ros")) else ""


def stopping_signals() -> list[signal.Signals]:
    """Return the signals that ask to stop; SIGHUP is none where it is ignored (nohup)."""
    return [s for s in ASK_TO_STOP if s != signal.SIGHUP or signal.getsignal(s) != signal.SIG_IGN]


def exit_code(error: Exception) -> int:
    """Return the exit code of a command that ends with an error: 2 for what the user gave, 1 for what went wrong."""
    return 2 if isinstance(error, _GIVEN) else 1


def interrupted(name: str) -> int:
    """Say that a command was interrupted and leave; returns 130 if this process is not a program of ours."""
    if _ours:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        print(f"\n{name}: interrupted", file=sys.stderr, flush=True)
    if _ours:
        leave(INTERRUPTED)
    return INTERRUPTED


def leave(code: int) -> NoReturn:
    """End this process now that all is closed.

    Without the interpreter's own end: there destructors of DDS, torch and renderers run beside threads that go on.
    """
    global _leaving
    _leaving = True
    for number in ASK_TO_STOP:
        signal.signal(number, signal.SIG_IGN)
    try:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, gone or never there
                stream.flush()
        _flush_c()
    finally:
        os._exit(code)


def _flush_c() -> None:
    """Flush the streams of C, to which the log of ROS may go."""
    import ctypes

    ctypes.CDLL(None).fflush(None)


def _leave_at_once(number: int, frame: FrameType | None) -> NoReturn:
    """End a node or a graph of which nothing runs yet."""
    os._exit(0)


_interrupted_s = float("-inf")


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; what follows within a second (another Ctrl+C, a parent's signal) is the same request."""
    global _interrupted_s
    before, _interrupted_s = _interrupted_s, time.monotonic()
    if _interrupted_s - before > 1.0:
        raise KeyboardInterrupt


def _on_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Leave with one line instead of a traceback after an interrupt, and where a file or the output failed.

    Nothing is said where nobody reads the output any more, as in ``lrm ... | head -1``.
    """
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    name = main.name if main is not None else os.path.basename(sys.argv[0])
    if issubclass(kind, KeyboardInterrupt):
        interrupted(name)
    if isinstance(error, OSError):
        if not (isinstance(error, BrokenPipeError) and _output_gone()):
            _say(f"{name}: {one_line(error)}")
        leave(exit_code(error))
    sys.__excepthook__(kind, error, trace)


def _output_gone() -> bool:
    """Return whether the reader of the output has gone; what could not be written is no longer waiting to be."""
    asked = select.poll()
    try:
        asked.register(sys.stdout.fileno(), 0)
        return bool(asked.poll(0))  # an error or a hang-up: nothing else was asked for
    except (OSError, ValueError, AttributeError):  # closed, or never there
        return False


def _flush_last() -> None:
    """Write what is left of the output; where that fails it is code 1, and not a note of the interpreter's (120)."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError) as error:
        if _leaving:
            return
        if not isinstance(error, BrokenPipeError):
            _say(f"{os.path.basename(sys.argv[0])}: the output cannot be written: {error}")
        os._exit(1)


def _say(line: str) -> None:
    """Print an error, if anybody hears it."""
    with contextlib.suppress(OSError, ValueError):
        print(f"error: {line}", file=sys.stderr, flush=True)


def _print_anything() -> None:
    """Let no character end a program that prints it: names of files and other programs' words may be no text."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors != "backslashreplace":
            stream.reconfigure(errors="backslashreplace")
