# SPDX-License-Identifier: Apache-2.0
"""The table of topics: README.md has the same lines, and each topic is published and heard as the table says."""

from __future__ import annotations

from pathlib import Path

import pytest
from rclpy.qos import QoSDurabilityPolicy, QoSReliabilityPolicy
from std_msgs.msg import String

from lrm_ros import messages, topics

README = Path(__file__).resolve().parents[1] / "README.md"
TABLE = [value for value in vars(topics).values() if isinstance(value, topics.Topic)]


def rows() -> list[tuple[str, str, str]]:
    """Name, type and note of each row of README.md's section "Topics"."""
    section = README.read_text().split("\n## Topics\n")[1].split("\n## ")[0]
    cells = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return [(name.strip(), kind.strip(), note.strip()) for name, kind, note in cells]


def type_of(topic: topics.Topic) -> str:
    return f"{topic.message_type.__module__.split('.')[0]}/{topic.message_type.__name__}"


def test_the_readme_has_exactly_the_topics_of_the_table() -> None:
    *said, (worlds, _, _) = rows()
    assert said == [(f"`{topic.name}`", type_of(topic), topic.note) for topic in TABLE]
    assert worlds == "`world_NN/...`" and messages.stream_name(7) == "world_07"
    assert len({topic.name for topic in TABLE}) == len(TABLE)


def test_a_name_is_filled_in_and_put_under_a_world() -> None:
    image = topics.IMAGE_RAW.of("front").under(messages.stream_name(3))
    assert image.name == "world_03/front/image_raw"
    assert (image.message_type, image.qos) == (topics.IMAGE_RAW.message_type, topics.IMAGE)
    assert topics.REWARD_VALUE.of("tri").name == "reward/tri"
    assert topics.REWARD_VALUE.of("tri").owned().name == "~/tri"
    assert topics.REWARD_QUERY.owned().name == "~/query"
    with pytest.raises(ValueError, match="'reward' is no node's own"):
        topics.REWARD.owned()
    with pytest.raises(ValueError, match="'joint_states' has no part to fill in with 'front'"):
        topics.JOINT_STATES.of("front")
    with pytest.raises(ValueError, match="'/clock' is one for all worlds"):
        topics.CLOCK.under("world_03")


def test_both_ends_are_as_the_table_says(spin, probe) -> None:
    publisher = topics.TASK.publisher(probe)
    publisher.publish(String(data="before anybody listens"))
    heard: list[String] = []
    topics.TASK.subscribe(probe, heard.append)
    spin.until(lambda: heard, what="the latched task")
    assert heard[0].data == "before anybody listens"
    ends = [*probe.get_publishers_info_by_topic("task"), *probe.get_subscriptions_info_by_topic("task")]
    assert [end.topic_type for end in ends] == ["std_msgs/msg/String"] * 4
    profiles = sorted((end.qos_profile.reliability, end.qos_profile.durability) for end in ends)
    reliable, latched = QoSReliabilityPolicy.RELIABLE, QoSDurabilityPolicy.TRANSIENT_LOCAL
    # A publisher, a subscription, one for publishers that do not latch, and one for those that are best effort.
    volatile, best_effort = QoSDurabilityPolicy.VOLATILE, QoSReliabilityPolicy.BEST_EFFORT
    assert profiles == sorted([(reliable, latched), (reliable, latched), (reliable, volatile), (best_effort, volatile)])
    topics.TASK.subscribe(probe, heard.append, topics.NEWEST)
    other = {end.qos_profile.reliability for end in probe.get_subscriptions_info_by_topic("task")}
    assert other == {QoSReliabilityPolicy.RELIABLE, QoSReliabilityPolicy.BEST_EFFORT}


def test_scripts_find_the_old_names() -> None:
    from lrm_ros.nodes import transport
    from lrm_ros.ros.transport import set_transport

    assert transport.LATCHED is topics.LATCHED and transport.set_transport is set_transport
