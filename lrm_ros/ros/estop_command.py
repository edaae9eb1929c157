# SPDX-License-Identifier: Apache-2.0
"""``lrm estop``: stops every arm that can be found, from any terminal; ``lrm estop --release`` releases one.

It ends with 0 only if each arm that was found has answered that it holds, and at least one was found. An arm is known
by its node's services ``~/estop`` and ``~/release``, in whatever namespace.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.task import Future
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from lrm_ros import topics
from lrm_ros.options import number
from lrm_ros.ros.base import set_transport

SETTLED_S = 1.0  # so long after the start other arms are looked for, though some have answered [s]
_TURN_S = 0.02


class Caller:
    """Finds arms and calls their services."""

    def __init__(self, timeout_s: float) -> None:
        """Join the graph; arms may answer within ``timeout_s``."""
        set_transport()
        rclpy.init()
        self._node = Node("lrm_estop")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._begun_s = time.monotonic()
        self._timeout_s = timeout_s
        self._topics: dict[str, Publisher] = {}

    def arms(self) -> list[str]:
        """Return the full names of the nodes that have an e-stop and are found by now."""
        offered = {name for name, kinds in self._node.get_service_names_and_types() if "std_srvs/srv/Trigger" in kinds}
        return sorted(
            name.removesuffix("/estop")
            for name in offered
            if name.endswith("/estop") and f"{name.removesuffix('/estop')}/release" in offered
        )

    def _turn(self) -> bool:
        """Let messages come; returns whether there is time left."""
        self._executor.spin_once(timeout_sec=_TURN_S)
        return time.monotonic() - self._begun_s < self._timeout_s

    def wait(self, condition: Callable[[], object]) -> None:
        """Wait for a condition, no longer than the time-out."""
        while not condition() and self._turn():
            pass

    def settled(self) -> bool:
        """Return whether other arms would have been found by now."""
        return time.monotonic() - self._begun_s > SETTLED_S

    def say_stop(self, namespace: str) -> None:
        """Publish on topic ``estop`` of a namespace, once; it is offered to who joins for as long as this runs."""
        if namespace not in self._topics:
            self._topics[namespace] = topics.ESTOP.under(namespace).publisher(self._node)
            self._topics[namespace].publish(Bool(data=True))

    def call(self, service: str) -> Future[Trigger.Response]:
        """Call a service; the answer comes while this waits."""
        return self._node.create_client(Trigger, service).call_async(Trigger.Request())

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown()


def _told(answers: dict[str, Future[Trigger.Response]], what: str) -> int:
    """Print what each arm answered; returns 0 if all agreed and there is one."""
    bad = not answers
    for arm, answer in answers.items():
        response = answer.result() if answer.done() else None
        if response is not None and response.success:
            print(f"{arm}: {response.message}")
            continue
        bad = True
        why = "no answer; is its node alive?" if response is None else response.message
        print(f"error: {arm} has not acknowledged the {what}: {why}", file=sys.stderr)
    return int(bad)


def stop(caller: Caller) -> int:
    """Stop all arms: by topic at once, and by the service of each as it is found."""
    answers: dict[str, Future[Trigger.Response]] = {}
    caller.say_stop("")

    def finished() -> bool:
        for arm in caller.arms():
            if arm not in answers:
                caller.say_stop(arm.rpartition("/")[0])
                answers[arm] = caller.call(f"{arm}/estop")
        return bool(answers) and caller.settled() and all(answer.done() for answer in answers.values())

    caller.wait(finished)
    if not answers:
        print(
            "error: no arm is there that could stop: no node has the services '~/estop' and '~/release'; are "
            "ROS_DOMAIN_ID and the network those of the arm's node? Cut the power of the arm",
            file=sys.stderr,
        )
    return _told(answers, "stop")


def release(caller: Caller, name: str) -> int:
    """Release the arm ``name``, or the only one that there is."""

    def found() -> list[str]:
        return [arm for arm in caller.arms() if not name or name in (arm, arm.removeprefix("/"))]

    caller.wait(lambda: found() and caller.settled())
    arms = found()
    if len(arms) != 1:
        there = ", ".join(arms or caller.arms())
        cure = f"name one of them: lrm estop --release --arm {arms[0]}" if arms else "is its node running?"
        print(f"error: {len(arms)} arms to release ({there or 'none is there'}); {cure}", file=sys.stderr)
        return 2 if arms else 1
    answers = {arms[0]: caller.call(f"{arms[0]}/release")}
    caller.wait(answers[arms[0]].done)
    return _told(answers, "release")


def main(argv: list[str] | None = None) -> int:
    """Stop or release; 0 if it is acknowledged, 2 for what was given, else 1."""
    parser = argparse.ArgumentParser(
        prog="lrm estop", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--release", action="store_true", help="release an arm; nothing moves before a new command")
    parser.add_argument("--arm", default="", metavar="NODE", help="which arm to release, e.g. /arm1/twin")
    parser.add_argument("--timeout", type=number(above=True), default=5.0, help="wait so long [s] (default 5)")
    options = parser.parse_args(argv)
    if options.arm and not options.release:
        parser.error("--arm is for --release: a stop is for all arms")
    caller = Caller(options.timeout)
    try:
        return release(caller, options.arm) if options.release else stop(caller)
    finally:
        caller.close()


if __name__ == "__main__":
    raise SystemExit(main())
