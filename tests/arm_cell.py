# SPDX-License-Identifier: Apache-2.0
"""A robot cell in one process: the arm node before an emulated SO-101, a camera, reward, policy and recorder nodes.

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
from sensor_msgs.msg import Image
from so101 import FILE, follower, patiently  # type: ignore[import-not-found]
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages
from lrm_ros.nodes import policy
from lrm_ros.nodes.arm import ArmNode
from lrm_ros.nodes.policy import PolicyNode
from lrm_ros.nodes.recorder import RecorderNode
from lrm_ros.nodes.reward import RewardNode
from lrm_ros.policy import FakePolicy
from lrm_ros.ros.executor import make_executor
from lrm_ros.topics import IMAGE, JOINT_COMMAND_SENT, LATCHED, QUESTION
from lrm_ros.types import Frame

TASK = "put the toy in the bowl"
DARK, BRIGHT = 40, 220
HZ = 10.0


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
        self._later: tuple[int, Callable[[], None]] | None = None
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
        port = self.server.ports["follower"].path
        arm = ArmNode(**given, port=port, calibration_dir=str(self.folder), approach_speed=3.0)
        self.recorder = RecorderNode(**given, image_format="png", reward_s=2.0)
        self.policy = PolicyNode(**given, checkpoint="fake")
        for node in (arm, RewardNode(**given, model="fake", interval=5), self.policy, self.recorder):
            self._run(node)

    def _run(self, node) -> None:
        """Configure and activate a node and spin it in a thread."""
        executor, stop = make_executor(node.get_logger()), threading.Event()
        executor.add_node(node)
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
            node.close()

    def after(self, steps: int, what: Callable[[], None]) -> None:
        """Do something when the arm was sent so many targets more."""
        self._later = steps, what

    def when(self, condition: Callable[[], bool], what: Callable[[], None]) -> None:
        """Do something as soon as a condition holds, looked at with every picture."""
        self._waiting = condition, what

    def _on_sent(self, _: JointTrajectory) -> None:
        if self._later is not None:
            left, what = self._later
            self._later = (left - 1, what) if left > 1 else None
            if left <= 1:
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
def running(spin, probe, folder: Path, monkeypatch) -> Iterator[Cell]:
    """A cell whose nodes are started by :meth:`Cell.start`."""
    patiently(monkeypatch)
    monkeypatch.setattr(policy, "PolicyRunner", Quick)
    interval = sys.getswitchinterval()
    with follower(folder) as server:
        cell = Cell(spin, probe, server, folder)
        try:
            yield cell
        finally:
            cell.close()
            spin.close()
    sys.setswitchinterval(interval)
