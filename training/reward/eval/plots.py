# SPDX-License-Identifier: Apache-2.0
"""Plots of a reward model's evaluation: accuracy by tolerance, calibration, accuracy by gap of progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lrm_ros.training.report.plots import BAD, BASE, CONTROL, GRID, INK, MUTED, RESULT, drawing
from lrm_ros.training.reward.eval.metrics import TOLERANCES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"model": RESULT, "untrained": BASE, "constant": BAD, "time_index": CONTROL}
LABELS = {"model": "the model", "untrained": "untrained base", "constant": "constant", "time_index": "time index"}


def tolerance_curves(curves: Mapping[str, Sequence[float]], name: str) -> str:
    """Draw the share of progress predictions within each tolerance (paper Figure 2), one line a model."""

    def draw(axes: Axes) -> None:
        for who, values in curves.items():
            axes.plot(TOLERANCES, [100 * v for v in values], color=COLOURS[who], label=LABELS[who], linewidth=1.8)
        axes.set(xlim=(0, 1), ylim=(0, 101), xlabel="tolerance", ylabel="predictions within it [%]")
        _grid(axes)

    return drawing(f"tolerance-{name}", "Share of progress predictions within each tolerance", 3.0, draw)


def reliability_curve(rows: Sequence[Mapping[str, float]], name: str) -> str:
    """Draw the reliability diagram of p(done); the area of a dot is the count."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=GRID, linewidth=1.2)
        total = sum(row["n"] for row in rows)
        confidence, rate = [row["said"] for row in rows], [row["was"] for row in rows]
        axes.plot(confidence, rate, color=RESULT, linewidth=1.2)
        axes.scatter(confidence, rate, [12 + 300 * row["n"] / total for row in rows], color=RESULT, linewidths=0)
        axes.set(xlim=(-0.04, 1.04), ylim=(-0.06, 1.06), xlabel="predicted p(done)", ylabel="share done")
        _grid(axes, legend=False)

    return drawing(f"reliability-{name}", "Reliability of the completion head", 3.0, draw)


def gap_bars(by_gap: Mapping[str, Mapping[str, Any]], name: str) -> str:
    """Draw the accuracy of contrastive predictions by the difference in progress of the two frames."""

    def draw(axes: Axes) -> None:
        for row, part in enumerate(by_gap.values()):
            axes.barh(row, 100 * part["accuracy"], 0.56, color=RESULT)
            axes.text(101, row, f"{100 * part['accuracy']:.0f} % of {part['n']}", va="center", fontsize=9)
        axes.axvline(50, color=INK, linewidth=1, linestyle=(0, (4, 2)))
        axes.set_yticks(range(len(by_gap)), list(by_gap))
        axes.set(xlim=(0, 130), ylabel="difference in progress", xlabel="accuracy [%]; dashed: chance")
        axes.set_xticks([0, 25, 50, 75, 100])
        axes.invert_yaxis()

    return drawing(f"gaps-{name}", "Contrastive accuracy by gap", 1.2 + 0.42 * len(by_gap), draw)


def _grid(axes: Axes, legend: bool = True) -> None:
    axes.tick_params(axis="y", colors=MUTED, labelsize=9)
    axes.grid(linewidth=0.6)
    axes.set_axisbelow(True)
    if legend:
        axes.figure.legend(loc="outside lower center", ncols=2, handlelength=1.6)
