# SPDX-License-Identifier: Apache-2.0
"""Send camera-sized images from one process to another and print how many arrived (for the doctor).

Fast DDS writes what it has to say to the standard output, too: what counts stands behind ``SAYS``.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable

SAYS = "dds_check:"
IMAGES = 20
WAIT_S = 0.1
# Waits in which nothing came, not seconds on a clock: a machine that stands still for as long says nothing about DDS.
WAITS = 150
SECONDS = WAIT_S * WAITS


def said(lines: Iterable[str]) -> str:
    """Return what the next of our lines says, empty if there is none."""
    return next((line.partition(SAYS)[2].strip() for line in lines if SAYS in line), "")


def _spin_until(node, done: Callable[[], bool]) -> bool:
    """Serve a node until something is true, or nothing came in all the waits; returns whether it is true."""
    import rclpy

    waits = 0
    while not done() and waits < WAITS:
        begin = time.monotonic()
        rclpy.spin_once(node, timeout_sec=WAIT_S)
        waits += time.monotonic() - begin >= WAIT_S
    return done()


def listen() -> int:
    """Receive until all images are there or time is up; prints ``ready`` first. Returns how many came."""
    import rclpy

    from lrm_ros import topics

    node = rclpy.create_node("dds_check_listener")
    stamps: set[int] = set()
    topics.DDS_CHECK.subscribe(node, lambda message: stamps.add(message.header.stamp.nanosec))
    print(SAYS, "ready", flush=True)
    _spin_until(node, lambda: len(stamps) == IMAGES)
    node.destroy_node()
    return len(stamps)


def talk() -> None:
    """Wait for the listener, then publish the images and wait until they are acknowledged.

    Raises:
        TimeoutError: the listener was not found, or did not acknowledge the images.
    """
    import rclpy
    from rclpy.duration import Duration
    from sensor_msgs.msg import Image

    from lrm_ros import topics

    node = rclpy.create_node("dds_check_talker")
    publisher = topics.DDS_CHECK.publisher(node)
    if not _spin_until(node, lambda: publisher.get_subscription_count() > 0):
        raise TimeoutError(f"the other process was not discovered within {SECONDS:.0f} s")
    image = Image(height=480, width=640, encoding="rgb8", step=1920, data=bytes(640 * 480 * 3))
    for index in range(IMAGES):
        image.header.stamp.nanosec = index
        publisher.publish(image)
    if not any(publisher.wait_for_all_acked(Duration(seconds=WAIT_S)) for _ in range(WAITS)):
        raise TimeoutError(f"the other process did not acknowledge the images within {SECONDS:.0f} s")
    node.destroy_node()


def main(argv: list[str] | None = None) -> int:
    """Run both ends; ``--listen`` is the receiving process that this one starts."""
    import rclpy

    from lrm_ros.ros.base import set_transport

    listening = (argv if argv is not None else sys.argv[1:]) == ["--listen"]
    set_transport()
    if listening:
        rclpy.init()
        print(SAYS, listen(), flush=True)
        rclpy.shutdown()
        return 0
    child = subprocess.Popen(
        [sys.executable, "-m", "lrm_ros.ros.dds_check", "--listen"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        said(child.stdout)
        rclpy.init()
        talk()
        rclpy.shutdown()
        received = int(said(child.stdout) or 0)
        child.wait()
    finally:
        child.terminate()
        child.wait()
    print(SAYS, IMAGES, received)
    return 0 if received == IMAGES else 1


if __name__ == "__main__":
    sys.exit(main())
