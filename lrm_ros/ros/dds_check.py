# SPDX-License-Identifier: Apache-2.0
"""Send camera-sized images from one process to another and print how many arrived (for the doctor)."""

from __future__ import annotations

import subprocess
import sys
import time

IMAGES = 20
SECONDS = 15.0


def listen() -> int:
    """Receive until all images are there or time is up; prints ``ready`` first. Returns how many came."""
    import rclpy

    from lrm_ros import topics

    node = rclpy.create_node("dds_check_listener")
    stamps: set[int] = set()
    topics.DDS_CHECK.subscribe(node, lambda message: stamps.add(message.header.stamp.nanosec))
    deadline = time.monotonic() + SECONDS
    print("ready", flush=True)
    while len(stamps) < IMAGES and time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.1)
    node.destroy_node()
    return len(stamps)


def talk() -> None:
    """Wait for the listener, then publish the images and wait until they are acknowledged."""
    import rclpy
    from rclpy.duration import Duration
    from sensor_msgs.msg import Image

    from lrm_ros import topics

    node = rclpy.create_node("dds_check_talker")
    publisher = topics.DDS_CHECK.publisher(node)
    deadline = time.monotonic() + SECONDS
    while publisher.get_subscription_count() == 0:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the other process was not discovered within {SECONDS:.0f} s")
        rclpy.spin_once(node, timeout_sec=0.05)
    image = Image(height=480, width=640, encoding="rgb8", step=1920, data=bytes(640 * 480 * 3))
    for index in range(IMAGES):
        image.header.stamp.nanosec = index
        publisher.publish(image)
    publisher.wait_for_all_acked(Duration(seconds=SECONDS))
    node.destroy_node()


def main(argv: list[str] | None = None) -> int:
    """Run both ends; ``--listen`` is the receiving process that this one starts."""
    import rclpy

    from lrm_ros.ros.base import set_transport

    listening = (argv if argv is not None else sys.argv[1:]) == ["--listen"]
    set_transport()
    if listening:
        rclpy.init()
        print(listen(), flush=True)
        rclpy.shutdown()
        return 0
    child = subprocess.Popen(
        [sys.executable, "-m", "lrm_ros.ros.dds_check", "--listen"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()
        rclpy.init()
        talk()
        rclpy.shutdown()
        received = int(child.stdout.readline() or 0)
    finally:
        child.terminate()
        child.wait()
    print(IMAGES, received)
    return 0 if received == IMAGES else 1


if __name__ == "__main__":
    sys.exit(main())
