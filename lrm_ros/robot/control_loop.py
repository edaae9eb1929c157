# SPDX-License-Identifier: Apache-2.0
"""What a controller of ros2_control is sent, target by target: an arm's server, its envelope, and when nothing is sent.

No rclpy here: ``lrm_ros.nodes.ros2_control`` calls it from one thread, at a fixed rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract
from lrm_ros.config_arm import ControlConfig, ControlNodeConfig
from lrm_ros.robot.approach import Approach
from lrm_ros.robot.arm_envelope import EnvelopeServer
from lrm_ros.robot.envelope import Envelope
from lrm_ros.types import ActionChunk

# After so many control periods without a target an arm has come to a stand: a controller goes to its last point.
LONGEST = 2.0
STOPPED = "the arm is stopped; release it first: lrm estop --release"


class Listener(Protocol):
    """Who is told what happens."""

    def on_sent(self, stamp_ns: int, target: NDArray[np.float32]) -> None:
        """The target (D,) [rad] that the controllers had at a control step."""

    def on_fault(self, key: str, message: str) -> None:
        """Something is wrong."""

    def on_good(self, key: str, message: str) -> None:
        """It is not any more."""


class ControlLoop:
    """An ``lrm_ros.robot.arm.Arm`` and the server in front of it.

    A controller goes from where it is to each target in a time that is given with it. That time is kept so that it is
    never asked to go faster than the envelope's motion: what a late target has lost is not caught up. After a pause of
    ``state_timeout_s`` older commands mean nothing.

    While something hinders it (controllers that do not listen, joint states that are not usable) it brakes, then sends
    nothing; afterwards the arm begins where it is and older commands mean nothing. A joint that does not follow its
    target is a fault until :meth:`reset`: the targets go back to where the arm was found, then nothing is sent.

    Attributes:
        server: in front of the arm, with its envelope.
        period_s: :meth:`cycle` is to be called so often [s].
        active: whether commands are followed.
        stopped: whether an e-stop holds the arm.
        fault: why nothing is sent until a reset, empty if it is.
        late: cycles that came so late that the motion began anew.
        held_back: cycles in which the envelope's box held back what was asked for.
    """

    def __init__(
        self,
        contract: RobotContract,
        settings: ControlConfig,
        envelope: Envelope,
        state: tuple[int, NDArray[np.float32]],
        put: Callable[[NDArray[np.float32], float], None],
        hindrance: Callable[[], str],
        config: Callable[[], ControlNodeConfig],
        listener: Listener,
    ) -> None:
        """Take an arm where it is.

        Args:
            contract: joints, limits and control period.
            settings: which joints must follow, and how near.
            envelope: made for the same; nobody else may use it.
            state: stamp [ns] and (D,) position [rad] of the first joint state.
            put: gives the controllers a target (D,) [rad] and the time in which to go there [s].
            hindrance: says why nothing may be sent now, empty if nothing hinders; asked once a cycle.
            config: the node's settings of the moment.
            listener: whom to tell.
        """
        self._contract, self._settings, self._state = contract, settings, state
        self._put, self._hindrance, self._config, self._listener = put, hindrance, config, listener
        self._cycles_a_step = max(1, math.ceil(config().rate_hz * contract.dt_s - 1e-6))
        self.period_s = contract.dt_s / self._cycles_a_step
        self._longest_s = LONGEST * contract.dt_s
        self.server = EnvelopeServer(self, contract, envelope, self._longest_s)
        self.active, self.stopped, self.fault = False, False, ""
        self.late = self.held_back = 0
        self._must_follow = np.array([joint not in settings.grippers for joint in contract.joints])
        self._approach = Approach()
        self._hindered, self._stood = "", False
        self._back: NDArray[np.float32] | None = None  # where an arm was found that does not follow
        self._cycle, self._step = 0, -1
        self._sent_s = self._due_s = -math.inf  # when the last target was sent, and when the arm will be there [s]
        self._passed_s = 0.0  # time of the motion between the last two targets [s]
        self._target = state[1]

    # -- the arm -----------------------------------------------------------------------------------------------------

    def read(self) -> tuple[int, NDArray[np.float32]]:
        """Return (stamp [ns], (D,) position [rad]) of the newest joint state."""
        return self._state

    def send(self, target: NDArray[np.float32]) -> None:
        """Give the controllers a target (D,) [rad]; only the server calls this."""
        moved_s = 0.0 if np.array_equal(target, self._target) else self._passed_s
        seconds = max(max(self._due_s - self._sent_s, 0.0) + moved_s, self.period_s)
        self._target, self._due_s = target, self._sent_s + seconds
        self._put(target, seconds)

    def on_state(self, stamp_ns: int, position: NDArray[np.float32], now_ns: int) -> None:
        """Take a usable joint state.

        Args:
            stamp_ns: its stamp [ns].
            position: (D,) [rad].
            now_ns: time of the arm's clock [ns].
        """
        self._state = stamp_ns, position
        if self._hindered or self.fault:
            return
        off = np.where(self._must_follow, np.abs(position - self.server.sent), 0.0)
        joint = int(off.argmax())
        if off[joint] > self._settings.follow_tolerance:
            self._latch(joint, float(off[joint]), position, now_ns)

    def _latch(self, joint: int, off: float, position: NDArray[np.float32], now_ns: int) -> None:
        """Go back to where the arm was found, and send nothing more before a reset."""
        name = self._contract.joints[joint]
        self.fault = (
            f"joint {name} is {off:.2f} rad from its target and does not follow: the arm is blocked or was moved, or "
            "its controller is not active (ros2 control list_controllers); free it or activate the controller, then "
            "call service ~/reset (a gripper belongs into ros2_control.grippers)"
        )
        self._back = position
        self._approach.interrupt()
        self.server.follow(ActionChunk(now_ns, position[None], self._contract.dt_s))
        self._listener.on_fault("arm", self.fault)

    # -- every cycle -------------------------------------------------------------------------------------------------

    @property
    def silent(self) -> bool:
        """Whether nothing is sent now."""
        at_rest = self.server.envelope.standing
        return at_rest and bool(self._hindered or (self.fault and self._back is None))

    def cycle(self, now_ns: int, now_s: float) -> None:
        """Send what is due.

        Args:
            now_ns: time of the arm's clock [ns].
            now_s: time of a clock that does not go back [s].
        """
        self._cycle += 1
        if why := self._hindrance():
            self._hindered = why
            self._forget()
        elif self._hindered and self.server.envelope.standing:
            self._hindered = ""
            self._begin(anew=True)
        if self.stopped:
            self._forget()
        if self.silent:
            self._sent_s = -math.inf
        else:
            self._send(now_ns, now_s)

    def _send(self, now_ns: int, now_s: float) -> None:
        self._passed_s, self._sent_s = now_s - self._sent_s, now_s
        if self._passed_s > self._longest_s:  # the server begins a motion anew then
            if math.isfinite(self._passed_s):
                self.late += 1
                self._wake(self._passed_s)
            self._passed_s = self._longest_s
        elif self._stood:
            self._stood = False
            self._listener.on_good("cycles", "this program runs in time again")
        speed = self._config().approach_speed
        if self._back is None:
            speed = self._approach.speed(speed, now_s)
        reached = self.server.track(now_ns, now_s, speed)
        blocked = bool(self.server.envelope.blocked[0])
        self.held_back += blocked
        if reached:
            self._approach.reached()
        if (reached or blocked) and self.server.envelope.standing:
            self._back = None
        if (step := self._cycle // self._cycles_a_step) != self._step:
            self._step = step
            self._listener.on_sent(now_ns, self.server.sent)

    def _wake(self, passed_s: float) -> None:
        """After a long pause the command is of a scene that is no longer there."""
        if passed_s <= self._config().state_timeout_s:
            return
        self._forget()
        self._approach.begin()
        self._stood = True
        self._listener.on_fault(
            "cycles",
            f"this program stood still for {passed_s:.1f} s, commands from before mean nothing: its process was "
            "stopped, or its computer is too busy",
        )

    def finish(self, now: Callable[[], tuple[int, float]], wait: Callable[[float], None]) -> bool:
        """Brake to a stand and send the hold there, as a node does that ends.

        Args:
            now: returns what :meth:`cycle` takes.
            wait: lets so much time pass [s].

        Returns:
            Whether the last that the controllers were sent is the hold.
        """
        self.active = False
        self._forget()
        self._back = None
        while not self.server.envelope.standing:
            self.cycle(*now())
            wait(self.period_s)
        if self.silent:
            return False
        self._sent_s = now()[1]
        self.send(self.server.sent)
        return True

    # -- what is asked for -------------------------------------------------------------------------------------------

    def follow(self, command: ActionChunk, now_ns: int, now_s: float) -> bool:
        """Make an accepted command the one that is followed. Returns whether commands are followed now."""
        if not self.active or self.stopped or self.fault or self._hindered or self._hindrance():
            return False
        self.server.follow(command)
        self._approach.follow(self.server, now_ns, now_s)
        return True

    def hold(self, now_ns: int, now_s: float) -> None:
        """Forget the command and brake; the first target of it is sent at once."""
        self._forget()
        if not self.silent:
            self._send(now_ns, now_s)

    def stop(self, now_ns: int, now_s: float) -> None:
        """E-stop: brake and hold; nothing else is sent before :meth:`release`."""
        self.stopped = True
        self.hold(now_ns, now_s)

    def release(self) -> None:
        """End an e-stop: the arm holds, and follows commands that come from now on, the first one slowly."""
        self.stopped = False
        if not self._hindered and not self.fault:
            self._begin(anew=False)

    def activate(self) -> None:
        """Follow commands from now on, the first one slowly.

        Raises:
            ValueError: something hinders it; says what to do.
        """
        if why := self._hindrance():
            raise ValueError(why)
        self._begin(anew=False)
        self.active = True

    def reset(self) -> None:
        """Take up the arm where it is, after a fault.

        Raises:
            ValueError: it is stopped, or something hinders it; says what to do.
        """
        if why := STOPPED if self.stopped else self._hindrance():
            raise ValueError(why)
        if self.fault and not self.server.envelope.standing:
            raise ValueError("the arm still goes back to where it was found; call again")
        fault, self.fault = self.fault, ""
        self._begin(anew=bool(fault))
        if fault:
            self._listener.on_good("arm", "the arm was reset and holds where it is")

    def _forget(self) -> None:
        """Without a command the server brakes and holds."""
        self._back = None
        self.server.drop()

    def _begin(self, anew: bool) -> None:
        """Take the arm where it is, or let it brake where it is known to move."""
        self._back = None
        (self.server.start if anew else self.server.start_anew)()
        self._approach.begin()
