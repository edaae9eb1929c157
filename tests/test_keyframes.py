# SPDX-License-Identifier: Apache-2.0
"""Keyframes of episodes as shards: which frames, which labels, in turns, once, counted, and the same after a kill."""

import dataclasses
import io
import json
import weakref
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numbered import number_in, numbered, write_video  # type: ignore[import-not-found]
from PIL import Image

from lrm_ros.training.bench import keyframes as bench_keyframes
from lrm_ros.training.reward.data import command as reward_data
from lrm_ros.training.reward.data.keyframes import write_keyframes
from lrm_ros.training.reward.data.rows import keyframe_indices, keyframes_of, split_of
from lrm_ros.training.reward.data.shards import COLUMNS, ShardWriter, read_rows
from lrm_ros.training.reward.data.sources.episode import BadEpisode, Entry, SourceEpisode, array_reader, bad_entry
from lrm_ros.training.reward.data.sources.video import Video
from lrm_ros.training.reward.data.table import load_keyframes


def episode(source="lab", name="0", length=21, first=0, task="put the square", **about) -> SourceEpisode:
    """An episode whose frames carry the numbers first, first + 1, ..."""
    images = np.stack([numbered(first + k) for k in range(length)])
    return SourceEpisode(source, name, task, 10.0, length, array_reader(images), **about)


def entry(made: SourceEpisode) -> Entry:
    return Entry(made.source, made.episode_id, lambda: made)


def entries(source: str, count: int, start=0, opened=None, **about):
    """Entries of different episodes, made when they are opened; ``opened`` gets their ids."""

    def make(number: int) -> SourceEpisode:
        if opened is not None:
            opened.append(f"{source}/{number}")
        return episode(source, str(number), first=30 * number, **about)

    for number in range(start, start + count):
        yield Entry(source, str(number), partial(make, number))


def column(made: SourceEpisode, name: str) -> list:
    return keyframes_of(entry(made))[name]


def image(row: dict) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(row["jpeg"])))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("shard-*"))}


# --- one episode ----------------------------------------------------------------------------------------------------


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


# --- all sources ----------------------------------------------------------------------------------------------------


def test_shards_hold_the_episodes_in_turns_and_the_manifest_counts_them(tmp_path):
    sources = {"a": entries("a", 5), "b": entries("b", 2, task="push")}
    manifest = write_keyframes(sources, tmp_path / "out", shard_episodes=3, settings={"seed": 7})
    rows = list(read_rows(tmp_path / "out"))
    order = [(rows[k]["source"], rows[k]["episode_id"]) for k in range(0, len(rows), 11)]
    assert order == [("a", "0"), ("b", "0"), ("a", "1"), ("b", "1"), ("a", "2"), ("a", "3"), ("a", "4")]
    assert list(rows[0]) == list(COLUMNS)
    for k, row in enumerate(rows):
        assert row["position"] == k % 11 and (row["height"], row["width"]) == (48, 64)
        assert number_in(image(row)) == 30 * int(row["episode_id"]) + row["frame"]
    assert sorted(files(tmp_path / "out")) == [f"shard-0000{k}.parquet" for k in range(3)]
    shard = pq.ParquetFile(tmp_path / "out/shard-00000.parquet")
    assert [shard.metadata.row_group(k).num_rows for k in range(shard.num_row_groups)] == [11] * 3
    written = json.loads((tmp_path / "out/manifest.json").read_text())
    assert written["complete"] and written["settings"]["seed"] == 7 and written["counts"] == manifest["counts"]
    assert written["made_by"][0]["versions"]["numpy"] == np.__version__
    count = written["counts"]["a"]
    assert (count["listed"], count["episodes"], count["keyframes"], count["duplicates"]) == (5, 5, 55, 0)
    assert count["train"] + count["val"] == 5 and count["skipped"] == {}
    assert manifest["keyframes_per_s"] > 0


def test_each_source_gives_no_more_than_its_limit_and_no_more_is_opened(tmp_path):
    opened: list[str] = []
    sources = {"a": entries("a", 50, opened=opened), "b": entries("b", 2, opened=opened, task="push")}
    manifest = write_keyframes(sources, tmp_path, per_source=4)
    assert [count["episodes"] for count in manifest["counts"].values()] == [4, 2]
    assert len(opened) == 6


def test_one_episode_at_a_time_is_in_memory(tmp_path):
    alive: list[weakref.ref] = []

    def make(number: int) -> SourceEpisode:
        assert sum(ref() is not None for ref in alive) <= 1
        made = episode("a", str(number), first=30 * number)
        frames = made.read.__closure__[0].cell_contents  # type: ignore[attr-defined]
        alive.append(weakref.ref(frames))
        return made

    write_keyframes({"a": (Entry("a", str(n), partial(make, n)) for n in range(8))}, tmp_path, shard_episodes=4)
    assert len(alive) == 8


def test_an_episode_that_was_there_before_is_left_out_whatever_its_source(tmp_path):
    sources = {
        "a": [entry(episode("a", "0")), entry(episode("a", "again")), entry(episode("a", "1", first=50))],
        "b": [entry(episode("b", "0")), entry(episode("b", "1", task="take the square away"))],
    }
    counts = write_keyframes(sources, tmp_path, shard_episodes=1)["counts"]
    assert [(c["episodes"], c["duplicates"]) for c in counts.values()] == [(2, 1), (1, 1)]
    kept = {(row["source"], row["episode_id"]) for row in read_rows(tmp_path)}
    assert kept == {("a", "0"), ("a", "1"), ("b", "1")}


def test_an_id_that_is_taken_is_refused(tmp_path):
    sources = {"a": [entry(episode("x", "0")), entry(episode("x", "0", first=50))]}
    assert write_keyframes(sources, tmp_path)["counts"]["a"]["skipped"] == {
        "another episode has the same source and id": 1
    }


def bad_entries(source: str):
    mixed = episode(source, "mixed", length=11)
    sizes = [numbered(k, 48 if k < 5 else 96) for k in range(11)]

    def gone(indices):
        raise OSError("the disk is gone")

    def torn(indices):
        yield from (numbered(k) for k in indices[:4])

    yield bad_entry(source, "1", "no language instruction")
    yield bad_entry(source, "2", "no language instruction")
    yield bad_entry(source, "3", "the video is cut off: 3 of 40 frames")
    yield bad_entry(source, "4", "the video is cut off: 7 of 40 frames")
    yield Entry(source, "5", lambda: episode(source, "5", task=" "))
    yield entry(dataclasses.replace(mixed, read=lambda indices: (sizes[k] for k in indices)))
    yield entry(dataclasses.replace(mixed, read=gone))
    yield entry(dataclasses.replace(mixed, read=torn))
    yield entry(dataclasses.replace(mixed, read=array_reader(np.zeros((11, 48, 64, 3), np.float32))))
    yield entry(dataclasses.replace(mixed, read=array_reader(np.zeros((11, 48, 64), np.uint8))))
    yield entry(episode(source, "single", length=1))
    yield entry(episode(source, "good"))


def test_what_cannot_be_used_is_skipped_and_counted_with_the_reason(tmp_path, capfd):
    count = write_keyframes({"a": bad_entries("a")}, tmp_path)["counts"]["a"]
    assert count["skipped"] == {
        "no language instruction": 3,
        "the video is cut off": 2,
        "mixed image sizes": 1,
        "unreadable: OSError": 1,
        "fewer frames than it should have": 1,
        "frames that are no (H, W, 3) uint8 images": 2,
        "a single frame: time tells nothing": 1,
    }
    assert count["listed"] == 12 and count["episodes"] == 1
    assert "the disk is gone" in capfd.readouterr().err


def test_without_a_usable_episode_the_reasons_are_told(tmp_path):
    with pytest.raises(ValueError, match=r"no episode could be used.*no language instruction"):
        write_keyframes({"a": [bad_entry("a", "1", "no language instruction")]}, tmp_path)
    with pytest.raises(ValueError, match="no sources"):
        write_keyframes({}, tmp_path)


def test_a_missing_package_is_no_bad_episode(tmp_path):
    def needs():
        raise ImportError("Open X-Embodiment needs tensorflow-datasets")

    with pytest.raises(ImportError, match="tensorflow"):
        write_keyframes({"a": [Entry("a", "0", needs)]}, tmp_path)


# --- interrupted ----------------------------------------------------------------------------------------------------


def mixed_sources(opened=None, dies_at=None):
    def a():
        for number, one in enumerate(entries("a", 10, opened=opened)):
            if number == dies_at:
                raise RuntimeError("killed")
            yield one
            if number % 3 == 1:
                yield bad_entry("a", f"bad{number}", "no language instruction")
                yield entry(episode("a", f"copy{number}", first=30 * number))

    return {"a": a(), "b": entries("b", 3, opened=opened, task="push"), "c": bad_entries("c")}


@pytest.mark.parametrize("dies_at", [0, 1, 4, 7, 8])
def test_after_a_kill_the_same_command_ends_as_if_nothing_had_happened(tmp_path, dies_at):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    write_keyframes(mixed_sources(), whole, shard_episodes=2)
    with pytest.raises(RuntimeError, match="killed"):
        write_keyframes(mixed_sources(dies_at=dies_at), torn, shard_episodes=2)
    finished = {
        f"{row['source']}/{row['episode_id']}"
        for path in torn.glob("*.parquet")
        for row in pq.read_table(path).to_pylist()
    }
    (torn / f"shard-{len(files(torn)):05d}.parquet.part").write_bytes(b"PAR1 torn")  # what SIGKILL leaves behind
    with pytest.raises((ValueError, FileNotFoundError), match=r"not complete|holds no keyframes"):
        next(read_rows(torn))
    opened: list[str] = []
    write_keyframes(mixed_sources(opened), torn, shard_episodes=2)
    assert not finished & set(opened)
    assert files(torn) == files(whole) and len(files(whole)) == 7
    first, second = (json.loads((folder / "manifest.json").read_text()) for folder in (whole, torn))
    assert {**first, "made_by": 0} == {**second, "made_by": 0}


def test_a_complete_folder_is_left_as_it_is(tmp_path):
    write_keyframes(mixed_sources(), tmp_path, shard_episodes=2)
    before, opened = files(tmp_path), []
    assert write_keyframes(mixed_sources(opened), tmp_path, shard_episodes=2)["seconds"] == 0
    assert files(tmp_path) == before and opened == []


def test_other_settings_or_other_sources_do_not_go_on_in_the_same_folder(tmp_path):
    with pytest.raises(RuntimeError):
        write_keyframes(mixed_sources(dies_at=7), tmp_path, shard_episodes=2, settings={"seed": 0})
    with pytest.raises(ValueError, match="was made with seed=0, now it is 1"):
        write_keyframes(mixed_sources(), tmp_path, shard_episodes=2, settings={"seed": 1})
    with pytest.raises(ValueError, match="was made with per_source=None, now it is 5"):
        write_keyframes(mixed_sources(), tmp_path, 5, shard_episodes=2, settings={"seed": 0})
    other = {**mixed_sources(), "b": entries("b", 3, start=1)}
    with pytest.raises(ValueError, match="source 'b' lists other episodes"):
        write_keyframes(other, tmp_path, shard_episodes=2, settings={"seed": 0})
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"shards without manifest\.json"):
        write_keyframes(mixed_sources(), tmp_path, shard_episodes=2, settings={"seed": 0})


# --- reading --------------------------------------------------------------------------------------------------------


def test_a_split_is_read_alone_and_both_readers_agree(tmp_path):
    write_keyframes({"a": entries("a", 40)}, tmp_path, shard_episodes=16)
    parts = {split: list(read_rows(tmp_path, split)) for split in ("train", "val")}
    assert len(parts["train"]) + len(parts["val"]) == 440 and parts["val"]
    for split, rows in parts.items():
        assert {row["split"] for row in rows} == {split}
        table = load_keyframes(tmp_path, split)
        assert len(table) == len(rows) and table.jpeg(len(rows) - 1) == rows[-1]["jpeg"]
        assert table.progress.tolist() == pytest.approx([row["progress"] for row in rows])
        assert len(set(table.episode.tolist())) == len({row["episode_id"] for row in rows})
    with pytest.raises(ValueError, match="unknown split 'test'"):
        list(read_rows(tmp_path, "test"))


def test_missing_and_damaged_shards_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="lrm reward data"):
        list(read_rows(tmp_path))
    write_keyframes({"a": entries("a", 3)}, tmp_path, shard_episodes=1)
    middle = tmp_path / "shard-00001.parquet"
    whole = middle.read_bytes()
    middle.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"shard-00001\.parquet' is not a readable shard"):
        list(read_rows(tmp_path))
    middle.unlink()
    with pytest.raises(ValueError, match=r"lacks shard-00001\.parquet"):
        load_keyframes(tmp_path)


@pytest.mark.parametrize("label", [1.3, -0.2, float("nan")])
def test_a_label_outside_the_unit_interval_is_refused_when_it_is_read(tmp_path, label):
    columns = keyframes_of(entry(episode()))
    columns["progress"] = [*columns["progress"][:-1], label]
    writer = ShardWriter(tmp_path, 0)
    writer.write(columns)
    writer.finish({})
    with pytest.raises(ValueError, match=r"1 labels outside \[0, 1\].*'frame': 20"):
        load_keyframes(tmp_path)


# --- commands -------------------------------------------------------------------------------------------------------


def roboreward(folder: Path, count: int) -> Path:
    rows = []
    for number in range(count):
        write_video(folder / "bridge" / f"{number}.mp4", range(20 * number, 20 * number + 15))
        rows.append({"file_name": f"bridge/{number}.mp4", "task": "open the drawer", "reward": 1 + 4 * (number % 2)})
    rows.append({"file_name": "bridge/none.mp4", "task": "open the drawer", "reward": 3})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_the_command_gathers_and_tells_what_each_source_gave(tmp_path, capsys):
    data, out = roboreward(tmp_path / "train", 4), tmp_path / "out"
    words = ["--roboreward", str(data), "--out", str(out), "--json", str(tmp_path / "a.json")]
    assert reward_data.main(words) == 0
    text = capsys.readouterr().out
    assert "1 no video" in text and "keyframes/s" in text
    assert json.loads((tmp_path / "a.json").read_text())["counts"]["roboreward"]["keyframes"] == 44
    assert {row["source"] for row in read_rows(out)} == {"roboreward_bridge"}
    assert reward_data.main(words) == 0 and "nothing to do" in capsys.readouterr().out


def generated_shard(path: Path, names: list[str], first: int) -> Path:
    """One episode a name, of ten frames whose brightness tells the episode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 10 * len(names)
    tasks = [
        json.dumps({"episode": first + i, "task": "push it", "kind": "expert", "source": name, "fps": 20.0})
        for i, name in enumerate(names)
    ]
    light = np.arange(count, dtype=np.uint8) + first * 10
    np.savez_compressed(
        path,
        tasks=np.array(tasks),
        frames=np.broadcast_to(light[:, None, None, None], (count, 16, 16, 3)),
        progress=np.tile(np.linspace(0, 1, 10, dtype=np.float32), len(names)),
        success=np.tile(np.arange(10) == 9, len(names)).astype(np.uint8),
        episode=np.repeat(first + np.arange(len(names)), 10).astype(np.int32),
        kind=np.zeros(count, np.int8),
    )
    return path


def test_every_source_in_generated_shards_is_a_source_of_its_own(tmp_path):
    generated_shard(tmp_path / "one" / "shard_0000.npz", ["push", "push", "reach"], 0)
    generated_shard(tmp_path / "two" / "shard_0000.npz", ["push", "pull"], 5)
    words = ["--generated", str(tmp_path / "one"), "--generated", str(tmp_path / "two"), "--per-source", "2"]
    assert reward_data.main([*words, "--out", str(tmp_path / "out"), "--json", str(tmp_path / "a.json")]) == 0
    counts = json.loads((tmp_path / "a.json").read_text())["counts"]
    assert {name: count["episodes"] for name, count in counts.items()} == {"push": 2, "reach": 1, "pull": 1}
    rows = list(read_rows(tmp_path / "out"))
    assert {row["source"] for row in rows} == {"push", "reach", "pull"}
    assert {row["fps"] for row in rows} == {20.0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no sources"),
        (["--generated", "nowhere"], "'nowhere' holds no shards"),
        (["--lerobot", "nowhere"], "meta/info.json"),
        (["--egodex", "nowhere"], "no EgoDex"),
        (["--robomimic", "nowhere", "lift the cube"], "nowhere"),
        (["--roboreward", "{data}", "--roboreward", "{data}"], "two sources are called 'roboreward'"),
        (["--twin", "1", "--zero-shot"], "no task of --twin is held out"),
    ],
)
def test_the_command_refuses_what_it_cannot_do(tmp_path, capsys, words, message):
    data = roboreward(tmp_path / "train", 1)
    with pytest.raises(SystemExit) as stop:
        reward_data.main([*(word.format(data=data) for word in words), "--out", str(tmp_path / "out")])
    assert stop.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("option", reward_data.PATHS)
def test_every_option_has_its_reader(tmp_path, option):
    with pytest.raises((FileNotFoundError, ImportError), match=r"holds no|has no|is not there|needs|nowhere"):
        next(iter(reward_data.read(option, tmp_path / "nowhere", "name")))


def test_a_corrected_command_may_use_the_folder_of_one_that_wrote_nothing(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(SystemExit):
        reward_data.main(["--egodex", str(tmp_path), "--out", str(out)])
    assert reward_data.main(["--roboreward", str(roboreward(tmp_path / "train", 2)), "--out", str(out)]) == 0


def test_the_order_is_drawn_by_the_seed():
    def order(window, seed):
        return [int(one.episode_id) for one in reward_data.shuffled(entries("a", 50), window, seed)]

    assert order(1, 0) == list(range(50))
    assert order(20, 0) == order(20, 0) != order(20, 1)
    assert sorted(order(20, 0)) == sorted(order(99, 0)) == list(range(50))


def test_the_benchmark_measures_every_keyframe():
    row = bench_keyframes.measure(episodes=2, frames=12, size=64, gop=2, one_file=True, rounds=1)
    assert row["keyframes"] == 22 and row["keyframes_per_cpu_s"] > 0 and row["jpeg_bytes"] > 500
