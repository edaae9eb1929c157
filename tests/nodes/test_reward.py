# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Float32, String
from std_srvs.srv import Trigger

from lrm_ros import messages
from lrm_ros.nodes.reward import RewardNode
from lrm_ros.topics import IMAGE, LATCHED, STREAM
from lrm_ros.types import Frame, Reward


def shade(step: int, light: int) -> Image:
    return messages.from_frame(Frame(step * 100_000_000, "front", np.full((8, 8, 3), light, np.uint8)))


@pytest.fixture
def world(spin, probe):
    """A reward node with the fake model and a probe that plays camera and task."""

    def build(realtime=False, **overrides):
        node = spin.start(RewardNode(model="fake", realtime=realtime, **overrides))
        images = probe.create_publisher(Image, "front/image_raw", IMAGE)
        tasks = probe.create_publisher(String, "task", LATCHED)
        rewards = spin.collect(probe, DiagnosticArray, "reward", STREAM)
        tasks.publish(String(data="put the toy in the bowl"))
        spin.until(lambda: images.get_subscription_count() and node._task and probe.count_publishers("reward"))
        return node, images, rewards

    return build


def test_every_frame_gets_the_reward_of_the_frame_judged_last(spin, world):
    _, images, rewards = world(mode="progress", interval=3)
    for step in range(5):
        images.publish(shade(step, 51 * step))
    spin.until(lambda: len(rewards) == 5)
    stamps = [messages.to_ns(message.header.stamp) // 100_000_000 for message in rewards]
    levels = [message.status[0].level for message in rewards]
    assert stamps == [0, 0, 0, 3, 3]
    ok, held = DiagnosticStatus.OK, DiagnosticStatus.STALE
    assert levels == [ok, held, held, ok, held]
    answer = messages.to_rewards(rewards[3])[0]
    assert isinstance(answer, Reward) and answer.value == pytest.approx(0.6)


def test_reset_judges_the_last_frame_first_and_then_forgets_the_episode(spin, probe, world):
    _, images, rewards = world(mode="contrastive", interval=10)
    for step in range(3):
        images.publish(shade(step, 10 * step))
    spin.until(lambda: len(rewards) == 3)
    assert spin.call(probe, Trigger, "reward/reset").success
    spin.until(lambda: len(rewards) == 4)
    assert messages.to_ns(rewards[3].header.stamp) == 200_000_000
    answer = messages.to_rewards(rewards[3])[0]
    assert isinstance(answer, Reward) and answer.value == 1.0
    images.publish(shade(9, 99))
    spin.until(lambda: len(rewards) == 5)
    assert "no earlier frame" in rewards[4].status[0].message


def test_another_video_head_needs_a_new_configure(spin, world):
    node, images, rewards = world(mode="robometer", interval=1)
    for name in ("topreward", "progress"):
        (refused,) = node.set_parameters([Parameter("mode", value=name)])
        says = f"parameter 'mode' takes effect at configure: deactivate, cleanup, set mode:={name}, configure"
        assert not refused.successful and says in refused.reason
        images.publish(shade(1, 100))
    spin.until(lambda: len(rewards) == 2)
    assert {status.name for message in rewards for status in message.status} == {"robometer"}
    assert not node.diagnostics.faults


def test_what_the_answers_about_worlds_do_not_heed_at_run_time_is_refused(spin):
    node = spin.start(RewardNode(model="fake", worlds=2, interval=1))
    for name, value in (("mode", "progress"), ("interval", 3), ("scale", 2.0), ("weights", [1.0, 0.0, 0.0])):
        (refused,) = node.set_parameters([Parameter(name, value=value)])
        assert not refused.successful and f"'{name}' takes effect at configure" in refused.reason
    assert node.trigger_deactivate() == node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert node.set_parameters([Parameter("interval", value=3)])[0].successful and node.config.interval == 3


def test_plots_carry_the_scaled_reward_and_an_unscored_answer_carries_none(spin, probe, world):
    node, images, rewards = world(mode="tri", interval=1, scale=10.0)
    tri = spin.collect(probe, Float32, "reward/tri", STREAM)
    contrastive = spin.collect(probe, Float32, "reward/contrastive", STREAM)
    images.publish(shade(0, 0))
    spin.until(lambda: len(rewards) == 1)
    assert {status.name: status.level for status in rewards[0].status} == {
        "contrastive": DiagnosticStatus.ERROR,
        "progress": DiagnosticStatus.OK,
        "completion": DiagnosticStatus.OK,
        "tri": DiagnosticStatus.ERROR,
    }
    images.publish(shade(1, 255))
    spin.until(lambda: len(rewards) == 2)
    # Publishers are made with the first number; the next frame is surely seen by the probe.
    spin.until(lambda: probe.count_publishers("reward/tri") and node._plots["tri"].get_subscription_count())
    images.publish(shade(2, 128))
    expected = (0.0 + 128 / 255 + 1.0) / 3
    spin.until(lambda: tri and tri[-1].data == pytest.approx(10 * expected))
    spin.until(lambda: contrastive and contrastive[-1].data == -1.0)


def test_a_frame_that_cannot_be_read_is_a_fault_and_the_next_good_one_is_judged(spin, world):
    node, images, rewards = world(mode="progress")
    images.publish(Image(encoding="rgb8"))
    spin.until(lambda: node.diagnostics.faults)
    assert "no pixels" in node.diagnostics.faults["input"]
    images.publish(shade(1, 100))
    spin.until(lambda: rewards)
    assert not node.diagnostics.faults


def test_parameters_set_at_run_time_count_and_a_wrong_one_is_a_fault(spin, world):
    node, images, rewards = world(mode="progress", interval=10)
    images.publish(shade(0, 0))
    spin.until(lambda: len(rewards) == 1)
    node.set_parameters([Parameter("mode", value="completion")])
    images.publish(shade(1, 200))
    spin.until(lambda: len(rewards) == 2)
    assert rewards[1].status[0].name == "completion"
    node.set_parameters([Parameter("mode", value="complete")])
    images.publish(shade(2, 200))
    spin.until(lambda: node.diagnostics.faults)
    assert "'complete' is unknown" in node.diagnostics.faults["input"]


def test_a_camera_that_publishes_best_effort_is_judged(spin, probe, world):
    _, images, rewards = world(mode="progress", interval=1, realtime=True)
    probe.destroy_publisher(images)
    images = probe.create_publisher(Image, "front/image_raw", qos_profile_sensor_data)
    spin.until(lambda: images.get_subscription_count())
    images.publish(shade(1, 100))
    spin.until(lambda: rewards)
    assert isinstance(messages.to_rewards(rewards[0])[0], Reward)


def test_an_inactive_node_judges_nothing(spin, world):
    node, images, rewards = world(mode="progress")
    node.trigger_deactivate()
    images.publish(shade(0, 0))
    for _ in range(5):
        spin.executor.spin_once(timeout_sec=0.05)
    assert not rewards


def test_a_missing_model_folder_fails_configure_and_says_how_to_get_one(spin):
    node = spin.add(RewardNode(model="/no/such/folder"))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "'/no/such/folder' does not exist" in str(node.diagnostics.faults)
