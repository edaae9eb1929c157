# SPDX-License-Identifier: Apache-2.0
"""A desk for faults of an arm in motion: arm node, recorder and policy, each a process, with an emulated arm."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import yaml
from numpy.typing import NDArray
from rclpy.signals import SignalHandlerOptions
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages, topics
from lrm_ros.config import RobotContract
from lrm_ros.config_arm import SECTION, ArmConfig, load_arm
from lrm_ros.config_files import load_yaml, read_yaml
from lrm_ros.graph.graphs import NodeSpec
from lrm_ros.graph.runner import Graph
from lrm_ros.ros.base import set_transport, share_file
from lrm_ros.ros.control import Control, EpisodeError
from lrm_ros.ros.diagnostics import SUMMARY_S
from lrm_ros.training.bench.arm_bed import Commander
from lrm_ros.training.bench.arm_bus import NAME, EmulatedBus
from lrm_ros.types import ActionChunk, Frame

POSE = np.array([0.0, -0.5, 0.5, 0.3, 0.4, 0.5], np.float32)  # but the pan, which swings
SWING, SPEED = 1.4, 1.1  # of the pan to either side [rad], [rad/s]
CHUNK, EVERY = 16, 8  # control steps of a policy's chunk, and until it sends the next one
TRIES = 5  # to connect to the arm
NEAR = 0.1  # an arm so near is there: it sags and the joints have an encoder [rad]
_POLICY = "LRM_BENCH_POLICY"  # environment variable: this process is the policy; the contract's file
_FIND_S = 60.0
ANSWER_S = 10.0  # a service that was killed is still seen for 20 s, and does not answer
SEGMENT = re.compile(r"/dev/shm/fast(?:dds|rtps)_[0-9a-f]{16}")


def way(begin: float, end: float, dt_s: float) -> NDArray[np.float32]:
    """Return the points (K, D) [rad] of a motion of the pan at ``SPEED``, from a control step after its begin."""
    steps = max(1, round(abs(end - begin) / SPEED / dt_s))
    points = np.repeat(POSE[None], steps, axis=0)
    points[:, 0] = begin + np.arange(1, steps + 1) * np.sign(end - begin) * SPEED * dt_s
    return points


class Desk:
    """Everything that runs.

    Attributes:
        bus: the emulated arm.
        commander: who commands the arm, and hears it, in this process.
        contract: the robot contract.
        section: its section ``arm``.
        finished: journals that the recorder has called finished.
    """

    def __init__(self, folder: Path, log: Path) -> None:
        """Start the emulated arm; nodes by :meth:`run`.

        Args:
            folder: for port, calibration and journals.
            log: the nodes' output.
        """
        self._folder, self._log = folder, log
        given, self.file = read_yaml(share_file("config/so101.yaml")), folder / "contract.yaml"
        given[SECTION]["urdf"] = str(share_file("config/so101.urdf"))
        given["cameras"] = [{"name": "front", "width": 96, "height": 96}]
        self.file.write_text(yaml.safe_dump(given))
        self.contract = load_yaml(self.file, RobotContract, (SECTION,))
        self.section: ArmConfig = load_arm(self.file, self.contract)
        self.finished: list[Path] = []
        self.last: ActionChunk | None = None  # the newest command, of anyone
        self._graphs: dict[str, Graph] = {}
        self._policy: subprocess.Popen[bytes] | None = None
        self.bus = EmulatedBus(folder)
        set_transport()
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self.commander = Commander(self.contract)
        node = self.commander.node
        image = np.zeros((96, 96, 3), np.uint8)
        camera = topics.IMAGE_RAW.of("front").publisher(node)
        node.create_timer(1 / 30, lambda: camera.publish(messages.from_frame(Frame(time.time_ns(), "front", image))))
        topics.JOINT_COMMAND.subscribe(node, self._on_command)
        services = ["arm/reset", "recorder/start_episode", "recorder/stop_episode"]
        self.control = Control(node, services, timeout_s=ANSWER_S, find_s=_FIND_S)

    def _on_command(self, message: JointTrajectory) -> None:
        self.last = messages.to_chunk(message, self.contract.joints, self.contract.dt_s)

    def run(self) -> None:
        """Start arm node and recorder; raises TimeoutError if there are no joint states."""
        self.start("arm")
        self.start("recorder")

    # -- programs ----------------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start the arm node or the recorder; the arm node again where a busy computer has not heard each servo.

        Raises:
            TimeoutError: there are no joint states.
        """
        values: dict[str, dict[str, Any]] = {
            "arm": {"port": str(self._folder / NAME), "id": NAME, "calibration_dir": str(self._folder),
                    "approach_speed": 3.0},
            "recorder": {"folder": str(self._folder / "episodes"), "task_text": "swing", "min_free_mb": 1},
        }  # fmt: skip
        spec = NodeSpec(name, name, values[name] | {"contract": str(self.file)})
        for left in reversed(range(TRIES)):
            graph = self._graphs[name] = Graph([spec], log=self._log, show=())
            graph.start()
            if name != "arm" or self._heard(graph) or not left:
                return
            graph.stop()

    def _heard(self, graph: Graph) -> bool:
        """Wait for joint states, or the end of their node; returns whether they come."""
        begun_s = time.monotonic()
        self.until(lambda: self.commander.heard_s > begun_s or graph.wait(0.01), "joint state")
        return not graph.failed

    def pid(self, name: str) -> int:
        """Return the process of a program."""
        if name == "policy":
            assert self._policy is not None
            return self._policy.pid
        return self._graphs[name]._processes[name].pid

    def start_policy(self) -> None:
        """Start a policy that swings the arm from where it is."""
        env = {**os.environ, _POLICY: str(self.file)}
        with self._log.open("ab") as out:
            self._policy = subprocess.Popen([sys.executable, "-m", __name__], env=env, stdout=out, stderr=out)

    def kill(self, name: str) -> str:
        """Kill a program (SIGKILL); returns the name that ``lrm up`` would end with. Its shared memory goes, too."""
        pid = self.pid(name)
        segments = set(SEGMENT.findall(Path(f"/proc/{pid}/maps").read_text()))
        os.kill(pid, signal.SIGKILL)
        if name == "policy":
            assert self._policy is not None
            self._policy.wait()
            self._policy, failed = None, ""
        else:
            graph = self._graphs[name]
            graph.wait(_FIND_S)
            failed = graph.failed
        for segment in segments:
            remove_unowned(Path(segment))
        return failed

    def stop(self, name: str) -> None:
        """End what is left of a program that was killed."""
        self._graphs.pop(name).stop()

    @property
    def log_bytes(self) -> int:
        """How long the nodes' output is now."""
        return self._log.stat().st_size if self._log.exists() else 0

    def read(self, words: str, since: tuple[float, int]) -> str:
        """Return what a person reads since a moment that matches, or empty; see :meth:`_find`.

        A fault that has come and gone before is not told again at once, but in a line with a count.
        """
        with contextlib.suppress(TimeoutError):
            self.until(lambda: self._find(words, since), "line about it", SUMMARY_S + 2.0)
        return self._find(words, since)

    def _find(self, words: str, since: tuple[float, int]) -> str:
        """Return what matches since a moment: (monotonic time [s], bytes of output)."""
        with self._log.open("rb") as file:
            file.seek(since[1])
            lines = file.read().decode(errors="replace").splitlines()
        lines += [text for at_s, text in self.commander.told if at_s > since[0]]
        return next((match.group() for line in lines if (match := re.search(words, line))), "")

    # -- motion ------------------------------------------------------------------------------------------------------

    @property
    def pan(self) -> float:
        """Where the pan is, as the arm says [rad]."""
        return float(self.commander.find()[0])

    def until(self, condition: Callable[[], Any], what: str, timeout_s: float = _FIND_S) -> None:
        """Wait for a condition; raises TimeoutError naming ``what``."""
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"no {what} within {timeout_s:.0f} s; the nodes' output is in '{self._log}'")
            time.sleep(0.01)

    def fresh(self) -> None:
        """Wait for the next joint state."""
        now_s = time.monotonic()
        self.until(lambda: self.commander.heard_s > now_s, "joint state")

    def go(self, pan: float, timeout_s: float = _FIND_S) -> None:
        """Go to the pose with this pan and stand; asks again and again, for a node may have forgotten a command."""
        target, asked_s = POSE.copy(), 0.0
        target[0] = pan

        def there() -> bool:
            nonlocal asked_s
            if time.monotonic() > asked_s + 0.5:
                asked_s = time.monotonic()
                self.commander.command(target[None])
            return bool(np.abs(self.commander.find() - target).max() < NEAR)

        self.fresh()
        self.until(there, f"arm at {pan} rad", timeout_s)
        time.sleep(0.3)

    def swing(self, stamp_ns: int = 0) -> None:
        """Command a swing from where the arm is to the further side."""
        pan = self.pan
        self.commander.command(way(pan, -SWING if pan > 0 else SWING, self.contract.dt_s), stamp_ns)

    def reset(self) -> None:
        """Call ``arm/reset`` as a person does: again, if a busy computer has not heard each servo.

        Raises:
            EpisodeError: it is refused each time.
        """
        for left in reversed(range(TRIES)):
            try:
                self.control.trigger("arm/reset")
                return
            except EpisodeError:
                if not left:
                    raise
                time.sleep(0.5)

    # -- episodes ----------------------------------------------------------------------------------------------------

    def begin_episode(self) -> None:
        """Begin one, as soon as the recorder's inputs are good."""
        end = time.monotonic() + _FIND_S
        while True:
            try:
                self.control.trigger("recorder/start_episode")
                return
            except EpisodeError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def end_episode(self) -> None:
        """End it.

        Raises:
            EpisodeError: something in it was not good; it is none of the finished.
        """
        self.finished.append(Path(self.control.trigger("recorder/stop_episode")))

    def record_going(self, pan: Callable[[], float]) -> None:
        """Record the arm going somewhere, again if a busy computer was late: a finished episode, that must stay.

        Args:
            pan: returns where it goes each time, as of :meth:`go`.

        Raises:
            EpisodeError: something was not good each time.
        """
        for left in reversed(range(TRIES)):
            self.begin_episode()
            self.go(pan())
            try:
                self.end_episode()
                return
            except EpisodeError:
                if not left:
                    raise

    def close(self) -> None:
        """End everything."""
        if self._policy is not None:
            self.kill("policy")
        for graph in self._graphs.values():
            graph.stop()
        self.commander.close()
        rclpy.try_shutdown()
        self.bus.close()


def remove_unowned(segment: Path) -> None:
    """Remove DDS's shared memory whose owner is gone: it has held the lock of the file beside it."""
    lock = Path(f"{segment}_el")
    with contextlib.suppress(OSError), lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.unlink()
        segment.unlink()


def _policy() -> None:
    """Swing the arm by chunks, as a policy does, until this process is killed."""
    contract = load_yaml(os.environ[_POLICY], RobotContract, (SECTION,))
    set_transport()
    rclpy.init()
    commander = Commander(contract)
    commander.wait(lambda: commander.is_heard, "arm node")
    at, ends = float(commander.find()[0]), [SWING, -SWING] * 500
    wave = np.concatenate([way(begin, end, contract.dt_s) for begin, end in pairwise([at, *ends])])
    due_s = time.monotonic()
    for k in range(0, len(wave) - CHUNK, EVERY):
        commander.command(wave[k : k + CHUNK], time.time_ns())
        due_s += EVERY * contract.dt_s
        time.sleep(max(0.0, due_s - time.monotonic()))


if __name__ == "__main__":
    _policy()
