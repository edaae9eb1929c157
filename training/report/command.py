# SPDX-License-Identifier: Apache-2.0
"""Write the report of a run: ``lrm report RUN_FOLDER`` gives report.json, report.html and a table in the terminal.

Every rate comes with its count and its 95 % interval (Wilson), every comparison is paired on the same start poses
(exact McNemar test, Newcombe's interval), and the control stands beside the result: the same number of further
training steps on the demonstrations alone. A run that stopped early gives a report of what is there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lrm_ros.files import write_json, write_text
from lrm_ros.programs import exit_code
from lrm_ros.training.report.page import page
from lrm_ros.training.report.run_folder import EVALUATIONS, Collection, Evaluation, Run, read_run
from lrm_ros.training.report.stats import paired, precision_recall, proportion
from lrm_ros.training.report.text import conclusion, headline, table

_ITERATION_STAGES = ("rollout", "dataset", "finetune", "evaluate")


def write_report(run: Path) -> dict[str, Any]:
    """Write ``report.json`` and the self-contained ``report.html`` into a run folder.

    Args:
        run: folder of the improver, finished or not.

    Returns:
        The content of ``report.json``: ``{task, seed, headline, conclusion, missing, demonstrations, iterations,
        judge, baseline, control, final, paired, seconds, settings, versions, commit}``.

    Raises:
        FileNotFoundError: no such run.
        ValueError: a damaged file of the run; names it and the cure.
    """
    read = read_run(Path(run))
    report = report_of(read)
    document = page(read, report)
    write_json(read.path / "report.json", report, allow_nan=False)
    write_text(read.path / "report.html", document)
    return report


def report_of(run: Run) -> dict[str, Any]:
    """Return the report of a run as plain data."""
    successes = {name: _success(run.evaluations.get(name)) for name in EVALUATIONS}
    report: dict[str, Any] = {
        "task": run.task,
        "seed": run.settings.get("seed"),
        "said_by": run.said_by,
        "missing": run.missing,
        "demonstrations": _collected(run.demonstrations) if run.demonstrations else None,
        "iterations": [_iteration(run, collection) for collection in run.iterations],
        "judge": _judge(run.iterations),
        **{name: {"success": success} for name, success in successes.items()},
        "paired": {
            "final_vs_baseline": _paired(run, "final", "baseline"),
            "final_vs_control": _paired(run, "final", "control"),
            "control_vs_baseline": _paired(run, "control", "baseline"),
        },
        "seconds": _seconds(run.stages),
        "settings": run.settings,
        "versions": run.config.get("versions"),
        "commit": run.config.get("commit"),
    }
    return {"headline": headline(report), "conclusion": conclusion(report), **report}


def _success(evaluation: Evaluation | None) -> dict[str, Any] | None:
    """Return an evaluation's success, None if there was none."""
    if evaluation is None:
        return None
    return proportion(sum(evaluation.outcomes.values()), len(evaluation.outcomes))


def _paired(run: Run, first: str, second: str) -> dict[str, Any] | None:
    """Compare two evaluations on their common seeds, None if one of them is missing."""
    if first not in run.evaluations or second not in run.evaluations:
        return None
    return paired(run.evaluations[first].outcomes, run.evaluations[second].outcomes)


def _judge(collections: Iterable[Collection]) -> dict[str, Any]:
    """Evaluate the judge on every attempt with the simulator's label."""
    known = [attempt for one in collections for attempt in one.attempts if attempt.success is not None]
    return precision_recall([attempt.keep for attempt in known], [bool(attempt.success) for attempt in known])


def _collected(collection: Collection) -> dict[str, Any]:
    """Count a collection's attempts and evaluate the judge on them."""
    return {
        "starts": len({attempt.seed for attempt in collection.attempts}),
        "episodes": len(collection.attempts),
        "kept": sum(attempt.keep for attempt in collection.attempts),
        "judge": _judge([collection]),
    }


def _iteration(run: Run, collection: Collection) -> dict[str, Any]:
    """Return the figures of one iteration."""
    folder = collection.folder
    policy = folder / "policy"
    rows = [row for row in run.stages if row["iteration"] == collection.index]
    spent = _seconds(rows)
    evaluation = run.evaluations.get(folder.name)
    if evaluation is None:
        # The last iteration's policy is the result: measured under that name, not twice.
        final = run.evaluations.get("final")
        evaluation = final if final and Path(final.policy).parts[-2:] == policy.parts[-2:] else None
    return {
        "iteration": collection.index,
        "policy": str(policy.relative_to(run.path)) if policy.is_dir() else None,
        **_collected(collection),
        "success": _success(evaluation),
        "seconds": {stage: spent.get(stage) for stage in _ITERATION_STAGES},
    }


def _seconds(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Sum the time of each stage [s], in the order of the run."""
    seconds: dict[str, float] = {}
    for row in rows:
        seconds[row["stage"]] = round(seconds.get(row["stage"], 0.0) + row["seconds"], 2)
    return seconds


def main(argv: list[str] | None = None) -> int:
    """Write the report of a run and print its table."""
    parser = argparse.ArgumentParser(prog="lrm report", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="folder of the run, e.g. runs/demo")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report to this file, too")
    arguments = parser.parse_args(argv)
    try:
        report = write_report(arguments.run)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code(error)
    if arguments.json:
        write_json(arguments.json, report, allow_nan=False)
    print(table(report))
    print(f"\nreport: {arguments.run / 'report.html'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
