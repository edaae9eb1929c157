# SPDX-License-Identifier: Apache-2.0
"""The bench of kills: it sees what is lost, partial or gone, and nodes of a real session are killed and go on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from journals import DT, three_steps  # type: ignore[import-not-found]

from lrm_ros.training.bench import kills


@pytest.fixture
def check(tmp_path, monkeypatch) -> kills.Check:
    """The check of a session that has recorded ``good``, of three steps, which is whole."""
    monkeypatch.setattr(kills, "STEPS", 3)
    writer = three_steps(tmp_path / "episodes" / "good.mcap")
    writer.joints(4 * DT, ["a", "b"], [0.0, 0.0], [], [])
    writer.finish()
    return kills.Check(SimpleNamespace(episodes=tmp_path / "episodes", events=[("good", "started"), ("good", "ended")]))


def test_a_whole_journal_and_an_unfinished_one_are_right(check):
    folder = check._session.episodes
    assert check.wrong() == [] and check.told == {"good"} and check.counts["whole"] == 1
    (folder / "open.mcap.part").write_bytes((folder / "good.mcap").read_bytes()[:-300])
    (folder / "begun.mcap.part").write_bytes((folder / "good.mcap").read_bytes()[:40])
    assert check.wrong() == [] and check.counts["unfinished"] == 2 and check.counts["whole"] == 1
    assert sorted(path.name for path in folder.iterdir()) == ["begun.mcap.part", "good.mcap", "open.mcap.part"]


def test_what_is_lost_cut_or_strange_is_seen(check):
    folder = check._session.episodes
    shutil.copy(folder / "good.mcap", folder / "copy.txt")
    check._session.events.append(("gone", "ended"))
    writer = three_steps(folder / "short.mcap")
    writer.finish()
    content = (folder / "good.mcap").read_bytes()
    (folder / "damaged.mcap").write_bytes(content[:-20])
    found = "\n".join(check.wrong())
    assert "'copy.txt' is neither a journal" in found and "episode 'gone' was finished and is not there" in found
    assert "'short.mcap' has 3 of 3 steps and passes for whole" in found  # it lacks the last frame
    assert "'damaged.mcap': JournalError" in found and "good" not in found


@pytest.mark.slow
def test_nodes_of_a_session_are_killed_and_it_goes_on(tmp_path):
    file = tmp_path / "figures.json"
    arguments = ["--times", "2", "--only", "reward", "recorder", "--folder", str(tmp_path / "f"), "--json", str(file)]
    assert kills.main(arguments) == 0
    figures = json.loads(file.read_text())
    assert figures["kills"] == 2 and figures["faults"] == [] and figures["whole"] >= figures["told_finished"] > 0
    assert set(figures["by_node"]) <= {"reward", "recorder"}
    assert not list(Path(tmp_path / "f" / "run" / "iter_001" / "episodes").glob("*.recovering"))
