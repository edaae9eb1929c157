# SPDX-License-Identifier: Apache-2.0
"""A recording session as a person has it: cameras, arm node, recorder, each a process, and an emulated SO-101.

The nodes are those of ``lrm up teleop sim:=false``; in place of the node ``teleop`` this process commands the arm.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import yaml
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, JointState

from lrm_ros import messages, topics
from lrm_ros.config import RobotContract
from lrm_ros.config_arm import SECTION
from lrm_ros.config_files import load_yaml, read_yaml
from lrm_ros.graph.graphs import NodeSpec, nodes_of
from lrm_ros.graph.runner import Graph
from lrm_ros.ros.base import set_transport, share_file
from lrm_ros.ros.control import Control, EpisodeError
from lrm_ros.ros.executor import make_executor
from lrm_ros.training.bench.arm_desk import ANSWER_S, POSE, SEGMENT, TRIES, remove_unowned
from lrm_ros.training.bench.record_frames import LOOP, write_video
from lrm_ros.types import ActionChunk

CAMERAS = ("front", "wrist")
ARM, LEADER = "follower", "leader"
READY_S = 120.0  # nodes start within, on a busy machine [s]
SWAY = {0: (0.8, 6.0), 4: (0.6, 4.0), 5: (0.4, 3.0)}  # joint: amplitude [rad], period [s]
HELD = 200  # messages about frames that wait for this process
_NEAR = 0.15  # an arm so near is where it was sent [rad]


class Bus:
    """Emulated SO-101 arms in a process of their own: ``python -m lrm_ros.sim.servo_bus``, calibrated."""

    def __init__(self, folder: Path, arms: tuple[str, ...] = (ARM,)) -> None:
        """Start it and wait for its ports, ``FOLDER/NAME``; calibration files are ``FOLDER/NAME.json``.

        Raises:
            RuntimeError: it ends.
        """
        folder.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-m", "lrm_ros.sim.servo_bus", *arms, "--links", str(folder)]
        words += ["--calibrated", "--calibration", str(folder)]
        # A session of its own: where the kernel groups processes by session, it need not share with LeRobot's threads.
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        for name in arms:
            line = self.process.stdout.readline()
            if not line.startswith(f"{name}:"):
                raise RuntimeError(f"the emulated servo bus does not start: {line.strip() or 'see above'}")
        threading.Thread(target=self.process.stdout.read, name="bus", daemon=True).start()  # what it answers

    def tell(self, line: str) -> None:
        """Have it carry out a line of ``lrm_ros.sim.servo_bus.commands``."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def videos(folder: Path, loop: int = LOOP) -> dict[str, Path]:
    """Render the cameras' videos and return their paths."""
    found = {camera: folder / f"{camera}.avi" for camera in CAMERAS}
    for seed, path in enumerate(found.values()):
        if not path.exists():
            write_video(path, seed, loop)
    return found


def specs(folder: Path, sources: dict[str, Path], episodes: Path, image_format: str) -> tuple[Path, list[NodeSpec]]:
    """Write the contract's file and return it and the nodes: arm, cameras and recorder."""
    given, file = read_yaml(share_file("config/so101.yaml")), folder / "contract.yaml"
    given[SECTION]["urdf"] = str(share_file("config/so101.urdf"))
    file.write_text(yaml.safe_dump(given))
    values: dict[str, Any] = {"sim": False, "contract": str(file)}
    values |= {"arm.port": str(folder / "arms" / ARM), "arm.id": ARM, "arm.calibration_dir": str(folder / "arms")}
    values |= {"arm.approach_speed": 3.0, "recorder.folder": str(episodes), "recorder.task_text": "sway"}
    values |= {"recorder.image_format": image_format}
    values |= {f"{camera}_camera.source": str(path) for camera, path in sources.items()}
    return file, [node for node in nodes_of("teleop", values) if node.name != "teleop"]


class Session:
    """Everything runs.

    Attributes:
        episodes: folder of the journals.
        graphs: the nodes that run, each in a graph of its own so that it can be killed alone.
        heard: stamps of the joint states that came here [ns].
        shown: stamps of each camera's frames, as its camera_info told them here [ns].
    """

    def __init__(self, folder: Path, sources: dict[str, Path], image_format: str = "jpeg") -> None:
        """Start it; returns when the arm moves.

        Args:
            folder: for the arm's port, journals and the nodes' output.
            sources: of the cameras, see :func:`videos`.
            image_format: of the recorder.

        Raises:
            RuntimeError: something ended, or does not come.
        """
        self._log, self.episodes = folder / "nodes.log", folder / "episodes"
        self.heard = array("q")
        self.shown = {camera: array("q") for camera in CAMERAS}
        self._newest: np.ndarray | None = None
        self._stopping = threading.Event()
        self.graphs: dict[str, Graph] = {}
        self._threads: list[threading.Thread] = []
        self.bus = Bus(folder / "arms")
        file, self._specs = specs(folder, sources, self.episodes, image_format)
        self._contract = load_yaml(file, RobotContract, (SECTION,))
        set_transport()
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node("bench_record")
        self._commands = topics.JOINT_COMMAND.publisher(self._node)
        topics.JOINT_STATES.subscribe(self._node, self._on_state)
        for camera in CAMERAS:
            topics.CAMERA_INFO.of(camera).subscribe(self._node, partial(self._on_info, camera), HELD)
        # A killed recorder is still seen for a while and does not answer; one that ends an episode may be slow.
        self._starting = Control(self._node, ["recorder/start_episode"], timeout_s=ANSWER_S, find_s=READY_S)
        self._ending = Control(self._node, ["recorder/stop_episode"])
        self._executor = make_executor(self._node.get_logger())
        self._executor.add_node(self._node)
        self._run_thread(self._spin)
        try:
            self._start_arm()
            for spec in self._specs:
                if spec.kind != "arm":
                    self.start(spec.name)
            self._run_thread(self._command)
            self.wait(lambda: np.abs(self._newest - self._target()).max() < _NEAR, "arm in motion")
        except BaseException:
            self.close()
            raise

    # -- nodes -------------------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start a node."""
        graph = Graph([spec for spec in self._specs if spec.name == name], log=self._log, show=())
        graph.start()
        self.graphs[name] = graph

    def _start_arm(self) -> None:
        """Start the arm node, again where a busy computer has not heard each servo; raises as :meth:`wait`."""
        for left in reversed(range(TRIES)):
            self.start("arm")
            try:
                self.wait(lambda: self._newest is not None, "joint state")
                return
            except RuntimeError:
                self.graphs.pop("arm").stop()
                if not left:
                    raise

    def pids(self) -> dict[str, int]:
        """Return the process of each node, of the emulated bus and of this bench."""
        found = {name: graph._processes[name].pid for name, graph in list(self.graphs.items())}
        return {**found, "(emulated bus)": self.bus.process.pid, "(this bench)": os.getpid()}

    def kill(self, names: list[str]) -> int:
        """Kill nodes (SIGKILL) and return when [ns]; the shared memory that they leave goes, too."""
        pids = [self.graphs[name]._processes[name].pid for name in names]
        segments = {word for pid in pids for word in SEGMENT.findall(Path(f"/proc/{pid}/maps").read_text())}
        at_ns = time.time_ns()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for name in names:
            self.graphs.pop(name).stop()
        for segment in segments:
            remove_unowned(Path(segment))
        return at_ns

    def alive(self) -> None:
        """Raise RuntimeError if a node has ended."""
        for name, graph in self.graphs.items():
            if graph._processes[name].poll() is not None:
                raise RuntimeError(f"node '{name}' died; its output is in '{self._log}'")

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until a condition is true.

        Raises:
            RuntimeError: a node has ended, or it is not in time.
        """
        end = time.monotonic() + READY_S
        while not condition():
            self.alive()
            if time.monotonic() > end:
                raise RuntimeError(f"no {what} within {READY_S:.0f} s; the nodes' output is in '{self._log}'")
            time.sleep(0.02)

    # -- the arm -----------------------------------------------------------------------------------------------------

    def _on_state(self, message: JointState) -> None:
        self.heard.append(messages.to_ns(message.header.stamp))
        self._newest = np.array(message.position, np.float32)

    def _on_info(self, camera: str, message: CameraInfo) -> None:
        self.shown[camera].append(messages.to_ns(message.header.stamp))

    def _target(self) -> np.ndarray:
        """Return where the arm is to be now, (D,) [rad]."""
        target = POSE.copy()
        for joint, (amplitude, period) in SWAY.items():
            target[joint] += amplitude * np.sin(2 * np.pi * time.monotonic() / period)
        return target

    def _command(self) -> None:
        due_s = time.monotonic()
        while not self._stopping.is_set():
            chunk = ActionChunk(0, self._target()[None], self._contract.dt_s)
            self._commands.publish(messages.from_chunk(chunk, self._contract.joints))
            due_s = max(due_s + self._contract.dt_s, time.monotonic())
            self._stopping.wait(due_s - time.monotonic())

    def _spin(self) -> None:
        while not self._stopping.is_set():
            self._executor.spin_once(timeout_sec=0.1)

    def _run_thread(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=target.__name__)
        thread.start()
        self._threads.append(thread)

    # -- episodes ----------------------------------------------------------------------------------------------------

    def begin(self) -> Path:
        """Begin an episode as soon as the recorder's inputs are good; returns the path that its journal will have.

        Raises:
            EpisodeError: they do not become good.
            RuntimeError: a node has ended.
        """
        end = time.monotonic() + READY_S
        while True:
            try:
                return Path(self._starting.trigger("recorder/start_episode"))
            except EpisodeError:
                self.alive()
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)

    def end(self, path: Path) -> tuple[Path, str]:
        """End the episode; returns its journal, and why the recorder calls it faulty, if it does.

        Raises:
            EpisodeError: it has not become a journal.
        """
        try:
            return Path(self._ending.trigger("recorder/stop_episode")), ""
        except EpisodeError as error:
            faulty = path.with_name(path.name + ".faulty")
            if not faulty.exists():
                raise
            return faulty, str(error)

    def take_heard(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return ``heard`` and ``shown`` since the last call, as (N,) int64 [ns]."""
        heard, self.heard = self.heard, array("q")
        shown, self.shown = self.shown, {camera: array("q") for camera in CAMERAS}
        return np.array(heard, np.int64), {camera: np.array(stamps, np.int64) for camera, stamps in shown.items()}

    def close(self) -> None:
        """End everything."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        for graph in self.graphs.values():
            with contextlib.suppress(OSError):
                graph.stop()
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown()
        self.bus.close()
