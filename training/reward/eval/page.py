# SPDX-License-Identifier: Apache-2.0
"""Write a reward model's evaluation as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from lrm_ros.training.report.style import document
from lrm_ros.training.reward.eval.metrics import place_line
from lrm_ros.training.reward.eval.plots import LABELS, gap_bars, reliability_curve, tolerance_curves

SETS = {
    "in_domain": (
        "Tasks it was trained on",
        "Episodes left out of its training, if they were chosen so; failures included.",
    ),
    "zero_shot": ("Tasks it never saw", "No training episode comes from these tasks; failures included."),
}
_COLUMNS = (
    ("progress", "mae", "progress MAE"),
    ("progress", "rmse", "RMSE"),
    ("progress", "exact", "exact"),
    ("progress", "acc_at_0_2", "within 0.2"),
    ("progress", "spearman", "Spearman"),
    ("contrastive", "kendall", "Kendall"),
    ("contrastive", "accuracy", "pairs right"),
    ("completion", "roc_auc", "done AUC"),
    ("completion", "accuracy", "done right"),
    ("completion", "ece", "ECE"),
)
_PAIRS = ("pairs", "progress_pairs", "roc_auc")


def page(metrics: Mapping[str, Any]) -> str:
    """Return the page of the content of ``metrics.json``."""
    title = f"Reward model '{escape(str(metrics['model']))}': evaluation"
    body = f'<header><p class="run">lrm_ros, lrm reward eval</p><h1>{title}</h1><p class="lead">{_lead(metrics)}</p>'
    body += "</header>" + "".join(_set(metrics, name) for name in SETS if name in metrics)
    if "contrast" in metrics:
        body += _contrast(metrics["contrast"])
    body += (
        "<h2>How to read it</h2><p>Labels come from the simulator's state where the source knows it, else from time. "
        "Predicted progress is the expectation over the eleven values; exact and the curves round it to a tenth. "
        "Kendall's tau compares signs over pairs that differ by at least 0.1 progress, each shown in both orders. "
        "Small figures are 95 % bootstrap intervals over episodes. The constant baseline predicts the mean training "
        "label and always the second image; the time index predicts the share of the episode that has passed.</p>"
    )
    return document(title, body)


def _lead(metrics: Mapping[str, Any]) -> str:
    counts = [f"{part['episodes']} episodes ({SETS[name][0].lower()})" for name, part in metrics["n"].items()]
    if not counts:
        return "Does it read the instruction? Several texts about one picture, with the labels of the state for each."
    return (
        f"Evaluated on {escape(' and '.join(counts))}, beside its base ({escape(str(metrics['base']))}) and baselines "
        "that look at no image."
    )


def _set(metrics: Mapping[str, Any], name: str) -> str:
    """Return the section of one set."""
    title, about = SETS[name]
    part, n = metrics[name], metrics["n"][name]
    models = {"model": part, **metrics["baselines"][name]}
    rows = [[LABELS[who], *(_cell(own, head, key) for head, key, _ in _COLUMNS)] for who, own in models.items()]
    drawings = []
    if metrics["cumulative_accuracy"][name]:
        drawings.append(
            ("Progress: accuracy by tolerance", tolerance_curves(metrics["cumulative_accuracy"][name], name))
        )
    if metrics["reliability"][name]:
        drawings.append(("Completion: calibration", reliability_curve(metrics["reliability"][name], name)))
    if "contrastive" in part:
        drawings.append(("Contrastive: right answers by gap", gap_bars(part["contrastive"]["by_gap"], name)))
    plots = "".join(f"<figure><figcaption>{caption}</figcaption>{svg}</figure>" for caption, svg in drawings)
    kinds = metrics["failures"][name]
    time_index = metrics["baselines_by_kind"][name]["time_index"]
    failures = [
        [
            escape(kind), f"{row['spearman']:.2f}{_small(row['spearman_ci95'])}", f"{time_index[kind]['spearman']:.2f}",
            f"{row['end_progress']:.2f}", f"{row['end_progress_true']:.2f}", str(row["episodes"]),
        ]
        for kind, row in kinds.items()
    ]  # fmt: skip
    sources = [
        [escape(source), *(_cell(own, head, key) for head, key, _ in _COLUMNS)]
        for source, own in metrics["sources"][name].items()
    ]
    names = [label for *_, label in _COLUMNS]
    text = f"<h2>{title}</h2><p>{about} {n['episodes']} episodes, {n['frames']} keyframes, {n['pairs']} pairs.</p>"
    text += _table(["model", *names], rows) + f'<div class="plots">{plots}</div>'
    if place := metrics["place"][name]:
        text += f"<p>{escape(place_line(part['contrastive']['accuracy'], place))}</p>"
    if failures:
        head = ["behaviour", "Spearman with the state", "of the time index", "predicted at the end", "true", "episodes"]
        text += "<h3>Episodes by what happens in them</h3>"
        text += "<p>Some end well all the same, e.g. where the expert halted when all was done.</p>" + _table(
            head, failures
        )
    if len(sources) > 1:
        text += "<h3>By source</h3>" + _table(["source", *names], sources)
    return text


def _contrast(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the section of the contrast sets: a row for each kind of text, each source, and the totals."""
    model = found["model"]
    names = {who: "the model" if who == "model" else f"trained {who}" for who in found}
    head = [
        "pairs of texts",
        *(f"{name}: {what}" for name in names.values() for what in ("p(done)", "progress", "AUC")),
    ]
    rows = [
        [
            f"{escape(kind)} ({part['n']})",
            *(_share(who["kinds"].get(kind, {}), key) for who in found.values() for key in _PAIRS),
        ]
        for kind, part in model["kinds"].items()
    ]
    rows.append([f"all ({model['n']})", *(_share(who, key) for who in found.values() for key in _PAIRS)])
    rows += [
        [escape(source), *(_share(who["sources"][source], key) for who in found.values() for key in _PAIRS)]
        for source in model["sources"]
    ]
    about = ["", *names.values()]
    others = [
        ["done states found at 5 % false alarms, own text", *(_share(who, "found") for who in found.values())],
        ["of any text", *(_share(who, "found_any") for who in found.values())],
        ["mean change of p(done) by another wording", *(_share(who, "paraphrase") for who in found.values())],
    ]
    return (
        f"<h2>Does it read the instruction?</h2><p>{model['pictures']} pictures with several texts each, labelled "
        "by the simulator's state for the text that is asked. A pair is the episode's own text and another one of "
        "which one is done (or further by 0.3): the share in the right order, equal answers half.</p>"
        + _table(head, rows)
        + _table(about, others)
    )


def _share(own: Mapping[str, Any], key: str) -> str:
    value = own.get(key)
    if value is None:
        return "&ndash;"
    return f"{value:.3f}{_small(own.get(f'{key}_ci95'))}"


def _cell(own: Mapping[str, Any], head: str, key: str) -> str:
    """Return a metric with its interval, a dash where it is undefined."""
    value = own.get(head, {}).get(key)
    if value is None:
        return "&ndash;"
    return f"{value:.3f}{_small(own[head].get('ci95', {}).get(key))}"


def _small(interval: Iterable[float] | None) -> str:
    if interval is None:
        return ""
    low, high = interval
    return f"<small>{low:.2f} to {high:.2f}</small>"


def _table(head: list[str], rows: list[list[str]]) -> str:
    top = "".join(f"<th>{name}</th>" for name in head)
    lines = "".join(
        "<tr>" + "".join(f'<td data-name="{name}">{cell}</td>' for name, cell in zip(head, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><tr>{top}</tr>{lines}</table></div>'
