# SPDX-License-Identifier: Apache-2.0
"""The command ``lrm reward data``: what each source gave, what it refuses, in which order it reads."""

import json
from pathlib import Path

import numpy as np
import pytest
from numbered import entries, write_video  # type: ignore[import-not-found]

from lrm_ros.training.reward.data import command as reward_data
from lrm_ros.training.reward.data.shards import read_rows


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
        next(iter(reward_data.read_source(option, tmp_path / "nowhere", "name")))


def test_a_corrected_command_may_use_the_folder_of_one_that_wrote_nothing(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(SystemExit):
        reward_data.main(["--egodex", str(tmp_path), "--out", str(out)])
    assert reward_data.main(["--roboreward", str(roboreward(tmp_path / "train", 2)), "--out", str(out)]) == 0


def test_the_order_is_drawn_by_the_seed():
    def order(buffer_size, seed):
        return [int(one.episode_id) for one in reward_data.shuffled(entries("a", 50), buffer_size, seed)]

    assert order(1, 0) == list(range(50))
    assert order(20, 0) == order(20, 0) != order(20, 1)
    assert sorted(order(20, 0)) == sorted(order(99, 0)) == list(range(50))
