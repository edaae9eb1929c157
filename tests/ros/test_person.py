# SPDX-License-Identifier: Apache-2.0
"""What a node asks a person: an image that does not come fails the episode, not the whole run."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from sensor_msgs.msg import Image

from lrm_ros import messages
from lrm_ros.config import RecorderConfig
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.control import Control, EpisodeError
from lrm_ros.ros.person import Person
from lrm_ros.topics import IMAGE
from lrm_ros.types import Frame


class Asker(LrmNode[RecorderConfig]):
    """A node that asks."""

    def __init__(self) -> None:
        super().__init__("asker", RecorderConfig)


def test_a_camera_that_says_nothing_fails_the_episode(spin, tmp_path):
    node = spin.start(Asker())
    person = Person(node, Control(node), "front", tmp_path / "scene.png")
    with pytest.raises(EpisodeError, match=r"no image comes on '.*front/image_raw'.*look at the camera's node"):
        person.live(timeout_s=0.01)


def test_what_several_cameras_show_now_comes_together(spin, probe, tmp_path):
    node = spin.start(Asker())
    person = Person(node, Control(node), "front", tmp_path / "scene.png", others=("wrist",))
    shades = {"front": 10, "wrist": 20}
    images = {name: probe.create_publisher(Image, f"{name}/image_raw", IMAGE) for name in shades}

    def show(camera: str) -> None:
        stamp_ns = probe.get_clock().now().nanoseconds
        images[camera].publish(
            messages.from_frame(Frame(stamp_ns, camera, np.full((8, 8, 3), shades[camera], np.uint8)))
        )

    probe.create_timer(0.05, lambda: show("front"))
    found: list[Frame] = []
    looks = threading.Thread(target=lambda: found.extend(person.live(("wrist", "front"), 60.0)))
    looks.start()
    spin.until(lambda: person._came["front"] > 3)
    assert not found, "the wrist's picture is waited for"
    probe.create_timer(0.05, lambda: show("wrist"))
    spin.until(lambda: not looks.is_alive())
    assert [(frame.camera, int(frame.image[0, 0, 0])) for frame in found] == [("wrist", 20), ("front", 10)]
