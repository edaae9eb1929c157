# SPDX-License-Identifier: Apache-2.0
"""The camera node on a simulator's clock."""

from __future__ import annotations

from builtin_interfaces.msg import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from lrm_ros.messages import to_ns
from lrm_ros.nodes.camera import CameraNode
from lrm_ros.topics import IMAGE


def test_no_frame_is_published_before_the_simulators_clock_tells_the_time(spin, probe):
    images = spin.collect(probe, Image, "front/image_raw", IMAGE)
    node = spin.start(CameraNode(source="synthetic", use_sim_time=True, width=64, height=48, rate_hz=50.0))
    spin.until(lambda: "use_sim_time" in node.diagnostics.faults)
    assert node.diagnostics.total("unstamped") and not images
    assert "nothing publishes /clock" in node.diagnostics.faults["use_sim_time"]
    clock = probe.create_publisher(Clock, "/clock", 10)
    probe.create_timer(0.02, lambda: clock.publish(Clock(clock=Time(sec=7))))
    spin.until(lambda: images and not node.diagnostics.faults)
    assert {to_ns(image.header.stamp) for image in images} == {7_000_000_000}
    node.close()
    spin.nodes.remove(node)
