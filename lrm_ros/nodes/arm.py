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
from lrm_ros.robot.feetech import Health
from lrm_ros.robot.lerobot_arm import LeRobotArm
from lrm_ros.ros.arm_topics import ArmTopics
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.program import run
from lrm_ros.types import ActionChunk

REST_S = 4.0  # a node that ends has so long to reach the resting pose [s]; the graph kills it after 8 s
# The driver waits for the servos' answers by asking again and again: another thread of this process must not wait for
# it longer than this [s].
SWITCH_S = 0.0005


class ArmNode(LrmNode[ArmNodeConfig]):
    """Moves a real arm; topics are those of the twin.

    ``joint_states`` come at ``rate_hz`` or a little more, ``joint_command_sent`` once a control step: the target that
    the arm was sent then, stamped then, as a data set has it. Targets between the points of a command are interpolated.
    The first command after activation or a reset is approached slowly. Driver, port, calibration and units are section
    ``arm`` of the contract's file.

    Inactive, the arm holds with torque. At cleanup it goes to its resting pose, if section ``arm`` has one, and the
    torque goes off; without one, and if this program is killed, the servos hold where they were sent last.

    Service ``~/reset`` takes the arm up again after a fault; ``~/torque_off`` rests it and switches its torque off.
    """

    def __init__(self, **overrides: Any) -> None:
        """Declare the parameters; ``overrides`` are parameter values."""
        super().__init__("arm", ArmNodeConfig, overrides)
        self._loop: BusLoop | None = None
        self._arm: LeRobotArm | None = None

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
        self._arm = arm = LeRobotArm(self._section, self.contract)
        arm.connect()
        loop = self._loop = BusLoop(arm, self.contract, lambda: self.config, self)
        self._topics = ArmTopics(self, loop.server, time.time_ns, self._take)
        self._topics.listen()
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(Trigger, "~/torque_off", self._on_torque_off)
        self.create_timer(0.5, self._show)
        loop.start()
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
        loop, self._loop = self._loop, None
        arm, self._arm = self._arm, None
        if arm is None:
            return
        try:
            if loop is not None and loop.torque:
                self._rest(loop)
        finally:
            if loop is not None:
                loop.stop()
            arm.close()

    def _rest(self, loop: BusLoop) -> None:
        """Go to the resting pose and switch the torque off, if that can be done; else the arm holds, and says so."""
        why = "section 'arm' of the contract's file has no resting pose"
        if self._section.rest and not loop.fault:
            try:
                loop.torque_off(self._section)
                if loop.wait_rested(REST_S):
                    return
                why = f"its resting pose was not reached within {REST_S:g} s"
            except (ValueError, OSError) as error:
                why = one_line(error)
        self.get_logger().warning(f"the arm is left with its torque on and holds: {loop.fault or why}")

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

    def _show(self) -> None:
        """Show what no event tells."""
        loop, arm = self._loop, self._arm
        if loop is not None and arm is not None:
            self.diagnostics.value("torque", "on" if loop.torque else "off")
            self.diagnostics.value("state_age_ms", f"{1e3 * loop.age_s:.1f}")
            if arm.servos is not None:
                self.diagnostics.value("late_answers", arm.servos.late)
                self.diagnostics.value("failed_reads", arm.servos.failed)


def main(argv: list[str] | None = None) -> int:
    """Run the node."""
    return run(ArmNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
