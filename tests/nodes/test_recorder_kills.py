# SPDX-License-Identifier: Apache-2.0
"""A recorder that is killed at random moments: what it called finished is whole, nothing partial is taken for whole.

``LRM_KILLS=60 pytest tests/nodes/test_recorder_kills.py`` kills so many times.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from lrm_ros import messages, topics
from lrm_ros.config import RobotContract
from lrm_ros.record.journal import read_info, read_journal
from lrm_ros.record.recover import recover
from lrm_ros.types import ActionChunk, Frame

KILLS = int(os.environ.get("LRM_KILLS", "3"))
JOINTS = RobotContract().joints
DT = 100_000_000


class Recorder:
    """A recorder in a process of its own that is killed at a moment, whatever it does then."""

    def __init__(self, folder: Path, number: int) -> None:
        self.name, self.kill_s = f"recorder_{number}", float("inf")
        values = {"folder": folder, "realtime": "false", "image_format": "png", "min_free_mb": 1, "task_text": "lift"}
        words = [word for name, value in values.items() for word in ("-p", f"{name}:={value}")]
        command = [sys.executable, "-m", "lrm_ros.nodes.recorder", "--ros-args", "-r", f"__node:={self.name}", *words]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_by_udp())

    def alive(self) -> bool:
        """Whether it runs; kills it if its moment has come."""
        if self._process.poll() is None and time.monotonic() >= self.kill_s:
            self.kill()
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()


def _by_udp() -> dict[str, str]:
    """Return the environment of a node without shared memory.

    Through it a node that follows on a killed one may not be heard: docs/ros2.md, "A node that was killed".
    """
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_DEFAULT_PROFILES_FILE")}
    return environment | {"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}


class World:
    """Publishes steps and asks the recorder of now."""

    def __init__(self, spin, probe) -> None:
        self.spin, self.probe, self.k = spin, probe, 0
        self.states = topics.JOINT_STATES.publisher(probe)
        self.images = topics.IMAGE_RAW.of("front").publisher(probe)
        self.sent = topics.JOINT_COMMAND_SENT.publisher(probe)

    def meet(self, recorder: Recorder) -> None:
        """Find a recorder's services and subscriptions."""
        name, self.recorder = recorder.name, recorder
        self.set = self.probe.create_client(SetParametersAtomically, f"{name}/set_parameters_atomically")
        self.start, self.stop = (self.probe.create_client(Trigger, f"{name}/{x}_episode") for x in ("start", "stop"))

        def ready() -> bool:
            heard = all(
                name in {about.node_name for about in self.probe.get_subscriptions_info_by_topic(topic.name)}
                for topic in (topics.JOINT_STATES, topics.IMAGE_RAW.of("front"), topics.JOINT_COMMAND_SENT)
            )
            return heard and all(client.service_is_ready() for client in (self.set, self.start, self.stop))

        self.spin.until(ready, 60.0, f"the recorder {name}")

    def part(self) -> None:
        for client in (self.set, self.start, self.stop):
            self.probe.destroy_client(client)

    def step(self) -> None:
        self.k += 1
        ns = self.k * DT
        self.states.publish(messages.from_state(ns, JOINTS, np.zeros(6)))
        image = np.random.default_rng(self.k).integers(0, 256, (96, 96, 3), dtype=np.uint8)
        self.images.publish(messages.from_frame(Frame(ns, "front", image)))
        chunk = ActionChunk(ns, np.full((1, 6), self.k % 100 / 100, np.float32), 0.1)
        self.sent.publish(messages.from_chunk(chunk, JOINTS))

    def ask(self, client, request):
        """Return a service's answer, ``None`` if the recorder is gone."""
        future = client.call_async(request)
        self.spin.until(lambda: future.done() or not self.recorder.alive())
        return future.result() if future.done() else None

    def episode(self, name: str, steps: int, cut: dict[str, int]) -> bool:
        """Record an episode; ``cut`` has its steps from the moment it may have begun. Returns whether it was ended."""
        values = [Parameter("episode_id", value=name).to_parameter_msg()]
        if self.ask(self.set, SetParametersAtomically.Request(parameters=values)) is None:
            return False
        cut[name] = 0
        if (started := self.ask(self.start, Trigger.Request())) is None:
            return False
        assert started.success, started.message
        for _ in range(steps):
            if not self.recorder.alive():
                return False
            self.step()
            cut[name] += 1
            self.spin.executor.spin_once(timeout_sec=0.01)
        if (ended := self.ask(self.stop, Trigger.Request())) is None:
            return False
        assert ended.success, ended.message
        return True


def test_kills_at_random_moments_lose_no_finished_episode_and_fake_none(spin, probe, tmp_path):
    world, rng = World(spin, probe), random.Random(KILLS)
    whole: dict[str, int] = {}  # what the recorder called finished: steps
    cut: dict[str, int] = {}  # episodes that a kill has met: steps sent before it
    number = 0
    while number < KILLS or (not (cut and whole) and number < KILLS + 20):  # a kill may fall between two episodes
        recorder = Recorder(tmp_path, number)
        try:
            world.meet(recorder)
            recorder.kill_s = time.monotonic() + rng.uniform(0.3, 3.0)
            episode = 0
            while world.episode(name := f"e{number}_{episode}", rng.randint(1, 25), cut):
                whole[name] = cut.pop(name)
                episode += 1
        finally:
            if recorder.alive():
                recorder.kill()
        world.part()
        _check(tmp_path, whole, cut)
        number += 1
    print(f"{number} kills: {len(whole)} episodes whole, {len(cut)} cut")
    assert cut and whole


def _check(folder: Path, whole: dict[str, int], cut: dict[str, int]) -> None:
    """What the recorder called finished is there with every step, and nothing partial has a finished name."""
    assert {path.name.partition(".")[0] for path in folder.iterdir()} <= whole.keys() | cut.keys()
    for name, steps in whole.items():
        path = folder / f"{name}.mcap"
        assert len(read_journal(path).steps) == steps and not read_info(path).recovered, name
        assert not (folder / f"{name}.mcap.part").exists()
    for name, steps in cut.items():
        path, part = folder / f"{name}.mcap", folder / f"{name}.mcap.part"
        if path.exists() and not read_info(path).recovered:  # killed between the finish and the answer
            assert len(read_journal(path).steps) == steps and not part.exists(), name
        elif part.exists() and not path.exists():
            try:
                found = recover(part)
            except ValueError as error:
                assert "holds nothing readable" in str(error)
            else:
                assert read_info(found).recovered
