# SPDX-License-Identifier: Apache-2.0
"""LeRobot's lerobot-record on the emulated arms and videos of ``lrm bench record``, killed, and what is left of it.

Run as a program it is lerobot-record with one camera type more, ``recorded``: LeRobot's OpenCV camera on a video file.
Its OpenCVCamera takes the path, but insists on setting size and rate, which OpenCV refuses on a file, and reads a file
as fast as it can; the type compares the size instead, and waits as a camera does. On a busy computer LeRobot gives up a
servo after 50 ms and a camera after 500 ms; here it waits longer. Nothing else of it is changed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lrm_ros.training.bench.record_frames import HEIGHT, HZ, WIDTH

SERVO_MS, FRAME_MS = 3000, 20_000  # how long LeRobot waits for a servo's answer, and how old a frame may be
READ = "--what-is-left"  # this process reads the data set in the folder that follows
READY_S = 600.0  # an episode begins within, on a busy machine: it imports torch, and encodes the one before [s]
# What a user can set that has to do with when something reaches the disk; the first are its defaults.
OPTIONS = {
    "its defaults": (),
    "--dataset.streaming_encoding=true": ("--dataset.streaming_encoding=true", "--dataset.encoder_threads=2"),
}


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of LeRobot's programs: they write below ``folder`` and ask nobody on the network."""
    return {**os.environ, "HF_HOME": str(folder), "HF_LEROBOT_HOME": str(folder), "HF_HUB_OFFLINE": "1"}


class LeRobotRecord:
    """lerobot-record that runs.

    Attributes:
        log: file with what it says.
    """

    def __init__(
        self, folder: Path, arms: Path, sources: Mapping[str, Path], episodes: int, seconds: float, more: Sequence[str]
    ) -> None:
        """Start it; the data set is ``FOLDER/set``.

        Args:
            folder: of the data set.
            arms: folder of the ports and calibrations ``follower`` and ``leader``.
            sources: the cameras' videos.
            episodes: how many.
            seconds: of each.
            more: further options.
        """
        cameras = {
            name: {"type": "recorded", "index_or_path": str(path), "width": WIDTH, "height": HEIGHT, "fps": HZ}
            for name, path in sources.items()
        }
        given = {
            "robot.type": "so101_follower", "robot.port": arms / "follower", "robot.id": "follower",
            "robot.calibration_dir": arms, "robot.cameras": json.dumps(cameras),
            "teleop.type": "so101_leader", "teleop.port": arms / "leader", "teleop.id": "leader",
            "teleop.calibration_dir": arms,
            "dataset.repo_id": "bench/set", "dataset.root": folder / "set", "dataset.single_task": "sway",
            "dataset.num_episodes": episodes, "dataset.episode_time_s": seconds, "dataset.reset_time_s": 0,
            "dataset.push_to_hub": "false", "play_sounds": "false",
        }  # fmt: skip
        words = [sys.executable, "-m", __name__, *(f"--{name}={value}" for name, value in given.items()), *more]
        self.log = folder / f"lerobot_{len([*folder.glob('lerobot_*.log')])}.log"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                words, env=environment(folder), stdin=subprocess.DEVNULL, stdout=out, stderr=out, process_group=0
            )

    @property
    def said(self) -> str:
        """What it has said until now."""
        return self.log.read_text(errors="replace")

    def expect(self, text: str) -> None:
        """Wait until it has said something.

        Raises:
            RuntimeError: it ends before, or does not say it in time.
        """
        end = time.monotonic() + READY_S
        while text not in self.said:
            if self.process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise RuntimeError(f"lerobot-record did not say '{text}'; what it said is in '{self.log}'")
            time.sleep(0.01)

    def ended(self) -> int:
        """Wait until it ends and return its code; it is killed if it takes too long."""
        try:
            return self.process.wait(READY_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL

    def kill(self) -> None:
        """Kill it and what it has started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def what_is_left(folder: Path) -> dict[str, Any]:
    """Return what LeRobotDataset reads of ``FOLDER/set``: episodes, frames, seconds; ``error``: why it does not.

    Beside that what a person finds there without a data set around it: ``rows`` of its Parquet files that can be read,
    ``video_frames`` that decode in its videos, and ``images`` that were not yet made a video.
    """
    words = [sys.executable, "-m", __name__, READ, str(folder / "set")]
    done = subprocess.run(words, env=environment(folder), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"'{folder / 'set'}' cannot be looked at: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _read(folder: Path) -> dict[str, Any]:
    """Read every row and one frame of every episode; runs in a process of its own."""
    import av
    import pyarrow.parquet as parquet

    found: dict[str, Any] = {"episodes": 0, "frames": 0, "seconds": 0.0, "error": "", "rows": 0, "video_frames": 0}
    found["images"] = sum(1 for _ in folder.rglob("*.png"))
    broken = []
    for path in sorted((folder / "data").rglob("*.parquet")):
        try:
            found["rows"] += parquet.read_table(path).num_rows
        except (OSError, ValueError) as error:
            broken.append(f"{path.name}: {' '.join(str(error).split())[:100]}")
    for path in sorted(folder.rglob("*.mp4")):
        with contextlib.suppress(av.error.FFmpegError), av.open(str(path)) as video:
            found["video_frames"] += sum(1 for _ in video.decode(video=0))
    try:
        from lerobot.datasets.lerobot_dataset import LeRobotDataset

        dataset = LeRobotDataset("bench/set", root=folder, video_backend="pyav")
        for index in range(len(dataset.hf_dataset)):
            dataset.hf_dataset[index]
        for start in np.unique(np.array(dataset.hf_dataset["episode_index"]), return_index=True)[1]:
            dataset[int(start)]
        found |= {"episodes": dataset.num_episodes, "frames": len(dataset.hf_dataset)}
        found["seconds"] = round(len(dataset.hf_dataset) / dataset.fps, 2)
    except Exception as error:  # whatever a file without its end makes of pyarrow or LeRobot
        first: BaseException = error
        while first.__context__ is not None:  # it asks the hub for what it cannot read here
            first = first.__context__
        found["error"] = "; ".join([f"{type(first).__name__}: {' '.join(str(first).split())[:200]}", *broken])
    return found


def _record() -> None:
    """Run lerobot-record with the camera type ``recorded``."""
    from dataclasses import dataclass

    from lerobot.cameras import CameraConfig
    from lerobot.cameras.opencv import OpenCVCamera, OpenCVCameraConfig
    from lerobot.motors.feetech import feetech
    from lerobot.scripts.lerobot_record import main as lerobot_record

    @CameraConfig.register_subclass("recorded")
    @dataclass
    class RecordedCameraConfig(OpenCVCameraConfig):
        """Width, height and rate are those of the video."""

    class RecordedCamera(OpenCVCamera):
        """Plays a video again and again, at its rate."""

        def _configure_capture_settings(self) -> None:
            self.width = self.height = self.fps = None
            super()._configure_capture_settings()
            if (self.width, self.height) != (wanted := (self.config.width, self.config.height)):
                raise RuntimeError(f"{self} delivers {self.width}x{self.height} instead of {wanted}")
            self._due_s = time.monotonic()

        def read_latest(self, max_age_ms: int = FRAME_MS) -> Any:
            return super().read_latest(max_age_ms)

        def async_read(self, timeout_ms: float = FRAME_MS) -> Any:
            return super().async_read(max(timeout_ms, FRAME_MS))

        def _read_from_hardware(self) -> Any:
            self._due_s = max(self._due_s + 1 / HZ, time.monotonic() - 1 / HZ)
            time.sleep(max(0.0, self._due_s - time.monotonic()))
            ok, frame = self.videocapture.read()
            if not ok:
                self.videocapture.open(str(self.index_or_path), self.backend)
                ok, frame = self.videocapture.read()
            if not ok:
                raise RuntimeError(f"{self}: the video cannot be read")
            return frame

    def patient(port: Any, _: int) -> None:
        port.packet_start_time, port.packet_timeout = port.getCurrentTime(), SERVO_MS

    feetech.patch_setPacketTimeout = patient
    # LeRobot finds a camera's class beside that of its configuration.
    globals().update(RecordedCameraConfig=RecordedCameraConfig, RecordedCamera=RecordedCamera)
    lerobot_record()


if __name__ == "__main__":
    if READ in sys.argv:
        print(json.dumps(_read(Path(sys.argv[-1]))))
    else:
        _record()
