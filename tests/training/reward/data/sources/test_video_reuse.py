# SPDX-License-Identifier: Apache-2.0
"""Video files stay open between reads: what is read is the same in any order, and files do not pile up."""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import pytest
from numbered import number_in, write_video  # type: ignore[import-not-found]

from lrm_ros.training.reward.data.sources import video
from lrm_ros.training.reward.data.sources.episode import BadEpisode
from lrm_ros.training.reward.data.sources.video import OPEN_FILES, Video


def numbers(some: Video, indices) -> list[int]:
    return [number_in(frame) for frame in some.read(indices)]


@pytest.fixture(params=[{"g": 2}, {"g": 12, "bf": 3}, {"codec": "libsvtav1", "g": 2, "crf": 30}], ids=str)
def film(request, tmp_path) -> Video:
    return Video(write_video(tmp_path / "a.mp4", range(40), **request.param))


def test_a_second_read_may_go_back(film):
    for indices in ([30, 35, 39], [0, 1, 2], [39], [5, 20], list(range(40)), [0]):
        assert numbers(film, indices) == list(indices)


def test_reads_of_one_file_may_take_turns(film):
    first, second = film.read(range(0, 40, 4)), film.read(range(1, 40, 4))
    for k in range(10):
        assert (number_in(next(first)), number_in(next(second))) == (4 * k, 4 * k + 1)


def test_a_read_that_is_given_up_does_not_disturb_the_next(film):
    assert [number_in(frame) for frame in islice(film.read(range(40)), 7)] == list(range(7))
    assert numbers(film, [3, 38]) == [3, 38]


def test_the_index_is_made_from_the_start_wherever_the_open_file_stands(film):
    assert numbers(film, [20, 39]) == [20, 39]
    video._index.cache_clear()
    assert film.length == 40 and numbers(film, [0, 39]) == [0, 39]


def test_threads_do_not_share_an_open_file(film):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda k: numbers(film, [k, k + 20]), range(20)))
    assert found == [[k, k + 20] for k in range(20)]


def test_a_forked_process_does_not_move_the_place_in_its_parents_file(tmp_path):
    film = Video(write_video(tmp_path / "a.mp4", range(400), g=2, crf=1))
    frames = film.read(range(0, 400, 2))
    assert number_in(next(frames)) == 0 and numbers(film, [100]) == [100]
    child = os.fork()
    if child == 0:
        right = numbers(film, [399]) == [399]
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [number_in(frame) for frame in frames] == list(range(2, 400, 2))
    assert numbers(film, [102, 399]) == [102, 399]


def test_few_files_stay_open(tmp_path):
    films = [Video(write_video(tmp_path / f"{k}.mp4", range(k, k + 5))) for k in range(OPEN_FILES + 8)]
    assert all(numbers(film, [0, 4]) == [k, k + 4] for k, film in enumerate(films))
    links = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert sum(link.startswith(str(tmp_path)) for link in links) <= OPEN_FILES
    assert all(numbers(film, [1]) == [k + 1] for k, film in enumerate(films))


def test_a_file_that_cannot_be_decoded_is_not_kept(tmp_path):
    path = write_video(tmp_path / "a.mp4", range(40), g=10, crf=10)
    data = bytearray(path.read_bytes())
    end = data.index(b"moov") - 4
    data[end - 60 : end] = bytes(60)
    path.write_bytes(data)
    for _ in range(2):
        with pytest.raises(BadEpisode):
            list(Video(path).read(range(40)))
        assert numbers(Video(path), [0, 5]) == [0, 5]
