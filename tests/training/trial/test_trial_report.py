# SPDX-License-Identifier: Apache-2.0
"""A blind comparison's plan, its record through kills, its figures and its page."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from lrm_ros.graph.graphs import KINDS
from lrm_ros.parameters import parsed_value, ros_value
from lrm_ros.record.trials import Trials, shuffled
from lrm_ros.training.trial import command
from lrm_ros.training.trial.report import names_of, report_of, write_report

SETTINGS = {"policies": ["/a/sft", "/a/final"], "same_starts": True, "model": "tiny", "judge_threshold": 0.5}


def begun(folder: Path, starts: int = 30, **changes) -> Trials:
    settings = SETTINGS | changes
    return Trials.begin(folder, settings, settings["policies"], starts)


def test_every_policy_meets_every_start_once_in_an_order_of_chance():
    plan = shuffled(3, 200, random.Random(1))
    assert [trial.number for trial in plan] == list(range(1, 601))
    assert [trial.start for trial in plan] == [index // 3 for index in range(600)]
    assert all({one.policy for one in plan[at : at + 3]} == {0, 1, 2} for at in range(0, 600, 3))
    first = [plan[at].policy for at in range(0, 600, 3)]
    assert all(45 < first.count(policy) < 90 for policy in range(3)), "each is first as often as the others"
    assert shuffled(2, 30, random.Random(1)) != shuffled(2, 30, random.Random(2))
    assert "0" not in plan[4].name.removeprefix("trial_00") and plan[4].name == "trial_005", "names no policy"


def test_an_answer_is_kept_whatever_happens_afterwards(tmp_path):
    trials = begun(tmp_path)
    plan = trials.plan
    trials.answer(plan[0], True)
    trials.void(plan[1], "the arm was stopped")
    assert begun(tmp_path).plan == plan and begun(tmp_path).due == plan[1]
    trials.answer(plan[1], False)
    whole = (tmp_path / "trials.jsonl").read_bytes()
    (tmp_path / "trials.jsonl").write_bytes(whole[:-5])  # killed while it wrote the second answer
    again = begun(tmp_path)
    assert (again.answers[1]["success"], again.due, len(again.voids)) == (True, plan[1], 1)
    again.answer(plan[1], False)
    assert again.correct()["success"] is True and begun(tmp_path).answers[2]["success"] is True
    assert begun(tmp_path).due == plan[2]


def test_a_comparison_of_other_settings_or_without_its_plan_is_refused(tmp_path):
    trials = begun(tmp_path)
    trials.answer(trials.plan[0], True)
    with pytest.raises(ValueError, match=r"judge_threshold 0\.5 there, 0\.7 now"):
        begun(tmp_path, judge_threshold=0.7)
    with pytest.raises(ValueError, match="two or more different policies, got /a/x, /a/x"):
        begun(tmp_path / "other", policies=["/a/x", "/a/x"])
    (tmp_path / "plan.json").unlink()
    with pytest.raises(ValueError, match=r"has answers, but no plan\.json"):
        begun(tmp_path)
    with pytest.raises(FileNotFoundError, match="start one with lrm trial"):
        Trials(tmp_path)


def played(folder: Path, **changes) -> Trials:
    """30 starts: the first policy solves 12, the second those and 12 more; the judge is wrong about four trials."""
    trials = begun(folder, **changes)
    for trial in trials.plan:
        success = trial.start < (12, 24)[trial.policy]
        wrong = trial.start in (0, 29)
        trials.answer(trial, success)
        trials.judged(trial, success != wrong, (0.2 if wrong else 0.9) if success else (0.6 if wrong else 0.1), "")
    return trials


def test_the_report_has_the_tests_of_the_policies_and_the_judge_measured_by_the_person(tmp_path):
    report = report_of(played(tmp_path))
    sft, final = (one["success"] for one in report["policies"])
    assert (sft["count"], sft["n"], final["count"], final["n"]) == (12, 30, 24, 30)
    (pair,) = report["pairs"]
    assert pair["paired"]["p"] == pytest.approx(2 / 2**12), "twelve pairs differ, all one way"
    assert pair["paired"]["difference"] == pair["unpaired"]["difference"] == pytest.approx(-0.4)
    assert pair["unpaired"]["p_barnard"] < pair["unpaired"]["p_fisher"] < 0.01
    judge = report["judge"]
    assert (judge["n"], judge["kept"], judge["successes"], judge["kept_successes"]) == (60, 36, 36, 34)
    assert judge["agreement"]["agreement"]["count"] == 56 and judge["agreement"]["kappa"] == pytest.approx(
        0.861, abs=1e-3
    )
    assert len(judge["disagree"]) == 4
    assert judge["wanted"]["threshold"] == 0.2, "two successes more and no failure more than at 0.6"
    assert (judge["wanted"]["precision"]["count"], judge["wanted"]["precision"]["n"]) == (36, 38)
    assert judge["by_policy"]["sft"]["person"]["count"] == 12


def test_starts_of_their_own_are_no_pairs(tmp_path):
    (pair,) = report_of(played(tmp_path, same_starts=False))["pairs"]
    assert pair["paired"] is None and pair["unpaired"]["p_fisher"] < 0.01


def test_the_page_tells_figures_and_what_is_missing(tmp_path, capsys):
    trials = played(tmp_path)
    trials.void(trials.plan[3], "e-stop")
    trials.correct()
    trials.correct()
    write_report(tmp_path)
    page = (tmp_path / "report.html").read_text()
    for words in (
        "final is better: 80.0&nbsp;% against 40.0&nbsp;%",
        "McNemar",
        "Barnard",
        "Cohen's kappa",
        "1 trials failed",
    ):
        assert words in page, words
    assert json.loads((tmp_path / "report.json").read_text())["corrected"] == 1
    assert command.main(["--out", str(tmp_path), "--json", str(tmp_path / "again.json")]) == 0
    said = capsys.readouterr().out
    assert "judge and person agree on 93.3 %" in said and "sft - final: -40.0 points" in said
    assert json.loads((tmp_path / "again.json").read_text())["answered"] == 60


def test_a_comparison_that_has_just_begun_claims_nothing(tmp_path, capsys):
    trials = begun(tmp_path)
    trials.answer(trials.plan[0], True)
    assert command.main(["--out", str(tmp_path)]) == 0
    assert "1 of 60 trials have an answer; no comparison yet" in capsys.readouterr().out
    assert command.main(["--out", str(tmp_path / "none")]) == 2


def test_policies_are_called_by_what_tells_them_apart():
    assert names_of(["/x/run/iter_000/policy", "/x/run/iter_002/policy"]) == ["iter_000/policy", "iter_002/policy"]
    assert names_of(["/x/a", "/x/b"]) == ["a", "b"]


def test_the_command_starts_the_comparison_and_the_keys_and_shows_nobody_who_is_ahead(tmp_path, monkeypatch, capsys):
    started: list = []

    def run_graph(nodes, interrupted):
        started.extend(nodes)
        return interrupted

    monkeypatch.setattr(command, "run_graph", run_graph)
    played(tmp_path / "out")
    words = ["/x/a", "/x/001", "--out", str(tmp_path / "out"), "--starts", "5", "--other-starts", "--ns", "arm1"]
    assert command.main([*words, "--contract", "config/so101.yaml"]) == 130
    trial, answer = started
    assert (trial.kind, answer.kind, answer.foreground, trial.ends_graph) == ("trial", "answer", True, True)
    for name, value in trial.parameters.items():
        assert KINDS["trial"].read("trial", name, value) == value
    assert parsed_value(ros_value(trial.parameters["policies"])) == ["/x/a", "/x/001"]
    assert trial.namespace == answer.namespace == "/arm1" and trial.parameters["same_starts"] is False
    said = capsys.readouterr()
    assert "the same command goes on" in said.err and "%" not in said.out
    with pytest.raises(SystemExit):
        command.main(["--precision", "1.2"])
