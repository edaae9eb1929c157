# SPDX-License-Identifier: Apache-2.0
"""Draw the figures of a report as SVG text whose colours are the page's CSS variables (light and dark)."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lrm_ros.training.report.text import STAGES, duration, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand-ins that matplotlib writes into the SVG -> the page's variable that takes their place.
INK, MUTED, GRID, PAPER = "#0a0001", "#0a0002", "#0a0003", "#0a0004"
BASE, CONTROL, RESULT, BAD, SOFT = "#0a0005", "#0a0006", "#0a0007", "#0a0008", "#0a0009"
_VARIABLES = {
    INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--paper", BASE: "--base", CONTROL: "--control",
    RESULT: "--result", BAD: "--bad", SOFT: "--soft",
}  # fmt: skip
EVALUATION_COLOURS = {"baseline": BASE, "control": CONTROL, "final": RESULT}

_STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "xtick.color": MUTED,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": GRID,
    "legend.frameon": False,
    "legend.fontsize": 9,
}
_WIDTH = 4.7  # [in]; narrow, so that the letters stay readable on a phone


def _axes(height: float) -> tuple[Figure, Axes]:
    """Return an empty drawing."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(length=0)
    return figure, axes


def _svg(figure: Figure, name: str, label: str) -> str:
    """Return the drawing as an SVG element with the page's colours; ``label`` is read aloud."""
    import matplotlib as mpl

    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[A-Za-z0-9]+_\d+"', "", text)  # the names of groups repeat from drawing to drawing
    text = re.sub(r'(<svg [^>]*?)width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?)height="[^"]*"', rf'\1role="img" aria-label="{label}"', text, count=1)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text


def drawing(name: str, label: str, height: float, draw: Any) -> str:
    """Draw with the report's style."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        figure, axes = _axes(height)
        draw(axes)
        return _svg(figure, name, label)


def success_bars(successes: Mapping[str, tuple[str, Mapping[str, Any]]]) -> str:
    """Draw rates as bars with their intervals.

    Args:
        successes: evaluation -> (label, success).
    """

    def draw(axes: Axes) -> None:
        for row, (evaluation, (_, part)) in enumerate(successes.items()):
            value, (low, high) = 100 * part["rate"], (100 * bound for bound in part["ci95"])
            axes.barh(row, value, 0.56, color=EVALUATION_COLOURS[evaluation])
            axes.plot([low, high], [row, row], color=INK, linewidth=1.4)
            axes.plot([low, high], [row, row], "|", color=INK, markersize=9, markeredgewidth=1.4)
            axes.text(high + 1.5, row, percent(part["rate"]), va="center", fontweight="bold")
        axes.set_yticks(range(len(successes)), [label for label, _ in successes.values()])
        top = max(100 * part["ci95"][1] for _, part in successes.values())
        axes.set(xlim=(0, top + 16), xlabel="success on held-out start poses [%], with 95 % interval")
        axes.set_xticks([tick for tick in range(0, 101, 20) if tick <= top + 10])
        axes.invert_yaxis()
        axes.grid(axis="x", linewidth=0.6)
        axes.set_axisbelow(True)

    return drawing("success", "Success of each policy with its 95 % interval", 0.9 + 0.5 * len(successes), draw)


def outcome_bars(pairs: Mapping[str, Mapping[str, Any]]) -> str:
    """Draw what became of each start pose: solved by both, by one only, by neither.

    Args:
        pairs: label of the comparison -> paired figures, the result first.
    """
    kinds = [
        ("both", "both solve it", SOFT, INK),
        ("only_first", "only the result", RESULT, PAPER),
        ("only_second", "only the other", BAD, PAPER),
        ("neither", "neither", GRID, INK),
    ]

    def draw(axes: Axes) -> None:
        for key, label, colour, ink in kinds:
            for row, pair in enumerate(pairs.values()):
                left = sum(pair[before] for before, *_ in kinds[: [kind[0] for kind in kinds].index(key)])
                share = pair[key] / pair["n"]
                axes.barh(row, share, 0.56, left / pair["n"], color=colour, label=label if row == 0 else None)
                if share > 0.04:
                    middle = left / pair["n"] + share / 2
                    axes.text(middle, row, str(pair[key]), ha="center", va="center", color=ink, fontsize=9)
        axes.set_yticks(range(len(pairs)), list(pairs))
        axes.set_xticks([])
        axes.set_xlim(0, 1)
        axes.invert_yaxis()
        axes.spines["bottom"].set_visible(False)
        axes.figure.legend(loc="outside lower center", ncols=2, handlelength=1, handleheight=1)

    return drawing("outcomes", "What became of each start pose", 1.0 + 0.5 * len(pairs), draw)


def score_histogram(scores: Sequence[float], successes: Sequence[bool], threshold: float | None) -> str:
    """Draw the judge's scores, split by what really happened.

    Args:
        scores: mean p(done) of each episode, in [0, 1].
        successes: the simulator's verdict of each, in the same order.
        threshold: from which score on an episode is kept; None: not known.
    """
    good = [score for score, success in zip(scores, successes, strict=True) if success]
    poor = [score for score, success in zip(scores, successes, strict=True) if not success]

    def draw(axes: Axes) -> None:
        labels = [f"failed ({len(poor)})", f"succeeded ({len(good)})"]
        bins = np.linspace(0, 1, 21)
        axes.hist([poor, good], bins, stacked=True, color=[BAD, RESULT], label=labels, rwidth=0.88)
        if threshold is not None:
            axes.axvline(threshold, color=INK, linewidth=1.2, linestyle=(0, (4, 2)))
            axes.annotate(
                f" kept from {threshold:g} on", (threshold, 1), xycoords=("data", "axes fraction"), va="top", fontsize=9
            )
        axes.set(xlim=(0, 1), xlabel="score of the judge (mean p(done) of the last frames)", ylabel="episodes")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.tick_params(axis="y", colors=MUTED, labelsize=9)
        axes.grid(axis="y", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.figure.legend(loc="outside lower center", ncols=2, handlelength=1, handleheight=1)

    return drawing("scores", "Scores of the judge by what really happened", 2.7, draw)


def loss_curves(losses: Mapping[str, Sequence[float]]) -> str:
    """Draw the loss of each training, as the mean over a fiftieth of its steps."""
    from matplotlib.ticker import LogLocator, NullLocator

    def draw(axes: Axes) -> None:
        colours = {"control": CONTROL, "iteration": RESULT, "demonstrations": BASE}
        for label, values in losses.items():
            window = max(1, len(values) // 50)
            whole = len(values) // window * window
            means = np.asarray(values[:whole]).reshape(-1, window).mean(1)
            middles = (np.arange(len(means)) + 0.5) * window
            number = int(label.split()[-1]) if label.split()[-1].isdigit() else 1
            style = ("-", "--", ":", "-.")[(number - 1) % 4]
            axes.plot(middles, means, style, color=colours[label.split()[0]], linewidth=1.5, label=label)
        axes.set(yscale="log", xlabel="training step", ylabel="loss")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.tick_params(axis="y", colors=MUTED, labelsize=9)
        axes.grid(axis="y", linewidth=0.6)
        axes.set_xlim(left=0)
        axes.figure.legend(loc="outside lower center", ncols=2, handlelength=2.4)

    return drawing("losses", "Training losses", 3.0, draw)


def stage_bars(seconds: Mapping[str, float]) -> str:
    """Draw the time of each stage [s]."""

    def draw(axes: Axes) -> None:
        longest = max(seconds.values()) or 1.0
        for row, value in enumerate(seconds.values()):
            axes.barh(row, value, 0.56, color=BASE)
            axes.text(value + 0.02 * longest, row, duration(value), va="center", fontsize=9)
        axes.set_yticks(range(len(seconds)), [STAGES.get(stage, stage) for stage in seconds])
        axes.set_xticks([])
        axes.set_xlim(0, 1.3 * longest)
        axes.invert_yaxis()
        axes.spines["bottom"].set_visible(False)

    return drawing("stages", "Time of each stage", 0.4 + 0.32 * len(seconds), draw)
