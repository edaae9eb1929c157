# SPDX-License-Identifier: Apache-2.0
"""Reward, policy and recorder hear JPEG and PNG, and raw images of other encodings, as they hear rgb8."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import image_files, messages, topics
from lrm_ros.config import RobotContract
from lrm_ros.nodes.policy import PolicyNode
from lrm_ros.nodes.recorder import RecorderNode
from lrm_ros.nodes.reward import RewardNode
from lrm_ros.record.journal import read_info, read_journal
from lrm_ros.topics import IMAGE, LATCHED, STREAM
from lrm_ros.types import ActionChunk, Frame, Reward

JOINTS = RobotContract().joints
DT = 100_000_000


def shade(step: int, light: int, size: int = 8) -> Frame:
    return Frame(step * DT, "front", np.full((size, size, 3), light, np.uint8))


def file_of(frame: Frame, kind: str) -> CompressedImage:
    return messages.from_file(frame, image_files.encode(frame.image, kind, 90), kind)


@pytest.fixture
def start(spin):
    """Start nodes, which are closed at the end."""
    nodes = []

    def begin(node):
        nodes.append(spin.start(node))
        return nodes[-1]

    yield begin
    for node in nodes:
        node.close()
        spin.nodes.remove(node)


@pytest.fixture
def rewarded(spin, probe, start):
    """A reward node, the publisher of its images and the rewards."""

    def build(transport: str, **parameters):
        node = start(RewardNode(model="fake", mode="progress", realtime=False, interval=1, **parameters))
        kind, name = (
            (Image, "front/image_raw") if transport == "raw" else (CompressedImage, "front/image_raw/compressed")
        )
        images = probe.create_publisher(kind, name, IMAGE)
        tasks = probe.create_publisher(String, "task", LATCHED)
        rewards = spin.collect(probe, DiagnosticArray, "reward", STREAM)
        tasks.publish(String(data="put the toy in the bowl"))
        spin.until(lambda: images.get_subscription_count() and node._task and probe.count_publishers("reward"))
        return node, images, rewards

    return build


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_compressed_images_are_judged_as_raw_ones(spin, rewarded, kind):
    node, images, rewards = rewarded("compressed", image_transport="compressed")
    for step in range(3):
        images.publish(file_of(shade(step, 51 * step), kind))
    spin.until(lambda: len(rewards) == 3)
    answers = [messages.to_rewards(message)[0] for message in rewards]
    values = [answer.value for answer in answers if isinstance(answer, Reward)]
    assert values == pytest.approx([0.0, 0.2, 0.4], abs=0.01)
    assert [messages.to_ns(message.header.stamp) for message in rewards] == [0, DT, 2 * DT]
    broken = file_of(shade(4, 99), kind)
    broken.data = broken.data[: len(broken.data) // 2]
    images.publish(broken)
    spin.until(lambda: "input" in node.diagnostics.faults)
    said = node.diagnostics.faults["input"]
    assert said.startswith("frame not judged: camera 'front': the compressed image ends after ")
    images.publish(file_of(shade(5, 102), kind))
    spin.until(lambda: len(rewards) == 4 and "input" not in node.diagnostics.faults)


def test_what_an_encoding_does_not_say_is_told_once(spin, rewarded):
    node, images, rewards = rewarded("raw")
    logged = []
    node.get_logger().warning = logged.append
    for step in range(3):
        message = messages.from_frame(shade(step, 51 * step))
        message.encoding = "8UC3"
        images.publish(message)
    spin.until(lambda: len(rewards) == 3)
    assert [line for line in logged if "8UC3" in line] == [
        "camera 'front': encoding '8UC3' does not say its colours: they are taken as BGR, as OpenCV has them; if red "
        "and blue are swapped, set the driver to rgb8"
    ]
    said = messages.status_values(node.diagnostics.status())
    assert "taken as BGR" in said["front_encoding"]


def test_depth_is_not_judged(spin, rewarded):
    node, images, rewards = rewarded("raw")
    images.publish(Image(height=4, width=4, encoding="16UC1", step=8, data=bytes(32)))
    spin.until(lambda: "input" in node.diagnostics.faults)
    cure = "camera 'front': '16UC1' is a depth image, not colour; give the colour topic"
    assert node.diagnostics.faults["input"] == f"frame not judged: {cure}" and not rewards


def test_simulated_worlds_have_raw_images_only(spin):
    node = spin.add(RewardNode(model="fake", worlds=2, image_transport="compressed"))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "simulated worlds publish raw images only" in node.diagnostics.faults["configure"]
    with pytest.raises(ValueError, match=r"image_transport.*'raw', 'compressed'"):
        RewardNode(image_transport="theora")


def test_the_policy_acts_on_compressed_images(spin, probe, start):
    node = start(PolicyNode(checkpoint="fake", image_transport="compressed"))
    images = topics.IMAGE_COMPRESSED.of("front").publisher(probe)
    states = probe.create_publisher(JointState, "joint_states", STREAM)
    wishes = spin.collect(probe, JointTrajectory, "policy/wish", STREAM)

    def tick() -> None:
        now_ns = time.time_ns()
        frame = Frame(now_ns, "front", np.full((96, 96, 3), 7, np.uint8))
        images.publish(file_of(frame, "jpeg"))
        states.publish(messages.from_state(now_ns, JOINTS, np.zeros(6)))

    probe.create_timer(0.05, tick)
    spin.until(lambda: wishes)
    assert (node._frames["front"].image == 7).all() and "front/image_raw/compressed" not in node.diagnostics.faults


def stored(path: Path) -> list[tuple[str, bytes]]:
    """Format and bytes of the compressed images of a journal."""
    from mcap.reader import make_reader
    from mcap_ros2.decoder import DecoderFactory

    with path.open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        found = reader.iter_decoded_messages(["/front/image_raw/compressed"])
        return [(message.format, bytes(message.data)) for _, _, _, message in found]


@pytest.mark.parametrize(("kind", "image_format"), [("jpeg", "jpeg"), ("png", "png"), ("jpeg", "png"), ("jpeg", "raw")])
def test_a_journal_keeps_the_cameras_own_files_where_it_has_that_format(
    spin, probe, start, tmp_path, kind, image_format
):
    parameters = {"image_format": image_format, "image_transport": "compressed", "realtime": False}
    node = start(RecorderNode(folder=str(tmp_path), min_free_mb=1, task_text="put it there", **parameters))
    images = topics.IMAGE_COMPRESSED.of("front").publisher(probe)
    states = probe.create_publisher(JointState, "joint_states", STREAM)
    sent = probe.create_publisher(JointTrajectory, "joint_command_sent", STREAM)
    spin.until(lambda: all(end.get_subscription_count() for end in (images, states, sent)))
    assert spin.call(probe, Trigger, "recorder/start_episode").success
    files = [file_of(shade(k, 20 * k, 96), kind) for k in range(1, 5)]
    for k, file in enumerate(files, 1):
        states.publish(messages.from_state(k * DT, JOINTS, np.zeros(6)))
        images.publish(file)
        chunk = ActionChunk(k * DT, np.zeros((1, 6), np.float32), 0.1)
        sent.publish(messages.from_chunk(chunk, JOINTS))
    spin.until(lambda: node.diagnostics.total("actions") == 4)
    ended = spin.call(probe, SetBool, "recorder/end_episode", SetBool.Request(data=True))
    assert ended.success, ended.message
    own = [(file.format, bytes(file.data)) for file in files]
    found = stored(Path(ended.message))
    if kind == image_format:
        assert found == own
    else:
        assert [form for form, _ in found] == ([] if image_format == "raw" else [image_format] * 4)
    episode = read_journal(ended.message)
    shown = [step.observation.frames["front"].image for step in episode.steps]
    assert [int(image[0, 0, 0]) for image in shown] == pytest.approx([20, 40, 60, 80], abs=2)
    decoded = [image_files.decode(data, form) for form, data in own]
    assert all(np.array_equal(a, b) for a, b in zip(shown, decoded, strict=True)), "what the nodes saw live"
    names = read_info(ended.message).topics
    assert names.get("/front/image_raw/compressed", "/front/image_raw/compressed") == "/front/image_raw/compressed"
