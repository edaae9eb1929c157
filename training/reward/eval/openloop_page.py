# SPDX-License-Identifier: Apache-2.0
"""Write the open-loop analysis as tables for a terminal and as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from lrm_ros.training.report.style import document
from lrm_ros.training.report.text import percent, span
from lrm_ros.training.reward.eval.plots import tolerance_curves
from lrm_ros.training.reward.eval.trajectories.read import COMPARISON
from lrm_ros.training.reward.eval.trajectory_metrics import ABSOLUTE, RELATIVE

LABELS = {
    "roc_auc": "ROC-AUC",
    "pairwise_acc_pct": "Pairwise Acc (%)",
    "global_pearson": "Global Pearson",
    "per_traj_pearson": "Per-traj Pearson",
    "direction_acc_pct": "Direction Acc (%)",
    "progress_recall_pct": "Progress Recall (%)",
    "monotonicity_success": "Monotonicity (success)",
}
FORM_WORDS = {"index_paired": "index-paired, as upstream computes it", "time_aligned": "time-aligned"}
_BLIND = {"per_traj_pearson": "Per-traj Pearson of the time", "direction_acc_pct": 'Direction Acc of "always later"'}
_NO_CHANGE = "Pairs without any change (%)"

Cell = tuple[float, list[float] | None] | None


def tables(report: Mapping[str, Any]) -> list[tuple[str, list[str], list[tuple[str, list[Cell]]]]]:
    """Return the metrics of the paper's Tables V and VI, in both forms: (title, columns, rows of (label, cells)).

    Args:
        report: content of ``openloop.json``.
    """
    found = []
    policies = report["policies"]
    modes = list(dict.fromkeys(mode for part in policies.values() for mode in part["modes"]))
    absolute = [mode for mode in modes if mode != COMPARISON]
    for form, words in FORM_WORDS.items():
        for title, own, names in (
            ("Table V, absolute rewards", absolute, ABSOLUTE),
            ("Table VI, contrastive reward", [mode for mode in modes if mode == COMPARISON], RELATIVE),
        ):
            columns = [(mode, policy) for mode in own for policy in policies]
            if not columns:
                continue
            rows: list[tuple[str, list[Cell]]] = []
            for name in names:
                parts = [policies[policy]["modes"][mode] for mode, policy in columns]
                rows.append((LABELS[name], [_cell(part[form], name) for part in parts]))
                if name in _BLIND and form == "time_aligned":
                    rows.append((_BLIND[name], [_cell(part["blind"], name) for part in parts]))
            if own == [COMPARISON] and form == "time_aligned":
                values = [policies[policy]["modes"][COMPARISON]["still_pct"] for policy in policies]
                rows.append((_NO_CHANGE, [None if value is None else (value, None) for value in values]))
            heads = [f"{mode}, {policy}" if len(own) > 1 else policy for mode, policy in columns]
            found.append((f"{title} ({words})", heads, rows))
    return found


def _cell(part: Mapping[str, Any], name: str) -> Cell:
    return (part[name]["value"], part[name]["ci95"]) if name in part else None


def _numbers(label: str, cell: Cell) -> tuple[str, str]:
    """Return a metric and its interval as text; a dash where it is undefined."""
    if cell is None:
        return "-", ""
    digits = 1 if "Acc" in label or "(%)" in label else 3
    value, ci95 = cell
    return f"{value:.{digits}f}", " to ".join(f"{bound:.{digits}f}" for bound in ci95) if ci95 else ""


def text(report: Mapping[str, Any]) -> str:
    """Return everything as text (Markdown)."""
    lines = []
    for title, heads, rows in tables(report):
        lines += [title, "", "| metric | " + " | ".join(heads) + " |", "| --- |" + " --- |" * len(heads)]
        for label, cells in rows:
            texts = [" ".join(filter(None, (a, b and f"({b})"))) for a, b in (_numbers(label, cell) for cell in cells)]
            lines.append(f"| {label} | " + " | ".join(texts) + " |")
        lines.append("")
    return "\n".join(lines + [_line(name, part) for name, part in report["policies"].items()])


def _line(name: str, part: Mapping[str, Any]) -> str:
    """Return a policy's success rate and the counts of its scores."""
    own = part["success"]
    words = f"{name}: {own['count']} of {own['n']} trajectories succeeded ({percent(own['rate'])}, {span(own['ci95'])})"
    for mode, scores in part["modes"].items():
        n = scores["counts"]
        words += f"; {mode}: {n['scores']} scores, {n['unanswered']} unanswered"
        words += f", {n['without_score']} trajectories without any" if n["without_score"] else ""
    return words


def page(report: Mapping[str, Any]) -> str:
    """Return the page, with the paper's Figure 2 for each policy whose progress is known."""
    title = f"Open-loop analysis of reward model '{escape(str(report['model']))}'"
    body = f'<header><p class="run">lrm_ros, lrm reward openloop</p><h1>{title}</h1></header><ul>'
    body += "".join(f"<li>{escape(_line(name, part))}</li>" for name, part in report["policies"].items()) + "</ul>"
    for caption, heads, rows in tables(report):
        top = "".join(f"<th>{escape(head)}</th>" for head in ("metric", *heads))
        lines = "".join(
            f"<tr><td>{escape(label)}</td>"
            + "".join(f"<td>{a}<small>{b}</small></td>" for a, b in (_numbers(label, cell) for cell in cells))
            + "</tr>"
            for label, cells in rows
        )
        body += f'<h2>{escape(caption)}</h2><div class="wide"><table><tr>{top}</tr>{lines}</table></div>'
    curves = {name: part["figure_2"] for name, part in report["policies"].items() if part.get("figure_2")}
    if curves:
        drawings = "".join(
            f"<figure><figcaption>{escape(name)}</figcaption>{tolerance_curves(part, escape(name))}</figure>"
            for name, part in curves.items()
        )
        body += f'<h2>Figure 2, progress predictions within each tolerance</h2><div class="plots">{drawings}</div>'
    body += (
        "<h2>How to read it</h2><p>Small figures are 95 % bootstrap intervals over trajectories. Index-paired is what "
        "the paper's published script computes; time-aligned compares a score with what happened since the frame that "
        "was scored before. The time baseline predicts the time, &quot;always later&quot; that every frame is nearer "
        "to the goal than the one before: neither looks at an image. Where nothing changed between two frames, no "
        "answer to the contrastive question is right. In Figure 2 the constant is the mean of these very labels, which "
        "favours it. The reference is the simulator's state.</p>"
    )
    return document(title, body)
