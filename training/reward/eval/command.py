# SPDX-License-Identifier: Apache-2.0
"""Evaluate a reward model on labelled keyframes, beside an untrained model and trivial baselines: ``lrm reward eval``.

Two sets: ``--data`` (tasks the model was trained on, episodes it never saw) and ``--zero-shot`` (tasks of which it saw
no episode). ``--contrast`` asks several texts about one picture, some of them true by the state: does the model read
(``contrast``)? ``--without text=MODEL`` puts the control beside it that was trained without the text, or the pictures.
Labels come from the simulator's state where the source knows it, else from time (paper III-A). Writes ``metrics.json``
and ``report.html``. Metrics are those of the paper's Tables I and II, Figure 2 and the completion accuracy, with
calibration, and 95 % bootstrap intervals over episodes.
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

from lrm_ros.config import MIN_MASS, READOUT, READOUTS
from lrm_ros.options import whole
from lrm_ros.programs import exit_code
from lrm_ros.training.reward.eval.blind import BLIND
from lrm_ros.training.reward.eval.contrast import ask, contrast_metrics, contrast_table, make_contrast_set
from lrm_ros.training.reward.eval.eval_set import (
    EvalSet,
    Predictions,
    make_eval_set,
    predict,
    trivial_baselines,
    untrained,
)
from lrm_ros.training.reward.eval.metrics import (
    bootstrap,
    bootstrap_samples,
    completion_metrics,
    contrastive_metrics,
    cumulative_accuracy,
    percentile_interval,
    place_line,
    place_metrics,
    progress_metrics,
    reliability,
    spearman,
)

METRICS_WITH_CI = {
    "progress": ("mae", "rmse", "exact", "acc_at_0_2", "spearman"),
    "contrastive": ("accuracy", "kendall"),
    "completion": ("roc_auc", "accuracy", "ece"),
}


def compute_metrics(
    eval_set: EvalSet, predictions: Predictions, rows: NDArray[np.bool_] | None = None, rounds: int = 0
) -> dict[str, Any]:
    """Return the metrics of the three heads on some rows of an eval set; a head without labels there is left out.

    Args:
        eval_set: keyframes with labels.
        predictions: of one model or baseline.
        rows: (N,) which keyframes; default: all. A pair belongs to the row of its second frame.
        rounds: bootstrap rounds for the intervals ``ci95``; 0: none.
    """
    chosen = np.ones(len(eval_set.jpegs), bool) if rows is None else rows
    found: dict[str, Any] = {}

    def add(head: str, episode: NDArray, metric: Callable[[NDArray], dict[str, Any]]) -> None:
        found[head] = {**metric(np.arange(len(episode))), "n": len(episode)}
        if rounds:
            drawn = [metric(draw) for draw in bootstrap_samples(episode, rounds=rounds)]
            found[head]["ci95"] = {
                name: percentile_interval(one[name] for one in drawn) for name in METRICS_WITH_CI[head]
            }

    labelled = np.flatnonzero(chosen & np.isfinite(eval_set.progress))
    if len(labelled):
        labels, predicted = eval_set.progress[labelled], predictions.progress[labelled]
        add("progress", eval_set.episode[labelled], lambda draw: progress_metrics(labels[draw], predicted[draw]))
    pairs = np.flatnonzero(chosen[eval_set.pairs[:, 1]]) if len(eval_set.pairs) else np.array([], int)
    if len(pairs):
        first, second = eval_set.pairs[pairs].T
        delta, sign = eval_set.progress[second] - eval_set.progress[first], predictions.contrastive[pairs]
        add("contrastive", eval_set.episode[second], lambda draw: contrastive_metrics(delta[draw], sign[draw]))
    known = np.flatnonzero(chosen & (eval_set.done >= 0))
    if len(known):
        done, predicted_done = eval_set.done[known] == 1, predictions.done[known]
        add("completion", eval_set.episode[known], lambda draw: completion_metrics(done[draw], predicted_done[draw]))
    return found


def metrics_by_kind(eval_set: EvalSet, predictions: Predictions) -> dict[str, dict[str, Any]]:
    """Return for each behaviour: Spearman's rho of progress, mean progress of last frames, predicted and true."""
    found = {}
    last = np.append(eval_set.episode[1:] != eval_set.episode[:-1], True)
    for kind in sorted(set(eval_set.kinds)):
        rows = np.flatnonzero((eval_set.kinds == kind) & np.isfinite(eval_set.progress))
        if len(rows) == 0:
            continue
        labels, predicted = eval_set.progress[rows], predictions.progress[rows]
        ends = rows[last[rows]]
        found[kind] = {
            "spearman": spearman(labels, predicted),
            "spearman_ci95": bootstrap(eval_set.episode[rows], lambda d: spearman(labels[d], predicted[d]), rounds=300),  # noqa: B023
            "end_progress": float(predictions.progress[ends].mean()),
            "end_progress_true": float(eval_set.progress[ends].mean()),
            "episodes": len(np.unique(eval_set.episode[rows])),
            "frames": len(rows),
        }
    return found


def evaluate_set(eval_set: EvalSet, predictions: dict[str, Predictions], rounds: int) -> dict[str, Any]:
    """Return all metrics on one eval set: the model's, each baseline's, by behaviour and by source.

    Args:
        eval_set: keyframes with labels.
        predictions: name -> predictions; ``model`` is the evaluated one, the others are baselines.
        rounds: bootstrap rounds.
    """
    model = predictions["model"]
    known = eval_set.done >= 0
    labelled = np.isfinite(eval_set.progress)
    return {
        "metrics": compute_metrics(eval_set, model, rounds=rounds),
        "baselines": {
            name: compute_metrics(eval_set, own, rounds=rounds) for name, own in predictions.items() if name != "model"
        },
        "kinds": {name: metrics_by_kind(eval_set, own) for name, own in predictions.items()},
        "sources": {
            source: compute_metrics(eval_set, model, eval_set.sources == source)
            for source in sorted(set(eval_set.sources))
        },
        "cumulative_accuracy": {
            name: cumulative_accuracy(eval_set.progress[labelled], own.progress[labelled])
            for name, own in predictions.items()
            if labelled.any()
        },
        "place": _place(eval_set, model),
        "mass": {
            head: {"min": float(mass.min()), "median": float(np.median(mass)), "below": float((mass < MIN_MASS).mean())}
            for head, mass in model.mass.items()
        },
        "reliability": reliability(eval_set.done[known] == 1, model.done[known]) if known.any() else [],
        "n": {
            "episodes": len(np.unique(eval_set.episode)),
            "frames": len(eval_set.jpegs),
            "pairs": len(eval_set.pairs),
        },
    }


def _place(eval_set: EvalSet, model: Predictions) -> dict[str, Any] | None:
    """Return what the places of frames do to the model's contrastive head; ``None``: no pairs, or not asked."""
    if not len(eval_set.pairs) or not len(model.equal):
        return None
    first, second = eval_set.progress[eval_set.pairs].T
    return place_metrics(second - first, model.contrastive, model.equal)


def metrics_of(sets: dict[str, dict[str, Any]], about: dict[str, Any]) -> dict[str, Any]:
    """Return the content of ``metrics.json``.

    Args:
        sets: ``in_domain`` and, if measured, ``zero_shot`` -> what :func:`evaluate_set` returned.
        about: model, settings and seeds.
    """
    failures = {
        name: {kind: row for kind, row in part["kinds"]["model"].items() if kind not in ("success", "demonstration")}
        for name, part in sets.items()
    }
    return {
        **{name: part["metrics"] for name, part in sets.items()},
        "failures": failures,
        "baselines": {name: part["baselines"] for name, part in sets.items()},
        "baselines_by_kind": {
            name: {who: rows for who, rows in part["kinds"].items() if who != "model"} for name, part in sets.items()
        },
        "sources": {name: part["sources"] for name, part in sets.items()},
        "cumulative_accuracy": {name: part["cumulative_accuracy"] for name, part in sets.items()},
        "place": {name: part["place"] for name, part in sets.items()},
        "mass": {name: part["mass"] for name, part in sets.items()},
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
    from lrm_ros.reward.load import load_model
    from lrm_ros.reward.models import RewardModel, public_name
    from lrm_ros.reward.qwen.model import QwenRewardModel
    from lrm_ros.training.reward.data.shards import read_rows
    from lrm_ros.training.reward.data.sources.generated import read_generated
    from lrm_ros.training.reward.eval.page import page

    parser = argparse.ArgumentParser(prog="lrm reward eval", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="tiny", help="'tiny', a folder, a Hugging Face name, or a server's")
    parser.add_argument(
        "--base", help="the model before training; default: --model with random weights, for a server's none"
    )
    parser.add_argument("--data", type=Path, help="keyframes ('lrm reward data') of trained tasks")
    parser.add_argument("--split", choices=("val", "all"), default="val", help="episodes of --data")
    parser.add_argument("--zero-shot", type=Path, help="keyframes of tasks that no training episode comes from")
    parser.add_argument("--contrast", type=Path, help="folder of generated shards (*.npz): minimal pairs of texts")
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="text=MODEL",
        help="a model trained with 'lrm reward train --blind text' (or pictures=MODEL), beside it on the contrast sets",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for metrics.json and report.html")
    parser.add_argument("--readout", choices=READOUTS, default="forward", help=READOUT)
    parser.add_argument("--initial", action="store_true", help="show the first frame, too, in progress queries")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=whole(0), default=0, help="seed of the pairs and of the random weights")
    parser.add_argument("--rounds", type=whole(0), default=1000, help="bootstrap rounds")
    parser.add_argument("--json", type=Path, help="write the metrics to this file, too")
    args = parser.parse_args(argv)

    controls = dict(one.partition("=")[::2] for one in args.without)
    if controls and args.contrast is None:
        parser.error("--without puts controls beside the model on contrast sets: give --contrast, too")
    if wrong := [name for name, control in controls.items() if name not in BLIND or not control]:
        parser.error(f"--without {wrong[0]}=...: give a model trained without {' or '.join(BLIND)}")
    if args.data is None and (args.contrast is None or args.zero_shot):
        parser.error("give keyframes with --data, or shards for contrast sets alone with --contrast")

    def load(name: str) -> RewardModel:
        return load_model(name, args.device, "tri" if args.data else "completion")

    eval_sets, training, contrast, asked = {}, None, None, {}
    bases: dict[str, RewardModel] = {}
    try:
        model = load(args.model)
        if args.data:
            if args.base:
                bases["untrained"] = load(args.base)
            elif isinstance(model, QwenRewardModel):  # of a server's the weights cannot be drawn anew
                bases["untrained"] = untrained(partial(load, args.model), args.seed)
            folders = {"in_domain": (args.data, None if args.split == "all" else args.split)}
            if args.zero_shot:
                folders["zero_shot"] = (args.zero_shot, None)
            eval_sets = {name: make_eval_set(read_rows(*where), args.seed) for name, where in folders.items()}
            training = make_eval_set(read_rows(args.data, "train"), args.seed) if args.split == "val" else None
        if args.contrast:
            contrast = make_contrast_set(read_generated(args.contrast), args.seed)
            asked = {f"without {blind}": (load(name), blind) for blind, name in controls.items()}
    except (ValueError, OSError) as error:
        parser.exit(exit_code(error), f"lrm reward eval: {error}\n")
    sets = {}
    answers = {}
    try:
        for name, eval_set in eval_sets.items():
            predictions = {
                who: predict(one, eval_set, args.readout, args.initial, f"{who}, {name}")
                for who, one in {"model": model, **bases}.items()
            }
            predictions |= trivial_baselines(eval_set, training)
            sets[name] = evaluate_set(eval_set, predictions, args.rounds)
        if contrast is not None:
            for who, (one, blind) in {"model": (model, ""), **asked}.items():
                answers[who] = ask(one, contrast, args.readout, blind, who)
    except RuntimeError as error:  # a query got no answer
        parser.exit(1, f"lrm reward eval: {error}\n")
    about = {
        "model": model.name,
        "base": public_name(args.base) if args.base else "weights drawn anew" if bases else "none",
        "readout": args.readout,
        "initial": args.initial,
        "seeds": {"pairs": args.seed, "untrained": args.seed, "bootstrap": 0},
    }
    metrics = metrics_of(sets, about)
    if contrast is not None:
        metrics["contrast"] = {who: contrast_metrics(contrast, answer, args.rounds) for who, answer in answers.items()}
    args.out.mkdir(parents=True, exist_ok=True)
    for path in filter(None, (args.out / "metrics.json", args.json)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(metrics, indent=1) + "\n")
    (args.out / "report.html").write_text(page(metrics), encoding="utf-8")
    for name, head in ((name, head) for name, part in sets.items() for head in part["mass"]):
        if share := sets[name]["mass"][head]["below"]:
            print(
                f"{name}, {head}: in {100 * share:.0f} % of the queries all answers have less than {MIN_MASS:g} "
                "probability together, which is unscored elsewhere: the model would say something else; try "
                "--readout reason"
            )
    for name in sets:
        print(table(metrics, name), end="\n\n")
        if place := metrics["place"][name]:
            print(f"{name}, {place_line(metrics[name]['contrastive']['accuracy'], place)}", end="\n\n")
    if contrast is not None:
        print(contrast_table(metrics["contrast"]), end="\n\n")
    print(f"{args.out / 'metrics.json'} and report.html are written")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
