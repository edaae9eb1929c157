# SPDX-License-Identifier: Apache-2.0
"""A robot cell in one process: an arm, a camera, reward, policy and recorder nodes.

The arm is a played one, or the arm node before an emulated SO-101.

Each node has a thread of its own: the recorder waits for the reward node, and neither may wait for the test. Policies
hold still and load at once; the camera shows one shade, and the fake reward model calls a bright picture done. A
scripted person answers by services.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from sensor_msgs.msg import Image
from so101 import FILE, follower, patiently  # type: ignore[import-not-found]
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages
from lrm_ros.config import RobotContract
from lrm_ros.nodes import policy
from lrm_ros.nodes.arm import ArmNode
from lrm_ros.nodes.policy import PolicyNode
from lrm_ros.nodes.recorder import RecorderNode
from lrm_ros.nodes.reward import RewardNode
from lrm_ros.policy import FakePolicy
from lrm_ros.ros import stream
from lrm_ros.ros.executor import make_executor
from lrm_ros.topics import (
    ESTOP,
    IMAGE,
    JOINT_COMMAND,
    JOINT_COMMAND_SENT,
    JOINT_STATES,
    LATCHED,
    QUESTION,
    STOPPED,
)
from lrm_ros.types import ActionChunk, Frame

TASK = "put the toy in the bowl"
DARK, BRIGHT = 40, 220
HZ = 10.0
JOINTS = RobotContract().joints


def contract_file(folder: Path) -> Path:
    """The SO-101's contract with the twin's camera and rate, which a small policy of the tests has, too."""
    text = FILE.read_text().replace("urdf: so101.urdf", f"urdf: {FILE.parent / 'so101.urdf'}")
    text = text.replace("  - {name: front, width: 640, height: 480}", "  - {name: front, width: 96, height: 96}")
    text = text.replace("  - {name: wrist, width: 640, height: 480}\n", "")
    text = text.replace("control_hz: 30.0", f"control_hz: {HZ}")
    path = folder / "cell.yaml"
    path.write_text(text)
    return path


class Quick(FakePolicy):
    """Holds still, whatever the checkpoint."""

    note = ""

    def __init__(self, checkpoint, contract, execute_steps, device, units) -> None:
        super().__init__(contract, execute_steps)


class PlayedArm(Node):
    """Goes at once where it is told, and stops and is released as an arm's node."""

    def __init__(self) -> None:
        super().__init__("arm")
        self.target = [0.0, -0.5, 0.5, 0.3, 0.0, 0.3]
        self._states, self._sent = JOINT_STATES.publisher(self), JOINT_COMMAND_SENT.publisher(self)
        self._stopped = STOPPED.publisher(self)
        JOINT_COMMAND.subscribe(self, self._on_command)
        ESTOP.subscribe(self, self._on_estop)
        self.create_service(Trigger, "arm/release", self._on_release)
        self.create_timer(0.5 / HZ, lambda: self._states.publish(messages.from_state(self._now(), JOINTS, self.target)))
        self.create_timer(1 / HZ, self._send)
        self.stopped = False
        self._say(False)

    def _now(self) -> int:
        return self.get_clock().now().nanoseconds

    def _say(self, stopped: bool) -> None:
        self.stopped = stopped
        self._stopped.publish(Bool(data=stopped))

    def _send(self) -> None:
        if not self.stopped:
            chunk = ActionChunk(self._now(), np.array([self.target], np.float32), 1 / HZ)
            self._sent.publish(messages.from_chunk(chunk, JOINTS))

    def _on_command(self, message: JointTrajectory) -> None:
        if not self.stopped:
            self.target = list(message.points[-1].positions)

    def _on_estop(self, message: Bool) -> None:
        if message.data:
            self._say(True)

    def _on_release(self, _, response):
        self._say(False)
        response.success = True
        return response


class Cell:
    """The running nodes.

    Attributes:
        light: shade of the camera's picture, 0 to 255.
        asked: every question so far: (what, text).
        answer: the scripted person: called with a question, once each; what it calls are services of the node.
    """

    def __init__(self, spin, probe, server, folder: Path) -> None:
        self.spin, self.probe, self.server, self.folder = spin, probe, server, folder
        self.contract = str(contract_file(folder))
        self.light = DARK
        self.asked: list[tuple[str, str]] = []
        self.answer: Callable[[str, str], None] = lambda what, text: None
        self.replies: list[str] = []
        self._who = ""
        self._images = probe.create_publisher(Image, "front/image_raw", IMAGE)
        probe.create_timer(1 / HZ, self._publish)
        self._task = probe.create_publisher(String, "task", LATCHED)
        self._task.publish(String(data=TASK))
        QUESTION.subscribe(probe, self._on_question)
        self._clients: dict[str, object] = {}
        JOINT_COMMAND_SENT.subscribe(probe, self._on_sent)
        self._later: list[tuple[int, Callable[[], None]]] = []
        self._waiting: tuple[Callable[[], bool], Callable[[], None]] | None = None
        self._threads: list[tuple[threading.Thread, threading.Event]] = []
        self._nodes: list = []

    def _publish(self) -> None:
        if self._waiting is not None and self._waiting[0]():
            what, self._waiting = self._waiting[1], None
            what()
        stamp_ns = self.probe.get_clock().now().nanoseconds
        self._images.publish(messages.from_frame(Frame(stamp_ns, "front", np.full((96, 96, 3), self.light, np.uint8))))

    def start(self) -> None:
        """Start all but the node under test."""
        given = {"contract": self.contract}
        arm: Node = PlayedArm()
        if self.server is not None:
            arm.destroy_node()
            port = self.server.ports["follower"].path
            arm = ArmNode(**given, port=port, calibration_dir=str(self.folder), approach_speed=3.0)
        self.arm = arm
        self.recorder = RecorderNode(**given, image_format="png", reward_s=2.0)
        self.policy = PolicyNode(**given, checkpoint="fake")
        for node in (arm, RewardNode(**given, model="fake", interval=5), self.policy, self.recorder):
            self._run(node)
        # Before another node gives a task: the later of two counts.
        self.spin.until(lambda: self.recorder._task == TASK, what="task")

    def _run(self, node) -> None:
        """Configure and activate a node and spin it in a thread."""
        executor, stop = make_executor(node.get_logger()), threading.Event()
        executor.add_node(node)
        if not isinstance(node, PlayedArm):
            assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
            assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS

        def spin() -> None:
            while not stop.is_set():
                executor.spin_once(timeout_sec=0.05)
            executor.remove_node(node)
            executor.shutdown()

        thread = threading.Thread(target=spin, daemon=True)
        thread.start()
        self._threads.append((thread, stop))
        self._nodes.append(node)

    def close(self) -> None:
        """End the nodes, before the arm's port goes."""
        for thread, stop in self._threads:
            stop.set()
            thread.join()
        for node in reversed(self._nodes):
            getattr(node, "close", node.destroy_node)()

    def after(self, steps: int, what: Callable[[], None]) -> None:
        """Do something when the arm was sent so many targets more."""
        self._later.append((steps, what))

    def when(self, condition: Callable[[], bool], what: Callable[[], None]) -> None:
        """Do something as soon as a condition holds, looked at with every picture."""
        self._waiting = condition, what

    def _on_sent(self, _: JointTrajectory) -> None:
        due = [what for left, what in self._later if left <= 1]
        self._later = [(left - 1, what) for left, what in self._later if left > 1]
        for what in due:
            what()

    def _on_question(self, message: DiagnosticStatus) -> None:
        question = (message.name, message.message)
        if self.asked and self.asked[-1] == question:  # a latched topic is heard twice
            return
        self.asked.append(question)
        self._who = messages.status_values(message)["node"]
        if message.name != "nothing":
            self.answer(*question)

    def ready(self) -> None:
        """Say that the scene is in place."""
        self._call(Trigger, "ready", Trigger.Request())

    def outcome(self, success: bool) -> None:
        """Say how it ended."""
        self._call(SetBool, "outcome", SetBool.Request(data=success))

    def correct(self) -> None:
        """Turn the last answer round."""
        self._call(Trigger, "correct", Trigger.Request())

    def _call(self, kind, name: str, request) -> None:
        key = f"{self._who}/{name}"
        client = self._clients.setdefault(key, self.probe.create_client(kind, key))

        def told(future) -> None:
            self.replies.append(future.result().message)

        client.call_async(request).add_done_callback(told)


@contextlib.contextmanager
def running(spin, probe, folder: Path, monkeypatch, emulated: bool = False) -> Iterator[Cell]:
    """A cell whose nodes are started by :meth:`Cell.start`; ``emulated``: the arm is an SO-101 on its bus."""
    patiently(monkeypatch)
    monkeypatch.setattr(policy, "PolicyRunner", Quick)
    # Nodes, drivers and person are one process here: on a busy machine all of it stands still for a second.
    monkeypatch.setattr(stream, "STOPPED_S", 4.0)
    interval = sys.getswitchinterval()
    with follower(folder) if emulated else contextlib.nullcontext() as server:
        cell = Cell(spin, probe, server, folder)
        try:
            yield cell
        finally:
            cell.close()
            spin.close()
    sys.setswitchinterval(interval)
