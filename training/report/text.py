# SPDX-License-Identifier: Apache-2.0
"""The words of a report: numbers with their intervals, what the figures mean, the closing table of the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

ALPHA = 0.05
RATIOS = {"precision": "kept", "recall": "successes"}  # -> what it is a share of

STAGES = {
    "demonstrations": "demonstrations",
    "sft": "training on demonstrations (SFT)",
    "rollout": "rolling out and judging",
    "dataset": "data set of the kept",
    "finetune": "fine-tuning and the control",
    "evaluate": "evaluation",
}
"""Stage of the run -> what it is called; the judge looks at each episode right after it was recorded."""


def percent(value: float) -> str:
    """Return 0.615 as ``61.5 %``."""
    return f"{100 * value:.1f} %"


def span(ci95: Sequence[float], signed: bool = False) -> str:
    """Return an interval of rates in percent: ``54.6 to 68.0``, or ``-1.2 to +15.0`` if signed."""
    return " to ".join(f"{100 * bound:+.1f}" if signed else f"{100 * bound:.1f}" for bound in ci95)


def p_value(p: float) -> str:
    """Return ``p = 0.012`` or ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def duration(seconds: float) -> str:
    """Return 75.2 as ``1 min 15 s``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def comparison(pair: Mapping[str, Any], first: str, second: str) -> str:
    """Return one sentence on two policies tried on the same start poses."""
    return (
        f"{first} against {second}: {100 * pair['difference']:+.1f} points (95 % interval {span(pair['ci95'], True)}; "
        f"{p_value(pair['p'])}, exact McNemar test on {pair['n']} start poses). {first} solved {pair['only_first']} "
        f"that {second} failed, and failed {pair['only_second']} that {second} solved."
    )


def is_better(pair: Mapping[str, Any]) -> bool:
    """Say whether the first of a pair is better by more than chance explains."""
    return pair["difference"] > 0 and pair["p"] < ALPHA


def headline(report: Mapping[str, Any]) -> str:
    """Return the result in one sentence; it claims no more than the data show."""
    first, last, control = (report[arm]["success"] for arm in ("baseline", "final", "control"))
    gain, over = report["paired"]["final_vs_baseline"], report["paired"]["final_vs_control"]
    if gain is None:
        return "This run has no result yet: the policy was not measured before and after"
    change = f"{percent(first['rate'])} before, {percent(last['rate'])} after"
    if gain["difference"] < 0 and gain["p"] < ALPHA:
        return f"The policy got worse: {change}"
    if gain["difference"] <= 0:
        return f"The policy did not improve: {change}"
    if not is_better(gain):
        return f"No clear improvement: {change}, a difference that chance may explain"
    if over is None:
        return f"The policy got better: {change}; without a control, longer training alone may be the reason"
    alone = f"longer training on the demonstrations alone ({percent(control['rate'])})"
    if over["difference"] <= 0:
        return f"The policy got better: {change}; but no more than by {alone}"
    if not is_better(over):
        return f"The policy got better: {change}; but not clearly more than by {alone}"
    return f"Self-improvement worked: {change}, and more than {alone}"


def conclusion(report: Mapping[str, Any]) -> list[str]:
    """Return the conclusions, a sentence each."""
    pairs = report["paired"]
    names = {
        "final_vs_baseline": ("The result", "the baseline"),
        "final_vs_control": ("The result", "the control"),
        "control_vs_baseline": ("The control", "the baseline"),
    }
    sentences = [comparison(pairs[key], *both) for key, both in names.items() if pairs[key]]
    quality = report["judge"]
    if quality["n"]:
        sentences.append(f"The judge, against the {report['said_by']}: {judge_sentence(quality)}.")
    return sentences


def judge_sentence(quality: Mapping[str, Any]) -> str:
    """Return precision and recall with their counts and intervals."""
    words = []
    for name, whole in RATIOS.items():
        if quality[name] is None:
            words.append(f"{name} unknown (no {whole})")
        else:
            low, high = quality[f"{name}_ci95"]
            words.append(
                f"{name} {quality[name]:.3f} ({quality['kept_successes']} of {quality[whole]} {whole}; "
                f"95 % interval {low:.3f} to {high:.3f})"
            )
    return ", ".join(words)


def table(report: Mapping[str, Any]) -> str:
    """Return the closing table for a terminal."""
    lines = ["", f"task: {report['task'] or 'unknown'}", "", "success on held-out start poses"]
    names = {"baseline": "baseline (demonstrations)", "control": "control (demonstrations, longer)", "final": "result"}
    for arm, name in names.items():
        part = report[arm]["success"]
        if part is None:
            lines.append(f"  {name:<34}not evaluated")
        else:
            count = f"{part['count']}/{part['n']}"
            lines.append(f"  {name:<34}{percent(part['rate']):>7} {count:>9}   95 % interval {span(part['ci95'])}")
    for key, name in (("final_vs_baseline", "result - baseline"), ("final_vs_control", "result - control")):
        pair = report["paired"][key]
        if pair:
            change, bounds = f"{100 * pair['difference']:+.1f}", span(pair["ci95"], True)
            lines.append(f"  {name:<34}{change:>7} {'points':>9}   95 % interval {bounds}, {p_value(pair['p'])}")
    lines += ["", f"judge against the {report['said_by']}'s {'truth' if report['said_by'] == 'simulator' else 'word'}"]
    rows = [(f"iteration {part['iteration']}", part["judge"]) for part in report["iterations"]]
    if report["demonstrations"]:
        rows.insert(0, ("demonstrations", report["demonstrations"]["judge"]))
    for name, quality in rows:
        for ratio, whole in RATIOS.items():
            label = f"{name}, {ratio}"
            if quality[ratio] is None:
                lines.append(f"  {label:<34}unknown: no {whole} among {quality['n']} episodes")
                continue
            low, high = quality[f"{ratio}_ci95"]
            count = f"{quality['kept_successes']}/{quality[whole]}"
            lines.append(f"  {label:<34}{quality[ratio]:>7.3f} {count:>9}   95 % interval {low:.3f} to {high:.3f}")
    if not rows:
        lines.append("  nothing was judged")
    lines += ["", "seconds per stage"]
    for stage, seconds in report["seconds"].items():
        each = [
            f"iteration {part['iteration']}: {part['seconds'][stage]:.0f}"
            for part in report["iterations"]
            if part["seconds"].get(stage) is not None
        ]
        also = f"   {', '.join(each)}" if len(each) > 1 else ""
        lines.append(f"  {STAGES.get(stage, stage):<34}{seconds:>7.0f}{also}")
    lines.append(f"  {'all':<34}{sum(report['seconds'].values()):>7.0f}")
    lines += ["", report["headline"] + "."]
    lines += [f"missing: {sentence}" for sentence in report["missing"]]
    return "\n".join(lines)
