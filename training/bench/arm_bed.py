# SPDX-License-Identifier: Apache-2.0
"""A bed for measurements of the arm node: the node and an emulated SO-101, each a process, and who commands it here."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from lrm_ros import messages, topics
from lrm_ros.config import RobotContract
from lrm_ros.config_arm import SECTION, ArmConfig, load_arm
from lrm_ros.config_files import load_yaml, read_yaml
from lrm_ros.graph.graphs import NodeSpec
from lrm_ros.graph.runner import Graph
from lrm_ros.ros.base import set_transport, share_file
from lrm_ros.ros.executor import make_executor
from lrm_ros.training.bench.arm_bus import calibrate
from lrm_ros.types import ActionChunk

STEP = 2 * np.pi / 4096
FAST = 20.0  # step limit [rad] where what is measured is the time, not the limits
_FIND_S = 60.0  # so long for the node to start, or to answer [s]


@dataclasses.dataclass(frozen=True)
class Seen:
    """A packet with goals at the servos.

    Attributes:
        at_s: monotonic time [s].
        goals: of the servos [steps].
        joints: (D,) where the joints behind them were [rad].
    """

    at_s: float
    goals: tuple[int, ...]
    joints: tuple[float, ...]


def emulate(folder: str, stop: Any, seen: Any) -> None:
    """Run a calibrated arm until ``stop``; put what was :class:`Seen` into ``seen``.

    Args:
        folder: for the port's link ``port`` and LeRobot's calibration file ``bench.json``.
        stop: an event.
        seen: a connection.
    """
    from lrm_ros.sim.servo_bus import protocol
    from lrm_ros.sim.servo_bus.arm import Arm
    from lrm_ros.sim.servo_bus.bus import Bus
    from lrm_ros.sim.servo_bus.server import Server

    found: list[Seen] = []

    class Listening(Bus):
        def receive(self, data: bytes, rate: int, now: float) -> None:
            before = len(self.seen)
            super().receive(data, rate, now)
            for packet in self.seen[before:] if len(self.seen) > before else ():
                given = packet.parameters
                if packet.instruction == protocol.SYNC_WRITE and given[0] == 42:
                    goals = tuple(given[at + 1] | given[at + 2] << 8 for at in range(2, len(given), 3))
                    joints = tuple(state.position for state in self.arm.joints.states())
                    found.append(Seen(time.monotonic(), goals, joints))

    bus = Listening(Arm())
    calibrate(bus.arm.servos, folder)
    with Server({"bench": bus}, {"bench": Path(folder) / "port"}):
        seen.send("ready")
        stop.wait()
    seen.send(found)


class Commander:
    """Commands the arm, stops and releases it, and listens to it."""

    def __init__(self, contract: RobotContract) -> None:
        """Join the ROS graph."""
        self._contract = contract
        self.node = rclpy.create_node("bench_arm")
        self.states: list[tuple[float, float]] = []  # (when it came, its age) [s]
        self.position: NDArray[np.float32] | None = None
        self.values: dict[str, str] = {}  # of the node's diagnostics
        self.told: list[tuple[float, str]] = []  # (when it came [s], the node's faults)
        self.stopped = False
        self._publisher = topics.JOINT_COMMAND.publisher(self.node)
        self._estop = topics.ESTOP.publisher(self.node)
        self._release = self.node.create_client(Trigger, "arm/release")
        topics.JOINT_STATES.subscribe(self.node, self._on_state)
        topics.STOPPED.subscribe(self.node, self._on_stopped)
        topics.DIAGNOSTICS.subscribe(self.node, self._on_diagnostics)
        self._executor = make_executor(self.node.get_logger())
        self._executor.add_node(self.node)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._spin, name="bench")
        self._thread.start()

    @property
    def is_heard(self) -> bool:
        """Whether the arm's node takes commands."""
        return self._publisher.get_subscription_count() > 0

    def _spin(self) -> None:
        while not self._stopping.is_set():
            self._executor.spin_once(timeout_sec=0.1)

    def _on_state(self, message: JointState) -> None:
        self.states.append((time.monotonic(), (time.time_ns() - messages.to_ns(message.header.stamp)) / 1e9))
        self.position = np.array(message.position, np.float32)

    def _on_stopped(self, message: Bool) -> None:
        self.stopped = message.data

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == "/arm":
                self.values = {value.key: value.value for value in status.values}
                self.told.append((time.monotonic(), status.message))

    @property
    def heard_s(self) -> float:
        """When the newest joint state came [s]; 0: none has."""
        return self.states[-1][0] if self.states else 0.0

    def wait(self, condition: Any, what: str) -> None:
        """Wait until a condition is true.

        Raises:
            TimeoutError: it never is.
        """
        end = time.monotonic() + _FIND_S
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"no {what} within {_FIND_S:.0f} s; look at the arm node's output above")
            time.sleep(0.01)

    def find(self) -> NDArray[np.float32]:
        """Return the newest joint state (D,) [rad], of which there may be none yet; raises as :meth:`wait`."""
        self.wait(lambda: self.position is not None, "joint state")
        assert self.position is not None
        return self.position.copy()

    def command(self, points: Sequence[NDArray] | NDArray, stamp_ns: int = 0) -> None:
        """Ask the arm to go to (K, D) [rad], one point a control period, from a moment; 0: now."""
        given = np.array(points, np.float32)
        chunk = ActionChunk(stamp_ns, np.nan_to_num(given, posinf=0.0, neginf=0.0), self._contract.dt_s)
        message = messages.from_chunk(chunk, self._contract.joints)
        for point, row in zip(message.points, given.tolist(), strict=True):
            point.positions = row  # not finite ones, too
        self._publisher.publish(message)

    def stop(self) -> float:
        """Publish an e-stop; returns when [s]. Raises as :meth:`wait` if the node does not say that it is stopped."""
        at_s = time.monotonic()
        self._estop.publish(Bool(data=True))
        self.wait(lambda: self.stopped, "'stopped'")
        return at_s

    def release(self) -> None:
        """Release the arm; raises as :meth:`wait`."""
        self.wait(self._release.service_is_ready, "service ~/release")
        answer = self._release.call_async(Trigger.Request())
        self.wait(answer.done, "answer of ~/release")
        self.wait(lambda: not self.stopped, "release")

    def close(self) -> None:
        """Leave it."""
        self._stopping.set()
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()


class Bed:
    """A node that runs.

    Attributes:
        commander: who commands it.
        contract: the robot contract.
        section: its section ``arm``.
        seen: what the servos were sent, once the bed has been left.
    """

    def __init__(self, commander: Commander, contract: RobotContract, section: ArmConfig) -> None:
        self.commander, self.contract, self.section = commander, contract, section
        self.seen: list[Seen] = []


@contextlib.contextmanager
def bed(log: Path | None, limits: bool) -> Iterator[Bed]:
    """Start the arm node of config/so101.yaml with an emulated arm.

    Args:
        log: file for the node's output; ``None``: it is shown.
        limits: with the limits of the file, or without those of step, velocity and acceleration, and without a box.

    Raises:
        RuntimeError: the arm node has died.
    """
    with tempfile.TemporaryDirectory(prefix="lrm_bench_") as name:
        folder = Path(name)
        given, file = read_yaml(share_file("config/so101.yaml")), folder / "contract.yaml"
        given[SECTION]["urdf"] = str(share_file("config/so101.urdf"))
        if not limits:
            given["max_step"] = [FAST] * 6
            given[SECTION] |= {"max_velocity": [FAST * given["control_hz"]] * 6, "max_acceleration": [FAST * 1e6] * 6}
            given[SECTION] |= {"box_lower": [], "box_upper": []}
        file.write_text(yaml.safe_dump(given))
        contract = load_yaml(file, RobotContract, (SECTION,))
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        stop = context.Event()
        emulator = context.Process(target=emulate, args=(name, stop, there), name="emulator")
        emulator.start()
        there.close()
        here.recv()
        spec = NodeSpec(
            "arm",
            "arm",
            {"contract": str(file), "port": str(folder / "port"), "id": "bench", "calibration_dir": name,
             "approach_speed": 10.0},
        )  # fmt: skip
        set_transport()
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        found = Bed(Commander(contract), contract, load_arm(file, contract))
        try:
            with Graph([spec], log=log, show=("arm",) if log is None else ()) as graph:
                yield found
                graph.check()
        finally:
            found.commander.close()
            rclpy.try_shutdown()
            stop.set()
            found.seen = here.recv()
            emulator.join()
