# SPDX-License-Identifier: Apache-2.0
"""Measure a reward model on labelled keyframes, beside its untrained base and trivial predictors: ``lrm reward eval``.

Two sets: ``--data`` (tasks the model was trained on, episodes it never saw) and ``--zero-shot`` (tasks of which it saw
no episode). Labels come from the simulator's state where the source knows it, else from time (paper III-A). Writes
``metrics.json`` and ``report.html``. Figures are those of the paper's Tables I and II, Figure 2 and the completion
accuracy, with calibration, and 95 % bootstrap intervals over episodes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.programs import exit_code
from lrm_ros.training.reward.eval.exam import Answers, Exam, ask, make_exam, trivial, untrained
from lrm_ros.training.reward.eval.metrics import (
    bootstrap,
    completion_figures,
    contrastive_figures,
    cumulative_accuracy,
    interval,
    progress_figures,
    reliability,
    resamples,
    spearman,
)

WITH_INTERVAL = {
    "progress": ("mae", "rmse", "exact", "acc_at_0_2", "spearman"),
    "contrastive": ("accuracy", "kendall"),
    "completion": ("roc_auc", "accuracy", "ece"),
}


def figures(exam: Exam, answers: Answers, rows: NDArray[np.bool_] | None = None, rounds: int = 0) -> dict[str, Any]:
    """Return the figures of the three heads on some rows of an exam; a head without labels there is left out.

    Args:
        exam: the questions.
        answers: what was answered.
        rows: (N,) which keyframes; all if not given. Pairs belong where their second frame does.
        rounds: bootstrap rounds for the intervals ``ci95``; 0: none.
    """
    chosen = np.ones(len(exam.jpegs), bool) if rows is None else rows
    found: dict[str, Any] = {}

    def add(head: str, episode: NDArray, figure: Callable[[NDArray], dict[str, Any]]) -> None:
        found[head] = {**figure(np.arange(len(episode))), "n": len(episode)}
        if rounds:
            drawn = [figure(draw) for draw in resamples(episode, rounds=rounds)]
            found[head]["ci95"] = {name: interval(one[name] for one in drawn) for name in WITH_INTERVAL[head]}

    labelled = np.flatnonzero(chosen & np.isfinite(exam.progress))
    if len(labelled):
        truth, said = exam.progress[labelled], answers.progress[labelled]
        add("progress", exam.episode[labelled], lambda draw: progress_figures(truth[draw], said[draw]))
    pairs = np.flatnonzero(chosen[exam.pairs[:, 1]]) if len(exam.pairs) else np.array([], int)
    if len(pairs):
        first, second = exam.pairs[pairs].T
        gain, sign = exam.progress[second] - exam.progress[first], answers.contrastive[pairs]
        add("contrastive", exam.episode[second], lambda draw: contrastive_figures(gain[draw], sign[draw]))
    known = np.flatnonzero(chosen & (exam.done >= 0))
    if len(known):
        done, said_done = exam.done[known] == 1, answers.done[known]
        add("completion", exam.episode[known], lambda draw: completion_figures(done[draw], said_done[draw]))
    return found


def by_kind(exam: Exam, answers: Answers) -> dict[str, dict[str, Any]]:
    """Return for each behaviour: spearman of progress with the state's, mean progress at the end, true and said."""
    found = {}
    last = np.append(exam.episode[1:] != exam.episode[:-1], True)
    for kind in sorted(set(exam.kinds)):
        rows = np.flatnonzero((exam.kinds == kind) & np.isfinite(exam.progress))
        if len(rows) == 0:
            continue
        truth, said = exam.progress[rows], answers.progress[rows]
        ends = rows[last[rows]]
        found[kind] = {
            "spearman": spearman(truth, said),
            "spearman_ci95": bootstrap(exam.episode[rows], lambda d: spearman(truth[d], said[d]), rounds=300),  # noqa: B023
            "end_progress": float(answers.progress[ends].mean()),
            "end_progress_true": float(exam.progress[ends].mean()),
            "episodes": len(np.unique(exam.episode[rows])),
            "frames": len(rows),
        }
    return found


def report_on(exam: Exam, predictors: dict[str, Answers], rounds: int) -> dict[str, Any]:
    """Return all figures of one set: the model's, each baseline's, by behaviour and by source.

    Args:
        exam: the questions.
        predictors: name -> answers; ``model`` is the one that is measured.
        rounds: bootstrap rounds.
    """
    ours = predictors["model"]
    known = exam.done >= 0
    labelled = np.isfinite(exam.progress)
    return {
        "figures": figures(exam, ours, rounds=rounds),
        "baselines": {name: figures(exam, said, rounds=rounds) for name, said in predictors.items() if name != "model"},
        "kinds": {name: by_kind(exam, said) for name, said in predictors.items()},
        "sources": {source: figures(exam, ours, exam.sources == source) for source in sorted(set(exam.sources))},
        "cumulative_accuracy": {
            name: cumulative_accuracy(exam.progress[labelled], said.progress[labelled])
            for name, said in predictors.items()
            if labelled.any()
        },
        "reliability": reliability(exam.done[known] == 1, ours.done[known]) if known.any() else [],
        "n": {"episodes": len(np.unique(exam.episode)), "frames": len(exam.jpegs), "pairs": len(exam.pairs)},
    }


def metrics_of(sets: dict[str, dict[str, Any]], about: dict[str, Any]) -> dict[str, Any]:
    """Return the content of ``metrics.json``.

    Args:
        sets: ``in_domain`` and, if measured, ``zero_shot`` -> what :func:`report_on` returned.
        about: model, settings and seeds.
    """
    failures = {
        name: {kind: row for kind, row in part["kinds"]["model"].items() if kind not in ("success", "demonstration")}
        for name, part in sets.items()
    }
    return {
        **{name: part["figures"] for name, part in sets.items()},
        "failures": failures,
        "baselines": {name: part["baselines"] for name, part in sets.items()},
        "baselines_by_kind": {
            name: {who: rows for who, rows in part["kinds"].items() if who != "model"} for name, part in sets.items()
        },
        "sources": {name: part["sources"] for name, part in sets.items()},
        "cumulative_accuracy": {name: part["cumulative_accuracy"] for name, part in sets.items()},
        "reliability": {name: part["reliability"] for name, part in sets.items()},
        "n": {name: part["n"] for name, part in sets.items()},
        **about,
    }


def table(metrics: dict[str, Any], name: str) -> str:
    """Return a table of one set for a terminal: the model's row, then each baseline's."""
    heads = [("progress", k) for k in ("mae", "rmse", "exact", "acc_at_0_2", "spearman")]
    heads += [("contrastive", "kendall"), ("completion", "roc_auc"), ("completion", "accuracy"), ("completion", "ece")]
    lines = [f"{name:12s}" + "".join(f"{key:>12s}" for _, key in heads)]
    for who, part in {"model": metrics[name], **metrics["baselines"][name]}.items():
        cells = []
        for head, key in heads:
            value = part.get(head, {}).get(key)
            cells.append(f"{'-' if value is None else format(value, '.3f'):>12s}")
        lines.append(f"{who:12s}" + "".join(cells))
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run ``lrm reward eval``."""
    from lrm_ros.reward.models import find_model
    from lrm_ros.reward.qwen.model import QwenRewardModel
    from lrm_ros.training.reward.data.shards import read_rows
    from lrm_ros.training.reward.eval.page import page

    parser = argparse.ArgumentParser(prog="lrm reward eval", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="tiny", help="'tiny', a folder or a Hugging Face name")
    parser.add_argument("--base", help="the model before training; default: --model with weights drawn anew")
    parser.add_argument("--data", type=Path, required=True, help="keyframes ('lrm reward data') of trained tasks")
    parser.add_argument("--split", choices=("val", "all"), default="val", help="which episodes of --data")
    parser.add_argument("--zero-shot", type=Path, help="keyframes of tasks that no training episode comes from")
    parser.add_argument("--out", type=Path, required=True, help="folder for metrics.json and report.html")
    parser.add_argument("--readout", choices=("forward", "generate"), default="forward")
    parser.add_argument("--initial", action="store_true", help="show the first frame, too, when asking for progress")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0, help="of the pairs and of the untrained weights")
    parser.add_argument("--rounds", type=int, default=1000, help="bootstrap rounds")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    args = parser.parse_args(argv)

    def load(name: str) -> QwenRewardModel:
        return QwenRewardModel(find_model(name), name, args.device)

    try:
        model = load(args.model)
        base = load(args.base) if args.base else untrained(partial(load, args.model), args.seed)
        folders = {"in_domain": (args.data, None if args.split == "all" else args.split)}
        if args.zero_shot:
            folders["zero_shot"] = (args.zero_shot, None)
        exams = {name: make_exam(read_rows(*where), args.seed) for name, where in folders.items()}
        training = make_exam(read_rows(args.data, "train"), args.seed) if args.split == "val" else None
    except (ValueError, FileNotFoundError) as error:
        parser.exit(exit_code(error), f"lrm reward eval: {error}\n")
    sets = {}
    for name, exam in exams.items():
        predictors = {
            "model": ask(model, exam, args.readout, args.initial, f"{args.model}, {name}"),
            "untrained": ask(base, exam, args.readout, args.initial, f"base, {name}"),
            **trivial(exam, training),
        }
        sets[name] = report_on(exam, predictors, args.rounds)
    about = {
        "model": args.model,
        "base": args.base or "weights drawn anew",
        "readout": args.readout,
        "initial": args.initial,
        "seeds": {"pairs": args.seed, "untrained": args.seed, "bootstrap": 0},
    }
    metrics = metrics_of(sets, about)
    args.out.mkdir(parents=True, exist_ok=True)
    for path in filter(None, (args.out / "metrics.json", args.json)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(metrics, indent=1) + "\n")
    (args.out / "report.html").write_text(page(metrics))
    for name in sets:
        print(table(metrics, name), end="\n\n")
    print(f"{args.out / 'metrics.json'} and report.html are written")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
