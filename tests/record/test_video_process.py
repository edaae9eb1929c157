# SPDX-License-Identifier: Apache-2.0
"""A video that crashes its decoder is named; the images are those that PyAV gives."""

from __future__ import annotations

import sys

import av
import numpy as np
import pytest

from lrm_ros.record.video_process import VideoProcess

# Sends an image, begins another and ends as a decoder in C does.
CRASHES = """
import os, signal, sys
sys.stdin.readline()
sys.stdout.buffer.write(b"[2, 2]\\n" + bytes(12) + b"[2, 2]\\n" + bytes(5))
sys.stdout.buffer.flush()
os.kill(os.getpid(), signal.SIGSEGV)
"""


@pytest.fixture
def video(tmp_path):
    """A video of five images, 48 x 32."""
    path = tmp_path / "file-000.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for number in range(5):
            image = np.full((32, 48, 3), 40 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_the_images_are_those_of_pyav_and_one_process_decodes_all_files(video):
    with av.open(str(video)) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with VideoProcess() as decoder:
        assert np.array_equal(list(decoder.frames(video, 99)), expected)
        process = decoder._process
        assert np.array_equal(list(decoder.frames(video, 2)), expected[:2])
        assert decoder._process is process
    assert process is not None and process.returncode is not None, "it has ended"


def test_a_file_that_is_no_video_is_named_and_the_next_one_is_decoded(video, tmp_path):
    other = tmp_path / "file-001.mp4"
    other.write_bytes(b"no video" * 100)
    with VideoProcess() as decoder:
        with pytest.raises(ValueError, match=r"video '.*file-001\.mp4' cannot be decoded \(InvalidDataError: .*again"):
            list(decoder.frames(other, 5))
        assert len(list(decoder.frames(video, 99))) == 5


def test_a_decoder_that_crashes_takes_nobody_with_it(video):
    with VideoProcess([sys.executable, "-c", CRASHES]) as decoder:
        found = decoder.frames(video, 5)
        assert next(found).shape == (2, 2, 3)
        with pytest.raises(ValueError, match=r"video '.*file-000\.mp4' crashed its decoder \(signal SIGSEGV\)"):
            next(found)
        assert next(decoder.frames(video, 5)).shape == (2, 2, 3), "the next video has a new one"
