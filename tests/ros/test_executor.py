# SPDX-License-Identifier: Apache-2.0
"""The nodes' executor: messages in turn, everything else as rclpy does it, changes of a node are noticed.

Each test of what an executor does is made with the short way for messages and with rclpy's own executor.
"""

import contextlib
import threading

import pytest
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.subscription import Subscription
from rclpy.task import Future
from std_msgs.msg import Int32
from std_srvs.srv import Trigger

from lrm_ros.ros import executor as executor_module
from lrm_ros.ros.executor import FORCE, make_executor, missing, spin_until
from lrm_ros.ros.message_executor import MessageExecutor
from lrm_ros.topics import STREAM
from lrm_ros.versions import rclpy_version


@pytest.fixture(params=["short way", "rclpy's own"], autouse=True)
def kind(request, monkeypatch) -> type[SingleThreadedExecutor]:
    """The executor that ``spin`` makes, before it does."""
    short = request.param == "short way"
    monkeypatch.setenv(FORCE, "" if short else "1")
    return MessageExecutor if short else SingleThreadedExecutor


def test_the_executor_is_the_one_asked_for(kind, spin):
    assert type(spin.executor) is kind


def test_topics_take_turns_in_the_order_in_which_they_were_subscribed(spin, probe):
    talker = rclpy.create_node("talker")
    seen = []
    probe.create_subscription(Int32, "second", lambda m: seen.append(("second", m.data)), STREAM)
    probe.create_subscription(Int32, "first", lambda m: seen.append(("first", m.data)), STREAM)
    publishers = {name: talker.create_publisher(Int32, name, STREAM) for name in ("first", "second")}
    spin.until(lambda: all(p.get_subscription_count() == 1 for p in publishers.values()))
    for number in range(5):
        for name in ("first", "second"):
            publishers[name].publish(Int32(data=number))
    spin.until(lambda: len(seen) == 10)
    assert [number for name, number in seen if name == "first"] == list(range(5))
    assert [number for name, number in seen if name == "second"] == list(range(5))
    assert seen[:2] == [("second", 0), ("first", 0)]
    talker.destroy_node()


def test_what_a_callback_raises_reaches_the_one_who_spins(spin, probe):
    talker = rclpy.create_node("talker")
    probe.create_subscription(Int32, "x", lambda m: 1 / m.data, STREAM)
    publisher = talker.create_publisher(Int32, "x", STREAM)
    spin.until(lambda: publisher.get_subscription_count() == 1)
    publisher.publish(Int32(data=0))
    with pytest.raises(ZeroDivisionError):
        spin.until(lambda: False)
    talker.destroy_node()


def test_timers_services_parameters_and_later_subscriptions_work_beside_a_stream_of_messages(spin, probe):
    ticks, seen, late = [], [], []
    talker = spin.add(rclpy.create_node("talker"))
    publisher = talker.create_publisher(Int32, "x", STREAM)
    talker.create_timer(0.002, lambda: (ticks.append(1), publisher.publish(Int32(data=len(ticks)))))
    subscription = probe.create_subscription(Int32, "x", seen.append, STREAM)
    spin.until(lambda: len(seen) > 20)
    talker.create_service(Trigger, "ask", lambda _, r: (setattr(r, "success", True), r)[1])
    assert spin.call(probe, Trigger, "ask").success
    probe.create_subscription(Int32, "x", late.append, STREAM)
    spin.until(lambda: len(late) > 20)
    probe.destroy_subscription(subscription)
    count = len(seen)
    spin.until(lambda: len(late) > 60)
    assert len(seen) <= count + 1
    assert probe.set_parameters([Parameter("use_sim_time", value=True)])[0].successful


def test_a_future_set_by_another_thread_ends_the_spinning(spin, probe):
    future = Future()
    threading.Timer(0.2, future.set_result, [7]).start()
    spin.executor.spin_until_future_complete(future, timeout_sec=20)
    assert future.result() == 7
    later = Future()
    threading.Timer(0.2, later.set_result, [8]).start()
    spin_until(spin.executor, later)
    assert later.result() == 8


def test_spinning_for_long_does_not_pile_up_callbacks_at_the_future(spin, probe):
    class Counting(Future):
        added = 0

        def add_done_callback(self, callback):
            self.added += 1
            super().add_done_callback(callback)

    future, ticks = Counting(), []
    probe.create_timer(0.001, lambda: (ticks.append(1), future.set_result(None) if len(ticks) == 50 else None))
    spin_until(spin.executor, future)
    assert len(ticks) >= 50 and future.added == 1


def test_a_node_that_comes_or_goes_while_another_thread_spins_is_noticed(spin, probe):
    talker, seen = rclpy.create_node("talker"), []
    publisher = talker.create_publisher(Int32, "x", STREAM)
    listener = rclpy.create_node("listener")
    listener.create_subscription(Int32, "x", lambda m: seen.append(m.data), STREAM)
    stop: Future = Future()
    thread = threading.Thread(target=spin_until, args=(spin.executor, stop))
    thread.start()
    try:
        spin.executor.add_node(listener)
        _publish_until(lambda: seen, publisher)
        spin.executor.remove_node(listener)
        _publish_until(lambda: False, publisher, 0.1)  # what was under way comes in the meantime
        count = len(seen)
        _publish_until(lambda: False, publisher, 0.3)
        assert len(seen) == count
    finally:
        stop.set_result(None)
        thread.join()
        talker.destroy_node()
        listener.destroy_node()


def _publish_until(predicate, publisher, seconds=20.0):
    for number in range(round(seconds / 0.01)):
        if predicate():
            return
        publisher.publish(Int32(data=number))
        threading.Event().wait(0.01)
    assert not seconds > 10, "no message came"


def test_a_coroutine_waits_for_an_answer_while_messages_come(spin, probe):
    talker, seen, answers = spin.add(rclpy.create_node("talker")), [], []
    publisher = talker.create_publisher(Int32, "x", STREAM)
    probe.create_subscription(Int32, "x", lambda m: seen.append(m.data), STREAM)
    talker.create_service(Trigger, "ask", lambda _, r: (setattr(r, "message", f"after {len(seen)}"), r)[1])
    client = probe.create_client(Trigger, "ask")
    spin.until(lambda: client.service_is_ready() and publisher.get_subscription_count())

    async def ask():
        answer = Future()
        probe.create_timer(0.05, lambda: answer.done() or answer.set_result(None))
        await answer
        answers.append((await client.call_async(Trigger.Request())).message)

    spin.executor.create_task(ask)
    for number in range(20):
        publisher.publish(Int32(data=number))
    spin.until(lambda: answers and len(seen) == 20)
    assert seen == list(range(20))


def test_what_a_coroutine_raises_reaches_the_one_who_spins(spin, probe):
    async def divide():
        return 1 / 0

    spin.executor.create_task(divide)
    with pytest.raises(ZeroDivisionError):
        spin.until(lambda: False)


def test_a_callback_may_ask_for_the_message_info(spin, probe):
    talker, seen = rclpy.create_node("talker"), []
    probe.create_subscription(Int32, "x", lambda m, info: seen.append((m.data, info["source_timestamp"])), STREAM)
    publisher = talker.create_publisher(Int32, "x", STREAM)
    spin.until(lambda: publisher.get_subscription_count() == 1)
    publisher.publish(Int32(data=3))
    spin.until(lambda: seen)
    assert seen[0][0] == 3 and seen[0][1] > 0
    talker.destroy_node()


def test_a_guard_condition_calls_its_callback_once_for_each_trigger(spin, probe):
    calls = []
    guard = probe.create_guard_condition(lambda: calls.append(1))
    for count in (1, 2):
        guard.trigger()
        spin.until(lambda count=count: len(calls) == count)
    for _ in range(5):
        spin.executor.spin_once(timeout_sec=0.01)
    assert len(calls) == 2


def test_spinning_ends_when_the_context_is_shut_down_elsewhere(spin, probe):
    def spin_it() -> None:
        with contextlib.suppress(ExternalShutdownException):
            spin_until(spin.executor, Future())

    thread = threading.Thread(target=spin_it, daemon=True)
    thread.start()
    rclpy.shutdown()
    thread.join(20)
    assert not thread.is_alive()


class _Log:
    """Keeps what a node's log is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def info(self, text: str) -> None:
        self.lines.append(("INFO", text))

    def warning(self, text: str) -> None:
        self.lines.append(("WARN", text))


def test_the_short_way_is_taken_with_this_rclpy_unless_it_is_forced(kind, spin):
    log = _Log()
    assert list(missing()) == []
    assert type(make_executor(log)) is kind
    forced = [("INFO", f"rclpy's own executor runs this node, as environment variable {FORCE} asks")]
    assert log.lines == ([] if kind is MessageExecutor else forced)


def _without(owner, name):
    return lambda patch: patch.delattr(owner, name)


def _other_form(owner, name, value):
    return lambda patch: patch.setattr(owner, name, value)


WAIT_SET = executor_module._look_up(f"{executor_module._C}.WaitSet")
TAKER = executor_module._look_up(f"{executor_module._C}.Subscription")


class _NoSignals(SingleThreadedExecutor):
    def __init__(self) -> None:
        super().__init__()
        self._sigint_gc.destroy()
        self._sigint_gc = None


class _NoTasks(SingleThreadedExecutor):
    def __getattribute__(self, name):
        if name in ("_tasks", "_ready_tasks"):
            raise AttributeError(name)
        return super().__getattribute__(name)


@pytest.mark.parametrize("kind", ["short way"], indirect=True)
@pytest.mark.parametrize(
    ("change", "lacking"),
    [
        (_without(rclpy.executors, "ConditionReachedException"), "ConditionReachedException"),
        (_without(rclpy.node.Node, "guards"), "Node.guards"),
        (_without(Subscription, "CallbackType"), "Subscription.CallbackType.MessageOnly"),
        (_without(WAIT_SET, "add_timer"), "WaitSet.add_timer"),
        (_without(SingleThreadedExecutor, "_spin_once_impl"), "SingleThreadedExecutor._spin_once_impl"),
        (
            _other_form(SingleThreadedExecutor, "_spin_once_impl", lambda self, timeout, condition, more=0: None),
            "SingleThreadedExecutor._spin_once_impl with 2 arguments",
        ),
        (_other_form(WAIT_SET, "wait", WAIT_SET.clear_entities), "WaitSet.wait with 1 arguments"),
        (_other_form(TAKER, "take_message", WAIT_SET.wait), "Subscription.take_message with 2 arguments"),
        (_other_form(Subscription, "callback", property(lambda self: 0, lambda self, v: None)), "_callback_type"),
        (_other_form(WAIT_SET, "get_ready_entities", TAKER.get_topic_name), "get_ready_entities with 1 arguments"),
        (_other_form(executor_module, "SingleThreadedExecutor", _NoSignals), "SingleThreadedExecutor._sigint_gc"),
        (_other_form(executor_module, "SingleThreadedExecutor", _NoTasks), "_tasks or _ready_tasks"),
    ],
)
def test_without_what_the_short_way_needs_rclpys_own_executor_runs_and_says_why(spin, monkeypatch, change, lacking):
    log = _Log()
    with monkeypatch.context() as patch:
        change(patch)
        executor = make_executor(log)
    executor.shutdown()
    assert isinstance(executor, SingleThreadedExecutor) and not isinstance(executor, MessageExecutor)
    [(level, text)] = log.lines
    assert level == "WARN" and lacking in text and f"does not fit rclpy {rclpy_version()}" in text


def test_a_wait_set_that_tells_nothing_is_not_trusted(spin, monkeypatch):
    class Silent:
        def __init__(self, *_):
            pass

        def get_ready_entities(self, kind):
            return []

        clear_entities = add_guard_condition = wait = lambda self, *_: None

    real = executor_module._look_up
    monkeypatch.setattr(executor_module, "_look_up", lambda name: Silent if name.endswith(".WaitSet") else real(name))
    assert list(missing()) == ["WaitSet that tells what is ready"]


@pytest.mark.parametrize("kind", ["short way"], indirect=True)
@pytest.mark.parametrize(
    ("head", "count"),
    [
        ("wait(self: rclpy._rclpy_pybind11.WaitSet, arg0: typing.SupportsInt) -> None", 1),  # pybind11: rclpy to 10.0
        ("clear_entities(self: rclpy._rclpy_pybind11.WaitSet) -> None", 0),
        ("take_message(self, arg0: object, arg1: bool, /) -> object", 2),  # nanobind: rclpy after that
        ("clear_entities(self) -> None", 0),
        ("wait(*args, **kwargs)", None),  # several forms, or none told
        ("", None),
    ],
)
def test_the_arguments_of_a_compiled_method_are_read_from_its_docstring(head, count):
    class Compiled:
        __doc__ = f"{head}\n\nWhat it does."

    assert [n for n in range(4) if executor_module._takes(Compiled(), n)] == ([] if count is None else [count])
