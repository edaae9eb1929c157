# SPDX-License-Identifier: Apache-2.0
"""One stream of messages: what is known of it and what is wrong with it. No rclpy here; see ``streams.py``."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from lrm_ros.ros.stamps import Numbers, StampCheck, clock_words

# A stream has stopped after this long without a usable message, or three control periods if that is longer [s].
STOPPED_S = 0.5
# Streams of a clock that is not this host's, the simulator's, may pause for so long: a simulator is slow at times [s].
SIMULATED_STOPPED_S = 2.0
# The rate is that of the last so many seconds [s], and too low below half of what is needed: by more than it can be
# measured, for half is what a camera of 15 Hz has with an arm of 30 Hz.
RATE_S = 2.0
LOW = 0.45
# So long after the start it is no fault yet that a stream has not come [s].
START_S = 3.0
# A wrong stamp is forgiven when there was none for so long [s].
FORGIVEN_S = 2.0
# Of several publishers one that has not been heard for so long is gone [s].
GONE_S = 3
# An answer may be looked at so long before its cause: of several topics, what waits is taken topic by topic [s].
TOGETHER_S = 0.1

_KINDS = ("stamp", "content", "offer", "clock", "stopped", "rate")  # of two problems the first is told


class Stream:
    """The state of one stream; times are seconds of the clock that measures pauses.

    Attributes:
        name: of its topic.
        hz: lowest rate at which it must come [Hz], 0: it comes when it comes.
        publishers: names of the nodes that publish it.
        offered: how many publishers there are.
        wanted: type of its messages.
        mistyped: who publishes it as another type, and as which; empty: nobody.
        joints: of a state: those that each come from one publisher.
        parts: checks of its stamps, one for each publisher that can be told apart.
        numbers: that its publishers give their messages.
        good: usable messages so far; of a state in parts, whole ones.
        good_s: when the last message that was usable came [s].
        stamp_ns: of the newest message [ns].
        foreign: its stamps are of a simulator's clock, which is not this node's.
        watched: an episode is running: what goes wrong is remembered.
        happened: what went wrong first in the episode, empty if nothing did.
        lacking: says what is missing of messages that come in parts.
        slowest: says which of the parts is the slowest, if any is.
        whole: says whether all parts have come anew with the message that was taken last.
    """

    def __init__(
        self, name: str, hz: float, dt_s: float, tell: Callable[[str, str, bool], None], timeout_s: float | None = None
    ) -> None:
        """Know no message yet.

        Args:
            name: of its topic.
            hz: see the class.
            dt_s: control period [s].
            tell: called with the name, what is wrong (empty: it is good again) and whether that has not been told yet.
            timeout_s: how long it may pause [s]; ``None``: by the constants above.
        """
        self._timeout_s = timeout_s
        self.name, self.hz, self._dt_s, self._tell = name, hz, dt_s, tell
        self.publishers: list[str] = []
        self.offered = 0
        self.wanted = self.mistyped = ""
        self.joints: Sequence[str] = ()
        self.numbers = Numbers()
        self.parts: dict[str, StampCheck] = {}
        self.good = 0
        self.good_s: float | None = None
        self.stamp_ns = self._good_ns = 0
        self.foreign = self.watched = False
        self.happened = ""
        self.lacking: Callable[[], str] = lambda: ""
        self.slowest: Callable[[], str] = lambda: ""
        self.whole: Callable[[], bool] = lambda: True
        self._problems: dict[str, str] = {}
        self._told: set[str] = set()  # kinds since it was good
        self._bad_stamp_s = 0.0
        self._pauses: deque[float] = deque(maxlen=2)  # the last times between usable messages [s]
        self._unanswered_s: float | None = None  # since when it should have followed its cause
        self._seen: deque[tuple[float, int, int]] = deque()  # (time, good, stamp) of the last looks

    @property
    def timeout_s(self) -> float:
        """How long it may pause [s]."""
        if self._timeout_s is not None:
            return self._timeout_s
        return max(SIMULATED_STOPPED_S if self.foreign else STOPPED_S, 3 * self._dt_s)

    @property
    def lag_ns(self) -> int | None:
        """How late its messages are at least [ns], of several publishers the latest; ``None``: nothing is known."""
        newest = max((part.window for part in self.parts.values()), default=0)
        heard = (part for part in self.parts.values() if part.window >= newest - GONE_S)  # others publish no more
        return max((lag for part in heard if (lag := part.lag_ns) is not None), default=None)

    @property
    def line(self) -> str:
        """The first of its problems, empty if there is none."""
        return next((self._problems[kind] for kind in _KINDS if kind in self._problems), "")

    # -- messages ----------------------------------------------------------------------------------------------------

    def usable(self, now_s: float) -> None:
        """Take a usable message."""
        if self.watched and self.hz and self.good_s is not None:
            paused_s = now_s - self.good_s
            if self.stamp_ns and self._good_ns:  # what was only late is not missing
                paused_s = min(paused_s, (self.stamp_ns - self._good_ns) / 1e9)
            if paused_s > self.timeout_s:
                self.happened = self.happened or f"'{self.name}' had no usable message for {paused_s:.1f} s"
        self.good += self.whole()
        if self.good_s is not None:
            self._pauses.append(now_s - self.good_s)
        self.good_s, self._good_ns, self._unanswered_s = now_s, self.stamp_ns, None
        if self._problems:
            self.clear("content", "stopped")

    def restart(self) -> None:
        """Know again of no usable message, and of no pause."""
        self.good_s = self._unanswered_s = None
        self._good_ns = 0
        self._seen.clear()
        self._pauses.clear()
        self.clear("stopped", "rate")

    def bad_stamp(self, reason: str, steady_s: float) -> None:
        """Refuse a message for its stamp; ``steady_s``: steady time [s]."""
        self._bad_stamp_s = steady_s
        self.set("stamp", reason)

    def forgive(self, steady_s: float) -> None:
        """Forget a wrong stamp after some time; ``steady_s``: steady time [s]."""
        if "stamp" in self._problems and steady_s - self._bad_stamp_s > FORGIVEN_S:
            self.clear("stamp")

    # -- looking -----------------------------------------------------------------------------------------------------

    def look(self, now_s: float, start_s: float) -> None:
        """Say that it has stopped or is too slow.

        Args:
            now_s: time [s].
            start_s: since when it is listened to [s].
        """
        if self.silent_s(now_s, start_s) > (START_S if self.good_s is None else self.timeout_s):
            self._seen.clear()
            self._problems.pop("stopped" if (crawls := self._crawls(now_s)) else "rate", None)
            if crawls:
                self.set("rate", self._too_slow(1 / max(self._pauses)))
            elif "content" not in self._problems and "stamp" not in self._problems:
                self.set("stopped", self.silence(now_s))
            elif self.watched:
                self.happened = self.happened or self.line
            return
        if self.good_s is None:
            return
        self._seen.append((now_s, self.good, self.stamp_ns))
        while now_s - self._seen[0][0] > 1.5 * RATE_S:
            self._seen.popleft()
        since_s, good, stamp_ns = self._seen[0]
        # By its stamps, if they are looked at: a simulator that is slower than real time keeps its rate.
        passed_s = (self.stamp_ns - stamp_ns) / 1e9 if self.stamp_ns and stamp_ns else now_s - since_s
        if now_s - since_s < RATE_S or passed_s <= 0 or (self.good == good and not self.stamp_ns):
            return
        hz = (self.good - good) / passed_s
        if hz >= LOW * self.hz:
            self.clear("rate")
            return
        self.set("rate", self._too_slow(hz))

    def _crawls(self, now_s: float) -> bool:
        """Return whether it has not stopped, but comes again and again after longer than it may pause."""
        slow = len(self._pauses) == 2 and min(self._pauses) > self.timeout_s
        return slow and self.silent_s(now_s) < 2 * max(self._pauses)

    def _too_slow(self, hz: float) -> str:
        of = f", of its parts {slowest} most slowly" if (slowest := self.slowest()) else ""
        return (
            f"'{self.name}' comes at {hz:.1f} Hz{of}, {self.hz:g} Hz are needed: set its driver's rate, look at the "
            "load of its host and at the network"
        )

    def look_after(self, cause: Stream, now_s: float) -> None:
        """Say that it does not follow what it should follow."""
        answered_s = float("-inf") if self.good_s is None else self.good_s + TOGETHER_S
        if self._unanswered_s is None and cause.good_s is not None and cause.good_s > answered_s:
            self._unanswered_s = now_s
        if self._unanswered_s is not None and now_s - self._unanswered_s > self.timeout_s:
            self.set(
                "stopped",
                f"'{cause.name}' comes, '{self.name}' does not: does the arm's node run, is it active and does it "
                f"publish what it sends to the arm on '{self.name}'?",
            )

    def silent_s(self, now_s: float, start_s: float = float("-inf")) -> float:
        """Return for how long nothing usable has come [s]."""
        return now_s - (start_s if self.good_s is None else self.good_s)

    def silence(self, now_s: float) -> str:
        """Say why nothing comes, as far as can be known."""
        who = ", ".join(self.publishers)
        if other := next((self._problems[kind] for kind in _KINDS if kind in self._problems and kind != "stopped"), ""):
            return other
        if self.mistyped and not who:
            cure = "let that node publish it on another topic, and start the one that should be here"
            return f"'{self.name}' is published by {self.mistyped}, it must be {self.wanted}: {cure}"
        if self.good_s is not None:
            what = f"'{self.name}' stopped {self.silent_s(now_s):.1f} s ago"
            return f"{what}: look at {who}, its cable and its host" if who else f"{what}: its node is gone, start it"
        if reason := self.lacking():
            return f"'{self.name}': {reason}"
        if not who:
            return f"'{self.name}': nothing publishes it; start its node, or remap its topic to this name"
        return f"'{self.name}': nothing comes from {who}; is it active? On another host: look at network and firewall"

    # -- problems ----------------------------------------------------------------------------------------------------

    def set(self, kind: str, reason: str) -> None:
        """Note a problem of a kind and tell the first one."""
        self._problems[kind] = reason if f"'{self.name}'" in reason else f"'{self.name}': {reason}"
        if self.watched and kind != "content" and not self.happened:  # a single bad message is only a gap
            self.happened = self.line
        self._tell_line()

    def clear(self, *kinds: str) -> None:
        """Forget problems of these kinds; the stream is good if none is left."""
        before = len(self._problems)
        for kind in kinds:
            self._problems.pop(kind, None)
        if len(self._problems) < before:
            self._tell_line()

    def _tell_line(self) -> None:
        """Tell the first problem, or that there is none."""
        kind = next((kind for kind in _KINDS if kind in self._problems), "")
        self._tell(self.name, self.line, kind not in self._told)
        if kind:
            self._told.add(kind)
        else:
            self._told.clear()


def compare_clocks(streams: Sequence[Stream], first: str, now_s: float, tolerance_ns: int, dt_ns: int) -> None:
    """Compare the clocks of streams with this node's, or with each other's if they are a simulator's.

    Args:
        streams: those whose stamps are of now; those that are silent are left out.
        first: name of the stream with which a simulator's are compared, if it is among them.
        now_s: time [s].
        tolerance_ns: how far clocks may differ [ns].
        dt_ns: control period, by which a simulator's streams differ beside [ns].
    """
    lags = [(stream, lag) for stream in streams if stream.silent_s(now_s) < 1.0 and (lag := stream.lag_ns) is not None]
    foreign = [(stream.name, lag) for stream, lag in lags if stream.foreign]
    common = next((pair for pair in foreign if pair[0] == first), foreign[0] if foreign else None)
    for stream, lag in lags:
        if common is None and abs(lag) > tolerance_ns:
            stream.set("clock", clock_words(lag))
        elif common is not None and abs(lag - common[1]) > tolerance_ns + dt_ns:
            stream.set("clock", clock_words(lag - common[1], f"those of '{common[0]}'"))
        else:
            stream.clear("clock")
