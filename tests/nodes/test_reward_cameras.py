# SPDX-License-Identifier: Apache-2.0
"""A reward node that several cameras judge with: the mean of their answers, unscored if one is."""

from __future__ import annotations

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import Image
from std_msgs.msg import String

from lrm_ros import messages
from lrm_ros.nodes.reward import RewardNode
from lrm_ros.ros.last_reward import ENDING, last_frame_values
from lrm_ros.topics import EPISODE, IMAGE, LATCHED, STREAM
from lrm_ros.types import Frame, Reward, Unscored

STEP_NS = 100_000_000


class Bench:
    def __init__(self, spin, probe, **parameters) -> None:
        self.spin = spin
        self.node = spin.start(RewardNode(**{"model": "fake", "camera": "front, wrist", "interval": 1, **parameters}))
        self.images = {name: probe.create_publisher(Image, f"{name}/image_raw", IMAGE) for name in ("front", "wrist")}
        self.rewards = spin.collect(probe, DiagnosticArray, "reward", STREAM)
        self.episodes = EPISODE.publisher(probe)
        tasks = probe.create_publisher(String, "task", LATCHED)
        tasks.publish(String(data="put it down"))
        made = [*self.images.values(), self.episodes]
        spin.until(lambda: all(each.get_subscription_count() for each in made) and self.node._task)
        spin.until(lambda: probe.count_publishers("reward"))

    def show(self, camera: str, step: int, light: int) -> None:
        image = np.full((8, 8, 3), light, np.uint8)
        self.images[camera].publish(messages.from_frame(Frame(step * STEP_NS, camera, image)))

    def heard(self, count: int) -> list[Reward | Unscored]:
        self.spin.until(lambda: len(self.rewards) >= count)
        assert len(self.rewards) == count
        last = self.rewards[-1]
        assert last.header.frame_id == "front_optical_frame"
        return messages.to_rewards(last)


def test_the_mean_of_two_cameras_of_one_stamp(spin, probe) -> None:
    bench = Bench(spin, probe, mode="progress", realtime=False, interval=2)
    bench.show("wrist", 0, 204)
    bench.show("front", 0, 51)
    (answer,) = bench.heard(1)
    assert isinstance(answer, Reward) and (answer.stamp_ns, answer.value) == (0, pytest.approx(0.5))
    bench.show("front", 1, 255)
    bench.show("wrist", 1, 255)
    bench.heard(2)
    assert bench.rewards[-1].status[0].level == DiagnosticStatus.STALE
    bench.episodes.publish(messages.status(DiagnosticStatus.OK, "e", ENDING, last_frame_values({"front": STEP_NS})))
    (answer,) = bench.heard(3)
    assert isinstance(answer, Reward) and (answer.stamp_ns, answer.value) == (STEP_NS, 1.0)


def test_one_camera_without_an_answer_makes_it_unscored_and_tri_too(spin, probe) -> None:
    bench = Bench(spin, probe, mode="tri", realtime=False)
    for step, (front, wrist) in enumerate([(51, 204), (102, 255), (153, 255)]):
        bench.show("front", step, front)
        bench.show("wrist", step, wrist)
        found = {answer.head: answer for answer in bench.heard(step + 1)}
        if step == 1:
            assert found["contrastive"] == Reward(STEP_NS, "contrastive", 1.0, "fake", found["contrastive"].latency_s)
            assert found["tri"].value == pytest.approx((1.0 + (0.4 + 1.0) / 2 + (0 + 1) / 2) / 3)
    reason = "camera 'wrist': the fake model sees two equally bright frames"
    assert found["contrastive"].reason == reason and found["progress"].value == pytest.approx(0.8)
    assert found["tri"].reason == f"camera 'wrist': contrastive is unscored: {reason.partition(': ')[2]}"


def test_in_real_time_a_camera_that_does_not_come_is_named_and_what_waits_is_told(spin, probe) -> None:
    bench = Bench(spin, probe, mode="progress")
    bench.show("front", 0, 51)
    (answer,) = bench.heard(1)
    assert answer == Unscored(0, "progress", "camera 'wrist' has no frame of that time")
    bench.show("wrist", 1, 153)
    spin.until(lambda: "wrist" in bench.node._views._newest)
    bench.show("front", 1, 51)
    (answer,) = bench.heard(2)
    assert isinstance(answer, Reward) and (answer.stamp_ns, answer.value) == (STEP_NS, pytest.approx(0.4))
    values = messages.status_values(bench.node.diagnostics.status())
    assert values["queue"] == "0" and {"age_ms_p95", "model_ms_p95", "age_s", "frames"} <= values.keys()


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"camera": "front,front"}, "does not name one or several different ones"),
        ({"camera": "front,"}, "does not name one or several different ones"),
        ({"camera": "front.left"}, "'front.left' cannot be in the name of topic '<camera>/image_raw': give letters"),
        ({"camera": "front,wr\u00e4st"}, "'wr\u00e4st' cannot be in the name"),
        ({"camera": "0"}, "beginning with no digit"),
        ({"camera": "front/"}, "'front/' cannot be"),
        ({"camera": "front,wrist", "worlds": 2}, "a simulated world has one camera"),
    ],
)
def test_cameras_that_cannot_be_are_refused(spin, parameters, reason) -> None:
    node = spin.add(RewardNode(model="fake", **parameters))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert any(reason in fault and "\n" not in fault for fault in node.diagnostics.faults.values())
    assert node.fault_code == 2  # what was given is wrong: one line, no traceback
