# SPDX-License-Identifier: Apache-2.0
"""The executor that runs a node: with a short way for messages where the installed rclpy has what that takes.

``lrm_ros.ros.message_executor`` uses names that rclpy keeps to itself. Each is looked for here before a node spins,
in the form in which it is used, and one wait is made with them. If anything is missing, or environment variable
``LRM_RCLPY_EXECUTOR`` is set, rclpy's own executor runs the node: the same callbacks in the same order for each topic,
with more CPU for every message.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from rclpy.executors import SingleThreadedExecutor
from rclpy.subscription import Subscription
from rclpy.task import Future

from lrm_ros.versions import rclpy_version

if TYPE_CHECKING:
    from rclpy.impl.rcutils_logger import RcutilsLogger

FORCE = "LRM_RCLPY_EXECUTOR"  # environment variable: not empty: rclpy's own executor

_C = "rclpy.impl.implementation_singleton:rclpy_implementation"
# What the short way calls, and with how many arguments beside self.
_CALLED = {
    "rclpy.executors:SingleThreadedExecutor._spin_once_impl": 2,  # and it replaces this one
    "rclpy.executors:SingleThreadedExecutor._wait_for_ready_callbacks": 3,
    "rclpy.executors:SingleThreadedExecutor.wake": 0,
    "rclpy.executors:SingleThreadedExecutor.shutdown": 1,
    "rclpy.executors:SingleThreadedExecutor.add_node": 1,
    "rclpy.executors:SingleThreadedExecutor.remove_node": 1,
    "rclpy.executors:SingleThreadedExecutor.get_nodes": 0,
    "rclpy.context:Context.ok": 0,
    f"{_C}.WaitSet.__init__": 7,
    f"{_C}.WaitSet.clear_entities": 0,
    f"{_C}.WaitSet.add_subscription": 1,
    f"{_C}.WaitSet.add_client": 1,
    f"{_C}.WaitSet.add_service": 1,
    f"{_C}.WaitSet.add_timer": 1,
    f"{_C}.WaitSet.add_guard_condition": 1,
    f"{_C}.WaitSet.wait": 1,
    f"{_C}.WaitSet.get_ready_entities": 1,
    f"{_C}.Subscription.take_message": 2,
}
# What else it names.
_NAMED = (
    "rclpy.exceptions:InvalidHandle",
    "rclpy.executors:ConditionReachedException",
    "rclpy.executors:ExternalShutdownException",
    "rclpy.executors:ShutdownException",
    "rclpy.executors:TimeoutException",
    "rclpy.executors:TimeoutObject.timeout",
    "rclpy.executors:SingleThreadedExecutor.wait_for_ready_callbacks",
    "rclpy.utilities:timeout_sec_to_nsec",
    "rclpy.context:Context.handle",
    "rclpy.guard_condition:GuardCondition.handle",
    "rclpy.node:Node.clients",
    "rclpy.node:Node.guards",
    "rclpy.node:Node.services",
    "rclpy.node:Node.subscriptions",
    "rclpy.node:Node.timers",
    "rclpy.subscription:Subscription.CallbackType.MessageOnly",
    "rclpy.subscription:Subscription.callback",
    "rclpy.subscription:Subscription.handle",
    f"{_C}.GuardCondition.pointer",
    f"{_C}.Subscription.pointer",
)


def make_executor(logger: RcutilsLogger) -> SingleThreadedExecutor:
    """Return the executor for a node, of the default context, which must be initialised.

    Args:
        logger: of the node; told when it is not the one with the short way, and why.
    """
    if os.environ.get(FORCE):
        logger.info(f"rclpy's own executor runs this node, as environment variable {FORCE} asks")
        return SingleThreadedExecutor()
    lacking = sorted(missing())
    if lacking:
        logger.warning(
            f"rclpy's own executor runs this node: it does the same with more CPU for every message; the short way for "
            f"messages does not fit rclpy {rclpy_version() or 'of unknown version'}, which lacks {', '.join(lacking)}"
        )
        return SingleThreadedExecutor()
    from lrm_ros.ros.message_executor import MessageExecutor

    return MessageExecutor()


def spin_until(executor: SingleThreadedExecutor, future: Future[Any]) -> None:
    """Run callbacks until a future is done or the context is shut down; any thread may set the future.

    rclpy 7 (Jazzy) adds a callback to the future at every turn of its own ``spin_until_future_complete`` and keeps them
    all for as long as the node runs.
    """
    future.add_done_callback(lambda _: executor.create_task(lambda: None))  # something to do, which ends the waiting
    while executor.context.ok() and not future.done():
        executor.spin_once()


def missing() -> Iterator[str]:
    """Yield what the short way relies on and the installed rclpy does not have, or has in another form."""
    complete = True
    for name in (*_CALLED, *_NAMED):
        try:
            found = _look_up(name)
        except (ImportError, AttributeError):
            found = None
        shown = name.partition(":")[2].removeprefix("rclpy_implementation.")
        if found is None:
            complete = False
            yield shown
        elif name in _CALLED and not _takes(found, _CALLED[name]):
            complete = False
            yield f"{shown} with {_CALLED[name]} arguments"
    if complete:
        yield from _missing_inside()


def _look_up(name: str) -> Any:
    """Return what ``module:a.b.c`` names.

    Raises:
        ImportError: no such module.
        AttributeError: no such name in it.
    """
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


def _takes(method: Any, count: int) -> bool:
    """Return whether a method has this many parameters beside ``self``.

    Compiled methods have no signature that Python can read, but it is the first line of their docstring.
    """
    if inspect.isfunction(method):
        return len(inspect.signature(method).parameters) == 1 + count
    head = re.match(r"\w+\((.*)\) -> ", (method.__doc__ or "").partition("\n")[0])
    return head is not None and len(re.findall(r"(?:^|, )\w+(?=[:,]|$)", head.group(1))) == 1 + count


def _missing_inside() -> Iterator[str]:
    """Yield what objects of rclpy lack that only an object can show; waits once, for a guard condition."""
    executor = SingleThreadedExecutor()
    try:
        if "_callback_type" not in Subscription.callback.fset.__code__.co_names:
            yield "Subscription._callback_type"
        if not hasattr(executor, "_tasks") and not hasattr(executor, "_ready_tasks"):
            yield "SingleThreadedExecutor._tasks or _ready_tasks"
        lacking = [name for name in ("_guard", "_sigint_gc") if getattr(executor, name, None) is None]
        yield from (f"SingleThreadedExecutor.{name}" for name in lacking)
        if lacking:
            return
        if not hasattr(executor._guard, "_executor_triggered"):
            yield "GuardCondition._executor_triggered"
        with ExitStack() as held:
            guard, context = executor._guard.handle, executor.context.handle
            held.enter_context(guard)
            held.enter_context(context)
            wait_set = _look_up(f"{_C}.WaitSet")(0, 1, 0, 0, 0, 0, context)
            wait_set.clear_entities()
            wait_set.add_guard_condition(guard)
            executor.wake()
            wait_set.wait(0)
            ready = [len(wait_set.get_ready_entities(kind)) for kind in ("guard_condition", "subscription")]
            if guard.pointer not in wait_set.get_ready_entities("guard_condition") or ready != [1, 0]:
                yield "WaitSet that tells what is ready"
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        yield f"a way to wait ({error})"
    finally:
        executor.shutdown()
