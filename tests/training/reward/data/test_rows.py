# SPDX-License-Identifier: Apache-2.0
"""Keyframes of one episode: which frames, which labels, and on which side of the split."""

import dataclasses
import io

import numpy as np
import pytest
from numbered import entry, episode, number_in, write_video  # type: ignore[import-not-found]
from PIL import Image

from lrm_ros.training.reward.data.rows import keyframe_indices, keyframes_of, split_of
from lrm_ros.training.reward.data.sources.episode import BadEpisode, SourceEpisode
from lrm_ros.training.reward.data.sources.video import Video


def column(made: SourceEpisode, name: str) -> list:
    return keyframes_of(entry(made))[name]


@pytest.mark.parametrize("length", [11, 12, 16, 21, 40, 101, 1000])
def test_there_are_eleven_keyframes_from_the_first_to_the_last_frame(length):
    indices = keyframe_indices(length)
    assert len(indices) == 11 and indices[0] == 0 and indices[-1] == length - 1
    assert indices == [round(k / 10 * (length - 1)) for k in range(11)]
    assert column(episode(length=length), "position") == list(range(11)) if length < 101 else True


@pytest.mark.parametrize("length", range(2, 11))
def test_a_short_episode_gives_each_frame_once_at_its_own_time(length):
    made = keyframes_of(entry(episode(length=length)))
    assert made["frame"] == list(range(length))
    assert made["position"] == [round(10 * k / (length - 1)) for k in range(length)]
    assert made["progress"] == [position / 10 for position in made["position"]]


@pytest.mark.parametrize("success", [True, None])
def test_in_a_demonstration_progress_is_time_and_the_end_is_done(success):
    made = keyframes_of(entry(episode(success=success)))
    assert made["progress"] == [k / 10 for k in range(11)] and made["by_state"] == [False] * 11
    assert made["done"] == [False] * 8 + [None, None, True]
    assert made["success"] == [success] * 11


def test_in_a_failed_episode_nothing_is_done_and_progress_is_not_known():
    made = keyframes_of(entry(episode(success=False, kind="dropped")))
    assert made["progress"] == [None] * 11 and made["done"] == [False] * 11 and made["kind"] == ["dropped"] * 11


def test_of_an_episode_of_which_nobody_says_anything_nothing_is_known():
    made = keyframes_of(entry(episode(success=None, kind="policy")))
    assert made["progress"] == [None] * 11 and made["done"] == [None] * 11


def test_labels_from_the_state_are_those_of_the_frames():
    progress = np.linspace(1, 0, 21, dtype=np.float32)
    done = np.arange(21) < 5
    made = keyframes_of(entry(episode(success=False, kind="reversed", progress=progress, done=done)))
    np.testing.assert_allclose(made["progress"], np.linspace(1, 0, 11), atol=1e-6)
    assert made["done"] == [True] * 3 + [False] * 8 and made["by_state"] == [True] * 11


def test_a_scored_end_is_the_only_progress_of_a_failed_episode():
    whole = episode(success=False, kind="failure")
    made = keyframes_of(entry(dataclasses.replace(whole, end_progress=0.75)))
    assert made["progress"] == [None] * 10 + [0.75] and made["by_state"] == [False] * 11
    with pytest.raises(BadEpisode, match=r"outside \[0, 1\]"):
        dataclasses.replace(whole, end_progress=float("nan"))


def test_keyframes_of_a_video_are_the_right_frames(tmp_path):
    video = Video(write_video(tmp_path / "a.mp4", range(57), g=2))
    made = SourceEpisode("video", "0", "count", video.fps, video.length, video.read)
    rows = keyframes_of(entry(made))
    assert [number_in(np.asarray(Image.open(io.BytesIO(jpeg)))) for jpeg in rows["jpeg"]] == rows["frame"]
    assert rows["frame"] == [round(5.6 * k) for k in range(11)]


def test_the_split_of_an_episode_never_changes():
    assert [k for k in range(40) if split_of("lab", f"episode_{k}") == "val"] == [25, 27]
    assert split_of("bridge", "train-0000012") == split_of("bridge", "train-0000012@image_1")
    share = np.mean([split_of("lab", str(k)) == "val" for k in range(5000)])
    assert 0.08 < share < 0.12
