# SPDX-License-Identifier: Apache-2.0
"""What is done on an arm's bus: read, send, judge the servos, hold, rest, take up again; in one thread."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract
from lrm_ros.config_arm import ArmConfig, ArmNodeConfig
from lrm_ros.errors import one_line
from lrm_ros.robot.approach import Approach
from lrm_ros.robot.arm import NotSent
from lrm_ros.robot.arm_envelope import EnvelopeServer
from lrm_ros.robot.bus_listener import Listener
from lrm_ros.robot.envelope import Envelope
from lrm_ros.robot.feetech import LIMP, error_names
from lrm_ros.robot.lerobot_arm import LeRobotArm, PortLost
from lrm_ros.types import ActionChunk

POLL_EVERY = 5  # cycles between two reads of the servos' health
OVERLOAD = 32
# The resting pose is reached when the arm is so near [rad], or has had so long after its target was sent [s].
NEAR_RAD, SETTLE_S = 0.1, 1.5
SAG_RAD = 0.15  # joints under load stand so far off what they were sent at most; a gripper that holds, further
CURE = "free the arm, then call service ~/reset"


class BusWork:
    """What ``BusLoop`` does in its thread; none of it may be called in another.

    Attributes:
        server: in front of the arm, with its envelope.
        fault: why the arm does not move until a reset; empty if it may.
        torque: whether the arm is sent anything: not after its torque was switched off, nor where a goal would switch
            the torque of a limp arm on.
        active: whether commands are followed.
        stopped: whether an e-stop holds the arm.
        held_back: number of cycles in which the envelope's box held back what was asked for.
    """

    def __init__(
        self,
        arm: LeRobotArm,
        contract: RobotContract,
        envelope: Envelope,
        config: Callable[[], ArmNodeConfig],
        listener: Listener,
    ) -> None:
        """Take a connected arm.

        Args:
            arm: from here on nobody else may use it.
            contract: control rate; the limits are the arm's.
            envelope: through which everything goes that is sent; made for the arm's contract.
            config: the settings of the moment.
            listener: whom to tell.

        Raises:
            ConnectionError, PortLost: the arm cannot be read.
        """
        self._arm, self._contract, self._config, self._listener = arm, contract, config, listener
        self.server = EnvelopeServer(arm, arm.contract, envelope)
        self.fault, self.torque, self.active, self.stopped = "", True, False, False
        self.held_back = 0
        self._limp = False  # the e-stop has switched the torque off
        self._cycles_a_step = max(1, math.ceil(config().rate_hz * contract.dt_s - 1e-6))
        # The newest command and when it came [s]; what comes while one is taken is kept.
        self._given: deque[tuple[ActionChunk, float]] = deque(maxlen=1)
        self._approach = Approach()
        self._rest: NDArray[np.float32] | None = None
        self._rest_sent_s: float | None = None
        self._rested = threading.Event()
        self._position = self.server.sent
        self._state_s = time.monotonic()
        self._silent = self._unheard = False  # reads fail; the last target was not sent
        self._errors: dict[str, int] = {}
        self._control_step = -1
        self._sag = np.array([np.inf if joint in arm.grippers else SAG_RAD for joint in contract.joints])

    @property
    def age_s(self) -> float:
        """Age of the newest joint state [s]."""
        return time.monotonic() - self._state_s

    # -- every cycle -------------------------------------------------------------------------------------------------

    def _guard(self, work: Callable[[], None]) -> None:
        """Work, and name what goes wrong."""
        try:
            work()
        except NotSent as error:
            self._miss_send(error)
        except ConnectionError as error:
            self._miss(error)
        except PortLost as error:
            self._lose_port(error)
        except Exception as error:
            self._latch(f"the arm's bus thread failed ({one_line(error)}); start the node again")
            raise

    def _lose_port(self, error: PortLost) -> None:
        if not self.fault:
            self._latch(f"{error}; the servos hold where they were sent")

    def _guard_port(self, work: Callable[[], None]) -> None:
        """Do what a person asked for; a port that goes meanwhile is a fault for the others, too."""
        try:
            work()
        except PortLost as error:
            self._lose_port(error)
            raise

    def _take(self) -> None:
        """Send a new command its first target."""
        try:
            command, came_s = self._given.pop()
        except IndexError:
            return
        if self.active and not self.fault and not self.stopped:
            self.server.follow(command)
            self._approach.follow(self.server, time.time_ns(), time.monotonic())
            if self._send():
                self._listener.on_command(time.perf_counter() - came_s)

    def _step(self, cycle: int) -> None:
        """Read, send, look after the servos, in a cycle of this number."""
        if not self._arm.connected:
            return
        stamp_ns, position = self._arm.read()
        late = self._arm.unsure
        if self.age_s > self._config().state_timeout_s:
            self._arm.unsure = True  # the power may have gone and come meanwhile
        if self._arm.unsure and self.torque and (lost := self._arm.checked()):
            self._lose_power(lost)
        self._judge()
        if self.age_s > self._config().state_timeout_s and not self._silent:
            self._silence(
                "the servos answered late; check its power and cables"
                if late
                else "this program stood still: its process was stopped, or its computer is too busy"
            )
        self._state_s, self._position = time.monotonic(), position
        if self._silent:
            self._silent = False
            self._resume("joint_states", "the arm's servos answer again")
        sent = self._send()
        self._listener.on_state(stamp_ns, position)
        control_step = cycle // self._cycles_a_step
        if sent and control_step != self._control_step:
            self._control_step = control_step
            self._listener.on_sent(sent, self.server.sent)
        self._take()
        servos = self._arm.servos
        if servos is None:
            return
        if cycle % POLL_EVERY == 0:
            lost = self._arm.poll()
            if lost and self.torque:
                self._lose_power(lost)
            self._listener.on_health(servos.health)

    def _send(self) -> int:
        """Send what is due, unless nobody knows whether the arm has its power. Returns when [ns], 0 if it was not."""
        if not self.torque or self._silent or self._arm.unsure or not self._arm.connected:
            return 0
        if self.age_s > self._config().state_timeout_s:  # a command that came before the next read
            return 0
        if self.stopped or self._unheard:
            self._forget()
        config, now_s, now_ns = self._config(), time.monotonic(), time.time_ns()
        speed = config.rest_speed if self._rest is not None else self._approach.speed(config.approach_speed, now_s)
        try:
            reached = self.server.track(now_ns, now_s, speed)
        except NotSent as error:
            self._miss_send(error)
            return 0
        if self._unheard:
            self._resume("joint_command_sent", "the arm is sent its targets again")
            self._unheard = False
        self.held_back += bool(self.server.envelope.blocked[0])
        if reached:
            self._approach.reached()
        if self._rest is not None and reached and self.server.envelope.standing:
            self._rest_sent_s = self._rest_sent_s or now_s
            if np.abs(self._position - self._rest).max() < NEAR_RAD or now_s - self._rest_sent_s > SETTLE_S:
                self._release()
        return now_ns

    # -- in the thread: what was asked for -----------------------------------------------------------------------------

    def _forget(self) -> None:
        """Without a command the server brakes and holds."""
        self._rest = None
        self._given.clear()
        self.server.drop()

    def _hold(self) -> None:
        self._forget()
        if self.torque and not self._silent and self._arm.connected and not self._arm.unsure:
            self.server.hold()

    def _stop_arm(self, torque_off: bool) -> None:
        if not torque_off and not self.torque:
            self._forget()
            raise ValueError(self.fault or "its torque is off")
        self._guard_port(self._hold)
        if torque_off and self.torque:
            self._guard_port(self._release)
            self._limp = True
        elif self._silent or not self._arm.connected:
            raise ValueError(self.fault or "its servos do not answer; they hold where they were sent last")

    def _release_stop(self) -> None:
        if self._limp:
            self._reset()
        elif self.torque and self._arm.connected and not self._silent:
            self._begin(anew=False)
        self.stopped = self._limp = False

    def _begin(self, anew: bool = True) -> None:
        """Take the arm where it is, or let it brake where it is known to move; a next command is approached slowly."""
        self._forget()
        if self._arm.connected:
            (self.server.start if anew else self.server.start_anew)()
            self._position = self.server.sent
        self._approach.begin()

    def _resume(self, key: str, message: str) -> None:
        """After a break stay where the arm was sent before it, and say that it is over; a command begins slowly."""
        self._forget()
        self.server.resume(self._sag)
        self._approach.begin()
        self._listener.on_good(key, message)

    def _refuse_stopped(self) -> None:
        if self.stopped:
            raise ValueError("the arm is stopped; release it first: lrm estop --release")

    def _reset(self) -> None:
        anew = not self.torque or not self._arm.connected
        if anew:
            self._arm.reconnect()
        elif bad := [joint for joint, bits in self._errors.items() if self._stops(joint, bits)]:
            raise ValueError(f"{', '.join(bad)} still reports an overload; free it, or switch the power off and on")
        self._errors = {}
        self.torque, fault, self.fault = True, self.fault, ""
        self._begin(anew)
        self._state_s = time.monotonic()
        if fault:
            self._listener.on_good("arm", "the arm was reset and holds where it is")

    def _torque_off(self, config: ArmConfig) -> str:
        self._refuse_stopped()
        self._rested.clear()
        well = self.torque and not self.fault and not self._silent and self._arm.connected
        if config.rest and well:
            self._go_to_rest(config)
            return "the arm goes to its resting pose, then its torque goes off; call ~/reset to take it up again"
        self._release()
        return "the torque is off; call ~/reset to take the arm up again"

    def _go_to_rest(self, config: ArmConfig) -> None:
        self._given.clear()
        self._approach.interrupt()
        self._rest_sent_s = None
        self._rest = np.array(config.rest, np.float32)
        self.server.follow(ActionChunk(time.time_ns(), self._rest[None], self._contract.dt_s))

    def _rest_again(self, config: ArmConfig) -> None:
        """Go on to the resting pose, if a break has ended the way there and everything is good again."""
        good = self.torque and not self.fault and not self._silent and self._arm.connected and not self._arm.unsure
        if good and not self.stopped and self._rest is None:
            self._go_to_rest(config)

    def _release(self) -> None:
        self._forget()
        self._arm.torque_off()
        self.torque = False
        self._rested.set()

    # -- in the thread: faults ---------------------------------------------------------------------------------------

    def _latch(self, message: str, limp: bool = False) -> None:
        """Do not move until a person says so."""
        self._forget()
        self.torque = self.torque and not limp
        if not self.fault:
            self.fault = message
            self._listener.on_fault("arm", message)

    def _lose_power(self, lost: str) -> None:
        """Send nothing more; a servo that has switched its torque off itself says so with its next answer."""
        self._arm.read()
        self._judge()
        if not self.torque:
            return
        self._latch(
            f"the servos have lost power ({lost}); nothing is sent, for the next goal would switch the torque on: look "
            f"at the power supply, {CURE}",
            limp=True,
        )

    def _miss(self, error: ConnectionError) -> None:
        """A read has failed; what the driver has sent meanwhile counts no more."""
        if self.age_s > self._config().state_timeout_s and not self._silent:
            self._silence(f"{one_line(error)}; check its power and cables")

    def _miss_send(self, error: NotSent) -> None:
        """The arm is told to stay at the target that it has; once it hears that, commands from before mean nothing."""
        self._unheard = True
        self._forget()
        why = f"{one_line(error)}; it stays where it was sent before: check its power and cables"
        self._listener.on_fault("joint_command_sent", f"the arm was not sent its target: {why}")

    def _silence(self, why: str) -> None:
        """Send nothing; when states come again the arm stands where it was sent, and older commands mean nothing."""
        self._silent = True
        self._listener.on_fault(
            "joint_states", f"no joint state for {self.age_s:.1f} s, the arm was sent nothing: {why}"
        )

    def _judge(self) -> None:
        """Act on changes of the servos' error bits; overload of a gripper, which holds something, is only told."""
        servos = self._arm.servos
        if servos is None or servos.errors == self._errors:
            return
        self._errors = dict(servos.errors)
        for joint, bits in self._errors.items():
            if bits:
                names = error_names(bits)
                self._listener.on_fault(f"servo {joint}", f"servo {joint} reports {names}")
                if bits & LIMP:
                    self._latch(f"servo {joint} has switched its torque off: {names}; {CURE}", limp=True)
                elif self._stops(joint, bits) and not self.fault:
                    self._latch(f"servo {joint} reports {names}; the arm holds where it is: {CURE}")
                    if self.torque:
                        self.server.hold(measured=True)
            else:
                self._listener.on_good(f"servo {joint}", f"servo {joint} reports no error any more")

    def _stops(self, joint: str, bits: int) -> bool:
        """Return whether error bits of a joint stop the arm."""
        return bool(bits & OVERLOAD) and joint not in self._arm.grippers
