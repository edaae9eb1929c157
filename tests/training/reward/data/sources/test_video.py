# SPDX-License-Identifier: Apache-2.0
"""Frames of a video by index: the right ones whatever the coding, and files that cannot be read are refused."""

import re
from fractions import Fraction

import av
import numpy as np
import pytest
from numbered import number_in, numbered, write_video  # type: ignore[import-not-found]

from lrm_ros.training.reward.data.sources.episode import (
    BadEpisode,
    SourceEpisode,
    array_reader,
    same_size,
    success_labels,
)
from lrm_ros.training.reward.data.sources.video import Video

CODINGS = {
    "long GOP": {"g": 250},
    "GOP of two": {"g": 2},
    "B-frames": {"g": 48, "bf": 3},
    "B-frames in short GOPs": {"g": 4, "bf": 2},
    "open GOPs with a pyramid of B-frames": {"g": 12, "bf": 8, "x264_params": "b-pyramid=normal:open-gop=1"},
    "HEVC": {"codec": "libx265", "g": 12, "x265_params": "log-level=error"},
    "AV1 as LeRobot writes it": {"codec": "libsvtav1", "g": 2, "crf": 30},
    "AV1 with hidden frames": {"codec": "libsvtav1", "g": 32, "crf": 30},
    "MPEG-4 with B-frames": {"codec": "mpeg4", "g": 12, "bf": 2},
    "VP9": {"codec": "libvpx-vp9", "g": 12},
}
LENGTH = 40


@pytest.mark.parametrize("coding", CODINGS)
def test_any_frames_by_index_are_those_of_a_whole_decode(tmp_path, coding):
    path = write_video(tmp_path / "a.mp4", range(LENGTH), **CODINGS[coding])
    video = Video(path)
    assert (video.length, video.fps) == (LENGTH, 20.0)
    with av.open(str(path)) as container:
        whole = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [number_in(frame) for frame in video.read(range(LENGTH))] == list(range(LENGTH))
    rng = np.random.default_rng(0)
    for count in (1, 1, 2, 3, 5, 11):
        picked = np.sort(rng.choice(LENGTH, count, replace=False))
        frames = list(video.read(picked))
        assert [number_in(frame) for frame in frames] == list(picked)
        assert all((frame == whole[index]).all() for frame, index in zip(frames, picked, strict=True))
    assert list(video.read([])) == []


def test_a_part_of_a_concatenated_file_counts_from_its_own_first_frame(tmp_path):
    path = write_video(tmp_path / "a.mp4", range(30), g=250)
    part = Video(path, 10, 12)
    assert part.length == 12
    assert [number_in(frame) for frame in part.read([0, 1, 7, 11])] == [10, 11, 17, 21]
    assert [number_in(frame) for frame in Video(path, 25).read(range(5))] == [25, 26, 27, 28, 29]
    with pytest.raises(ValueError, match=r"within 0 ... 11"):
        list(part.read([3, 12]))  # frame 22 of the file is another episode's
    with pytest.raises(BadEpisode, match="ends early: 5 of 6 frames"):
        _ = Video(path, 25, 6).length
    with pytest.raises(BadEpisode, match="ends early: 0 of 1 frames"):
        _ = Video(path, 30).length


@pytest.mark.parametrize("indices", [[2, 1], [1, 1], [-1], [0, 30]])
def test_indices_that_do_not_ascend_or_lie_outside_are_an_error(tmp_path, indices):
    video = Video(write_video(tmp_path / "a.mp4", range(30)))
    with pytest.raises(ValueError, match=re.escape(f"within 0 ... 29, got {indices}")):
        list(video.read(indices))


def test_frames_that_an_edit_list_hides_do_not_count(tmp_path):
    shown = tmp_path / "cut.mp4"
    with av.open(str(write_video(tmp_path / "a.mp4", range(30), g=250))) as source, av.open(str(shown), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                shift = round(10 / 20 / packet.time_base)  # as a cut without encoding anew: ten frames before zero
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                target.mux(packet)
    with av.open(str(shown)) as container:
        whole = [number_in(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert whole == list(range(10, 30)), "this file has no edit list"
    video = Video(shown)
    assert video.length == 20
    assert [number_in(frame) for frame in video.read([0, 4, 19])] == [10, 14, 29]


def test_a_file_that_is_replaced_is_read_anew(tmp_path):
    path = write_video(tmp_path / "a.mp4", range(30))
    assert Video(path).length == 30
    write_video(path, range(40, 60))
    assert Video(path).length == 20
    assert [number_in(frame) for frame in Video(path).read([0, 19])] == [40, 59]


def refusal(path) -> str:
    """Why the frames of a file cannot be had."""
    with pytest.raises(BadEpisode) as caught:
        video = Video(path)
        list(video.read(range(video.length)))
    return str(caught.value)


def test_files_that_are_no_video_are_refused_with_the_reason(tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("version https://git-lfs.github.com/spec/v1\n" * 20)
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert refusal(tmp_path / "missing.mp4") == "no such video"
    assert refusal(tmp_path / "empty.mp4").startswith("unreadable video")
    assert refusal(tmp_path / "text.mp4").startswith("unreadable video")
    assert refusal(tmp_path / "sound.mp4") == "no video stream"


def test_wherever_a_file_is_cut_off_the_frames_that_it_still_tells_of_are_right(tmp_path):
    path, cut = tmp_path / "a.mp4", tmp_path / "cut.mp4"
    data = write_video(path, range(LENGTH), g=20, bf=4, crf=10, muxer={"movflags": "faststart"}).read_bytes()
    start = data.index(b"mdat") + 8
    lengths = set()
    for end in range(len(data) - 1, start, -max(1, (len(data) - start) // 60)):
        cut.write_bytes(data[:end])
        told = re.fullmatch(r"the video is cut off: (\d+) of 40 frames", refusal(cut))
        if told is None:
            assert refusal(cut) == "no frames" or refusal(cut).startswith("unreadable video")
            continue
        lengths.add(length := int(told[1]))
        if length:  # an episode before the cut can still be read
            assert [number_in(frame) for frame in Video(cut, 0, length).read(range(length))] == list(range(length))
        with pytest.raises(BadEpisode, match=f"ends early: {length} of {length + 1} frames"):
            _ = Video(cut, 0, length + 1).length
    assert len(lengths) > 10 and max(lengths) > 30


def test_files_that_are_damaged_are_refused_with_the_reason(tmp_path):
    path, damaged = tmp_path / "a.mp4", tmp_path / "damaged.mp4"
    data = write_video(path, range(LENGTH), g=10, crf=10).read_bytes()
    damaged.write_bytes(data[: len(data) // 2])
    assert refusal(damaged).startswith("unreadable video")  # its index is at the end
    middle = (data.index(b"mdat") + data.index(b"moov")) // 2
    damaged.write_bytes(data[:middle] + bytes(1000) + data[middle + 1000 :])
    assert refusal(damaged).startswith("unreadable video")
    first, second = (write_video(tmp_path / f"{k}.ts", range(20)).read_bytes() for k in range(2))
    damaged.with_suffix(".ts").write_bytes(first[: 188 * (len(first) // 376)] + second)  # a gap in the stream
    assert refusal(damaged.with_suffix(".ts")).startswith("the video is cut off")


def test_an_avi_file_with_b_frames_is_refused_because_it_does_not_tell_their_order(tmp_path):
    assert refusal(write_video(tmp_path / "b.avi", range(20), codec="mpeg4", bf=2)).startswith("an AVI file")
    plain = Video(write_video(tmp_path / "p.avi", range(20), codec="mpeg4", g=5))
    assert [number_in(frame) for frame in plain.read([0, 7, 19])] == [0, 7, 19]


def test_frames_of_mixed_sizes_are_refused(tmp_path):
    path = tmp_path / "mixed.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=20, width=64, height=48, pix_fmt="yuvj420p")
        for k in range(20):  # every JPEG of the stream tells its own size
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.width, encoder.height = (64, 48) if k < 10 else (128, 96)
            encoder.pix_fmt, encoder.time_base = "yuvj420p", Fraction(1, 20)
            frame = av.VideoFrame.from_ndarray(numbered(k, encoder.height, encoder.width), "rgb24")
            frame.pts = k
            for packet in (*encoder.encode(frame.reformat(format="yuvj420p")), *encoder.encode(None)):
                packet.stream = stream
                container.mux(packet)
    video = Video(path)
    assert video.length == 20 and number_in(next(video.read([4]))) == 4
    with pytest.raises(BadEpisode, match="mixed image sizes"):
        list(video.read([4, 15]))


def test_one_size_says_at_which_frame_it_stops():
    frames = same_size(iter([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)]))
    assert next(frames).shape == (4, 4, 3)
    with pytest.raises(BadEpisode, match="mixed image sizes"):
        next(frames)


@pytest.mark.parametrize(
    ("flags", "after_action", "length", "success", "done"),
    [
        ([0, 0, 1, 1], False, 4, True, [0, 0, 1, 1]),
        ([0, 0, 1, 1], True, 4, True, [0, 0, 0, 1]),
        ([0, 0, 1, 1], True, 5, True, [0, 0, 0, 1, 1]),
        ([0, 1, 1, 0], False, 4, False, [0, 1, 1, 0]),  # done, and undone again
        ([0, 0, 0, 0], True, 4, False, [0, 0, 0, 0]),
        ([0, 0, 0, 1], True, 4, True, None),  # a mark at the end
        ([1, 1, 1, 1], False, 4, True, None),  # a mark of the episode
        ([1], True, 1, True, None),
        ([0], True, 1, False, [0]),
    ],
)
def test_flags_of_steps_become_labels_of_frames_only_where_they_can(flags, after_action, length, success, done):
    found = success_labels(flags, after_action, length)
    assert found[0] is success
    assert (found[1] is None) if done is None else found[1].tolist() == [bool(value) for value in done]


def test_an_episode_without_a_task_frames_or_a_rate_is_refused():
    read = array_reader(np.zeros((2, 4, 4, 3), np.uint8))
    for task, fps, length, reason in [
        (" ", 10.0, 2, "no language"),
        ("a", float("nan"), 2, "frame rate"),
        ("a", 10.0, 0, "no frames"),
    ]:
        with pytest.raises(BadEpisode, match=reason):
            SourceEpisode("s", "e", task, fps, length, read)
