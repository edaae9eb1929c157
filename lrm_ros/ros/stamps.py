# SPDX-License-Identifier: Apache-2.0
"""The stamps of one stream of messages: not 0, not standing still, not going back, of this host's clock.

And the numbers that their publisher gives them, by which two publishers of the same are found.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

# Differences between a stamp and this host's clock that are the time on the way, not another clock [ns].
CLOCK_NS = 250_000_000
# A message that is later than this is not late, its stamp is of another clock [ns].
OTHER_CLOCK_NS = 10_000_000_000
# A stamp that is older than the one before by no more than this is of a message that was overtaken [ns].
OVERTAKEN_NS = 100_000_000
# So many messages in a row with one stamp: it stands still.
STILL = 4
# Numbers go back once when a node is started again, so often in so long [s] when another one publishes the same.
BACK, BACK_S = 4, 2.0
# A second publisher may be slow: so often in so long [s], where the graph knows two.
SLOW_BACK, SLOW_S = 3, 10.0
_WINDOW_NS = 1_000_000_000  # the smallest lag is that of the last one to two seconds
_YEAR_NS = 365 * 86_400 * 1_000_000_000

SYNCHRONISE = "synchronise the clocks of the hosts (chrony or NTP)"


class StampCheck:
    """Looks at each stamp of a stream; a few comparisons a message.

    Attributes:
        lag_ns: smallest difference between this host's clock and a stamp in the last seconds [ns], ``None`` before the
            first message. A message can only be late by accident: if all are, the clocks differ.
    """

    def __init__(self) -> None:
        """Know no stamp yet."""
        self._last_ns: int | None = None
        self._same = 1
        self._window = 0
        self._lags: tuple[int | None, int | None] = (None, None)  # of the window before and of this one

    @property
    def window(self) -> int:
        """In which second of this host's clock the newest message came."""
        return self._window

    @property
    def lag_ns(self) -> int | None:
        """See the class."""
        return min((lag for lag in self._lags if lag is not None), default=None)

    def check(self, stamp_ns: int, now_ns: int, ahead_ns: int | None, may_go_back: bool = False) -> str:
        """Return what is wrong with the next stamp, empty if nothing is.

        Args:
            stamp_ns: of a message [ns].
            now_ns: this host's time [ns].
            ahead_ns: how far it may be ahead of that [ns]; ``None``: it is of another clock, as is known.
            may_go_back: its clock may have been set back, by a reset.
        """
        if stamp_ns <= 0:
            return "its stamps are 0; let its driver stamp each message with the time of the measurement"
        window, lag = now_ns // _WINDOW_NS, now_ns - stamp_ns
        if ahead_ns is not None and lag < -ahead_ns:
            return clock_words(lag)
        last, self._last_ns = self._last_ns, stamp_ns
        before, here = self._lags
        if window != self._window:
            before, here = (here if window == self._window + 1 else None), None
            self._window = window
        self._lags = before, lag if here is None or lag < here else here
        if stamp_ns == last:
            self._same += 1
            if self._same >= STILL:
                return (
                    f"its stamp stands still: {self._same} messages in a row have {stamp_ns / 1e9:.3f} s; its driver "
                    "must stamp each message with the time of the measurement"
                )
            return ""
        self._same = 1
        if last is not None and stamp_ns < last and not may_go_back:
            if last - stamp_ns <= OVERTAKEN_NS:
                self._last_ns = last
                return ""
            self._lags = None, lag
            return (
                f"its stamp went back {(last - stamp_ns) / 1e9:.1f} s: the clock of its host was set or its node was "
                f"started again; {SYNCHRONISE} before an episode"
            )
        return clock_words(lag) if ahead_ns is not None and lag > OTHER_CLOCK_NS else ""


class Numbers:
    """The numbers that publishers give their messages: by them two publishers of the same are found."""

    def __init__(self) -> None:
        """Know no number yet."""
        self._last: dict[str, int] = {}
        self._back_s: dict[str, deque[float]] = {}  # when the numbers of a part went back

    def several(self, number: int | None, parts: Iterable[str], now_s: float, publishers: int = 1) -> str | None:
        """Return the first part of the next message that more than one publisher sends; ``None``: there is none.

        Args:
            number: of the message among those of its publisher; ``None``: the middleware does not number.
            parts: what it holds, each once: joints, of which several publishers may send others.
            now_s: steady time [s].
            publishers: so many the graph knows.
        """
        if number is None:
            return None
        found = None
        for part in parts:
            back_s = self._back_s.setdefault(part, deque(maxlen=BACK))
            if number <= self._last.get(part, 0):
                back_s.append(now_s)
            self._last[part] = number
            often = len(back_s) == BACK and now_s - back_s[0] < BACK_S
            if publishers > 1 and len(back_s) >= SLOW_BACK and now_s - back_s[-1] < BACK_S:
                often |= now_s - back_s[-SLOW_BACK] < SLOW_S
            if often and found is None:
                found = part
        return found


def clock_words(lag_ns: int, of: str = "this host's clock") -> str:
    """Say that stamps are of another clock.

    Args:
        lag_ns: how far they are behind, negative: ahead [ns].
        of: what they are compared with.
    """
    side, far = ("behind" if lag_ns > 0 else "ahead of"), abs(lag_ns)
    if far > _YEAR_NS:
        return (
            f"its stamps are years {side} {of}: one of both is simulated time or was never set; use_sim_time must be "
            "the same in all nodes and a simulator publish /clock, or set the clock of its host"
        )
    slow = "; or its driver, the network or this node is that slow" if lag_ns > 0 else ""
    return (
        f"its stamps are {far / 1e9:.1f} s {side} {of}; {SYNCHRONISE}, and use_sim_time must be the same in all "
        f"nodes{slow}"
    )
