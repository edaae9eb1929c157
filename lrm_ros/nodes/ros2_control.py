# SPDX-License-Identifier: Apache-2.0
"""The node in front of an arm that ros2_control drives: our topics on one side, its controllers' on the other."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from std_srvs.srv import Trigger

from lrm_ros import topics
from lrm_ros.config_arm import ControlNodeConfig, load_control
from lrm_ros.errors import one_line
from lrm_ros.robot.control_loop import ControlLoop
from lrm_ros.robot.envelope import Envelope
from lrm_ros.robot.urdf import Urdf
from lrm_ros.ros.arm_topics import ArmTopics
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.controllers import Controllers
from lrm_ros.ros.estop import EStop
from lrm_ros.ros.program import run
from lrm_ros.ros.streams import Streams
from lrm_ros.types import ActionChunk

DELIVER_S = 1.0  # a node that ends waits so long until the controllers have the hold [s]


class ControlNode(LrmNode[ControlNodeConfig]):
    """Moves an arm through controllers of ros2_control; topics are those of the twin.

    Commands go through the same server and envelope as those of node ``arm``. What comes out of them is sent to
    joint_trajectory_controllers and forward position controllers by topic, once a cycle of ``rate_hz`` or a little
    more: one point, from now on, with the time in which to go there. Which controllers, whose joints, the envelope
    and where joint states come from is section ``ros2_control`` of the contract's file.

    At configure it waits ``wait_s`` for the controllers and for a joint state. If a controller goes away or joint
    states are not usable, it brakes and then sends nothing; when all are there again the arm begins where it is. A
    joint that does not follow its target is a fault until service ``~/reset``.

    An e-stop (``lrm_ros.ros.estop``) brakes and holds; nothing else is sent before its release. Inactive and at its
    end the node leaves the arm holding; the torque is ros2_control's.
    """

    def __init__(self, **overrides: Any) -> None:
        """Declare the parameters; ``overrides`` are parameter values."""
        super().__init__("arm", ControlNodeConfig, overrides)
        self._loop: ControlLoop | None = None
        self._topics: ArmTopics | None = None
        self._state: tuple[int, NDArray[np.float32]] | None = None
        self._controllers: Controllers | None = None
        self._estop = EStop(self, self._stop_arm, self._release)

    def configure(self) -> None:
        """Find the controllers and hold the arm where it is.

        Raises:
            ValueError: something is not as it must be; says what to do.
        """
        path = str(self.get_parameter("contract").value)
        if not path:
            raise ValueError(
                "this node needs parameter 'contract': the file of the robot contract with its section 'ros2_control', "
                "e.g. config/ros2_control.yaml"
            )
        config, contract = self.config, self.contract
        section = load_control(path, contract)
        envelope = Envelope(contract, section, Urdf(section.urdf) if section.urdf else None)
        own, heard = (self.resolve_topic_name(name) for name in (topics.JOINT_STATES.name, section.joint_states))
        if own == heard and section.joints != contract.joints:
            raise ValueError(
                f"the contract's joints {', '.join(contract.joints)} are to be published on '{own}', where the "
                f"controllers' {', '.join(section.joints)} come; let the joint_state_broadcaster publish elsewhere "
                "(remap its joint_states, or use_local_topics) and set ros2_control.joint_states to that"
            )
        self._state = None
        self._controllers = controllers = Controllers(self, section.controllers, section.joints)
        self._streams = Streams(self, True, config.state_timeout_s, "the arm holds: ")
        self._streams.listen_states(
            self._on_state,
            contract.control_hz,
            depth=10,
            topic=dataclasses.replace(topics.JOINT_STATES, name=section.joint_states),
            joints=section.joints,
        )
        state = self._first_state(config.wait_s)
        loop = self._loop = ControlLoop(
            contract, section, envelope, state, controllers.send, self._hindrance, lambda: self.config, self
        )
        self._topics = ArmTopics(self, loop.server, self._now_ns, self._take, self._estop.refusal, own != heard)
        self._topics.listen()
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_timer(0.5, self._show)
        self.create_timer(loop.period_s, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
        if self._estop.latched:
            self._stop_arm()
        names = ", ".join(controller.name for controller in section.controllers)
        self.get_logger().info(f"holds the arm through {names}, {1 / loop.period_s:g} times a second")

    def _first_state(self, seconds: float) -> tuple[int, NDArray[np.float32]]:
        """Wait for the controllers and a joint state, and return it.

        Raises:
            ValueError: they are not there in time; says what is missing and the cure.
        """
        assert self._controllers is not None
        missing, deadline = self._controllers.missing, time.monotonic() + seconds

        def ready() -> bool:
            return self._state is not None and self._streams.good and not missing()

        self._streams.attend(lambda: ready() or time.monotonic() > deadline)
        if why := missing():
            raise ValueError(why)
        if self._state is None or not self._streams.good:
            reasons = self._streams.not_ready().values()
            raise ValueError("; ".join(reasons) or "no joint state has come; start a joint_state_broadcaster")
        return self._state

    def activate(self) -> None:
        """Follow commands from now on; raises ValueError if something hinders that."""
        assert self._loop is not None
        self._loop.activate()

    def deactivate(self) -> None:
        """Brake and hold."""
        if self._loop is not None:
            self._loop.active = False
            self._loop.hold(*self._now())

    def cleanup(self) -> None:
        """Brake to a stand and send the hold."""
        loop, self._loop = self._loop, None
        controllers = self._controllers
        if loop is None or controllers is None:
            return
        if loop.finish(self._now, time.sleep):
            controllers.deliver(DELIVER_S)
        else:
            self.get_logger().warning(
                f"the arm was not sent a hold at the end: {loop.fault or controllers.missing() or 'no joint states'}; "
                "its controllers stay at what they were sent last"
            )

    # -- time and inputs -----------------------------------------------------------------------------------------------

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    def _now(self) -> tuple[int, float]:
        return self._now_ns(), time.monotonic()

    def _tick(self) -> None:
        assert self._loop is not None
        self._loop.cycle(*self._now())

    def _hindrance(self) -> str:
        """Return why nothing may be sent now; tells about controllers, as the streams do about joint states."""
        assert self._controllers is not None
        if missing := self._controllers.missing():
            self.diagnostics.fault("controllers", missing)
            return missing
        self.diagnostics.recovered("controllers", "all controllers listen again")
        return "" if self._streams.good else "; ".join(self._streams.faults().values())

    def _on_state(self, stamp_ns: int, position: NDArray[np.float32]) -> None:
        self._state = stamp_ns, position
        self.diagnostics.count("states")
        if self._loop is None or self._topics is None:
            return
        self._loop.on_state(stamp_ns, position, self._now_ns())
        if self.active:
            self._topics.publish_state(stamp_ns, position)

    def _take(self, chunk: ActionChunk) -> None:
        assert self._loop is not None
        if not self._loop.follow(chunk, *self._now()):
            self.diagnostics.count("ignored")

    # -- e-stop and services -------------------------------------------------------------------------------------------

    def _stop_arm(self) -> None:
        """Brake and hold; raises ValueError if a controller does not listen."""
        if self._loop is None or self._controllers is None:
            return
        self._loop.stop(*self._now())
        if missing := self._controllers.missing():
            raise ValueError(missing)

    def _release(self) -> None:
        """Follow commands that come from now on."""
        if self._loop is not None:
            self._loop.release()

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        assert self._loop is not None
        try:
            self._loop.reset()
        except ValueError as error:
            response.success, response.message = False, one_line(error)
            return response
        response.success, response.message = True, "the arm holds where it is and follows commands when it is active"
        return response

    # -- what the loop tells -------------------------------------------------------------------------------------------

    def on_sent(self, stamp_ns: int, target: NDArray[np.float32]) -> None:
        """Publish what the controllers were sent at a control step."""
        if self.active and self._topics is not None:
            self._topics.publish_sent(stamp_ns, target)
            self.diagnostics.count("steps")

    def on_fault(self, key: str, message: str) -> None:
        """Report a fault."""
        self.diagnostics.fault(key, message)

    def on_good(self, key: str, message: str) -> None:
        """Report that it is gone."""
        self.diagnostics.recovered(key, message)

    def _show(self) -> None:
        """Show what no event tells."""
        loop = self._loop
        if loop is not None:
            self.diagnostics.value("sending", not loop.silent)
            self.diagnostics.value("late_cycles", loop.late)
            self.diagnostics.value("cycles_held_back_by_the_box", loop.held_back)


def main(argv: list[str] | None = None) -> int:
    """Run the node."""
    return run(ControlNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
