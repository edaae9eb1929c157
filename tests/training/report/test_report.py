# SPDX-License-Identifier: Apache-2.0
"""The report of a run: right figures, honest words, whole page; also of a run that stopped early or is damaged."""

from __future__ import annotations

import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from damage import EXAMPLES, damaged  # type: ignore[import-not-found]
from run_folders import TASK, write_evaluation, write_lines, write_run  # type: ignore[import-not-found]

from lrm_ros.training.report.command import main, report_of, write_report
from lrm_ros.training.report.run_folder import read_run
from lrm_ros.training.report.stats import paired, wilson


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "small")


class Page(HTMLParser):
    """Tags, the addresses they load and the visible words."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}
        self.loads: list[str] = []
        self.words = ""
        self.source = path.read_text()
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.loads += [str(value) for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [str(value) for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += data.replace("\u00a0", " ")


def test_figures_of_a_finished_run_are_those_of_its_files(run: Path) -> None:
    report = write_report(run)
    assert json.loads((run / "report.json").read_text()) == report
    assert (report["task"], report["seed"], report["commit"], report["missing"]) == (TASK, 7, "abc123", [])
    assert report["baseline"]["success"] == {"rate": 0.25, "count": 10, "n": 40, "ci95": list(wilson(10, 40))}
    assert (report["control"]["success"]["rate"], report["final"]["success"]["rate"]) == (0.3, 0.6)
    first, last = ({seed: seed in wins for seed in range(40)} for wins in (range(10), range(5, 29)))
    assert report["paired"]["final_vs_baseline"] == paired(last, first)
    assert report["paired"]["final_vs_control"]["only_first"] == 17
    assert report["paired"]["final_vs_control"]["only_second"] == 5
    (iteration,) = report["iterations"]
    assert (iteration["iteration"], iteration["policy"]) == (1, "iter_001/policy")
    assert (iteration["starts"], iteration["episodes"], iteration["kept"]) == (7, 8, 4)
    judge = iteration["judge"]
    assert (judge["precision"], judge["recall"], judge["n"]) == (0.75, 0.75, 8)
    assert report["judge"] == judge, "demonstrations do not flatter the judge"
    assert report["demonstrations"]["judge"]["precision"] == 1.0
    assert iteration["success"] == report["final"]["success"], "the last iteration's policy is the result"
    spent = {"rollout": 60.5, "dataset": 2.0, "finetune": 150.0, "evaluate": None}
    assert iteration["seconds"] == spent
    assert report["seconds"]["evaluate"] == 12.5 and sum(report["seconds"].values()) == 325.0


def test_the_page_is_whole_and_loads_nothing_from_elsewhere(run: Path) -> None:
    write_report(run)
    page = Page(run / "report.html")
    assert page.open == []
    assert page.count["svg"] == 5
    assert page.count["img"] == 8 * 8, "eight frames of each of the eight episodes of the iteration"
    assert all(address.startswith(("data:image/jpeg;base64,", "#")) for address in page.loads), page.loads
    assert "@import" not in page.source and "url(http" not in page.source
    assert not re.search(r"#0a00\d\d", page.source), "a colour was not replaced by the page's"
    references = re.findall(r"url\(#([^)]+)\)", page.source) + [one[1:] for one in page.loads if one[0] == "#"]
    assert references and all(f'id="{name}"' in page.source for name in references)
    assert TASK in page.words and "<toy>" not in page.source


def test_the_page_says_each_rate_with_its_n_and_interval_and_marks_wrong_verdicts(run: Path) -> None:
    write_report(run)
    words = Page(run / "report.html").words
    low, high = (100 * bound for bound in wilson(24, 40))
    assert "Self-improvement worked" in words
    assert f"24 of 40 held-out start poses; 95 % interval {low:.1f} to {high:.1f} %" in words
    assert words.count("wrong verdict") == 2
    assert "the same number of further training steps, on the demonstrations alone" in words


@pytest.mark.parametrize(
    "wins, control, sentence",
    [
        (range(5, 29), 12, "Self-improvement worked: 25.0 % before, 60.0 % after, and more than longer training"),
        (range(24), 24, "The policy got better: 25.0 % before, 60.0 % after; but no more than by longer training"),
        (range(24), 22, "The policy got better: 25.0 % before, 60.0 % after; but not clearly more than by longer"),
        (range(24), None, "The policy got better: 25.0 % before, 60.0 % after; without a control"),
        (range(5, 18), 12, "No clear improvement: 25.0 % before, 32.5 % after, a difference that chance may explain"),
        (range(30, 40), 12, "The policy did not improve: 25.0 % before, 25.0 % after"),
        (range(1), 12, "The policy got worse: 25.0 % before, 2.5 % after"),
        (None, 12, "This run has no result yet"),
    ],
)
def test_the_headline_claims_what_the_tests_bear_out(run: Path, wins, control, sentence) -> None:
    for name, solved in (("final", wins), ("control", control if control is None else range(control))):
        if solved is None:
            (run / "eval" / f"{name}.json").unlink()
        else:
            write_evaluation(run, name, f"iter_001/{name}", solved)
    assert report_of(read_run(run))["headline"].startswith(sentence)


def test_the_terminal_table_has_rates_tests_judge_and_seconds(run: Path, capsys, tmp_path: Path) -> None:
    out = tmp_path / "out" / "figures.json"
    assert main([str(run), "--json", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()

    def line(start: str) -> str:
        return next(text for text in lines if text.strip().startswith(start))

    assert "25.0 %" in line("baseline") and "10/40" in line("baseline") and "95 % interval" in line("baseline")
    assert "+35.0" in line("result - baseline") and "p = 0.007" in line("result - baseline")
    assert "+30.0" in line("result - control") and "p = 0.017" in line("result - control")
    assert "0.750" in line("iteration 1, precision") and "3/4" in line("iteration 1, precision")
    assert "0.750" in line("iteration 1, recall")
    assert line("all").split() == ["all", "325"]
    assert lines[-1] == f"report: {run / 'report.html'}"
    assert max(map(len, lines)) <= 150
    assert json.loads(out.read_text()) == json.loads((run / "report.json").read_text())


def test_a_run_that_stopped_early_is_reported_with_what_it_lacks(run: Path) -> None:
    for name in ("control", "final"):
        (run / "eval" / f"{name}.json").unlink()
    (run / "iter_001" / "policy" / "finetune.json").unlink()
    (run / "iter_001" / "truth.jsonl").unlink()
    report = write_report(run)
    assert report["final"]["success"] is None and report["paired"]["final_vs_baseline"] is None
    assert (report["iterations"][0]["judge"]["n"], report["iterations"][0]["judge"]["precision"]) == (0, None)
    said = "\n".join(report["missing"])
    for part in ("eval/control.json", "eval/final.json", "iteration 1: its policy is not trained", "8 of 8 judged"):
        assert part in said
    words = Page(run / "report.html").words
    assert "not evaluated" in words and "eval/final.json" in words and "simulator: not known" in words


def test_a_run_with_demonstrations_only_is_reported(run: Path) -> None:
    import shutil

    for part in ("eval", "iter_000", "iter_001"):
        shutil.rmtree(run / part)
    report = write_report(run)
    assert report["iterations"] == [] and report["judge"]["n"] == 0
    assert "iteration 1: no episode judged" in report["missing"]
    assert "3 demonstrations" in Page(run / "report.html").words


def test_a_line_cut_off_by_a_kill_is_left_out_and_named(run: Path) -> None:
    with (run / "iter_001" / "verdicts.jsonl").open("a") as file:
        file.write('{"episode_id": "2')
    report = report_of(read_run(run))
    assert report["iterations"][0]["episodes"] == 8
    assert "iter_001/verdicts.jsonl: its last line was cut off and is left out" in report["missing"]


def test_a_corrupt_journal_costs_its_film_only(run: Path) -> None:
    (run / "iter_001" / "episodes" / "2004_0.mcap").write_bytes(b"broken")
    report = write_report(run)
    page = Page(run / "report.html")
    assert report["iterations"][0]["episodes"] == 8
    assert page.count["img"] == 7 * 8 and "2004_0.mcap' is corrupt" in page.words


def test_an_unscored_episode_counts_as_rejected_and_gets_no_number(run: Path) -> None:
    path = run / "iter_001" / "verdicts.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write_lines(path, [*rows[:-1], {**rows[-1], "score": None, "reason": "time-out"}])
    assert write_report(run)["iterations"][0]["judge"]["n"] == 8
    words = Page(run / "report.html").words
    assert "judge: no score, rejected" in words and "gave 1 episodes no score" in words


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda run: (run / "eval" / "final.json").write_text("{"), "final.json' is no valid JSON"),
        (
            lambda run: (run / "eval" / "final.json").write_text('{"policy": "p", "seeds": [1, 1], "success": [1, 0]}'),
            "1 different seeds and 2 outcomes",
        ),
        (lambda run: (run / "stages.jsonl").write_text("oops\n{}\n"), "stages.jsonl' line 1"),
    ],
)
def test_a_damaged_file_is_named_with_the_cure(run: Path, capsys, damage, words: str) -> None:
    damage(run)
    assert main([str(run)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error and "delete" in error
    assert not (run / "report.html").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, capsys) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 2
    assert "is no run folder" in capsys.readouterr().err


def test_a_damaged_file_of_a_run_is_named_or_does_not_matter(run: Path) -> None:
    whole = write_report(run)
    files = [
        file for file in sorted(run.rglob("*")) if file.is_file() and file.name not in ("report.json", "report.html")
    ]
    plain = [file for file in files if file.suffix != ".mcap"]
    wrong = []
    for seed in range(EXAMPLES):
        rng = random.Random(seed)
        file = rng.choice(plain if seed % 8 else files)
        content = file.read_bytes()
        file.write_bytes(damaged(content, rng))
        try:
            report = report_of(read_run(run)) if seed % 4 else write_report(run)
        except (ValueError, FileNotFoundError) as error:
            if str(file) not in str(error):
                wrong.append((seed, file.name, str(error)[:200]))
        except Exception as error:
            wrong.append((seed, file.name, f"{type(error).__name__}: {str(error)[:200]}"))
        else:
            if report.keys() != whole.keys():
                wrong.append((seed, file.name, "another report"))
        file.write_bytes(content)
    assert not wrong, f"{len(wrong)} of {EXAMPLES}: {wrong[:5]}"
    assert write_report(run) == whole
