# SPDX-License-Identifier: Apache-2.0
"""Keyframes of episodes as shards: in turns, once, counted, the same after a kill, and read back."""

import dataclasses
import io
import json
import weakref
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numbered import entries, entry, episode, number_in, numbered  # type: ignore[import-not-found]
from PIL import Image

from lrm_ros.training.reward.data.keyframes import write_keyframes
from lrm_ros.training.reward.data.rows import keyframes_of
from lrm_ros.training.reward.data.shards import COLUMNS, ShardWriter, read_rows
from lrm_ros.training.reward.data.sources.episode import Entry, SourceEpisode, array_reader, bad_entry
from lrm_ros.training.reward.data.table import load_keyframes


def image(row: dict) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(row["jpeg"])))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("shard-*"))}


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
        "a single frame: no progress from time": 1,
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
