# SPDX-License-Identifier: Apache-2.0
"""The thread that has an arm's bus: reads the joints and sends targets, a whole number of times a control step.

Nobody else talks to the arm. A new command wakes the thread. What goes wrong is named to a listener: some faults pass
by themselves, others stand until a person says so by :meth:`BusLoop.reset`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract
from lrm_ros.config_arm import ArmConfig, ArmNodeConfig
from lrm_ros.errors import one_line
from lrm_ros.robot.arm import ArmServer
from lrm_ros.robot.bus_thread import BusThread
from lrm_ros.robot.feetech import LIMP, Health, error_names
from lrm_ros.robot.lerobot_arm import LeRobotArm, PortLost
from lrm_ros.types import ActionChunk

POLL_EVERY = 5  # cycles between two reads of the servos' health
OVERLOAD = 32
# The resting pose is reached when the arm is so near [rad], or has had so long after its target was sent [s].
NEAR_RAD, SETTLE_S = 0.1, 1.5
CURE = "free the arm, then call service ~/reset"


class Listener(Protocol):
    """Who is told what happens; called in the loop's thread."""

    def on_state(self, stamp_ns: int, position: NDArray[np.float32]) -> None:
        """Joint positions (D,) [rad] were read."""

    def on_sent(self, stamp_ns: int, target: NDArray[np.float32]) -> None:
        """The target (D,) [rad] that the arm had at a control step."""

    def on_command(self, seconds: float) -> None:
        """A command has waited so long for its first target to be sent."""

    def on_health(self, health: Health) -> None:
        """The servos were asked how they are."""

    def on_fault(self, key: str, message: str) -> None:
        """Something is wrong."""

    def on_good(self, key: str, message: str) -> None:
        """It is not any more."""


class BusLoop:
    """Runs an arm from :meth:`start` to :meth:`stop`.

    Attributes:
        server: the limiter in front of the arm.
        fault: why the arm does not move until :meth:`reset`; empty if it may.
        torque: whether the arm is sent anything: not after :meth:`torque_off`, nor where a goal would switch the torque
            of a limp arm on.
        active: whether commands are followed.
    """

    def __init__(
        self, arm: LeRobotArm, contract: RobotContract, config: Callable[[], ArmNodeConfig], listener: Listener
    ) -> None:
        """Take a connected arm.

        Args:
            arm: from here on nobody else may use it.
            contract: control rate; the limits are the arm's.
            config: the settings of the moment.
            listener: whom to tell.

        Raises:
            ConnectionError, PortLost: the arm cannot be read.
        """
        self._arm, self._contract, self._config, self._listener = arm, contract, config, listener
        self.server = ArmServer(arm, arm.contract)
        self.fault, self.torque, self.active = "", True, False
        self._cycles_a_step = max(1, math.ceil(config().rate_hz * contract.dt_s - 1e-6))
        self._command: ActionChunk | None = None
        self._command_s = 0.0  # when it came
        self._approach = True  # the next command is the first one
        self._approach_s: float | None = None  # since when it is approached
        self._rest: NDArray[np.float32] | None = None
        self._rest_sent_s: float | None = None
        self._rested = threading.Event()
        self._position = self.server.sent
        self._state_s = time.monotonic()
        self._silent = False
        self._errors: dict[str, int] = {}
        self._control_step = -1
        period_s = contract.dt_s / self._cycles_a_step
        self._thread = BusThread(
            "arm's bus", period_s, lambda: self._guard(self._step), lambda: self._guard(self._take)
        )

    @property
    def rate_hz(self) -> float:
        """How often a second the arm is read and sent a target."""
        return self._cycles_a_step * self._contract.control_hz

    @property
    def age_s(self) -> float:
        """Age of the newest joint state [s]."""
        return time.monotonic() - self._state_s

    # -- what other threads call -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to run; the arm holds."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the arm holds."""
        self._thread.stop()

    def follow(self, command: ActionChunk) -> bool:
        """Make an accepted command the one that is followed, at once. Returns whether commands are followed now."""
        if not self.active or not self.torque or self.fault or self._rest is not None:
            return False
        self._command, self._command_s = command, time.perf_counter()
        self._thread.wake()
        return True

    def call(self, work: Callable[[], Any], timeout_s: float = 10.0) -> Any:
        """Do a piece of work in the loop's thread, see :meth:`BusThread.call`."""
        return self._thread.call(work, timeout_s)

    def hold(self) -> None:
        """Forget the command and stay; commands that come later are followed."""
        self.call(self._hold)

    def activate(self) -> None:
        """Follow commands from now on, the first one slowly."""
        self.call(self._begin)
        self.active = True

    def deactivate(self) -> None:
        """Hold, with torque, and follow nothing."""
        self.active = False
        self.call(self._hold)

    def reset(self) -> None:
        """Take up the arm again after a fault or after its torque was switched off; it holds where it is.

        Raises:
            ValueError: it is not well yet; says what to do.
            ConnectionError, PortLost: it cannot be read.
        """
        self.call(self._reset, 30.0)

    def torque_off(self, config: ArmConfig) -> str:
        """Go to the resting pose, if there is one and the arm is well, then switch the torque off.

        Returns:
            What happens, for a person; :meth:`wait_rested` waits for it.

        Raises:
            ConnectionError, PortLost, ValueError: the torque is not off.
        """
        return str(self.call(lambda: self._torque_off(config)))

    def wait_rested(self, timeout_s: float) -> bool:
        """Wait until the torque is off after :meth:`torque_off`; returns whether it is within ``timeout_s`` [s]."""
        return self._rested.wait(timeout_s)

    # -- the thread --------------------------------------------------------------------------------------------------

    def _guard(self, work: Callable[[], None]) -> None:
        """Work, and name what goes wrong."""
        try:
            work()
        except ConnectionError as error:
            self._miss(error)
        except PortLost as error:
            if not self.fault:
                self._latch(f"{error}; the servos hold where they were sent")
        except Exception as error:
            self._latch(f"the arm's bus thread failed ({one_line(error)}); start the node again")
            raise

    def _take(self) -> None:
        """Send a new command its first target."""
        command, self._command = self._command, None
        if command is not None and self.active and not self.fault:
            self.server.follow(command)
            if self._approach and self._approach_s is None:
                self._approach_s = time.monotonic()
            if self._send():
                self._listener.on_command(time.perf_counter() - self._command_s)

    def _step(self) -> None:
        """Read, send, look after the servos."""
        if not self._arm.connected:
            return
        stamp_ns, position = self._arm.read()
        if self._arm.unsure and self.torque and (lost := self._arm.checked()):
            self._lose_power(lost)
        self._judge()
        self._state_s, self._position = time.monotonic(), position
        if self._silent:
            self._silent = False
            self._begin()
            self._listener.on_good("joint_states", "the arm's servos answer again")
        sent = self._send()
        self._listener.on_state(stamp_ns, position)
        control_step = self._thread.cycle // self._cycles_a_step
        if sent and control_step != self._control_step:
            self._control_step = control_step
            self._listener.on_sent(sent, self.server.sent)
        self._take()
        servos = self._arm.servos
        if servos is None:
            return
        if self._thread.cycle % POLL_EVERY == 0:
            lost = self._arm.poll()
            if lost and self.torque:
                self._lose_power(lost)
            self._listener.on_health(servos.health)

    def _send(self) -> int:
        """Send what is due, unless nobody knows whether the arm has its power. Returns when [ns], 0 if it was not."""
        if not self.torque or self._silent or self._arm.unsure or not self._arm.connected:
            return 0
        config, now_s, now_ns = self._config(), time.monotonic(), time.time_ns()
        speed = math.inf
        if self._rest is not None:
            speed = config.rest_speed
        elif self._approach_s is not None:
            speed = config.approach_speed * (1 + now_s - self._approach_s)
        reached = self.server.track(now_ns, speed)
        if self._approach_s is not None and reached:
            self._approach, self._approach_s = False, None
        if self._rest is not None and reached:
            self._rest_sent_s = self._rest_sent_s or now_s
            if np.abs(self._position - self._rest).max() < NEAR_RAD or now_s - self._rest_sent_s > SETTLE_S:
                self._release()
        return now_ns

    # -- in the thread: what was asked for -----------------------------------------------------------------------------

    def _hold(self) -> None:
        self._command = self._rest = None
        self.server.drop()
        if self.torque and not self._silent and self._arm.connected and not self._arm.unsure:
            self.server.hold()

    def _begin(self) -> None:
        """Take the arm where it is; the next command is approached slowly."""
        self._command = self._rest = None
        if self._arm.connected:
            self.server.start()
            self._position = self.server.sent
        self._approach, self._approach_s = True, None

    def _reset(self) -> None:
        if not self.torque or not self._arm.connected:
            self._arm.reconnect()
        elif bad := [joint for joint, bits in self._errors.items() if self._stops(joint, bits)]:
            raise ValueError(f"{', '.join(bad)} still reports an overload; free it, or switch the power off and on")
        self._errors = {}
        self.torque, fault, self.fault = True, self.fault, ""
        self._begin()
        self._state_s = time.monotonic()
        if fault:
            self._listener.on_good("arm", "the arm was reset and holds where it is")

    def _torque_off(self, config: ArmConfig) -> str:
        self._rested.clear()
        well = self.torque and not self.fault and not self._silent and self._arm.connected
        if config.rest and well:
            self._command, self._approach_s, self._rest_sent_s = None, None, None
            self._rest = np.array(config.rest, np.float32)
            self.server.follow(ActionChunk(time.time_ns(), self._rest[None], self._contract.dt_s))
            return "the arm goes to its resting pose, then its torque goes off; call ~/reset to take it up again"
        self._release()
        return "the torque is off; call ~/reset to take the arm up again"

    def _release(self) -> None:
        self._rest = self._command = None
        self._arm.torque_off()
        self.torque = False
        self._rested.set()

    # -- in the thread: faults ---------------------------------------------------------------------------------------

    def _latch(self, message: str, limp: bool = False) -> None:
        """Do not move until a person says so."""
        self._command = self._rest = None
        self.server.drop()
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
            self._silent = True
            self._listener.on_fault(
                "joint_states",
                f"no joint state for {self.age_s:.1f} s ({one_line(error)}); the arm is sent nothing: check its power "
                "and cables",
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
