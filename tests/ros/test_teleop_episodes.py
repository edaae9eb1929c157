# SPDX-License-Identifier: Apache-2.0
"""The episodes of a person by services, keys and one button, before a recorder that does as it is told."""

from __future__ import annotations

import os
from unittest.mock import Mock

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from std_srvs.srv import SetBool, Trigger

from lrm_ros import messages
from lrm_ros.nodes.teleop import TeleopNode
from lrm_ros.robot.devices.hand import Hand
from lrm_ros.robot.devices.lerobot_input import FAILURE, SUCCESS, Motion
from lrm_ros.ros.teleop_episodes import live_line
from lrm_ros.topics import EVENTS, STATUS


class Recorder:
    """The recorder's services; ``told`` is what it was asked for."""

    def __init__(self, spin) -> None:
        self.told: list[str] = []
        node = self.node = spin.add(rclpy.create_node("recorder"))
        node.declare_parameter("source", "")
        for what in ("start", "stop", "discard"):
            node.create_service(Trigger, f"~/{what}_episode", lambda _, answer, what=what: self._do(what, answer))
        node.create_service(SetBool, "~/end_episode", lambda asked, answer: self._do(f"end {asked.data}", answer))

    def _do(self, what: str, answer):
        self.told.append(what)
        answer.success, answer.message = True, f"/tmp/e{len(self.told)}.mcap"
        return answer


class Desk:
    """A teleoperation node on a terminal, and a recorder."""

    def __init__(self, spin, probe, master: int, slave: int, **given) -> None:
        self.spin, self.probe, self.master = spin, probe, master
        self.recorder = Recorder(spin)
        self.node = spin.start(TeleopNode(slave, rate_hz=100.0, **given))
        self.episodes = self.node.episodes
        ready = self.episodes.control.ready
        spin.until(lambda: all(map(ready, ("recorder/start_episode", "recorder/set_parameters_atomically"))))

    def ask(self, event: str) -> str:
        """Call a service of the node and wait until nothing is being asked for; returns its answer."""
        answer = self.spin.call(self.probe, Trigger, f"teleop/{event}")
        self.spin.until(lambda: not self.episodes.busy)
        return answer.message

    def press(self, key: str) -> None:
        """Press a key and wait until the recorder has been told."""
        told = len(self.recorder.told)
        os.write(self.master, key.encode())
        self.spin.until(lambda: len(self.recorder.told) > told and not self.episodes.busy)


@pytest.fixture
def desk(spin, probe):
    master, slave = os.openpty()
    yield lambda **given: Desk(spin, probe, master, slave, **given)
    os.close(master)
    os.close(slave)


def test_services_start_end_repeat_and_discard_episodes(desk):
    desk = desk()
    desk.ask("start")
    assert desk.episodes.name == "e1" and desk.recorder.told == ["start"]
    desk.ask("again")
    desk.ask("success")
    desk.ask("start")
    desk.ask("failure")
    desk.ask("start")
    desk.ask("discard")
    assert desk.recorder.told[1:] == [
        *("discard", "start", "end True"),
        *("start", "end False"),
        *("start", "discard"),
    ]
    assert desk.episodes.counts == {"success": 1, "failure": 1, "discarded": 2} and not desk.episodes.name


def test_an_episode_whose_recording_fails_ends_for_who_acts_in_it_too(desk, probe, spin):
    desk = desk()
    ended: list[str] = []
    desk.episodes.ending = lambda: ended.append(desk.episodes.name)
    desk.ask("start")
    failed = probe.create_publisher(DiagnosticStatus, "episode", EVENTS)
    spin.until(failed.get_subscription_count)
    failed.publish(messages.status(b"\x02", "e1", "failed", {"reason": "the disk is full"}))
    spin.until(lambda: ended == [""], what="the end")


def test_one_button_or_pedal_starts_and_ends_episodes_and_the_node_ends_after_as_many_as_are_wanted(desk):
    desk = desk(episodes=2)
    codes: list[int] = []
    desk.node.on_exit = codes.append
    for key in ("\r", "n", "\n"):
        desk.press(key)
    assert not codes
    desk.press("\n")
    desk.spin.until(lambda: codes == [0])
    assert desk.recorder.told == ["start", "end True"] * 2


class Pad:
    """A gamepad as its thread has read it: what the test queues, once each, then nothing new."""

    fault = ""

    def __init__(self) -> None:
        self.motions: list[Motion] = []

    def take(self, oldest_s: float) -> Motion:
        return self.motions.pop(0) if self.motions else Motion(held=False)


def test_a_gamepads_buttons_start_and_end_episodes_and_take_over_while_one_is_held(desk):
    desk, pad = desk(), Pad()
    desk.node._hand = Hand(pad, desk.node._jog, desk.node.contract)
    for event, told in ((SUCCESS, "start"), (SUCCESS, "end True"), (SUCCESS, "start"), (FAILURE, "end False")):
        pad.motions.append(Motion(events=(event,), held=False))
        desk.spin.until(lambda told=told: desk.recorder.told[-1:] == [told] and not desk.episodes.busy)
    desk.node._leading = leading = Mock(taken=False)
    desk.node._leading.status.return_value = ""
    pad.motions.append(Motion(held=True))
    desk.spin.until(lambda: leading.turn.call_count == 1)
    leading.taken = True
    desk.spin.until(lambda: leading.turn.call_count == 2, what="let go, it gives back")


def test_after_the_time_to_reset_the_next_episode_begins_by_itself_unless_it_is_stopped(desk):
    desk = desk(reset_s=3600.0)
    desk.ask("start")
    desk.ask("success")
    assert desk.episodes.status().startswith("[next in 3")
    desk.episodes._due_s -= 3600.0  # instead of waiting
    desk.spin.until(lambda: desk.recorder.told == ["start", "end True", "start"] and not desk.episodes.busy)
    desk.ask("again")
    assert desk.recorder.told[-1] == "discard" and desk.episodes.status().startswith("[next in"), (
        "the scene comes first"
    )
    desk.ask("discard")
    assert desk.episodes.status().startswith("[idle") and len(desk.recorder.told) == 4
    desk.ask("next")
    assert desk.episodes.name


def test_the_live_line_has_rates_losses_and_free_disk(desk, probe, spin):
    values = {"frames_front": "90", "frames_front_per_s": "29.96", "states_per_s": "100.2", "dropped": "0"}
    values |= {"free_mb": "12345", "actions_per_s": "30.0"}
    assert live_line(values) == "front 30 joints 100/s lost 0 free 12.3 GB"
    assert live_line({}) == live_line({"free_mb": "unknown: no such disk"}) == "lost 0"
    desk = desk()
    publisher = probe.create_publisher(DiagnosticArray, "/diagnostics", STATUS)
    spin.until(publisher.get_subscription_count)
    publisher.publish(DiagnosticArray(status=[messages.status(b"\x00", "/recorder", "ok", values)]))
    spin.until(lambda: "| front 30 joints 100/s lost 0 free 12.3 GB" in desk.episodes.status())
