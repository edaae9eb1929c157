# SPDX-License-Identifier: Apache-2.0
"""A desk on which the commands of the documentation run: emulated arms, cameras as pipes of video, a scripted person.

Commands are programs on terminals of their own, in a folder that looks like the repository's; the arms and the cameras
are in this process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from diagnostic_msgs.msg import DiagnosticStatus
from servo_buses import arms  # type: ignore[import-not-found]
from so101 import angles, calibrate, leader_and_follower, place  # type: ignore[import-not-found]
from std_srvs.srv import SetBool, Trigger

from lrm_ros import messages
from lrm_ros.config import RobotContract
from lrm_ros.config_arm import SECTION
from lrm_ros.config_files import load_yaml
from lrm_ros.sim.servo_bus import fifo
from lrm_ros.sim.servo_bus.server import Server
from lrm_ros.topics import QUESTION

ROOT = Path(__file__).parents[1]
PATIENCE = 480.0  # s, for programs that import much and wait for each other on a busy machine
DARK, BRIGHT = 40, 220  # the fake reward model calls a bright picture done


class Session:
    """A program on a terminal of its own; all that it says is read at once."""

    def __init__(self, script: str, folder: Path, env: dict[str, str]) -> None:
        self.command = script.splitlines()[-1]
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 250, 0, 0))  # a status line is cut to the width
        self.process = subprocess.Popen(
            ["bash", "-c", script], cwd=folder, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True
        )
        os.close(slave)
        self.said = ""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # the terminal has no program any more
                return
            self.said += data.decode(errors="replace")

    def type(self, keys: str) -> None:
        """Type on its terminal."""
        os.write(self._master, keys.encode())

    def interrupt(self) -> None:
        """Interrupt it as Ctrl+C does."""
        self.process.send_signal(signal.SIGINT)

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def close(self) -> None:
        """End what is left of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._thread.join(10)
        os.close(self._master)


class Desk:
    """The arms, the cameras, and who does what the page says.

    Attributes:
        folder: in which the commands run; has ``config``.
        light: shade of the cameras' pictures.
        server: the emulated arms.
    """

    def __init__(
        self, spin, probe, server: Server, folder: Path, cameras: Sequence[str], size: tuple[int, int]
    ) -> None:
        self.spin, self.probe, self.server, self.folder = spin, probe, server, folder
        self.light = DARK
        self.running: list[Session] = []
        self.pipes = {name: folder / "cameras" / name for name in cameras}
        (folder / "cameras").mkdir()
        self._number = 0
        self._writers = []
        for path in self.pipes.values():
            fifo.make(path)
            self._writers.append(fifo.FifoWriter(path, lambda: self._picture(size), [0, 0, 0]))
        home, site = folder / "home", folder / "site"
        site.mkdir()
        shutil.copy(ROOT / "tests/servo_patience.py", site / "sitecustomize.py")
        self.env = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(site), str(ROOT), os.environ.get("PYTHONPATH")])),
            "COLUMNS": "200",
            "OMP_NUM_THREADS": "1",
            "HF_HOME": str(home),
            "HF_LEROBOT_HOME": str(home),
            "HF_HUB_OFFLINE": "1",
        }
        self.env.pop("LRM_SERVE_TOKEN", None)
        QUESTION.subscribe(probe, self._on_question)
        self.asked: list[str] = []
        self.answer: Callable[[str, str], None] = lambda what, text: None
        self._who = ""

    def _picture(self, size: tuple[int, int]) -> tuple[int, np.ndarray]:
        self._number += 1
        return self._number, np.full((size[1], size[0], 3), self.light, np.uint8)

    def close(self) -> None:
        for session in self.running:
            session.close()
        for writer in self._writers:
            writer.close()

    # -- commands ----------------------------------------------------------------------------------------------------

    def start(self, command: str, before: Sequence[str] = ()) -> Session:
        """Start a command after the assignments that stand before it."""
        session = Session("\n".join([*before, f"exec env {command}"]), self.folder, self.env)
        self.running.append(session)
        return session

    def until(self, condition: Callable[[], Any], session: Session, what: str) -> None:
        """Wait until something is so while a program runs; fails with what it has said."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"{session.command}: never {what}; it said:\n{session.said[-6000:]}"
            assert not session.ended or condition(), (
                f"{session.command} ended with {session.process.returncode} before: {what}\n{session.said[-6000:]}"
            )
            self.spin.executor.spin_once(timeout_sec=0.02)

    def end(self, session: Session, codes: Sequence[int] = (0,)) -> str:
        """Wait for the end of a program; returns what it has said."""
        end = time.monotonic() + PATIENCE
        while not session.ended:
            assert time.monotonic() < end, f"{session.command} never ended, and said:\n{session.said[-6000:]}"
            self.spin.executor.spin_once(timeout_sec=0.02)
        session.close()
        self.running.remove(session)
        code = session.process.returncode
        assert code in codes, f"{session.command} ended with {code}:\n{session.said[-6000:]}"
        return session.said

    def run(self, command: str, before: Sequence[str] = (), codes: Sequence[int] = (0,)) -> str:
        """Run a command to its end; returns what it has said."""
        return self.end(self.start(command, before), codes)

    def call(self, session: Session, kind: type, service: str, request: Any = None) -> Any:
        """Call a service, again until it says yes: what it needs may come a moment later."""
        answers: list[Any] = []

        def said_yes() -> bool:
            if answers and answers[-1].done() and answers[-1].result().success:
                return True
            if client.service_is_ready() and (not answers or answers[-1].done()):
                self._pause(0.3 if answers else 0.0)
                answers.append(client.call_async(request or kind.Request()))
            return False

        client = self.probe.create_client(kind, service)
        self.until(said_yes, session, f"service {service} said yes")
        return answers[-1].result()

    def wait(self, seconds: float) -> None:
        """Let the desk go on for a while: an episode has a length."""
        self._pause(seconds)

    def wait_then(self, seconds: float, what: Callable[[], None]) -> None:
        """Do something a while later, in the executor's thread."""
        due = time.monotonic() + seconds

        def look() -> None:
            if time.monotonic() >= due:
                self.probe.destroy_timer(timer)
                what()

        timer = self.probe.create_timer(0.05, look)

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.spin.executor.spin_once(timeout_sec=0.02)

    # -- the person --------------------------------------------------------------------------------------------------

    def _on_question(self, message: DiagnosticStatus) -> None:
        question = (message.name, message.message)
        self._who = messages.status_values(message)["node"]
        if message.name != "nothing":
            self.asked.append(question[1])
            self.answer(*question)

    def ready(self) -> None:
        """Say that the scene is in place."""
        self._send(Trigger, "ready", Trigger.Request())

    def outcome(self, success: bool) -> None:
        """Say how it ended."""
        self._send(SetBool, "outcome", SetBool.Request(data=success))

    def _send(self, kind: type, name: str, request: Any) -> None:
        self.probe.create_client(kind, f"{self._who}/{name}").call_async(request)

    def follower(self) -> np.ndarray:
        """Where the follower's joints are [rad]."""
        return np.array(angles(self.server))

    def lead(self, change: float = 0.0) -> None:
        """Put the leader where the follower is, its first joint a little further [rad]."""
        where = self.follower()
        where[0] += change
        place(self.server, where)


def config_folder(folder: Path) -> Path:
    """Copy the repository's configuration; returns the copy."""
    return Path(shutil.copytree(ROOT / "config", folder / "config"))


def write_settings(path: Path, given: dict[str, Any]) -> None:
    """Change a contract's file as a person does who types the settings of a page into it."""
    found = yaml.safe_load(path.read_text())
    for key, value in given.items():
        assert key in found, f"'{path}' has no '{key}'"
        if isinstance(value, dict):
            assert set(value) <= set(found[key]), f"'{path}' has no {set(value) - set(found[key])}"
            found[key] |= value
        else:
            found[key] = value
    path.write_text(yaml.safe_dump(found))


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def desk(spin, probe, folder: Path, server: Server, cameras: Sequence[str], files: dict[str, Path]) -> Iterator[Desk]:
    """A desk with these arms and cameras of 64x48; ``files``: calibrations, by their place in LeRobot's own folder."""
    config_folder(folder)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    made = Desk(spin, probe, server, folder, cameras, (64, 48))
    for place_, file in files.items():
        path = folder / "home/calibration" / place_
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, path)
    try:
        yield made
    finally:
        made.close()
        sys.setswitchinterval(interval)


@contextlib.contextmanager
def so101_desk(spin, probe, folder: Path) -> Iterator[Desk]:
    """A follower, a leader, cameras front and wrist, the configuration."""
    made = folder / "made"
    made.mkdir()
    files = {
        "robots/so_follower/follower.json": made / "follower.json",
        "teleoperators/so_leader/leader.json": made / "leader.json",
    }
    with (
        leader_and_follower(made) as server,
        desk(spin, probe, folder, server, ("front", "wrist"), files) as found,
    ):
        yield found


@contextlib.contextmanager
def so100_desk(spin, probe, folder: Path) -> Iterator[Desk]:
    """An SO-100 that is calibrated as the contract of ``config/so100_bus.yaml`` wants it, and camera top."""
    made = folder / "made"
    made.mkdir()
    server = arms("follower")
    contract = load_yaml(ROOT / "config/so100_bus.yaml", RobotContract, (SECTION,))
    calibrate(server, made, contract=contract)
    files = {"robots/so_follower/my_so100.json": made / "follower.json"}
    with server, desk(spin, probe, folder, server, ("top",), files) as found:
        yield found
