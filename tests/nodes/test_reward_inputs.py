# SPDX-License-Identifier: Apache-2.0
"""The reward node says when there is nothing to judge, and why what it sees is not judged."""

from __future__ import annotations

import numpy as np
import pytest
import rclpy
from sensor_msgs.msg import Image
from std_msgs.msg import String

from lrm_ros import messages, topics
from lrm_ros.nodes.reward import RewardNode
from lrm_ros.reward.fake import FakeModel
from lrm_ros.types import Frame


def show(images, step: int) -> Image:
    images.publish(messages.from_frame(Frame(step * 100_000_000, "front", np.full((8, 8, 3), 10 * step, np.uint8))))


@pytest.fixture
def images(probe):
    return topics.IMAGE_RAW.of("front").publisher(probe)


def test_a_camera_that_does_not_come_or_stops_is_named(spin, probe, images, monkeypatch):
    monkeypatch.setattr("lrm_ros.nodes.reward.STOPPED_S", 0.3)
    node = spin.start(RewardNode(model="fake"))
    says = lambda: node.diagnostics.faults.get("front/image_raw", "")  # noqa: E731
    spin.until(lambda: "nothing comes from probe" in says() and images.get_subscription_count())
    show(images, 1)
    spin.until(lambda: not says())
    spin.until(lambda: "'front/image_raw' stopped 0." in says())


@pytest.mark.parametrize("realtime", [True, False])
def test_what_is_not_judged_is_a_fault_with_the_reason_but_not_the_first_frame_of_a_pair(
    spin, probe, images, monkeypatch, realtime
):
    node = spin.start(RewardNode(model="fake", mode="contrastive", interval=1, realtime=realtime))
    says = lambda: node.diagnostics.faults.get("answers", "")  # noqa: E731
    spin.until(images.get_subscription_count)
    for step, reason in enumerate(
        ("", "no reward: no task yet; publish it on 'task'", "", "no reward: CUDA error", "")
    ):
        if step == 2:
            topics.TASK.publisher(probe).publish(String(data="put it there"))
            spin.until(lambda: node._task)
        broken = RuntimeError("CUDA error") if "CUDA" in reason else None
        monkeypatch.setattr(FakeModel, "score", _raise(broken) if broken else SCORE)
        show(images, step + 1)
        spin.until(lambda step=step: node.diagnostics.total("judged") == step + 1)
        assert says() == reason or (broken and "CUDA error" in says())


SCORE = FakeModel.score


def _raise(error: Exception):
    def score(*_):
        raise type(error)(*error.args)

    return score


def test_two_cameras_under_one_name_are_named_and_not_judged_in_turn(spin, probe, images):
    node = spin.start(RewardNode(model="fake", mode="progress", interval=1))
    topics.TASK.publisher(probe).publish(String(data="put it there"))
    other = topics.IMAGE_RAW.of("front").publisher(spin.add(rclpy.create_node("leftover")))
    says = lambda: node.diagnostics.faults.get("front/image_raw", "")  # noqa: E731
    step = 0

    def both() -> None:
        nonlocal step
        step += 1
        show(images, step % 20 + 1)
        if other is not None:
            show(other, step % 20 + 1)

    timer = probe.create_timer(0.05, both)
    spin.until(lambda: "comes from more than one publisher (leftover, probe); stop the others" in says())
    judged = node.diagnostics.total("judged")
    other = None
    spin.until(lambda: not says() and node.diagnostics.total("judged") > judged)
    timer.cancel()
