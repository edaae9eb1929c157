# SPDX-License-Identifier: Apache-2.0
"""Demonstrations in the real twin -> journals -> data set -> training batch."""

import numpy as np
import pytest

from lrm_ros.record.convert import journals_to_dataset
from lrm_ros.record.dataset import load_into_ram
from lrm_ros.record.journal import read_journal
from lrm_ros.training.policy.collect import collect, main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("demonstrations")
    figures = collect(out, 1, seed=7)
    assert figures["recorded"] == 1
    return out


def test_a_demonstration_is_a_journal_with_an_image_and_the_sent_action_in_every_step(folder):
    episode = read_journal(folder / "success_0000007.mcap")
    assert episode.source == "expert" and episode.outcome is None and "bowl" in episode.task
    assert all(step.observation.frames["front"].image.shape == (96, 96, 3) for step in episode.steps)
    assert episode.final is not None and episode.final.frames["front"].stamp_ns == episode.final.stamp_ns
    stamps = np.array([step.observation.stamp_ns for step in episode.steps])
    assert (np.diff(stamps) == 100_000_000).all()
    moved = np.abs(episode.steps[-1].observation.state - episode.steps[0].observation.state)
    assert moved.max() > 0.2


def test_an_interrupted_collection_goes_on_and_leaves_finished_journals_alone(folder, capsys):
    before = (folder / "success_0000007.mcap").stat().st_mtime_ns
    assert main(["--out", str(folder), "--episodes", "1", "--seed", "7"]) == 0
    assert "1 recorded before" in capsys.readouterr().out
    assert (folder / "success_0000007.mcap").stat().st_mtime_ns == before


def test_a_person_collects_through_the_graph_of_a_teleoperation(monkeypatch, capsys):
    from lrm_ros.training.policy import collect as module

    started = []
    monkeypatch.setattr(module, "run_graph", lambda nodes, interrupted: started.extend(nodes) or 0)
    words = ["--out", "runs/mine", "--teleop", "so101_leader", "--episodes", "5", "teleop.input_port:=/dev/ttyACM1"]
    assert main([*words, "sim:=false", "contract:=config/so101.yaml"]) == 0
    nodes = {node.name: node for node in started}
    assert set(nodes) == {"arm", "front_camera", "wrist_camera", "recorder", "teleop"}
    teleop = nodes["teleop"].parameters
    assert (teleop["input"], teleop["input_port"], teleop["episodes"]) == ("so101_leader", "/dev/ttyACM1", 5)
    assert nodes["recorder"].parameters["folder"] == "runs/mine"
    for wrong, said in (
        (["--out", "x", "sim:=false"], "give --teleop, too"),
        (["--out", "x", "--teleop", "keyboard", "--disturbance", "1"], "--disturbance is for the scripted expert"),
        (["--out", "x", "--teleop", "keyboard", "inputt:=1"], "did you mean 'input'"),
    ):
        with pytest.raises(SystemExit):
            main(wrong)
        assert said in capsys.readouterr().err


def test_journals_become_a_data_set_without_loss(folder, tmp_path):
    journal = folder / "success_0000007.mcap"
    root = journals_to_dataset([journal], tmp_path / "data")
    (back,), episode = load_into_ram(root), read_journal(journal)
    assert back.task == episode.task and len(back.steps) == len(episode.steps)
    for a, b in zip(episode.steps, back.steps, strict=True):
        np.testing.assert_array_equal(a.observation.frames["front"].image, b.observation.frames["front"].image)
        np.testing.assert_array_equal(a.action, b.action)
