# SPDX-License-Identifier: Apache-2.0
"""What a node asks a person: an image that does not come fails the episode, not the whole run."""

from __future__ import annotations

import pytest

from lrm_ros.config import RecorderConfig
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.control import Control, EpisodeError
from lrm_ros.ros.person import Person


class Asker(LrmNode[RecorderConfig]):
    """A node that asks."""

    def __init__(self) -> None:
        super().__init__("asker", RecorderConfig)


def test_a_camera_that_says_nothing_fails_the_episode(spin, tmp_path):
    node = spin.start(Asker())
    person = Person(node, Control(node), "front", tmp_path / "scene.png")
    with pytest.raises(EpisodeError, match=r"no image comes on '.*front/image_raw'.*look at the camera's node"):
        person.live(timeout_s=0.01)
