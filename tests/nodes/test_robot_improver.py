# SPDX-License-Identifier: Apache-2.0
"""The self-improvement loop on an emulated arm, the person a script that answers through the services."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from arm_cell import BRIGHT, DARK, TASK, Cell, running  # type: ignore[import-not-found]
from rclpy.lifecycle import TransitionCallbackReturn
from servo_buses import needs_driver  # type: ignore[import-not-found]
from so101 import CONTRACT as SO101  # type: ignore[import-not-found]
from so101 import FILE

from lrm_ros.config import CameraSpec, RobotContract
from lrm_ros.config_arm import load_arm
from lrm_ros.config_person import RobotImproverConfig
from lrm_ros.nodes import improver
from lrm_ros.nodes.robot_improver import RobotImproverNode
from lrm_ros.record.journal import read_info, read_journal
from lrm_ros.record.writer import JournalWriter
from lrm_ros.ros import robot_collector
from lrm_ros.ros.collector import Collector
from lrm_ros.ros.control import EpisodeError
from lrm_ros.ros.policy_runs import PolicyRuns
from lrm_ros.ros.robot_collector import ANSWERS, RobotCollector, agreement, answers, sentence
from lrm_ros.ros.robot_demonstrations import prepare, starts_of, usable
from lrm_ros.training.report.command import write_report
from lrm_ros.types import Frame

POSE = (0.1, -0.4, 0.4, 0.2, 0.1, 0.3)
DT = 100_000_000


def demonstration(path: Path, light: int = DARK, outcome: bool | None = True, steps: int = 12) -> Path:
    """A journal in which the arm stands at POSE and the picture becomes bright."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = JournalWriter(path, TASK, RobotContract(), "teleop", "png")
    for k in range(1, steps + 1):
        writer.state(k * DT, POSE)
        shade = light if k < steps else BRIGHT
        writer.frame(Frame(k * DT, "front", np.full((96, 96, 3), shade, np.uint8)))
        writer.sent(k * DT, np.array(POSE, np.float32))
    return writer.finish(outcome)


@pytest.fixture
def no_training(tmp_path, monkeypatch):
    """In the place of Python: a program that leaves what a training does."""
    program = tmp_path / "train"
    program.write_text(
        '#!/bin/sh\nfor word; do case "$word" in --out=*) out=${word#--out=};; esac; done\n'
        'mkdir -p "$out"; echo weights > "$out/model.safetensors"; echo "$*" > "$out/words"\n'
        'echo \'{"losses": [1.0]}\' > "$out/finetune.json"\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(improver, "sys", SimpleNamespace(executable=str(program)))


class Operator:
    """Puts the scene back (a dark picture), and says how a rollout ended: the picture becomes bright on success.

    Attributes:
        forget: numbers of the scenes (from 0) that are called ready, but left bright.
        successes: which rollouts succeed, asked by number.
        says: what is said of a rollout, by its number and whether it succeeded; ``None``: nothing.
    """

    def __init__(self, cell: Cell) -> None:
        self.cell, self.scenes, self.rollouts = cell, 0, 0
        self.forget: set[int] = set()
        self.successes = lambda number: True
        self.says = lambda number, success: success
        cell.answer = self

    def __call__(self, what: str, text: str) -> None:
        cell = self.cell
        if what == "scene":
            if self.scenes not in self.forget:
                cell.light = DARK
            self.scenes += 1
            cell.ready()
        elif "has ended" in text:
            cell.outcome(self._told)
        else:
            number, self.rollouts = self.rollouts, self.rollouts + 1
            success = self.successes(number)
            self._told = self.says(number, success)
            if success:
                cell.after(4, lambda: setattr(cell, "light", BRIGHT))
            if self._told is not None:
                cell.after(10, lambda: cell.outcome(self._told))


def node_values(cell: Cell, tmp_path: Path) -> dict:
    given = {"run": str(tmp_path / "run"), "contract": cell.contract, "model": "fake", "judge_frames": 1}
    given |= {"demonstrations": 2, "iterations": 1, "episodes": 2, "tries": 1, "rollout_s": 2.0, "start_speed": 0.0}
    return given | {"sft_steps": 2, "finetune_steps": 2, "batch_size": 4}


def start(spin, cell: Cell, tmp_path: Path, **changes) -> tuple[RobotImproverNode, list[int]]:
    node = RobotImproverNode(**{**node_values(cell, tmp_path), **changes})
    codes: list[int] = []
    node.on_exit = codes.append
    spin.start(node)
    return node, codes


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@needs_driver
def test_from_journals_through_rollouts_to_a_policy_stopped_in_the_middle(
    spin, probe, tmp_path, monkeypatch, capfd, no_training
):
    for number in range(2):
        demonstration(tmp_path / "demos" / f"d{number}.mcap", DARK + 20 * number)
    demonstration(tmp_path / "demos" / "bad.mcap", outcome=False)
    with running(spin, probe, tmp_path, monkeypatch, emulated=True) as cell:
        cell.start()
        operator = Operator(cell)
        node, codes = start(spin, cell, tmp_path, dataset=str(tmp_path / "demos"), start_speed=2.0)
        run = tmp_path / "run"
        spin.until(lambda: codes or (run / "iter_001/verdicts.jsonl").exists(), 150, "the first rollout")
        node.trigger_deactivate()
        assert not codes and not (run / "iter_001/dataset").exists(), "it has stopped in the middle"
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        spin.until(lambda: codes, 150, "the end")
        assert codes == [0], capfd.readouterr()
        assert [row["stage"] for row in rows(run / "stages.jsonl")] == ["sft", "rollout", "dataset", "finetune"]
        for name in ("iter_000/policy", "iter_001/policy", "iter_001/control"):
            assert (run / name / "model.safetensors").is_file()
            words = (run / name / "words").read_text()
            wanted = {"demonstrations/dataset"} | ({"iter_001/dataset"} if name == "iter_001/policy" else set())
            assert {word for word in words.split() if word.startswith("--dataset=")} == {
                f"--dataset={run / dataset}" for dataset in wanted
            }
            assert f"--contract={cell.contract}" in words
        verdicts = rows(run / "iter_001/verdicts.jsonl")
        assert [(row["keep"], row["judge"], row["person"]) for row in verdicts] == [(True, True, True)] * 2
        assert operator.scenes >= 2 and operator.rollouts >= 2
        journal = run / "iter_001/episodes" / f"{verdicts[0]['episode_id']}.mcap"
        assert read_info(journal).outcome is True and read_info(journal).task == TASK
        begin = read_journal(journal).steps[0].observation.state
        assert np.abs(begin - POSE).max() < 0.25, "brought to where demonstrations begin; a servo sags"
        said = capfd.readouterr().out
        assert "judge and person agree on 2 of 2 rollouts" in said and "lrm trial" in said
        report = write_report(run)
        assert report["judge"]["precision"] == 1 and report["judge"]["n"] == 2 and report["said_by"] == "person"


def test_wrong_labels_and_forgotten_resets_are_said(spin, probe, tmp_path, monkeypatch, capfd, no_training):
    demonstration(tmp_path / "demos" / "d.mcap")
    with running(spin, probe, tmp_path, monkeypatch) as cell:
        cell.start()
        operator = Operator(cell)
        operator.forget = {1, 3, 4}  # the second is put back when asked again, the third is not
        operator.successes = lambda number: number in (0, 1)
        operator.says = lambda number, success: {0: False, 2: True}.get(number, success)  # two are wrong
        given = {"dataset": str(tmp_path / "demos"), "episodes": 4, "ask_outcome": True}
        _, codes = start(spin, cell, tmp_path, **given)
        spin.until(lambda: codes, 120, "the end")
        assert codes == [0], capfd.readouterr()
        folder = tmp_path / "run/iter_001"
        first, second, third, fourth = rows(folder / "verdicts.jsonl")
        assert (first["judge"], first["person"], first["keep"]) == (True, False, False)
        assert (second["judge"], second["person"], second["keep"]) == (True, True, True)
        assert third["keep"] is False and "the scene was not put back" in third["reason"]
        assert (fourth["judge"], fourth["person"], fourth["keep"]) == (False, False, False)
        found = agreement(folder)
        assert found["judge_only"] == [first["episode_id"]] and found["untouched"] == [third["episode_id"]]
        said = capfd.readouterr().out
        assert "the judge alone calls a success" in said and "2 scenes looked done before the rollout" in said
        assert "look at these recordings: one of the two is wrong" in said
        (stage,) = [row for row in rows(tmp_path / "run/stages.jsonl") if row["stage"] == "rollout"]
        assert (stage["kept"], stage["asked_again"], stage["labelled"]) == (1, 2, 4)


def test_a_run_goes_on_for_more_iterations_not_for_fewer(spin, probe, tmp_path, monkeypatch, capfd, no_training):
    demonstration(tmp_path / "demos" / "d.mcap")
    with running(spin, probe, tmp_path, monkeypatch) as cell:
        cell.start()
        Operator(cell)
        for iterations in (1, 2):
            node, codes = start(spin, cell, tmp_path, dataset=str(tmp_path / "demos"), iterations=iterations)
            spin.until(lambda codes=codes: codes, 150, "the end")
            assert codes == [0], capfd.readouterr()
            node.close()
            spin.nodes.remove(node)
        stages = [(row["stage"], row["iteration"]) for row in rows(tmp_path / "run/stages.jsonl")]
        assert stages == [("sft", 0), *((name, k) for k in (1, 2) for name in ("rollout", "dataset", "finetune"))]
        assert len(rows(tmp_path / "run/iter_002/verdicts.jsonl")) == 2
        fewer = spin.add(RobotImproverNode(**node_values(cell, tmp_path), dataset=str(tmp_path / "demos")))
        assert fewer.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert "was started with iterations=2, now it is 1" in fewer.diagnostics.faults["configure"]


def test_a_simulated_operator_with_wrong_labels_never_adds_what_the_judge_rejects(tmp_path):
    """200 rollouts, 5 % wrong labels: only what both call a success is kept, and the loop counts where they differ."""
    rng = random.Random(3)
    lines = []
    for number in range(200):
        success = rng.random() < 0.5
        judge = success if rng.random() < 0.9 else not success
        person = success if rng.random() < 0.95 else not success
        row = {"episode_id": f"{number}_0", "judge": judge, "person": person, "keep": judge and person, "reason": ""}
        lines.append(json.dumps(row | {"done_ns": 0}))
    (tmp_path / "verdicts.jsonl").write_text("\n".join(lines) + "\n")
    found = agreement(tmp_path)
    assert found["labelled"] == 200 and found["agree"] + len(found["judge_only"]) + len(found["person_only"]) == 200
    assert 160 < found["agree"] < 185
    assert f"agree on {found['agree']} of 200" in sentence(found, 0)
    assert sentence(agreement(tmp_path / "none"), 0).startswith("nobody said anything")


def test_demonstrations_are_recorded_now_and_a_reset_policy_puts_the_scene_back(
    spin, probe, tmp_path, monkeypatch, no_training
):
    with running(spin, probe, tmp_path, monkeypatch) as cell:
        cell.start()
        asked: list[str] = []
        folder = tmp_path / "run/demonstrations/episodes"

        def answer(what: str, text: str) -> None:
            asked.append(text)
            if text.startswith("record"):
                demonstration(folder / f"d{len(asked)}.mcap")
                cell.ready()
            elif what == "scene":
                cell.ready()

        cell.answer = answer
        reset = tmp_path / "reset_policy"
        _, codes = start(spin, cell, tmp_path, reset_policy=str(reset), reset_s=0.5, rollout_s=1.0, episodes=1)
        loaded: list[str] = []
        load = cell.policy._load
        monkeypatch.setattr(cell.policy, "_load", lambda: (loaded.append(cell.policy.config.checkpoint), load()))
        spin.until(lambda: codes, 120, "the end")
        assert codes == [0]
        assert [text[:14] for text in asked[:2]] == ["record 2 more ", "record 1 more "]
        assert not any("put the scene" in text for text in asked), "nobody is asked where a policy does it"
        sft = str(tmp_path / "run/iter_000/policy")
        assert loaded[-3:] == [sft, str(reset), sft]
        (row,) = rows(tmp_path / "run/iter_001/verdicts.jsonl")
        assert row["person"] is None and row["keep"] is False


def made_of(hands: Mock) -> tuple:
    """What a collector is made of."""
    parts = (hands.control, hands.episodes, hands.sent, hands.judge, ("front",), RobotImproverConfig())
    return (*parts, hands.person, hands.runs, hands.mover, 10.0)


@pytest.fixture
def collector(tmp_path):
    """A collector among stand-ins, which note what they are asked for in ``hands``."""
    hands = Mock()
    hands.person.outcome = None
    made = RobotCollector(*made_of(hands))
    made.starts = Mock(pose=POSE)
    made._folder = tmp_path
    return made, hands


def test_what_was_said_of_an_attempt_that_did_not_count_is_not_said_of_the_next(collector, tmp_path):
    made, _ = collector
    lines = [{"episode_id": "4_0", "success": True}, {"episode_id": "5_0", "success": False}]
    (tmp_path / ANSWERS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    made._act("5_0", 5, 0)
    assert answers(tmp_path) == {"4_0": True}


def test_a_rollout_before_a_scene_that_was_not_put_back_is_not_kept_by_a_loop_that_is_started_again(
    collector, tmp_path, monkeypatch
):
    made, hands = collector
    done = [True, True, True, False]
    monkeypatch.setattr(made, "_looks_done", lambda episode_id: done.pop(0))
    monkeypatch.setattr(robot_collector, "start_recording", lambda *_, **__: None)
    monkeypatch.setattr(Collector, "_judge", lambda self, journal: {"keep": True, "reason": "done"})
    journal = demonstration(tmp_path / "episodes" / "5_0.mcap")
    made._begin(tmp_path, "5_0", 5)
    again = RobotCollector(*made_of(hands))
    again._folder = tmp_path
    assert again._judge(journal)["keep"] is False
    made._begin(tmp_path, "5_0", 5)  # of an attempt that did not count, made again: now it is put back
    assert again._judge(journal)["keep"] is True and not done


def test_after_a_training_the_arm_moves_only_when_the_person_has_said_that_it_may(collector):
    made, hands = collector
    made._place("5_0", 0, "")
    made._place("6_0", 1, "")
    names = [name for name, *_ in hands.mock_calls]
    assert names == ["person.scene", "mover.go", "person.scene", "mover.go", "person.scene"]
    assert "the arm goes to its start" in hands.person.scene.call_args_list[0].args[0]


@pytest.mark.parametrize("storage", ["image", "video"])
def test_demonstrations_of_lerobot_tell_how_they_begin(tmp_path, storage):
    from lerobot_made import write_v3  # type: ignore[import-not-found]

    root = write_v3(tmp_path / "set", storage)
    units = [joint.affine for joint in load_arm(FILE, SO101).joints]
    contract = dataclasses.replace(SO101, cameras=(CameraSpec("front", 64, 48), CameraSpec("wrist", 64, 48)))
    folder = tmp_path / "demonstrations"
    config = RobotImproverConfig(dataset=str(root))
    assert prepare(folder, config, str(FILE), lambda *_: pytest.fail("nothing is recorded")) == root
    starts = starts_of(root, contract, units, folder)
    np.testing.assert_allclose(starts.pose[:3], np.deg2rad([10, -20, 30]), atol=1e-3)
    lights = [int(starts.picture(number)[24, 32, 0]) for number in range(4)]
    np.testing.assert_allclose(lights, [40, 100, 160, 40], atol=4)
    again = starts_of(tmp_path / "gone", contract, units, folder)
    assert again.task == starts.task == "put the cup on the shelf", "kept for another day"
    with pytest.raises(ValueError, match="another robot"):
        starts_of(root, SO101, units, tmp_path / "other")
    with pytest.raises(ValueError, match=r"nothing says what the numbers of .* are in rad; .*contract:=FILE"):
        starts_of(root, contract, None, tmp_path / "degrees")


def test_a_policy_in_lock_step_is_refused():
    class Asked:
        def get(self, node: str, name: str) -> bool:
            return False

    class Node:
        def create_client(self, *_) -> None: ...

    with pytest.raises(EpisodeError, match="is in lock-step"):
        PolicyRuns(Node(), Asked(), None).begin()


def test_what_is_no_demonstration_is_left_out_and_none_is_an_error(tmp_path):
    demonstration(tmp_path / "in" / "good.mcap")
    demonstration(tmp_path / "in" / "bad.mcap", outcome=False)
    assert [path.stem for path in usable(tmp_path / "in")] == ["good"]
    (tmp_path / "in" / "good.mcap").unlink()
    given = RobotImproverConfig(dataset=str(tmp_path / "in"))
    with pytest.raises(ValueError, match="no journal of a demonstration that nobody called a failure"):
        prepare(tmp_path / "run", given, "", lambda *_: None)
    with pytest.raises(FileNotFoundError, match="leave it out to record now"):
        prepare(tmp_path / "run", RobotImproverConfig(dataset=str(tmp_path / "none")), "", lambda *_: None)
    assert answers(tmp_path) == {}
