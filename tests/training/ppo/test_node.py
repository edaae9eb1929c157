# SPDX-License-Identifier: Apache-2.0
"""Refinement through the nodes: the numbers of one process, queries in batches, no command taken for another."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import Image
from std_msgs.msg import Header, Int64MultiArray
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages
from lrm_ros.config import PpoConfig, RobotContract
from lrm_ros.config_refine import RefineConfig
from lrm_ros.graph.graphs import nodes_of
from lrm_ros.nodes.reward import RewardNode
from lrm_ros.sim.vector.client import Inbox, NoReply
from lrm_ros.sim.vector.node import WorldsNode
from lrm_ros.topics import IMAGE, STREAM
from lrm_ros.training.ppo.command import run_bar
from lrm_ros.training.ppo.node import RefinerNode
from lrm_ros.training.ppo.refine import refine
from lrm_ros.types import ActionChunk, Frame, Reward, Unscored

TASK = "put the red toy pig in the bowl"


SETTINGS = {"iterations": 2, "worlds": 3, "steps": 32, "max_steps": 12, "interval": 5, "processes": 1}
WORDS = " ".join(f"{name}={value}" for name, value in (SETTINGS | {"model": "fake", "ppo.lr": 1e-4}).items())


@pytest.fixture(scope="module")
def alone(small_policy, tmp_path_factory) -> Path:
    """What one process makes of the policy."""
    folder = tmp_path_factory.mktemp("one_process")
    config = RefineConfig(
        str(small_policy), str(folder), "tri", "fake", ppo=PpoConfig(lr=1e-4), **SETTINGS
    )  # fmt: skip
    refine(config)
    return folder


def test_refinement_through_the_nodes_is_that_in_one_process_to_the_bit(alone, small_policy, tmp_path):
    command = [
        sys.executable, "-m", "lrm_ros.graph.runner", "sim_refine", f"checkpoint:={small_policy}", "reward:=tri",
        f"run:={tmp_path / 'nodes'}", f"settings:={WORDS}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stdout + done.stderr
    one, other = history(alone), history(tmp_path / "nodes")
    assert len(one) == 2 and one == other and one[0]["queries"] > 0
    assert weights(alone) == weights(tmp_path / "nodes")
    # What is there goes on: nothing is left to do, and the graph ends as it should.
    again = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=dict(os.environ))
    assert again.returncode == 0 and history(tmp_path / "nodes") == other


def history(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def weights(run: Path) -> bytes:
    return (run / "policy" / "model.safetensors").read_bytes()


def test_a_refiner_that_was_deactivated_goes_on_to_the_same_bit_when_it_is_activated(
    alone, small_policy, tmp_path, spin, monkeypatch
):
    begun: list[int] = []

    def bar(settings):
        begun.append(run_bar(settings).n)
        return run_bar(settings)

    monkeypatch.setattr("lrm_ros.training.ppo.node.run_bar", bar)
    for node in (WorldsNode(), RewardNode()):
        spin.add(node)
    refiner = RefinerNode(
        checkpoint=str(small_policy), reward="tri", run=str(tmp_path / "nodes"), settings=WORDS
    )  # fmt: skip
    codes: list[int] = []
    refiner.on_exit = codes.append
    spin.start(refiner)
    spin.until(lambda: (tmp_path / "nodes" / "history.jsonl").is_file(), 200)
    refiner.trigger_deactivate()
    assert not codes and len(history(tmp_path / "nodes")) == 1
    refiner.trigger_activate()
    spin.until(lambda: codes, 200)
    refiner.close()
    assert codes == [0] and history(tmp_path / "nodes") == history(alone) and begun == [0, 96]
    assert weights(tmp_path / "nodes") == weights(alone)


def test_a_graph_that_cannot_refine_says_why_and_ends(tmp_path):
    command = [sys.executable, "-m", "lrm_ros.graph.runner", "sim_refine", f"checkpoint:={tmp_path / 'none'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=dict(os.environ))
    assert done.returncode == 2
    assert f"folder '{tmp_path / 'none'}' does not exist" in done.stdout and "node 'refiner' died" in done.stderr


def test_nodes_that_another_one_sets_up_take_no_arguments_of_the_graph():
    with pytest.raises(ValueError, match="node 'worlds' gets its parameters from node 'refiner'; set them there"):
        nodes_of("sim_refine", {"worlds.worlds": "3"})
    with pytest.raises(ValueError, match="no node of graph 'sim_refine' has a parameter 'worlds'"):
        nodes_of("sim_refine", {"worlds": "3"})
    assert nodes_of("sim_refine", {"run": "there"})[2].parameters["run"] == "there"


# ---- the reward node ------------------------------------------------------------------------------------------------


def shade(world: int, step: int, light: int) -> Image:
    return messages.from_frame(Frame(step, "judged", np.full((8, 8, 3), light + world, np.uint8)))


def query(ask: str, stamps: dict[int, int]) -> DiagnosticArray:
    statuses = [
        messages.status(DiagnosticStatus.OK, messages.stream_name(world), TASK, {"stamp_ns": stamp})
        for world, stamp in stamps.items()
    ]
    return DiagnosticArray(header=Header(frame_id=ask), status=statuses)


def test_a_query_waits_for_its_frames_and_is_answered_in_one_batch(spin, probe):
    node = spin.start(RewardNode(model="fake", mode="tri", interval=1, camera="judged", worlds=2))
    images = [probe.create_publisher(Image, f"world_0{world}/judged/image_raw", IMAGE) for world in (0, 1)]
    queries = probe.create_publisher(DiagnosticArray, "reward/query", STREAM)
    answers = [spin.collect(probe, DiagnosticArray, f"world_0{world}/reward", STREAM) for world in (0, 1)]
    spin.until(lambda: all(publisher.get_subscription_count() for publisher in (*images, queries)))
    queries.publish(query("first", {0: 100, 1: 200}))
    images[0].publish(shade(0, 100, 51))
    spin.until(lambda: len(node._queries._queries) == 1 and node._queries._frames["world_00"])
    assert not answers[0]
    images[1].publish(shade(1, 200, 51))
    spin.until(lambda: answers[0] and answers[1])
    first = {answer.head: answer for answer in messages.to_rewards(answers[1][0])}
    assert isinstance(first["contrastive"], Unscored) and isinstance(first["tri"], Unscored)
    assert isinstance(first["progress"], Reward) and first["progress"].value == pytest.approx(52 / 255)
    assert first["progress"].stamp_ns == 200
    for world in (0, 1):
        images[world].publish(shade(world, 300, 204))
    queries.publish(query("step", {0: 300, 1: 300}))
    queries.publish(query("end", {0: 300}))
    spin.until(lambda: len(answers[0]) == 3 and len(answers[1]) == 2)
    second = {answer.head: answer.value for answer in messages.to_rewards(answers[0][1])}
    assert second["tri"] == pytest.approx((1 + 0.8 + 1) / 3)
    end = messages.to_rewards(answers[0][2])
    assert [(answer.head, answer.value) for answer in end] == [("completion", 1.0)]
    assert list(node._queries._frames["world_00"]) == [300]  # older ones are let go


def test_a_query_that_cannot_be_answered_is_a_fault(spin, probe):
    node = spin.start(RewardNode(model="fake", mode="progress", interval=1, camera="judged", worlds=2))
    queries = probe.create_publisher(DiagnosticArray, "reward/query", STREAM)
    spin.until(queries.get_subscription_count)
    queries.publish(query("step", {5: 0}))
    spin.until(lambda: node.diagnostics.total("rejected") == 1)
    assert "query 'step' about world_05 not answered" in node.diagnostics._faults["query"]
    queries.publish(query("guess", {0: 0}))
    spin.until(lambda: node.diagnostics.total("rejected") == 2)
    assert not node._queries._queries


# ---- the worlds node ------------------------------------------------------------------------------------------------


def test_worlds_move_only_when_all_have_a_command_for_what_they_show(spin, probe):
    contract = RobotContract()
    node = spin.start(
        WorldsNode(worlds=2, processes=1, execute_steps=4, max_steps=8, judge_every=4, stop_at_success=False)
    )
    seeds = probe.create_publisher(Int64MultiArray, "worlds/seeds", STREAM)
    commands = [probe.create_publisher(JointTrajectory, f"world_0{world}/joint_command", STREAM) for world in (0, 1)]
    news = spin.collect(probe, DiagnosticArray, "worlds", STREAM)
    sent = spin.collect(probe, JointTrajectory, "world_01/joint_command_sent", STREAM)
    images = spin.collect(probe, Image, "world_01/front/image_raw", IMAGE)
    judged = spin.collect(probe, Image, "world_01/judged/image_raw", IMAGE)
    spin.until(lambda: all(publisher.get_subscription_count() for publisher in (seeds, *commands)))
    spin.until(lambda: all(probe.count_publishers(f"world_01/{t}/image_raw") for t in ("front", "judged")))
    seeds.publish(Int64MultiArray(data=[1, 2, 3]))
    spin.until(lambda: "seeds" in node.diagnostics._faults)
    assert "3 seeds cannot be shared by 2 worlds" in node.diagnostics._faults["seeds"]

    seeds.publish(Int64MultiArray(data=[1, 2]))
    spin.until(lambda: len(news) == 1 and len(images) == 1 and len(judged) == 1)
    assert news[0].header.frame_id == "reset" and bytes(images[0].data) == bytes(judged[0].data)
    stamps = [int(messages.status_values(status)["stamp_ns"]) for status in news[0].status]

    def command(world: int, stamp: int, steps: int = 4) -> None:
        chunk = ActionChunk(stamp, np.zeros((steps, 6), np.float32), contract.dt_s)
        commands[world].publish(messages.from_chunk(chunk, contract.joints))

    command(1, stamps[1] - 1)  # of another time
    spin.until(lambda: node.diagnostics.total("ignored") == 1)
    command(1, stamps[1], steps=5)
    spin.until(lambda: node.diagnostics.total("rejected") == 1)
    command(1, stamps[1])
    spin.until(lambda: 1 in node._chunks)
    assert len(news) == 1
    command(0, stamps[0])
    spin.until(lambda: len(news) == 2 and len(sent) == 1 and len(images) == 2 and len(judged) == 2)
    values = messages.status_values(news[1].status[1])
    assert len(values["progress"].split()) == 5 and values["success"] == "0 0 0 0" and "final_ns" not in values
    assert len(sent[0].points) == 4 and news[1].status[1].message.startswith("put the ")
    for world, status in enumerate(news[1].status):
        command(world, int(messages.status_values(status)["stamp_ns"]))
    # The episode is over: its end, then the next one's first frame, on both topics.
    spin.until(lambda: len(news) == 3 and len(images) == 4 and len(judged) == 4)
    values = messages.status_values(news[2].status[1])
    assert values["cut_off"] == "true" and int(values["final_ns"]) < int(values["stamp_ns"])
    assert [messages.to_ns(i.header.stamp) for i in images[2:]] == [int(values["final_ns"]), int(values["stamp_ns"])]


def test_waiting_for_a_silent_node_ends():
    inbox = Inbox(timeout_s=0.05)
    with pytest.raises(NoReply, match="answers of nobody: nothing came for 0 s; look at that node's output"):
        inbox.wait("answers of nobody", lambda: None)
    inbox.close()
    with pytest.raises(NoReply, match="no longer waiting for them"):
        inbox.wait("them", lambda: None)
