# SPDX-License-Identifier: Apache-2.0
"""The one client of other nodes: what it asks, what its errors say, how it is stopped; and episodes over it."""

import threading
import time
from pathlib import Path

import pytest
import rclpy
from rclpy.callback_groups import ReentrantCallbackGroup
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import topics
from lrm_ros.ros.control import Control, EpisodeError, RecordedEpisodes, SentSteps, Stopped, TwinEpisodes


@pytest.fixture
def asker(spin):
    return spin.add(rclpy.create_node("asker"))


def ask(spin, work):
    """Return what ``work`` returns or raises in a thread, while the nodes spin here."""
    found: list = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    spin.until(lambda: found)
    thread.join()
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


class Servant:
    """A node with the services of twin and recorder, which remembers what it was asked."""

    def __init__(self, spin) -> None:
        self.asked: list[str] = []
        self.answer = True
        for name, parameters in (("twin", {"seed": 0}), ("recorder", {"source": "", "episode_id": ""})):
            node = spin.add(rclpy.create_node(name))
            for parameter, value in parameters.items():
                node.declare_parameter(parameter, value)
            node.add_on_set_parameters_callback(self._on_set)
            services = ("reset",) if name == "twin" else ("start_episode", "stop_episode", "discard_episode")
            for service in services:
                node.create_service(Trigger, f"~/{service}", self._reply(f"{name}/{service}"))
            if name == "recorder":
                node.create_service(SetBool, "~/end_episode", self._reply("recorder/end_episode"))

    def _on_set(self, parameters):
        from rcl_interfaces.msg import SetParametersResult

        self.asked += [f"{parameter.name}={parameter.value}" for parameter in parameters]
        return SetParametersResult(successful=self.answer, reason="" if self.answer else "no")

    def _reply(self, name: str):
        def reply(request, response):
            self.asked.append(name + (f" {request.data}" if hasattr(request, "data") else ""))
            response.success, response.message = self.answer, "/a/b.mcap" if self.answer else "the disk is full"
            return response

        return reply


@pytest.fixture
def servant(spin) -> Servant:
    return Servant(spin)


@pytest.fixture
def control(asker) -> Control:
    return Control(asker, TwinEpisodes.TRIGGERS, TwinEpisodes.NODES, set_bools=TwinEpisodes.SET_BOOLS)


def test_an_episode_in_the_twin_sets_the_seed_before_the_reset_and_records_with_an_outcome(spin, servant, control):
    episodes = TwinEpisodes(control)

    def play() -> tuple:
        return episodes.reset(7), episodes.start(source="teleop", episode_id="x"), episodes.stop(False)

    assert ask(spin, play) == ("/a/b.mcap", Path("/a/b.mcap"), Path("/a/b.mcap"))
    wanted = ["seed=7", "twin/reset", "source=teleop", "episode_id=x"]
    assert servant.asked == [*wanted, "recorder/start_episode", "recorder/end_episode False"]
    servant.asked.clear()
    ask(spin, lambda: (episodes.start(), episodes.stop(), episodes.discard()))
    assert servant.asked == ["recorder/start_episode", "recorder/stop_episode", "recorder/discard_episode"]


def test_before_a_real_scene_the_reset_asks_no_node(spin, servant, control):
    assert "by hand" in ask(spin, lambda: RecordedEpisodes(control).reset(7))
    assert servant.asked == []


def test_parameters_are_read_and_a_refusal_has_its_reason(spin, servant, control):
    assert ask(spin, lambda: control.get("twin", "seed")) == 0
    servant.answer = False
    with pytest.raises(EpisodeError, match="recorder/start_episode: the disk is full"):
        ask(spin, lambda: control.trigger("recorder/start_episode"))
    with pytest.raises(EpisodeError, match=r"node 'twin' refuses .*'seed': 3.*: no"):
        ask(spin, lambda: control.set("twin", {"seed": 3}))


def test_a_service_that_is_not_there_is_named_with_its_node(spin, asker):
    control = Control(asker, ("arm/reset",), find_s=0.1)
    assert not control.ready("arm/reset")
    with pytest.raises(EpisodeError, match=r"'/arm/reset' is not there after 0 s; is node 'arm' running\?"):
        ask(spin, lambda: control.trigger("arm/reset"))


class Mute:
    """A service that takes requests and never answers, as one whose node has died."""

    def __init__(self, node) -> None:
        self.requests = 0
        for name in ("policy/reset", "reward/reset"):
            node.create_service(Trigger, name, self._take, callback_group=ReentrantCallbackGroup())

    async def _take(self, request, response):
        self.requests += 1
        await rclpy.task.Future()
        return response


def test_no_answer_is_an_error_and_a_stop_ends_the_wait_at_once(spin, probe, asker):
    mute = Mute(probe)
    control = Control(asker, ("policy/reset",), timeout_s=0.2)
    with pytest.raises(EpisodeError, match="did not answer within 0 s; has node 'policy' died"):
        ask(spin, lambda: control.trigger("policy/reset"))
    patient = Control(asker, ("reward/reset",), timeout_s=600)

    def stop() -> None:
        while mute.requests < 2:
            time.sleep(0.01)
        patient.stop()

    threading.Thread(target=stop).start()
    with pytest.raises(Stopped):
        ask(spin, lambda: patient.trigger("reward/reset"))
    with pytest.raises(Stopped):
        patient.trigger("reward/reset")
    patient.resume()
    assert patient.ready("reward/reset")


def test_a_wait_goes_on_while_the_arm_moves_and_ends_when_it_stands_still(spin, probe, asker):
    control = Control(asker, timeout_s=0.5)
    sent = SentSteps(asker, control)
    arm = probe.create_publisher(JointTrajectory, "joint_command_sent", 10)
    spin.until(arm.get_subscription_count)
    timer = probe.create_timer(0.05, lambda: arm.publish(JointTrajectory()))
    ask(spin, lambda: control.wait_until(lambda: sent.count >= 20, "20 steps"))  # twice the time-out
    sent.restart()
    probe.destroy_timer(timer)
    with pytest.raises(EpisodeError, match="nothing moved for 0 s while waiting for a step"):
        ask(spin, lambda: control.wait_until(lambda: sent.count >= 20, "a step"))


def test_a_wait_for_an_arm_that_is_stopped_ends_with_the_reason_and_waits_again_after_its_release(spin, probe, asker):
    control = Control(asker, timeout_s=600)
    SentSteps(asker, control)
    arm = topics.STOPPED.publisher(probe)
    spin.until(lambda: arm.get_subscription_count() == 3)
    arm.publish(Bool(data=True))
    with pytest.raises(EpisodeError, match=r"the arm is stopped; .*lrm estop --release; nothing is waited for: a step"):
        ask(spin, lambda: control.wait_until(lambda: False, "a step"))
    arm.publish(Bool(data=False))
    spin.until(lambda: not control._fault)
    ask(spin, lambda: control.wait_until(lambda: True, "a step"))
