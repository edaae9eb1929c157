# SPDX-License-Identifier: Apache-2.0
"""lerobot-record and lerobot-replay, unchanged, on emulated arms and a camera that is a pipe of video."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from lerobot_programs import arm_options, connected, weightless  # type: ignore[import-not-found]
from servo_buses import JOINTS, needs_driver, wait_until  # type: ignore[import-not-found]
from so101 import CONTRACT, FILE  # type: ignore[import-not-found]

from lrm_ros.config import CameraSpec
from lrm_ros.record.dataset import write_dataset
from lrm_ros.sim.servo_bus import fifo, protocol
from lrm_ros.sim.servo_bus.calibration import MOUNTINGS, Calibration, calibration, preset, write
from lrm_ros.sim.servo_bus.server import Server
from lrm_ros.training.policy.dataset import read_convention
from lrm_ros.types import Episode, Frame, Observation, Step
from lrm_ros.versions import at_least

pytestmark = [needs_driver, pytest.mark.slow]

TESTS = Path(__file__).parents[2]  # lerobot_camera_pipe.py is there
FIRST = (0.3, -0.5, 0.6, -0.2, 0.4, 0.9)  # rad, where the leader is held
THEN = (-0.4, 0.2, -0.3, 0.5, -0.6, 0.2)


def place(server: Server, name: str, angles: tuple[float, ...]) -> None:
    with server.lock:
        for joint, angle in zip(JOINTS, angles, strict=True):
            server.buses[name].arm.joints.place(joint, angle)


def positions(server: Server, name: str) -> list[int]:
    with server.lock:
        server.buses[name].arm.step(0.0)
        return [servo.memory["Present_Position"] for servo in server.buses[name].arm.servos]


def numbers(steps: list[int], values: Calibration) -> list[float]:
    """Return LeRobot's degrees, and the gripper's 0 to 100, of positions in steps."""
    ranges = [(value["range_min"], value["range_max"]) for value in values.values()]
    said = [(at - (low + high) / 2) * 360 / 4095 for at, (low, high) in zip(steps[:5], ranges, strict=False)]
    low, high = ranges[5]
    return [*said, (steps[5] - low) / (high - low) * 100]


def wait_written(server: Server, name: str, more: int) -> None:
    """Wait until the program has written goals so many times more."""

    def written() -> int:
        with server.lock:
            return sum(packet.instruction == protocol.SYNC_WRITE for packet in server.buses[name].seen)

    wanted = written() + more
    wait_until(lambda: written() >= wanted, "written goals")


def recorded(folder: Path, name: str) -> np.ndarray:
    """Return a column of the data set's only file, as an array."""
    import pyarrow.parquet as parquet

    (file,) = (folder / "data").rglob("*.parquet")
    return np.array(parquet.read_table(file)[name].to_pylist())


def merge_with_ours(recorded_set: Path, folder: Path) -> None:
    """LeRobot merges what its program has recorded with a set that we write in its convention."""
    from lerobot.datasets.aggregate import aggregate_datasets

    contract = dataclasses.replace(CONTRACT, cameras=(CameraSpec("front", 64, 48),))
    steps = []
    for k in range(5):
        ns = round((k + 1) * 1e9 / contract.control_hz)
        frames = {"front": Frame(ns, "front", np.full((48, 64, 3), 180, np.uint8))}
        angles = np.array(FIRST, np.float32)
        steps.append(Step(Observation(ns, frames, angles, "put it there"), angles, angles))
    episode = Episode("ours", "put it there", steps, contract.control_hz, True, "teleop")
    robot = json.loads((recorded_set / "meta/info.json").read_text())["robot_type"]
    assert robot == ("so_follower" if at_least("lerobot", 0, 6) else "so101_follower"), "as docs/lerobot.md says"
    convention = read_convention(FILE, False, robot)
    ours = write_dataset([episode], folder / "ours", contract, "image", convention=convention)
    aggregate_datasets(["me/set", "me/ours"], "me/all", [recorded_set, ours], folder / "all")
    info = json.loads((folder / "all/meta/info.json").read_text())
    assert info["total_episodes"] == 2 and info["total_frames"] == len(recorded(recorded_set, "action")) + 5


@pytest.fixture
def plugin(tmp_path):
    """A folder with the distribution that makes LeRobot import ``lerobot_camera_pipe``."""
    folder = tmp_path / "plugins"
    info = folder / "lerobot_camera_pipe-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lerobot_camera_pipe\nVersion: 1.0\n")
    return folder


@pytest.fixture
def camera(tmp_path):
    """A pipe of video; its pictures are of one shade."""
    path = tmp_path / "front"
    fifo.make(path)
    image = np.full((48, 64, 3), 180, np.uint8)
    writer = fifo.FifoWriter(path, lambda: (0, image), [0, 0, 0])
    yield path
    writer.close()


def test_record_and_replay(tmp_path, camera, plugin):
    with Server({"follower": weightless(MOUNTINGS), "leader": weightless(MOUNTINGS)}) as server:
        for name, bus in server.buses.items():
            values = calibration(bus.arm.servos)
            preset(bus.arm.servos, values)
            write(values, tmp_path, name)
        place(server, "leader", FIRST)
        begin = numbers(positions(server, "leader"), values)
        arms = [
            *arm_options(server, "follower", "follower", tmp_path),
            *arm_options(server, "leader", "leader", tmp_path),
        ]
        pipe = {"type": "pipe", "index_or_path": str(camera), "width": 64, "height": 48, "fps": 30}
        folder = tmp_path / "set"
        dataset = {"repo_id": "me/set", "root": folder, "single_task": "put it there", "num_episodes": 1}
        dataset |= {"episode_time_s": 4, "reset_time_s": 0, "video": "false", "push_to_hub": "false"}
        options = [*arms, f"--robot.cameras={json.dumps({'front': pipe})}", "--play_sounds=false"]
        options += [f"--dataset.{key}={value}" for key, value in dataset.items()]
        recording = {"home": tmp_path, "plugins": [TESTS, plugin], "makes": folder}
        with connected("record", "Recording episode 0", *options, **recording) as terminal:
            wait_written(server, "follower", 10)
            place(server, "leader", THEN)
            terminal.expect("Stop recording")
            assert terminal.ended() == 0, terminal.said[-2000:]
        end = numbers(positions(server, "leader"), values)
        actions, states = recorded(folder, "action"), recorded(folder, "observation.state")
        np.testing.assert_allclose(actions[0], begin, atol=0.2)
        np.testing.assert_allclose(actions[-1], end, atol=0.2)
        np.testing.assert_allclose(states[-1], end, atol=4)
        info = json.loads((folder / "meta/info.json").read_text())
        assert info["total_frames"] == len(actions) > 20
        assert info["features"]["observation.images.front"]["shape"] == [48, 64, 3]

        merge_with_ours(folder, tmp_path)

        place(server, "follower", FIRST)
        options = [*arm_options(server, "follower", "follower", tmp_path), "--dataset.repo_id=me/set"]
        options += [f"--dataset.root={folder}", "--dataset.episode=0", "--play_sounds=false"]
        with connected("replay", "Replaying episode", *options, home=tmp_path) as terminal:
            assert terminal.ended() == 0, terminal.said[-2000:]
        with server.lock:
            goals = [servo.memory["Goal_Position"] for servo in server.buses["follower"].arm.servos]
        np.testing.assert_allclose(numbers(goals, values), actions[-1], atol=0.2)
        np.testing.assert_allclose(numbers(positions(server, "follower"), values), end, atol=4)
