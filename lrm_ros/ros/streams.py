# SPDX-License-Identifier: Apache-2.0
"""The input topics of one node as streams: do they come, at their rate, with this host's clock, usable.

A stream is subscribed to as its publishers offer it. What is wrong is a fault in the node's diagnostics under the
topic's name until it is good again.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import CompressedImage, Image, JointState

from lrm_ros import messages, topics
from lrm_ros.robot.joint_states import JointStates
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.input import Input
from lrm_ros.ros.stamps import CLOCK_NS, OTHER_CLOCK_NS, StampCheck
from lrm_ros.ros.stream import Stream, compare_clocks
from lrm_ros.ros.surroundings import NO_CLOCK

QUIET_S = 0.03  # at the end of an episode nothing has come for so long [s]
# What comes so long after the end was sent after it, whatever the clock of its host says [ns].
LATE_NS, LATE_LOCKSTEP_NS = 100_000_000, 1_000_000_000
FIND_S = 3.0  # in lock-step a publisher that was made just now is found within this [s]
_PICTURES = (Image, CompressedImage)  # who sees two cameras as one judges neither, whatever their stamps
_LOOK_S, _WATCH_S = 0.25, 0.04  # between two looks at what does not come, and where something is moved


class Streams:
    """The streams of one node; make it in ``configure``, use it from the executor's thread only.

    In real time a stream must keep coming. In lock-step (``realtime`` false) messages come when something is commanded,
    nothing may be lost, and the clock is the simulator's: no time-outs and rates, reliable publishers only.
    """

    def __init__(
        self,
        node: LrmNode[Any],
        realtime: bool,
        timeout_s: float | None = None,
        consequence: str = "",
        changed: Callable[[bool], None] | None = None,
    ) -> None:
        """Watch the streams of ``node`` from now on.

        Args:
            node: whose inputs these are.
            realtime: see the class.
            timeout_s: for a node that moves something: a stream has stopped after this long of wall time, whatever a
                simulated clock says [s], and is looked at ten times in it; ``None``: see :class:`Stream`.
            consequence: what a problem leads to, in front of its line.
            changed: called after it was told that a stream is not good (false) or good again (true).
        """
        self._node, self._realtime = node, realtime
        self._timeout_s, self._consequence, self._changed = timeout_s, consequence, changed
        self._bad: set[str] = set()  # streams of which a problem was told
        self._look_s = _LOOK_S if timeout_s is None else min(timeout_s / 10, _WATCH_S)
        self._inputs: dict[str, Input] = {}
        self._watching = False
        self._simulated = bool(node.get_parameter("use_sim_time").value)
        self._counted_s, self._has_clock = float("-inf"), False
        # A simulated clock moves in steps.
        self._tolerance_ns = CLOCK_NS + (round(1e9 * node.contract.dt_s) if self._simulated else 0)
        self._start_s, self._looked_s, self._held_up = self._seconds(), time.monotonic(), False
        self._offered_s = self._compared_s = self._looked_s
        # Wall time: a stopped simulation clock must not hide anything.
        node.create_timer(self._look_s, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def listen(
        self,
        topic: topics.Topic,
        callback: Callable[[Any], Any],
        hz: float = 0.0,
        stamped: bool = True,
        cause: topics.Topic | None = None,
        depth: int | None = None,
    ) -> None:
        """Subscribe.

        Args:
            topic: of messages with a header.
            callback: called with each message whose stamp is good; a ValueError of it is a fault of the stream.
            hz: lowest rate at which it must come in real time [Hz], 0: it comes when it comes.
            stamped: its stamps are those of now; false: they are not looked at.
            cause: in real time every message of that topic, which is listened to, must be followed by one of this.
            depth: so many messages wait; ``None``: as the topic says.
        """

        def take(message: Any) -> bool:
            callback(message)
            return True

        stream = Stream(topic.name, hz, self._node.contract.dt_s, self._tell, self._timeout_s)
        self._add(topic, take, stream, depth, stamped, cause.name if cause else "")

    def listen_states(
        self,
        callback: Callable[[int, NDArray[np.float32]], Any],
        hz: float = 0.0,
        depth: int | None = None,
        whole: Callable[[JointState], Any] = lambda _: None,
        topic: topics.Topic = topics.JOINT_STATES,
        joints: Sequence[str] = (),
    ) -> None:
        """Subscribe to ``joint_states``, whole or in parts, with more joints than the contract's or not.

        Args:
            callback: called with stamp [ns] and (D,) positions in the contract's order [rad].
            hz: as for :meth:`listen`.
            depth: as for :meth:`listen`.
            whole: called before with each message as it came.
            topic: of a driver that publishes them elsewhere.
            joints: that driver's names of the contract's joints, in its order; empty: the same.
        """
        contract = self._node.contract
        named = tuple(joints) or contract.joints
        states = JointStates(dataclasses.replace(contract, joints=named))

        def take(message: JointState) -> bool:
            stamp_ns = messages.to_ns(message.header.stamp)
            whole(message)
            state = states.add(stamp_ns, message.name, message.position, time.monotonic())
            if state is None:
                return False
            callback(stamp_ns, state)
            return True

        stream = Stream(topic.name, hz, contract.dt_s, self._tell, self._timeout_s)
        stream.lacking, stream.slowest, stream.whole = states.lacking, lambda: states.slowest, lambda: states.anew
        stream.joints = named
        self._add(topic, take, stream, depth)

    @property
    def good(self) -> bool:
        """Whether nothing is wrong now."""
        return not self._bad

    def faults(self) -> dict[str, str]:
        """Return what is wrong now, one line for each topic that is not good."""
        return {name: line for name, entry in self._inputs.items() if (line := entry.stream.line)}

    def not_ready(self) -> dict[str, str]:
        """Return why no episode can start: what is wrong now, and what does not come.

        In lock-step nothing comes before it is commanded: each topic must have a publisher, for which this waits.
        """
        found = self.faults()
        deadline, now_s = time.monotonic() + FIND_S, self._seconds()
        if self._realtime and not now_s:
            found[topics.CLOCK.name] = NO_CLOCK
        for name, entry in self._inputs.items():
            stream = entry.stream
            if not stream.hz or name in found:
                continue
            while not self._realtime and not entry.subscription.get_publisher_count() and time.monotonic() < deadline:
                time.sleep(0.01)
            entry.adapt()
            if stream.silent_s(now_s) > stream.timeout_s if self._realtime else not stream.publishers:
                found[name] = stream.silence(now_s)
        return found

    def begin(self) -> None:
        """An episode begins: remember from now on what goes wrong."""
        self._watching = True
        for entry in self._inputs.values():
            entry.stream.happened, entry.stream.watched = "", True

    def end(self) -> dict[str, str]:
        """The episode ends: return what was wrong in it or is now, one line for each topic."""
        self._watching = False
        found = self.faults()
        for name, entry in self._inputs.items():
            entry.stream.watched = False
            if entry.stream.happened:
                found[name] = entry.stream.happened
        return found

    def restart(self) -> None:
        """After a break: drop what has waited, for it is old, and give every stream its time to come again."""
        for entry in self._inputs.values():
            while entry.take_waiting() is not None:
                pass
            entry.stream.restart()
        self._start_s = self._seconds()

    def received_ns(self, stamp_ns: int) -> int | None:
        """Return this node's time [ns]; ``None`` if the stamp is of another clock."""
        now_ns = self._now_ns()
        return now_ns if abs(now_ns - stamp_ns) < OTHER_CLOCK_NS else None

    def drain(self) -> None:
        """Take what is still on its way, not what is sent from now on: services and topics have no order between them.

        Ends after ``QUIET_S`` without a message sent before the call.
        """
        asked_ns, last, taking = time.time_ns(), time.monotonic(), True
        late_ns = asked_ns + (LATE_NS if self._realtime else LATE_LOCKSTEP_NS)
        while taking or time.monotonic() - last < QUIET_S:
            taking = False
            for entry in list(self._inputs.values()):
                if (taken := entry.take_waiting()) is None:
                    continue
                # A host whose clock is behind sends everything "before", but not so that it comes long after.
                come_ns = taken[1]["received_timestamp"] or time.time_ns()
                sent_before = taken[1]["source_timestamp"] <= asked_ns and come_ns <= late_ns
                if self._realtime and not sent_before:
                    continue
                self._on_message(entry, *taken)
                if sent_before:
                    taking, last = True, time.monotonic()
            if not taking:
                time.sleep(0.001)

    def has_publisher(self, topic: topics.Topic) -> bool:
        """Return whether anybody publishes a topic that is listened to."""
        return self._inputs[topic.name].subscription.get_publisher_count() > 0

    def attend(self, done: Callable[[], bool]) -> None:
        """Take messages as the executor would, which waits for the caller, until ``done()``, which must come true."""
        while not done():
            taking = False
            for entry in list(self._inputs.values()):
                if (taken := entry.take_waiting()) is not None:
                    self._on_message(entry, *taken)
                    taking = True
            if not taking:
                time.sleep(0.001)

    # -- messages ----------------------------------------------------------------------------------------------------

    def _add(
        self,
        topic: topics.Topic,
        take: Callable[[Any], bool],
        stream: Stream,
        depth: int | None,
        stamped: bool = True,
        cause: str = "",
    ) -> None:
        entry = Input(self._node, topic, take, stream, self._realtime, depth or topic.qos.depth, stamped, cause)
        self._inputs[topic.name] = entry
        entry.subscribe(self._on_message)

    def _on_message(self, entry: Input, message: Any, info: Any) -> None:
        """Check one message and hand it over; ``info``: what the middleware says of it."""
        stream = entry.stream
        try:
            if reason := self._stream_fault(entry, message, info["publication_sequence_number"]):
                self._node.diagnostics.count("rejected")
                stream.bad_stamp(reason, time.monotonic())
            elif entry.take(message):
                stream.usable(self._seconds())
        except ValueError as error:
            self._node.diagnostics.count("rejected")
            stream.set("content", str(error))

    def _stream_fault(self, entry: Input, message: Any, number: int | None) -> str:
        """Return what is wrong with the stamp of a message and its publisher's number, empty if nothing is."""
        stream = entry.stream
        names = list(dict.fromkeys(message.name)) if entry.topic.message_type is JointState else [""]
        ours = [name for name in names if name in stream.joints] if stream.joints and names else names
        if not (entry.stamped or entry.topic.message_type in _PICTURES) or (names and not ours):
            return ""  # of another robot's joints alone it is no matter
        if (one := stream.numbers.several(number, ours or [""], time.monotonic(), stream.offered)) is not None:
            who = ", ".join(stream.publishers)
            return f"{one or 'it'} comes from more than one publisher ({who}); stop the others"
        return self._stamp_fault(stream, next(iter(names), ""), message) if entry.stamped else ""

    def _stamp_fault(self, stream: Stream, part: str, message: Any) -> str:
        """Return what is wrong with the stamp of a message, whose first joint is ``part``, empty if nothing is."""
        stamp_ns, now_ns = messages.to_ns(message.header.stamp), self._now_ns()
        if (check := stream.parts.get(part)) is None:
            check = stream.parts[part] = StampCheck()
        compared = self._realtime and now_ns > 0
        if compared and stamp_ns > 0:
            stream.foreign = abs(now_ns - stamp_ns) > OTHER_CLOCK_NS and self._other_clock()
        stream.stamp_ns = stamp_ns
        ahead_ns = self._tolerance_ns if compared and not stream.foreign else None
        return check.check(stamp_ns, now_ns, ahead_ns, not (self._realtime or self._watching))

    # -- looking -----------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Look at what does not come."""
        steady_s, now_s, before_s = time.monotonic(), self._seconds(), self._looked_s
        self._looked_s = steady_s
        self._start_s = self._start_s or now_s  # a simulated time was not known at the start
        offers = steady_s - self._offered_s >= topics.OFFERS_S
        self._offered_s = steady_s if offers else self._offered_s
        for entry in self._inputs.values():
            if offers:
                entry.adapt()
            entry.stream.forgive(steady_s)
        # A node that was held up itself has messages waiting; time that is not known says nothing.
        self._held_up = steady_s - before_s > 1.5 * _LOOK_S and not self._held_up
        if not self._realtime or not now_s or self._held_up:
            return
        for entry in self._inputs.values():
            if entry.cause:
                entry.stream.look_after(self._inputs[entry.cause].stream, now_s)
            if entry.stream.hz:
                entry.stream.look(now_s, self._start_s)
        if steady_s - self._compared_s >= _LOOK_S:
            self._compared_s = steady_s
            streams = [entry.stream for entry in self._inputs.values() if entry.stamped]
            dt_ns = round(1e9 * self._node.contract.dt_s)
            compare_clocks(streams, topics.JOINT_STATES.name, now_s, self._tolerance_ns, dt_ns)

    def _tell(self, name: str, line: str, new: bool) -> None:
        """Report a stream's problem, or that it has none."""
        if line:
            line = self._consequence + line
            if not self._node.diagnostics.fault(name, line) and new:
                self._node.get_logger().error(line)  # another problem in place of the one that was logged
        else:
            self._node.diagnostics.recovered(name, f"'{name}' is good again")
        if bool(line) == (name in self._bad):
            return
        (self._bad.add if line else self._bad.discard)(name)
        if self._changed is not None:
            self._changed(not line)

    # -- time --------------------------------------------------------------------------------------------------------

    def _now_ns(self) -> int:
        """Return the node's time [ns], 0 while it is not known."""
        return self._node.get_clock().now().nanoseconds if self._simulated else time.time_ns()

    def _seconds(self) -> float:
        """Return the time in which pauses are measured [s]: the simulator's, where the node has that."""
        return self._now_ns() / 1e9 if self._simulated and self._timeout_s is None else time.monotonic()

    def _other_clock(self) -> bool:
        """Return whether a simulator publishes a clock that is not this node's."""
        if self._simulated:
            return False
        if time.monotonic() - self._counted_s > _LOOK_S:
            self._counted_s = time.monotonic()
            self._has_clock = bool(self._node.get_publishers_info_by_topic(topics.CLOCK.name))
        return self._has_clock
