# SPDX-License-Identifier: Apache-2.0
"""The thread that has an arm's bus: reads the joints and sends targets, a whole number of times a control step.

Nobody else talks to the arm. A new command wakes the thread. What goes wrong is named to a listener: some faults pass
by themselves, others stand until a person says so by :meth:`BusLoop.reset`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lrm_ros.config import RobotContract
from lrm_ros.config_arm import ArmConfig, ArmNodeConfig
from lrm_ros.robot.bus_listener import Listener
from lrm_ros.robot.bus_thread import BusThread
from lrm_ros.robot.bus_work import BusWork
from lrm_ros.robot.envelope import Envelope
from lrm_ros.robot.lerobot_arm import LeRobotArm
from lrm_ros.types import ActionChunk

STOP_S = 2.0  # so long an e-stop waits for the bus [s]


class BusLoop(BusWork):
    """Runs an arm from :meth:`start` to :meth:`stop`. What is public here any thread may call."""

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
        super().__init__(arm, contract, envelope, config, listener)
        period_s = contract.dt_s / self._cycles_a_step
        self._thread = BusThread(
            "arm's bus",
            period_s,
            lambda: self._guard(lambda: self._step(self._thread.cycle)),
            lambda: self._guard(self._take),
        )

    @property
    def rate_hz(self) -> float:
        """How often a second the arm is read and sent a target."""
        return self._cycles_a_step * self._contract.control_hz

    @property
    def late(self) -> int:
        """How many cycles were left out, because what was before them took too long."""
        return self._thread.late

    def start(self) -> None:
        """Begin to run; the arm holds."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the arm holds."""
        self._thread.stop()

    def follow(self, command: ActionChunk) -> bool:
        """Make an accepted command the one that is followed, at once. Returns whether commands are followed now."""
        if not self.active or not self.torque or self.fault or self.stopped or self._rest is not None:
            return False
        self._given.append((command, time.perf_counter()))
        self._thread.wake()
        return True

    def call(self, work: Callable[[], Any], timeout_s: float = 10.0) -> Any:
        """Do a piece of work in the loop's thread, see :meth:`BusThread.call`."""
        return self._thread.call(work, timeout_s)

    def hold(self) -> None:
        """Forget the command and stay; commands that come later are followed."""
        self.call(self._hold)

    def stop_arm(self, torque_off: bool) -> None:
        """E-stop: brake and hold, whatever was being done; nothing else is sent before :meth:`release`.

        Args:
            torque_off: switch the torque off instead.

        Raises:
            ConnectionError, PortLost, TimeoutError, ValueError: it may not hold, or its torque may be on; says why.
        """
        self.stopped = True  # seen by a step that is being done
        self.call(lambda: self._stop_arm(torque_off), STOP_S)

    def release(self) -> None:
        """End an e-stop: the arm holds, commands that come now are followed, the first one slowly.

        Raises:
            ConnectionError, PortLost, ValueError: the torque that the stop switched off is not on again; it stays
                stopped.
        """
        self.call(self._release_stop, 30.0)

    def activate(self) -> None:
        """Follow commands from now on, the first one slowly."""
        self.call(lambda: self._begin(anew=False))
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

        def reset() -> None:
            self._refuse_stopped()
            self._reset()

        self.call(reset, 30.0)

    def torque_off(self, config: ArmConfig) -> str:
        """Go to the resting pose, if there is one and the arm is well, then switch the torque off.

        Returns:
            What happens, for a person; :meth:`wait_rested` waits for it.

        Raises:
            ConnectionError, PortLost, ValueError: the torque is not off.
        """
        return str(self.call(lambda: self._torque_off(config)))

    def rest_again(self, config: ArmConfig) -> None:
        """Go on to the resting pose after :meth:`torque_off`, if a break has ended the way there and is over."""
        if self._rest is None:
            self.call(lambda: self._rest_again(config))

    def wait_rested(self, timeout_s: float) -> bool:
        """Wait until the torque is off after :meth:`torque_off`; returns whether it is within ``timeout_s`` [s]."""
        return self._rested.wait(timeout_s)

    def wait_standing(self, timeout_s: float) -> bool:
        """Wait until the braking is over; returns whether it is within ``timeout_s`` [s]."""
        end_s = time.monotonic() + timeout_s
        while not self.server.envelope.standing and time.monotonic() < end_s:
            time.sleep(self._contract.dt_s / self._cycles_a_step)
        return self.server.envelope.standing
