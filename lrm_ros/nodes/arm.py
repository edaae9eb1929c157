# SPDX-License-Identifier: Apache-2.0
"""The arm node: a real arm behind LeRobot's driver on the robot's topics.

A thread of its own has the bus (``lrm_ros.robot.bus_loop``); what it reads and sends is published from there.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from std_srvs.srv import Trigger

from lrm_ros.config_arm import ArmConfig, ArmNodeConfig, load_arm
from lrm_ros.errors import one_line
from lrm_ros.robot.bus_loop import BusLoop
from lrm_ros.robot.envelope import Envelope
from lrm_ros.robot.feetech import Health
from lrm_ros.robot.lerobot_arm import LeRobotArm
from lrm_ros.robot.urdf import Urdf
from lrm_ros.ros.arm_topics import ArmTopics
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.description import Description
from lrm_ros.ros.estop import EStop
from lrm_ros.ros.program import run
from lrm_ros.types import ActionChunk

REST_S = 4.0  # a node that ends has so long to reach the resting pose [s]; the graph kills it after 8 s
HEAR_S, BRAKE_S = 0.005, 2.0  # on the way e-stops are looked for so often; one is braked in so long at most [s]
# The driver waits for the servos' answers by asking again and again: another thread of this process must not wait for
# it longer than this [s].
SWITCH_S = 0.0005
FRAMES_HZ = 25.0  # of the links on /tf: for people's eyes


class ArmNode(LrmNode[ArmNodeConfig]):
    """Moves a real arm; topics are those of the twin.

    ``joint_states`` come at ``rate_hz`` or a little more, ``joint_command_sent`` once a control step: the target that
    the arm was sent then, stamped then, as a data set has it. Targets between the points of a command are interpolated.
    A first command, after activation or a reset, that begins further away than a control step may bring is approached
    slowly. Driver, port, calibration and units are section ``arm`` of the contract's file.

    Everything that is sent comes from the envelope of section ``arm``: joint limits, velocity, acceleration, a box for
    the links of its URDF. An e-stop (``lrm_ros.ros.estop``) brakes and holds, or switches the torque off where
    ``estop_torque_off`` says so; nothing else is sent before its release.

    Inactive, the arm holds with torque. At cleanup it goes to its resting pose, if section ``arm`` has one, and the
    torque goes off; stopped on the way, without one, and if this program is killed, the servos hold where they were
    sent last.

    Service ``~/reset`` takes the arm up again after a fault; ``~/torque_off`` rests it and switches its torque off.
    """

    def __init__(self, **overrides: Any) -> None:
        """Declare the parameters; ``overrides`` are parameter values."""
        super().__init__("arm", ArmNodeConfig, overrides)
        self._loop: BusLoop | None = None
        self._arm: LeRobotArm | None = None
        self._estop = EStop(self, self._stop_arm, self._release)

    def configure(self) -> None:
        """Connect to the arm and hold it where it is.

        Raises:
            ValueError: it is not as it must be; says what to do.
        """
        path = str(self.get_parameter("contract").value)
        if not path:
            raise ValueError(
                "the arm node needs parameter 'contract': the file of the robot contract with its section 'arm', e.g. "
                "config/so101.yaml"
            )
        sys.setswitchinterval(SWITCH_S)
        config, section = self.config, load_arm(path, self.contract)
        given = {name: getattr(config, name) for name in ("port", "id", "calibration_dir") if getattr(config, name)}
        self._section: ArmConfig = dataclasses.replace(section, **given)
        urdf = self._urdf()
        self._arm = arm = LeRobotArm(self._section, self.contract)
        self._check_rest(Envelope(self.contract, self._section, urdf))
        arm.connect()
        envelope = Envelope(arm.contract, self._section, urdf)
        loop = self._loop = BusLoop(arm, self.contract, envelope, lambda: self.config, self)
        self._topics = ArmTopics(self, loop.server, time.time_ns, self._take, self._estop.refusal)
        self._topics.listen()
        self._newest: tuple[int, NDArray[np.float32]] | None = None
        if urdf is not None:
            self._description = Description(self, urdf)
            self.create_timer(1 / FRAMES_HZ, self._show_frames)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(Trigger, "~/torque_off", self._on_torque_off)
        self.create_timer(0.5, self._show)
        loop.start()
        if self._estop.latched:
            self._stop_arm()
        self.get_logger().info(f"holds the arm at '{self._section.port}', {loop.rate_hz:g} times a second")

    def activate(self) -> None:
        """Follow commands from now on."""
        assert self._loop is not None
        self._loop.activate()

    def deactivate(self) -> None:
        """Hold, with torque."""
        if self._loop is not None:
            self._loop.deactivate()

    def cleanup(self) -> None:
        """Rest the arm if it has a resting pose, and give back the port."""
        loop, arm = self._loop, self._arm
        if arm is None:
            return
        try:
            if loop is not None and loop.torque:
                self._rest(loop)
        finally:
            self._loop = self._arm = None
            if loop is not None:
                loop.stop()
            arm.close()

    def _rest(self, loop: BusLoop) -> None:
        """Go to the resting pose and switch the torque off, if that can be done; else the arm holds, and says so.

        An e-stop on the way brakes it, and it holds there with its torque; or that goes off, where ``estop_torque_off``
        says so.
        """
        why = "section 'arm' of the contract's file has no resting pose"
        if loop.stopped:
            why = "it is stopped, and moves nowhere before its release"
        elif self._section.rest and not loop.fault:
            try:
                loop.torque_off(self._section)
                if self._reach_rest(loop) or not loop.torque:
                    return
                why = f"its resting pose was not reached within {REST_S:g} s"
                if self._estop.latched:
                    loop.wait_standing(BRAKE_S)
                    why = f"it was stopped by {self._estop.reason} on the way to its resting pose"
            except (ValueError, OSError) as error:
                why = one_line(error)
        self.get_logger().warning(f"the arm is left with its torque on and holds: {loop.fault or why}")

    def _reach_rest(self, loop: BusLoop) -> bool:
        """Wait until the arm rests without torque, or is stopped; returns whether it rests."""
        end_s = time.monotonic() + REST_S
        while not (rested := loop.wait_rested(HEAR_S)) and not loop.stopped and time.monotonic() < end_s:
            self._estop.hear()
            loop.rest_again(self._section)
        return rested

    def _urdf(self) -> Urdf | None:
        """Return the arm's description, if there is one; raises ValueError if its joints are not the contract's."""
        if not self._section.urdf:
            return None
        urdf = Urdf(self._section.urdf)
        for link in urdf.links:
            urdf.pose(link, dict.fromkeys(self.contract.joints, 0.0))
        return urdf

    def _check_rest(self, envelope: Envelope) -> None:
        """Raise ValueError if the box does not let the arm go to its resting pose."""
        rest = np.array(self._section.rest)
        if len(rest) and (out := envelope.outside(rest)):
            raise ValueError(f"section 'arm': in the resting pose {out}; enlarge the box or give another pose")

    # -- e-stop --------------------------------------------------------------------------------------------------------

    def _stop_arm(self) -> None:
        """Hold, or switch the torque off; raises if the arm may not."""
        if self._loop is not None:
            self._loop.stop_arm(self.config.estop_torque_off)

    def _release(self) -> None:
        """Follow commands that come from now on."""
        if self._loop is not None:
            self._loop.release()

    # -- commands and services -----------------------------------------------------------------------------------------

    def _take(self, chunk: ActionChunk) -> None:
        assert self._loop is not None
        if not self._loop.follow(chunk):
            self.diagnostics.count("ignored")

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        assert self._loop is not None
        try:
            self._loop.reset()
        except (ValueError, OSError) as error:
            response.success, response.message = False, one_line(error)
            return response
        response.success, response.message = True, "the arm holds where it is and follows commands when it is active"
        return response

    def _on_torque_off(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        assert self._loop is not None
        try:
            response.success, response.message = True, self._loop.torque_off(self._section)
        except (ValueError, OSError) as error:
            response.success, response.message = False, one_line(error)
        return response

    # -- what the loop's thread tells ----------------------------------------------------------------------------------

    def on_state(self, stamp_ns: int, position: NDArray[np.float32]) -> None:
        """Publish the joint state."""
        self._newest = stamp_ns, position
        if self.active:
            self._topics.publish_state(stamp_ns, position)
        self.diagnostics.count("states")

    def on_sent(self, stamp_ns: int, target: NDArray[np.float32]) -> None:
        """Publish what the arm was sent at a control step."""
        if self.active:
            self._topics.publish_sent(stamp_ns, target)
            self.diagnostics.count("steps")

    def on_command(self, seconds: float) -> None:
        """Note how long a command took through this node."""
        self.diagnostics.latency("command", seconds)

    def on_health(self, health: Health) -> None:
        """Show how the servos are."""
        for name, values in (("load", health.load), ("volts", health.volts), ("celsius", health.celsius)):
            self.diagnostics.value(name, " ".join(f"{joint}={value:g}" for joint, value in values.items()))

    def on_fault(self, key: str, message: str) -> None:
        """Report a fault."""
        self.diagnostics.fault(key, message)

    def on_good(self, key: str, message: str) -> None:
        """Report that it is gone."""
        self.diagnostics.recovered(key, message)

    def _show_frames(self) -> None:
        """Publish where the links are."""
        if self._newest is not None:
            self._description.update(*self._newest)

    def _show(self) -> None:
        """Show what no event tells."""
        loop, arm = self._loop, self._arm
        if loop is not None and arm is not None:
            self.diagnostics.value("torque", "on" if loop.torque else "off")
            self.diagnostics.value("state_age_ms", f"{1e3 * loop.age_s:.1f}")
            self.diagnostics.value("late_cycles", loop.late)
            self.diagnostics.value("cycles_held_back_by_the_box", loop.held_back)
            if arm.servos is not None:
                self.diagnostics.value("late_answers", arm.servos.late)
                self.diagnostics.value("failed_reads", arm.servos.failed)


def main(argv: list[str] | None = None) -> int:
    """Run the node."""
    return run(ArmNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
