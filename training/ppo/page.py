# SPDX-License-Identifier: Apache-2.0
"""The comparison of refinements as one self-contained HTML page: rates, trainings side by side, learning curves."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from lrm_ros.training.report.plots import BAD, BASE, CONTROL, INK, MUTED, RESULT, SOFT, drawing
from lrm_ros.training.report.style import document
from lrm_ros.training.report.text import duration, p_value, percent, span

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = ("reward", "success", "of each training", "against SFT", "gap to env closed", "an iteration takes")
_WAYS = {
    "success": ("Deterministic", "the policy's own actions"),
    "sampled": ("Sampled", "the noise of the training added"),
}
_COLOURS = {"sft": BASE, "env": CONTROL}
_LINES = {"env": CONTROL, "contrastive": BAD, "progress": RESULT, "completion": INK, "tri": MUTED}
_WINDOW = 5  # iterations that a point of a curve is the mean of


def page(report: Mapping[str, Any], name: str) -> str:
    """Return the whole page.

    Args:
        report: the content of ``ppo_report.json``.
        name: of the comparison.
    """
    title = escape(f"{name}: refinement report")
    body = "".join([_head(report, name), _missing(report), *(_way(report, key) for key in _WAYS), _curves(report)])
    return document(title, body)


def headline(report: Mapping[str, Any]) -> str:
    """Return the result in a sentence that claims no more than the figures show."""
    ran = {k: v for k, v in report["success"].items() if v and k not in ("sft", "env")}
    before = percent(report["success"]["sft"]["rate"])
    if not ran:
        return f"No reward model was used yet; the policy before has {before}"
    best = max(ran, key=lambda reward: ran[reward]["rate"])
    gain = ran[best]
    if gain["difference"] <= 0 or gain["p_vs_sft"] >= 0.05:
        return f"No reward model clearly improved the policy: {before} before, {percent(gain['rate'])} with {best}"
    good = [reward for reward, part in ran.items() if part["difference"] > 0 and part["p_vs_sft"] < 0.05]
    after = percent(gain["rate"])
    return f"{len(good)} of {len(ran)} rewards from frames improved the policy: {before} before, {after} with {best}"


def _head(report: Mapping[str, Any], name: str) -> str:
    seeds = len(report["seeds"])
    words = (
        f"One policy, trained on demonstrations (SFT), refined by PPO in the twin for <b>{report['iterations']} "
        f"iterations of {report['episodes_per_iteration']} episodes</b>, once for each reward and each of "
        f"<b>{seeds} training seed{'s' if seeds > 1 else ''}</b>. Then all of them met the same "
        f"<b>{report['episodes']} held-out start poses</b>. <i>env</i> is the simulator's own reward, which no robot "
        "has; the others come from a reward model that sees the camera's frames only."
    )
    return (
        f'<header><p class="run">lrm_ros, {escape(name)}</p><h1>{escape(headline(report))}</h1>'
        f'<p class="lead">{words}</p></header>'
    )


def _missing(report: Mapping[str, Any]) -> str:
    lines = [f"reward '{reward}': not run" for reward in report["missing"]] + list(report["warnings"])
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<div class="missing"><b>To know</b><ul>{items}</ul></div>' if items else ""


def _way(report: Mapping[str, Any], key: str) -> str:
    """Return the table and the drawing of one way to act."""
    title, how = _WAYS[key]
    parts = {name: part for name, part in report[key].items() if part}
    heads = "".join(f"<th>{head}</th>" for head in _COLUMNS)
    rows = "".join(_row(report, name, part) for name, part in parts.items())
    return (
        f"<h2>{title}</h2><p>Success with {how}, at any time of an episode.</p>"
        f'<div class="wide"><table><tr>{heads}</tr>{rows}</table></div>'
        f'<div class="plots"><figure><figcaption>{title}: rate, interval, each training</figcaption>'
        f"{rate_bars(parts, key)}</figure>"
        '<p class="note">Bars: mean over the trainings. Dots: each training. Lines: 95 % interval of the mean '
        "(bootstrap over start poses; for SFT, one policy, Wilson). p: sign-flip test over start poses, two-sided. "
        "The interval does not hold the luck of training; the dots show it.</p></div>"
    )


def _row(report: Mapping[str, Any], name: str, part: Mapping[str, Any]) -> str:
    each = ", ".join(percent(one["rate"]) for one in part.get("by_seed", ()))
    gain = closed = ""
    if name != "sft":
        sure = f"{span(part['difference_ci95'], True)}; {escape(p_value(part['p_vs_sft']))}"
        gain = f"{100 * part['difference']:+.1f} points <small>{sure}</small>"
        share = part["gap_closed"]
        closed = f"{percent(share['value'])} <small>{span(share['ci95'])}</small>" if share else ""
    seconds = report["seconds_per_iteration"].get(name)
    cells = (
        escape(name),
        f"{percent(part['rate'])} <small>{span(part['ci95'])}</small>",
        each,
        gain,
        closed,
        duration(seconds) if seconds else "",
    )
    return (
        "<tr>"
        + "".join(f'<td data-name="{head}">{cell}</td>' for head, cell in zip(_COLUMNS, cells, strict=True))
        + "</tr>"
    )


def rate_bars(parts: Mapping[str, Mapping[str, Any]], name: str) -> str:
    """Draw rates with intervals and the rate of each training."""

    def draw(axes: Axes) -> None:
        for row, (reward, part) in enumerate(parts.items()):
            axes.barh(row, 100 * part["rate"], 0.56, color=_COLOURS.get(reward, SOFT))
            axes.plot([100 * bound for bound in part["ci95"]], [row, row], color=INK, linewidth=1.4)
            each = [100 * one["rate"] for one in part.get("by_seed", ())]
            axes.plot(each, [row] * len(each), "o", color=RESULT, markersize=4)
        axes.set_yticks(range(len(parts)), list(parts))
        axes.set(xlim=(0, 100), xlabel="success on held-out start poses [%]")
        axes.axvline(100 * parts["sft"]["rate"], color=MUTED, linewidth=0.8, linestyle=(0, (4, 2)))
        axes.invert_yaxis()
        axes.grid(axis="x", linewidth=0.6)
        axes.set_axisbelow(True)

    return drawing(f"refined-{name}", "Success by reward", 0.9 + 0.42 * len(parts), draw)


def _curves(report: Mapping[str, Any]) -> str:
    note = (
        "The simulator's verdict on the episodes of the training itself, for people; only <i>env</i> is paid by it. "
        f"Mean of {_WINDOW} iterations and of the trainings; start poses differ from iteration to iteration and are "
        "the same for all rewards of a seed."
    )
    commits = escape(", ".join(report["commits"]))
    return (
        '<h2>While it learned</h2><div class="plots"><figure><figcaption>Sampled success in training</figcaption>'
        f'{learning_curves(report["curves"])}</figure><p class="note">{note}</p></div>'
        f'<p class="note">Commits: {commits}. Start poses: seeds from {report["first_seed"]}.</p>'
    )


def learning_curves(curves: Mapping[str, Mapping[Any, list[float]]]) -> str:
    """Draw the success in training, a line a reward."""

    def draw(axes: Axes) -> None:
        for reward, runs in curves.items():
            mean = 100 * np.array(list(runs.values()), float).mean(0)
            window = min(_WINDOW, len(mean))
            smooth = np.convolve(mean, np.ones(window) / window, "valid")
            colour = _LINES.get(reward, SOFT)
            axes.plot(np.arange(len(smooth)) + (window + 1) / 2, smooth, color=colour, linewidth=1.6, label=reward)
        axes.set(xlabel="iteration", ylabel="success [%]")
        axes.tick_params(axis="y", colors=MUTED, labelsize=9)
        axes.grid(linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_ylim(bottom=0)
        axes.figure.legend(loc="outside lower center", ncols=3, handlelength=2)

    return drawing("refined-curves", "Success in training by reward", 3.2, draw)
