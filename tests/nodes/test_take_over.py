# SPDX-License-Identifier: Apache-2.0
"""A person takes over from a policy in the twin and gives back: who leads, what is commanded, and what is recorded."""

from __future__ import annotations

import os

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from std_srvs.srv import Trigger

from lrm_ros.nodes.policy import PolicyNode
from lrm_ros.nodes.recorder import RecorderNode
from lrm_ros.nodes.teleop import TeleopNode
from lrm_ros.record.convert import journals_to_dataset
from lrm_ros.record.dataset import load_into_ram
from lrm_ros.record.journal import read_journal
from lrm_ros.robot.devices.hand import Hand
from lrm_ros.robot.devices.lerobot_input import Motion
from lrm_ros.topics import EVENTS


class Leader:
    """A leader arm as its thread has read it: a scripted hand."""

    fault = ""

    def __init__(self) -> None:
        self.joints = np.full(6, 0.9, np.float32)

    def take(self, oldest_s: float) -> Motion:
        return Motion(self.joints)


@pytest.fixture
def terminal():
    master, slave = os.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


def test_a_person_takes_over_once_her_leader_agrees_and_gives_back(spin, probe, terminal, tmp_path):
    from lrm_ros.sim.twin.node import TwinNode

    twin = spin.start(TwinNode(realtime=True))
    policy = spin.add(PolicyNode(checkpoint="fake", autostart=False))
    recorder = spin.start(RecorderNode(folder=str(tmp_path / "episodes"), min_free_mb=1, image_format="png"))
    teleop = spin.start(TeleopNode(terminal[1], rollout=True, rate_hz=20.0))
    leading, episodes, leader = teleop._leading, teleop.episodes, Leader()
    teleop._hand = Hand(leader, teleop._jog, teleop.contract)  # type: ignore[arg-type]
    told = spin.collect(probe, DiagnosticArray, "intervention", EVENTS)

    def ask(service: str) -> Trigger.Response:
        answer = spin.call(probe, Trigger, f"teleop/{service}")
        spin.until(lambda: not episodes.busy, 60.0, service)
        return answer

    def sends(count: int) -> None:
        """Wait until so many more control steps were recorded."""
        before = recorder.diagnostics.total("actions")
        spin.until(lambda: recorder.diagnostics.total("actions") >= before + count, what="control steps")

    spin.until(lambda: all(map(episodes.control.ready, episodes.control._clients)))
    spin.until(lambda: teleop._state is not None and recorder._task)
    assert not ask("give_back").success, "no episode is being recorded"
    assert ask("start").success
    spin.until(lambda: leading.who == "policy" and policy.active)
    sends(4)
    commands = teleop.diagnostics.total("commands")
    teleop._jog.start(np.zeros(6))  # as a device may, in the moment in which the arm is given back
    assert ask("take_over").success and not policy.active and leading.taken
    sends(4)
    assert leading.who == "nobody", "the leader is not where the arm is"
    assert teleop.diagnostics.total("commands") == commands
    leader.joints = teleop._pose().copy()
    spin.until(lambda: leading.who == "person")
    leader.joints = leader.joints + np.float32(0.2) * np.eye(6, dtype=np.float32)[0]
    sends(8)
    assert ask("give_back").success and leading.who == "policy" and policy.active
    commands = teleop.diagnostics.total("commands")
    sends(6)
    assert teleop.diagnostics.total("commands") == commands, "only one leads"
    assert not twin.diagnostics.faults
    assert ask("success").success
    assert leading.who == "nobody" and not policy.active
    assert [message.status[0].message for message in told] == [
        *("nobody", "policy", "nobody"),
        *("person", "nobody", "policy", "nobody"),
    ]

    (path,) = (tmp_path / "episodes").glob("*.mcap")
    episode = read_journal(path)
    by_person = np.array([step.intervention for step in episode.steps])
    begin, end = np.flatnonzero(np.diff(by_person.astype(int)))
    assert episode.source == "policy" and by_person.sum() >= 7
    assert by_person[begin + 1 : end + 1].all(), "one stretch, with the policy before and after it"
    moved = episode.steps[end].action[0] - episode.steps[begin].action[0]
    assert moved == pytest.approx(0.2, abs=0.05)

    dataset = journals_to_dataset([path], tmp_path / "dataset")
    (read,) = load_into_ram(dataset)
    assert [step.intervention for step in read.steps] == by_person.tolist()

    assert ask("start").success and leading.who == "policy"
    assert spin.call(probe, Trigger, "twin/estop").success
    spin.until(lambda: leading.who == "nobody", what="an e-stop takes the arm from who leads")
    assert spin.call(probe, Trigger, "twin/release").success
    spin.until(lambda: not teleop._stop.stopped and not policy._stop.stopped)
    assert policy._halted and leading.who == "nobody", "a release gives it to nobody"
    assert spin.call(probe, Trigger, "twin/estop").success
    spin.until(lambda: teleop._stop.stopped)
    for hand_over in ("take_over", "give_back"):
        ask(hand_over)
        assert not leading.taken and leading.who == "nobody" and not policy.active, "of a stopped arm nobody leads"
    assert spin.call(probe, Trigger, "twin/release").success
    spin.until(lambda: not teleop._stop.stopped and not policy._stop.stopped)
    assert not leading.taken and leading.who == "nobody" and not policy.active
    assert ask("give_back").success and leading.who == "policy" and not policy._halted
    assert ask("discard").success and not policy.active
