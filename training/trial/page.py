# SPDX-License-Identifier: Apache-2.0
"""A blind comparison as one self-contained HTML page, and as the closing table of the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from lrm_ros.training.report.plots import INK, SOFT, drawing
from lrm_ros.training.report.style import document
from lrm_ros.training.report.text import p_value, percent, span

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ALPHA = 0.05


def page(report: Mapping[str, Any], name: str) -> str:
    """Return the whole page.

    Args:
        report: see ``lrm_ros.training.trial.report.report_of``.
        name: of the comparison.
    """
    body = "".join([_head(report, name), _missing(report), _rates(report), _pairs(report), _judge(report)])
    return document(f"{escape(name)}: blind comparison", body)


def headline(report: Mapping[str, Any]) -> str:
    """Return the result in a sentence that claims no more than the figures show."""
    known = [one for one in report["policies"] if one["success"]["n"]]
    if len(known) < len(report["policies"]):
        return f"{report['answered']} of {report['trials']} trials have an answer; no comparison yet"
    best, *others = sorted(known, key=lambda one: -one["success"]["rate"])
    ps = [decided(pair) for pair in report["pairs"] if best["policy"] in (pair["first"], pair["second"])]
    rates = ", ".join(percent(one["success"]["rate"]) for one in others)
    if max(ps) < ALPHA:
        return f"{best['policy']} is better: {percent(best['success']['rate'])} against {rates}"
    return f"No policy is clearly better: {best['policy']} {percent(best['success']['rate'])}, else {rates}"


def decided(pair: Mapping[str, Any]) -> float:
    """Return the p that decides about a pair: McNemar's where the starts were the same, else Barnard's."""
    return float(pair["paired"]["p"] if pair["paired"] else pair["unpaired"]["p_barnard"])


def _head(report: Mapping[str, Any], name: str) -> str:
    starts = "the same starts, one after the other" if report["same_starts"] else "starts of its own"
    words = (
        f"A person said of each of <b>{report['answered']} trials</b> whether it was a success, and did not know which "
        f"of {len(report['policies'])} policies acted: their order was shuffled. Every policy met {starts}."
    )
    return (
        f'<header><p class="run">lrm_ros, {escape(name)}</p><h1>{escape(headline(report))}</h1>'
        f'<p class="lead">{words}</p></header>'
    )


def _missing(report: Mapping[str, Any]) -> str:
    left, judge = report["trials"] - report["answered"], report["judge"]
    lines = [f"{left} trials have no answer yet: the same command goes on"] if left else []
    lines += [f"{report['void']} trials failed, did not count and were repeated"] if report["void"] else []
    lines += [f"{report['corrected']} answers were turned round by the person"] if report["corrected"] else []
    lines += [f"{judge['unjudged']} trials have no verdict of the judge"] if judge["unjudged"] else []
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<div class="missing"><b>To know</b><ul>{items}</ul></div>' if items else ""


def _rates(report: Mapping[str, Any]) -> str:
    known = [one for one in report["policies"] if one["success"]["n"]]

    def draw(axes: Axes) -> None:
        for row, one in enumerate(known):
            axes.barh(row, 100 * one["success"]["rate"], 0.56, color=SOFT)
            axes.plot([100 * bound for bound in one["success"]["ci95"]], [row, row], color=INK, linewidth=1.4)
        axes.set_yticks(range(len(known)), [one["policy"] for one in known])
        axes.set(xlim=(0, 100), xlabel="success, by the person [%]")
        axes.invert_yaxis()
        axes.grid(axis="x", linewidth=0.6)
        axes.set_axisbelow(True)

    rows = [
        (escape(one["policy"]), f"{one['success']['count']} of {one['success']['n']}", _rate(one["success"]))
        for one in report["policies"]
    ]
    picture = drawing("trial-rates", "Success by policy", 0.9 + 0.42 * len(known), draw) if known else ""
    return (
        f"<h2>Success</h2>{_table(('policy', 'successes', 'rate, 95 % interval (Wilson)'), rows)}"
        f'<div class="plots"><figure>{picture}</figure></div>'
    )


def _rate(one: Mapping[str, Any]) -> str:
    return f"{percent(one['rate'])} <small>{span(one['ci95'])}</small>" if one["n"] else "no answer yet"


def _pairs(report: Mapping[str, Any]) -> str:
    rows = []
    for pair in report["pairs"]:
        free, same = pair["unpaired"], pair["paired"]
        difference = same or free
        if difference is None:
            continue
        rows.append(
            (
                f"{escape(pair['first'])} against {escape(pair['second'])}",
                f"{100 * difference['difference']:+.1f} points <small>{span(difference['ci95'], True)}</small>",
                f"{escape(p_value(same['p']))} <small>{same['only_first']} and {same['only_second']} starts solved by "
                "one alone</small>"
                if same
                else "",
                escape(p_value(free["p_barnard"])),
                escape(p_value(free["p_fisher"])),
            )
        )
    note = (
        f"Two-sided tests. p values are not corrected for {len(rows)} comparisons. " if len(rows) > 1 else ""
    ) + "Intervals: Newcombe's. McNemar's exact test uses that the starts were the same; Barnard's and Fisher's do not."
    heads = ("policies", "difference", "McNemar", "Barnard", "Fisher")
    return f'<h2>Comparison</h2>{_table(heads, rows)}<p class="note">{note}</p>' if rows else ""


def _judge(report: Mapping[str, Any]) -> str:
    judge = report["judge"]
    if not judge["n"]:
        return ""
    agree, wanted = judge["agreement"], judge["wanted"]
    rows = [
        ("agreement with the person", _rate(agree["agreement"])),
        ("Cohen's kappa", "not defined" if agree["kappa"] is None else
         f"{agree['kappa']:.2f} <small>{agree['ci95'][0]:.2f} to {agree['ci95'][1]:.2f}</small>"),
        *((f"{what} at {judge['threshold']:g}", f"{percent(judge[what])} <small>{span(judge[what + '_ci95'])}</small>")
          for what in ("precision", "recall") if judge[what] is not None),
        (f"threshold for a precision of {percent(wanted['wanted'])}", _threshold(wanted)),
    ]  # fmt: skip
    rows += [
        (f"{escape(name)}: person, judge", f"{_rate(both['person'])} {_rate(both['judge'])}")
        for name, both in judge["by_policy"].items()
    ]
    numbers = ", ".join(map(str, judge["disagree"]))
    return (
        f"<h2>The judge</h2><p>Completion head of model {escape(judge['model'])}, asked about the last frames of "
        f"{judge['n']} trials; the person did not see what it said.</p>{_table(('measure', 'value'), rows)}"
        f'<p class="note">They disagree on trials: {numbers or "none"}. The threshold is chosen on the same trials '
        "that its precision and recall are told of: they are a little too good.</p>"
    )


def _threshold(wanted: Mapping[str, Any]) -> str:
    if wanted["threshold"] is None:
        return f"none has it on these {wanted['n']} trials"
    low, high = wanted["threshold_ci95"]
    return (
        f"{wanted['threshold']:.2f} <small>{low:.2f} to {high:.2f} (bootstrap); there precision "
        f"{_plain(wanted['precision'])}, recall {_plain(wanted['recall'])}</small>"
    )


def _plain(one: Mapping[str, Any]) -> str:
    return f"{percent(one['rate'])} ({span(one['ci95'])})" if one["n"] else "unknown"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{head}</th>" for head in heads)
    lines = "".join(
        "<tr>" + "".join(f'<td data-name="{head}">{cell}</td>' for head, cell in zip(heads, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><tr>{top}</tr>{lines}</table></div>'


def table(report: Mapping[str, Any]) -> str:
    """Return what the terminal shows at the end."""
    lines = [headline(report), ""]
    width = max(len(one["policy"]) for one in report["policies"])
    rates = [(one["policy"], one["success"]) for one in report["policies"]]
    lines += [f"{name:<{width}}  {_plain(rate)}, n = {rate['n']}" for name, rate in rates]
    for pair in report["pairs"]:
        free, same = pair["unpaired"], pair["paired"]
        if free is None:
            continue
        difference = same or free
        tests = [f"McNemar {p_value(same['p'])}"] if same else []
        tests += [f"Barnard {p_value(free['p_barnard'])}", f"Fisher {p_value(free['p_fisher'])}"]
        points = f"{100 * difference['difference']:+.1f} points ({span(difference['ci95'], True)})"
        lines.append(f"{pair['first']} - {pair['second']}: {points}; {', '.join(tests)}")
    return "\n".join(lines + _judge_lines(report["judge"]))


def _judge_lines(judge: Mapping[str, Any]) -> list[str]:
    """Return what the terminal shows of the judge."""
    if not judge["n"]:
        return []
    agree, wanted = judge["agreement"], judge["wanted"]
    value = "not defined"
    if agree["kappa"] is not None:
        value = f"{agree['kappa']:.2f} ({agree['ci95'][0]:.2f} to {agree['ci95'][1]:.2f})"
    lines = [f"judge and person agree on {_plain(agree['agreement'])} of {judge['n']} trials, kappa {value}"]
    lines += [
        f"judge's {what} at {judge['threshold']:g}: {percent(judge[what])} ({span(judge[what + '_ci95'])})"
        for what in ("precision", "recall")
        if judge[what] is not None
    ]
    if wanted["threshold"] is None:
        return [*lines, f"no threshold has a precision of {percent(wanted['wanted'])} on these trials"]
    low, high = wanted["threshold_ci95"]
    return [
        *lines,
        f"threshold for a precision of {percent(wanted['wanted'])}: {wanted['threshold']:.2f} ({low:.2f} to "
        f"{high:.2f}); there precision {_plain(wanted['precision'])}, recall {_plain(wanted['recall'])}",
    ]
