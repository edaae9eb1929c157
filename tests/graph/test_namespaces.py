# SPDX-License-Identifier: Apache-2.0
"""Two stacks on one domain do not hear each other; nodes of one kind live together under names of their own."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import GetParameters
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from lrm_ros import messages
from lrm_ros.graph.graphs import GRAPHS, NodeSpec, nodes_of
from lrm_ros.graph.runner import Graph
from lrm_ros.record.journal import read_journal
from lrm_ros.topics import LATCHED

LOCKSTEP = {"realtime": False, "frame_every": 1}
SMALL = (
    NodeSpec("twin", "twin", LOCKSTEP),
    NodeSpec("recorder", "recorder", {"source": "expert", "realtime": False}),
    NodeSpec("reward", "reward", {"model": "fake", "mode": "progress"}),
)
SIZE = {"source": "synthetic", "height": 32, "rate_hz": 10.0}
JUDGE = {"model": "fake", "mode": "progress", "interval": 1}
PAIR = (
    NodeSpec("left_camera", "camera", {"camera": "left", **SIZE}),
    NodeSpec("right_camera", "camera", {"camera": "right", **SIZE}),
    NodeSpec("left_reward", "reward", {"camera": "left", **JUDGE}),
    NodeSpec("right_reward", "reward", {"camera": "right", **JUDGE}),
)
GLOBAL = {"/rosout", "/parameter_events", "/diagnostics"}  # of all nodes of a domain, by ROS's convention
START_S = 300.0  # a simulator loads, beside others


def _topics(probe, node: str, namespace: str) -> set[str]:
    """Every topic that a node publishes or hears."""
    return {
        topic
        for ask in (probe.get_publisher_names_and_types_by_node, probe.get_subscriber_names_and_types_by_node)
        for topic, _ in ask(node, namespace)
    }


def _services(probe, node: str, namespace: str) -> set[str]:
    return {name for name, _ in probe.get_service_names_and_types_by_node(node, namespace)}


class Stack:
    """What a probe hears of the small graph in one namespace."""

    def __init__(self, spin, probe, name: str) -> None:
        self.spin, self.probe, self.name = spin, probe, name
        self.heard: list[tuple[str, object]] = []
        self.said: dict[str, tuple[int, dict[str, str]]] = {}  # node -> stamp [ns], values of its newest diagnostics
        probe.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 100)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            namespace, _, node = status.name.rpartition("/")
            if namespace == self.name:
                self.said[node] = (messages.to_ns(message.header.stamp), messages.status_values(status))

    def start(self) -> None:
        """Wait until all nodes are up and answer, then hear every topic of the namespace."""
        nodes = [spec.name for spec in SMALL]
        services = {"twin": "reset", "recorder": "start_episode", "reward": "reset"}
        for node in nodes:
            client = self.probe.create_client(Trigger, f"{self.name}/{node}/{services[node]}")
            self.spin.until(client.service_is_ready, START_S, f"{self.name}/{node}")
        self.spin.until(lambda: set(self.said) == set(nodes), START_S, f"diagnostics of {nodes}, there: {self.said}")
        for topic, types in self.probe.get_topic_names_and_types():
            if topic.startswith(self.name + "/") and not topic.endswith("/transition_event"):
                package, _, kind = types[0].split("/")
                message_type = getattr(importlib.import_module(f"{package}.msg"), kind)
                self.probe.create_subscription(message_type, topic, lambda m, t=topic: self.heard.append((t, m)), 100)

    def call(self, service: str) -> str:
        answer = self.spin.call(self.probe, Trigger, f"{self.name}/{service}", seconds=START_S)
        assert answer.success, answer.message
        return answer.message

    def figures(self, *names: str) -> dict[str, int]:
        """Figures ``node.name`` of diagnostics that are published from now on."""
        self.said.clear()
        self.spin.until(lambda: len(self.said) == len(SMALL), START_S, "diagnostics")
        return {name: int(self.said[name.split(".")[0]][1].get(name.split(".")[1], 0)) for name in names}


@pytest.mark.slow
def test_two_stacks_on_one_domain_do_not_hear_each_other(spin, probe, tmp_path, monkeypatch):
    monkeypatch.setitem(GRAPHS, "small", SMALL)
    monkeypatch.chdir(tmp_path)

    def graph(name: str) -> Graph:
        arguments = {"ns": name, "use_sim_time": "true", "folder": str(tmp_path / name)}
        return Graph(nodes_of("small", arguments), log=tmp_path / f"{name}.log", show=())

    every_clock = spin.collect(probe, Clock, "/clock")
    one, two = Stack(spin, probe, "/arm1"), Stack(spin, probe, "/arm2")
    with graph("arm1"), graph("arm2"):
        one.start()
        two.start()
        for stack in (one, two):
            for spec in SMALL:
                strangers = {t for t in _topics(probe, spec.name, stack.name) if not t.startswith(stack.name + "/")}
                assert strangers <= GLOBAL, f"{stack.name}/{spec.name}: {strangers - GLOBAL}"
                assert all(s.startswith(f"{stack.name}/{spec.name}/") for s in _services(probe, spec.name, stack.name))
            listeners = {info.node_name for info in probe.get_subscriptions_info_by_topic(f"{stack.name}/clock")}
            assert {"twin", "recorder", "reward"} <= listeners
        two.call("twin/reset")  # all hear its clock now
        spin.until(lambda: any(topic == "/arm2/task" for topic, _ in two.heard), START_S)
        counted = ("twin.resets", "twin.steps", "twin.frames", "recorder.states", "recorder.frames_front")
        before, two_ns = two.figures(*counted), two.said["recorder"][0]
        two.heard.clear()

        one.call("twin/reset")
        one.call("recorder/start_episode")
        steps = int(one.call("twin/demonstrate"))
        sent = lambda: sum(topic == "/arm1/joint_command_sent" for topic, _ in one.heard)  # noqa: E731
        spin.until(lambda: sent() == steps, START_S, f"{steps} steps of the first arm")
        episode = read_journal(Path(one.call("recorder/stop_episode")))
        one.figures()
        after, still_ns = two.figures(*counted), two.said["recorder"][0]

        assert len(episode.steps) == steps > 5
        assert {"/arm1/clock", "/arm1/front/image_raw", "/arm1/reward"} <= {topic for topic, _ in one.heard}
        own = [messages.to_ns(m.clock) for topic, m in one.heard if topic == "/arm1/clock"]
        assert one.said["recorder"][0] == own[-1] > own[0]  # its nodes follow its clock
        assert not two.heard and not every_clock
        assert after == before and still_ns == two_ns < own[-1]  # no message, no step, no call, no clock
        refused = spin.call(probe, Trigger, "/arm2/recorder/stop_episode")
        assert not refused.success and "no episode is being recorded; call recorder/start" in refused.message
        assert not list((tmp_path / "arm2").glob("*"))


def test_nodes_of_one_kind_live_in_one_graph_under_their_names(spin, probe, tmp_path, monkeypatch):
    monkeypatch.setitem(GRAPHS, "pair", PAIR)
    nodes = nodes_of("pair", {"left_camera.width": "48", "right_camera.width": "64", "right_reward.scale": "2.0"})
    images = {name: spin.collect(probe, Image, f"{name}/image_raw") for name in ("left", "right")}
    rewards = spin.collect(probe, DiagnosticArray, "reward")
    probe.create_publisher(String, "task", LATCHED).publish(String(data="put the toy in the bowl"))
    with Graph(nodes, log=tmp_path / "log", show=()):
        judged = lambda: {message.header.frame_id for message in rewards}  # noqa: E731
        spin.until(lambda: judged() == {"left_optical_frame", "right_optical_frame"}, START_S, "rewards of both")
        spin.until(lambda: all(images.values()), START_S, "images of both: topics have no order between them")
        assert {message.width for message in images["left"]} == {48}
        assert {message.width for message in images["right"]} == {64}
        for name, scale in (("left_reward", 1.0), ("right_reward", 2.0)):
            request = GetParameters.Request(names=["scale"])
            answer = spin.call(probe, GetParameters, f"{name}/get_parameters", request, seconds=START_S)
            assert answer.values[0].double_value == scale
            assert spin.call(probe, Trigger, f"{name}/reset", seconds=START_S).success
            spin.until(lambda n=name: probe.count_publishers(f"/{n}/progress"), START_S, f"plot of {name}")
            assert not {topic for topic in _topics(probe, name, "/") if "_reward/" in topic and name not in topic}
        for spec in PAIR:
            assert all(service.startswith(f"/{spec.name}/") for service in _services(probe, spec.name, "/"))
        kinds = ("/camera/", "/reward/")
        # A node that was killed before this test is known for a while.
        spin.until(
            lambda: not [topic for topic, _ in probe.get_topic_names_and_types() if topic.startswith(kinds)],
            START_S,
            f"no topics {kinds}",
        )
