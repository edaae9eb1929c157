# SPDX-License-Identifier: Apache-2.0
"""The nodes' executor: messages in turn, everything else as rclpy does it, changes of a node are noticed."""

import threading

import pytest
import rclpy
from rclpy.parameter import Parameter
from std_msgs.msg import Int32
from std_srvs.srv import Trigger

from lrm_ros.nodes.base import STREAM


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
    future = rclpy.task.Future()
    threading.Timer(0.2, future.set_result, [7]).start()
    spin.executor.spin_until_future_complete(future, timeout_sec=20)
    assert future.result() == 7
