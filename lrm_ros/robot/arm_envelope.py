# SPDX-License-Identifier: Apache-2.0
"""The server of an arm that is sent targets more often than once a control step: all of them from its envelope."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract
from lrm_ros.robot.arm import Arm, ArmServer, NotSent
from lrm_ros.robot.envelope import Envelope
from lrm_ros.robot.profile import stop_point

NEAR_RAD = 0.01  # a motion that will stand so near its wish has reached it, but for the braking
_SHORTEST_S = 1e-4  # time between two targets: two moments that the clock does not tell apart


class EnvelopeServer(ArmServer):
    """Sends what the envelope makes of the points of a command; without a command it brakes and stands.

    Attributes:
        envelope: the limiter; its motion is what the arm is sent.
    """

    def __init__(self, arm: Arm, contract: RobotContract, envelope: Envelope, longest_s: float = np.inf) -> None:
        """Take an arm where it is.

        Args:
            arm: whom to send to.
            contract: joints, joint limits and control period.
            envelope: made for the same contract; nobody else may use it.
            longest_s: without another target for longer the arm has come to a stand by itself at the last one [s]; a
                motion then begins anew there, as if so much time had passed.
        """
        self.envelope, self._longest_s = envelope, longest_s
        super().__init__(arm, contract)

    def start(self) -> None:
        """Begin where the arm is, at rest; older commands mean nothing."""
        super().start()
        self.envelope.start(self.sent)
        self._moved_s: float | None = None  # when a target was sent last

    def start_anew(self) -> None:
        """As :meth:`start`, but a motion that is still being braked is braked to its end."""
        if self.envelope.standing:
            self.start()
            return
        sent = self.sent
        super().start()
        self.sent = self._held = sent

    def resume(self, sag: NDArray[np.float32]) -> None:
        """Come back after a break in which nothing was sent: the arm stands at what it was sent last, and stays there.

        Older commands mean nothing. To begin where it is, as :meth:`start`, would let it sag a little with every break,
        and open the jaws on what they hold; that is for an arm that was moved meanwhile.

        Args:
            sag: (D,) how far joints stand off what they were sent under load [rad]; beyond it they were moved.
        """
        sent = self.sent
        self.start()
        if (np.abs(self.sent - sent) <= sag).all():
            self.sent = self._held = sent
            self.envelope.start(sent)

    def track(self, now_ns: int, now_s: float, speed: float = np.inf) -> bool:
        """Send what is due now, at any moment.

        Point k of a command stamped t is the wish at t + k dt, when the twin's control step sends it (``step``), and
        what a data set has as that step's action; in between it is interpolated linearly, and the envelope goes there.
        The message's ``time_from_start``, (k + 1) dt, is the end of that step. The twin's target stands for the step;
        ours is on the way to the next point meanwhile, half a period ahead in the mean, of which envelope and bus take
        back a part: the joints stay nearer to the twin's than with points that are reached at ``time_from_start``.

        Args:
            now_ns: time of the arm's clock [ns].
            now_s: time of a clock that does not go back [s].
            speed: highest speed of a joint [rad/s], beside the envelope's; an arm that is faster brakes first.

        Returns:
            Whether the motion stands at the wish, or will once it has braked.

        Raises:
            NotSent: the arm has what it was sent before; the motion begins there anew, at rest.
        """
        envelope = self.envelope
        dt = max(0.0 if self._moved_s is None else now_s - self._moved_s, _SHORTEST_S)
        if dt > self._longest_s:
            envelope.start(self.sent)
            dt = self._longest_s
        wish = self._wish(now_ns)
        if wish is None or np.abs(envelope.velocity).max() > speed:
            moved = envelope.hold(dt)
        else:
            moved = envelope.step(wish, dt, speed)
        self._moved_s, target = now_s, moved.astype(np.float32)
        try:
            self._arm.send(target)
        except NotSent:
            envelope.start(self.sent)  # the arm stands there, or comes there: the motion begins anew
            raise
        self.sent = self._held = target
        if wish is None:
            return envelope.standing
        stop = stop_point(envelope.position, envelope.velocity, envelope.acceleration)[0]
        return bool(np.abs(stop - np.clip(wish, envelope.lower, envelope.upper)).max() < NEAR_RAD)

    def near(self, now_ns: int) -> bool:
        """Return whether what is due now [ns] is no further from what was sent last than a control step may bring."""
        wish = self._wish(now_ns)
        return wish is None or bool((np.abs(wish - self.sent) <= np.array(self._contract.max_step)).all())

    def _wish(self, now_ns: int) -> NDArray[np.float32] | None:
        """Return the point (D,) of the command that is due [rad]; ``None``: there is no command."""
        if self._chunk is None:
            return None
        end = len(self._chunk.actions) - 1
        at = min(max((now_ns - self._chunk.stamp_ns) / self._dt_ns, 0.0), float(end))
        k = min(int(at), max(end - 1, 0))
        before, after = self._chunk.actions[k], self._chunk.actions[min(k + 1, end)]
        return before + np.float32(at - k) * (after - before)

    def hold(self, measured: bool = False) -> NDArray[np.float32]:
        """Forget the command and send the next target of the braking, or stay; :meth:`track` goes on with it.

        Args:
            measured: stay where the arm is (overload), at once and not braked; at most a control step's limit away.

        Returns:
            (D,) what was sent [rad].
        """
        self.drop()
        if measured:
            self.send(self._arm.read()[1])
            self.envelope.start(self.sent)
            self._moved_s = time.monotonic()
        else:
            self.track(time.time_ns(), time.monotonic())
        return self.sent
