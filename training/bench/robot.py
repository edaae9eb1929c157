# SPDX-License-Identifier: Apache-2.0
"""A robot that is played: an arm behind its server and a camera, which can be made to fail while a policy moves it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from numpy.typing import NDArray
from rclpy.client import Client
from rclpy.clock import Clock, ClockType
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages, topics
from lrm_ros.config import RobotContract
from lrm_ros.robot.arm import ArmServer
from lrm_ros.ros.base import set_transport
from lrm_ros.ros.executor import make_executor
from lrm_ros.types import ActionChunk, Frame

STATE_HZ, IMAGE_HZ = 50.0, 30.0
RAISE = 255  # an image as bright as this makes the bench's policy raise
_PATIENCE_S = 60.0


class Robot:
    """An arm behind its server, and a camera, which can be made to fail.

    Attributes:
        fault: what is wrong with the messages now, empty: nothing.
        good_s: steady times of the last good joint state and the last good image [s].
        held_s: steady time of the newest command to hold [s], 0: none since the last motion.
        moved_s: steady time of the newest command to move [s].
        position: (D,) where the arm is [rad].
    """

    def __init__(self) -> None:
        """Publish from now on."""
        set_transport()
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node("bench_robot")
        self.contract = RobotContract()
        self.position: NDArray[np.float32] = np.zeros(len(self.contract.joints), np.float32)
        self.fault = ""
        self.good_s = [0.0, 0.0]
        self.held_s = self.moved_s = 0.0
        self._frozen_ns = 0
        self._server = ArmServer(self, self.contract)
        # As drivers publish: best effort.
        self._states = replace(topics.JOINT_STATES, qos=topics.NEWEST).publisher(self.node)
        self._images = replace(topics.IMAGE_RAW.of("front"), qos=topics.NEWEST).publisher(self.node)
        self._sent = topics.JOINT_COMMAND_SENT.publisher(self.node)
        topics.JOINT_COMMAND.subscribe(self.node, self._on_command)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.node.create_timer(1 / STATE_HZ, self._tick, clock=steady)
        self.node.create_timer(1 / IMAGE_HZ, self._look, clock=steady)
        self._change = self.node.create_client(ChangeState, "policy/change_state")
        self._reload = self.node.create_client(Trigger, "policy/reload")
        self._executor = make_executor(self.node.get_logger())
        self._executor.add_node(self.node)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._spin, name="robot")
        self._thread.start()

    # -- what an arm is ----------------------------------------------------------------------------------------------

    def read(self) -> tuple[int, NDArray[np.float32]]:
        """Return stamp [ns] and position (D,) [rad]."""
        return time.time_ns(), self.position

    def send(self, target: NDArray[np.float32]) -> None:
        """Be there at once."""
        self.position = target

    # -- topics ------------------------------------------------------------------------------------------------------

    def _on_command(self, message: JointTrajectory) -> None:
        chunk = messages.to_chunk(message, self.contract.joints, self.contract.dt_s)
        accepted = self._server.accept(chunk, time.time_ns())
        if accepted is None:
            return
        self._server.follow(accepted)
        if not messages.to_ns(message.header.stamp):
            self.held_s = self.held_s or time.monotonic()
        else:
            self.moved_s, self.held_s = time.monotonic(), 0.0

    def _tick(self) -> None:
        now_ns = time.time_ns()
        sent, _ = self._server.step(now_ns)
        self._sent.publish(messages.from_chunk(ActionChunk(now_ns, sent[None], self.contract.dt_s), self._joints))
        if self.fault == "joint states stop":
            return
        values, stamp_ns = self.position.astype(float), now_ns
        if self.fault == "a joint is NaN":
            values[1] = math.nan
        elif self.fault == "joint states in degrees":
            values = np.full(len(values), 60.0)
        elif self.fault == "joint states without stamp":
            stamp_ns = 0
        elif self.fault == "the arm's clock jumps back":
            stamp_ns -= 5_000_000_000
        elif self.fault == "joint states freeze":
            stamp_ns = self._frozen_ns
        else:
            self._frozen_ns = now_ns
            self.good_s[0] = time.monotonic()
        self._states.publish(messages.from_state(stamp_ns, self._joints, values))

    def _look(self) -> None:
        if self.fault == "the camera stops":
            return
        value = RAISE if self.fault == "the policy raises" else 90
        frame = Frame(time.time_ns(), "front", np.full((96, 96, 3), value, np.uint8))
        message = messages.from_frame(frame)
        if self.fault == "images without pixels":
            message.height = message.width = 0
        elif value != RAISE:
            self.good_s[1] = time.monotonic()
        self._images.publish(message)

    @property
    def _joints(self) -> tuple[str, ...]:
        return self.contract.joints

    def _spin(self) -> None:
        while not self._stopping.is_set():
            self._executor.spin_once(timeout_sec=0.1)

    # -- services ----------------------------------------------------------------------------------------------------

    def call(self, client: Client, request: Any) -> None:
        """Call a service and do not wait for its answer."""
        until(client.service_is_ready, f"service '{client.srv_name}'")
        client.call_async(request)

    def deactivate(self) -> None:
        """Deactivate the policy node."""
        self.call(self._change, _transition(Transition.TRANSITION_DEACTIVATE))

    def activate(self) -> None:
        """Activate it."""
        self.call(self._change, _transition(Transition.TRANSITION_ACTIVATE))

    def reload(self) -> None:
        """Have it load its policy anew."""
        self.call(self._reload, Trigger.Request())

    def close(self) -> None:
        """Leave the ROS graph."""
        self._stopping.set()
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown()


def _transition(number: int) -> ChangeState.Request:
    request = ChangeState.Request()
    request.transition.id = number
    return request


def until(predicate: Callable[[], object], what: str, seconds: float = _PATIENCE_S) -> None:
    """Wait until something is true.

    Raises:
        TimeoutError: it is not in time.
    """
    deadline = time.monotonic() + seconds
    while not predicate():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s; look at the policy node's output above")
        time.sleep(0.002)
