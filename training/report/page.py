# SPDX-License-Identifier: Apache-2.0
"""Write a report as one self-contained HTML page: words, drawings and film strips, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from lrm_ros.training.report.films import FRAMES, STRIPS, WRONG_AT_LEAST, Film, film, select_episodes
from lrm_ros.training.report.plots import loss_curves, outcome_bars, score_histogram, stage_bars, success_bars
from lrm_ros.training.report.run_folder import Run
from lrm_ros.training.report.style import document
from lrm_ros.training.report.text import duration, percent, span

EVALUATION_LABELS = {
    "baseline": ("Before (baseline)", "trained on the demonstrations only (SFT)"),
    "control": ("Control", "the same number of further training steps, on the demonstrations alone"),
    "final": ("After (result)", "trained on with its own episodes that the judge kept"),
}
_COLUMNS = ("start poses", "episodes", "kept", "really succeeded", "precision", "recall")


def page(run: Run, report: Mapping[str, Any]) -> str:
    """Return the whole page.

    Args:
        run: what was read from the run folder.
        report: the content of ``report.json``.
    """
    title = escape(f"{run.path.resolve().name}: self-improvement report")
    body = "".join(
        [
            _head(run, report),
            _missing(report["missing"]),
            _cards(report),
            _comparison(report),
            _judge(run, report),
            _films(run),
            _effort(run, report),
            _fine_print(report),
        ]
    )
    return document(title, body)


def _head(run: Run, report: Mapping[str, Any]) -> str:
    """Return the result in a sentence and what was done."""
    words = []
    demonstrations, iterations = report["demonstrations"], report["iterations"]
    if report["task"]:
        words.append(f"The task: <b>{escape(report['task'])}</b>.")
    if demonstrations:
        words.append(f"A policy learned it from <b>{demonstrations['kept']} demonstrations</b>.")
    if iterations:
        tries, kept = (sum(part[key] for part in iterations) for key in ("episodes", "kept"))
        rounds = "one round" if len(iterations) == 1 else f"{len(iterations)} rounds"
        words.append(
            f"It then tried by itself, <b>{tries} episodes in {rounds}</b>. A reward model looked at the last frames "
            f"of each and kept <b>{kept}</b>, on which the policy was trained further. The reward model never saw the "
            f"{run.said_by}'s verdict; it is used here only, to check."
        )
    return (
        f'<header><p class="run">lrm_ros, run {escape(run.path.resolve().name)}</p>'
        f'<h1>{escape(report["headline"])}</h1><p class="lead">{" ".join(words)}</p></header>'
    )


def _missing(sentences: Iterable[str]) -> str:
    """Return what a complete run would have."""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<div class="missing"><b>Not in this run folder</b><ul>{items}</ul></div>' if items else ""


def _cards(report: Mapping[str, Any]) -> str:
    """Return the three rates."""
    cards = []
    for evaluation, (name, how) in EVALUATION_LABELS.items():
        part = report[evaluation]["success"]
        value, count = "&ndash;", "not evaluated"
        if part:
            value = percent(part["rate"])
            count = f"{part['count']} of {part['n']} held-out start poses; 95 % interval {span(part['ci95'])} %"
        cards.append(
            f'<div class="card {evaluation}"><div class="what">{name}</div><div class="rate">{value}</div>'
            f'<div class="count">{count}</div><div class="how">{how}</div></div>'
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _figure(caption: str, drawing: str) -> str:
    """Return a captioned drawing."""
    return f"<figure><figcaption>{caption}</figcaption>{drawing}</figure>"


def _comparison(report: Mapping[str, Any]) -> str:
    """Return whether the policy got better."""
    measured = {
        evaluation: (EVALUATION_LABELS[evaluation][0].split()[0], report[evaluation]["success"])
        for evaluation in EVALUATION_LABELS
        if report[evaluation]["success"]
    }
    if not measured:
        return ""
    drawings = [_figure("Success, with its uncertainty", success_bars(measured))]
    pairs = {"final_vs_baseline": "against before", "final_vs_control": "against control"}
    known = {label: report["paired"][key] for key, label in pairs.items() if report["paired"][key]}
    if known:
        drawings.append(_figure("Start pose by start pose: who solves it", outcome_bars(known)))
    sentences = "".join(f"<li>{escape(line)}</li>" for line in report["conclusion"] if not line.startswith("The judge"))
    return (
        f'<h2>Did it get better?</h2><div class="plots">{"".join(drawings)}</div><ul>{sentences}</ul>'
        '<p class="note">Every policy met the same start poses. The intervals cover the luck of which poses were '
        "drawn, not the luck of training: this is one run with one seed, and another seed gives other figures.</p>"
    )


def _judge(run: Run, report: Mapping[str, Any]) -> str:
    """Return how good the judge was."""
    rows = [(f"Iteration {part['iteration']}", part) for part in report["iterations"]]
    if report["demonstrations"]:
        rows.insert(0, ("Demonstrations", report["demonstrations"]))
    if not rows:
        return ""
    total = {key: sum(part[key] for part in report["iterations"]) for key in ("starts", "episodes", "kept")}
    if len(report["iterations"]) > 1:
        rows.append(("All iterations", {**total, "judge": report["judge"]}))
    cells = "".join(_row(name, part) for name, part in rows)
    heads = "".join(f"<th>{head}</th>" for head in ("", *_COLUMNS))
    scored = [
        attempt
        for one in run.iterations
        for attempt in one.attempts
        if attempt.score is not None and attempt.success is not None
    ]
    drawing = ""
    if scored:
        scores = [float(attempt.score or 0.0) for attempt in scored]
        svg = score_histogram(
            scores, [bool(attempt.success) for attempt in scored], run.settings.get("judge_threshold")
        )
        drawing = _figure(f"What the judge thought of {len(scored)} own episodes", svg)
    unscored = sum(attempt.score is None for one in run.iterations for attempt in one.attempts)
    extra = f" The judge gave {unscored} episodes no score; they were not kept." if unscored else ""
    return (
        "<h2>Was the judge right?</h2><p>Precision: how many of the kept episodes really succeeded. Recall: how many "
        f"of the real successes were kept.{extra}</p>"
        f'<div class="wide"><table><tr>{heads}</tr>{cells}</table></div>'
        f'<div class="plots">{drawing}<p class="note">A start pose the judge saw solved is not tried again, so hard '
        "poses have more episodes than easy ones. The intervals (95 %, Wilson) count every episode as a trial of its "
        "own.</p></div>"
    )


def _row(name: str, part: Mapping[str, Any]) -> str:
    """Return one line of the judge's table; each cell carries its column's name for narrow screens."""
    quality = part["judge"]
    values = (
        part["starts"],
        part["episodes"],
        part["kept"],
        f"{quality['successes']}<small>of {quality['n']} known</small>",
        _ratio(quality, "precision", "kept"),
        _ratio(quality, "recall", "successes"),
    )
    cells = "".join(
        f'<td data-name="{column}"><div>{value}</div></td>' for column, value in zip(_COLUMNS, values, strict=True)
    )
    return f"<tr><td>{name}</td>{cells}</tr>"


def _ratio(quality: Mapping[str, Any], name: str, whole: str) -> str:
    """Return precision or recall with its counts and interval."""
    if quality[name] is None:
        return f"unknown<small>no {whole}</small>"
    low, high = quality[f"{name}_ci95"]
    counts = f"{quality['kept_successes']} of {quality[whole]}"
    return f"{quality[name]:.3f}<small>{counts}; {low:.3f} to {high:.3f}</small>"


def _films(run: Run) -> str:
    """Return film strips of kept and rejected episodes."""
    cameras = run.config.get("contract", {}).get("cameras", [])
    camera = cameras[0]["name"] if cameras else "front"
    parts = []
    for keep, title in ((True, "Kept"), (False, "Rejected")):
        selected = select_episodes(run.iterations, keep)
        total = sum(attempt.keep == keep for one in run.iterations for attempt in one.attempts)
        if selected:
            strips = "".join(_strip(film(attempt, where, camera), run.said_by) for attempt, where in selected)
            parts.append(f"<h3>{title}: {len(selected)} of {total}</h3>{strips}")
    if not parts:
        return ""
    return (
        f"<h2>What it looked like</h2><p>Up to {STRIPS} episodes each, {FRAMES} frames from first to last. Where the "
        f"judge was wrong, at least {WRONG_AT_LEAST} such episodes are among them if there are that many: they are "
        f"shown more often than they happen.</p>{''.join(parts)}"
    )


def _strip(strip: Film, said_by: str) -> str:
    """Return one film strip with what the judge and the simulator or a person say."""
    attempt = strip.attempt
    score = "no score" if attempt.score is None else f"{attempt.score:.2f}"
    real = {True: "succeeded", False: "failed", None: "not known"}[attempt.success]
    wrong = '<br><span class="mark">wrong verdict</span>' if attempt.wrong else ""
    name = f"{strip.where}, episode {attempt.episode_id}"
    caption = (
        f'<figcaption><span class="name">{escape(name)}</span><br>judge: {score}, '
        f"{'kept' if attempt.keep else 'rejected'}<br>{said_by}: {real}{wrong}</figcaption>"
    )
    if strip.problem:
        picture = f'<div class="problem">{escape(strip.problem)}</div>'
    else:
        images = (base64.b64encode(frame).decode() for frame in strip.frames)
        last = len(strip.frames)
        tags = "".join(
            f'<img loading="lazy" alt="{escape(name)}, frame {index} of {last}" src="data:image/jpeg;base64,{image}">'
            for index, image in enumerate(images, start=1)
        )
        picture = f'<div class="frames">{tags}</div>'
    return f'<figure class="film{" wrong" if attempt.wrong else ""}">{caption}{picture}</figure>'


def _effort(run: Run, report: Mapping[str, Any]) -> str:
    """Return training losses and time."""
    drawings = []
    if report["seconds"]:
        total = duration(sum(report["seconds"].values()))
        drawings.append(_figure(f"Where the time went ({total})", stage_bars(report["seconds"])))
    if run.losses:
        drawings.append(_figure("Training losses", loss_curves(run.losses)))
    return f'<h2>Time and training</h2><div class="plots">{"".join(drawings)}</div>' if drawings else ""


def _fine_print(report: Mapping[str, Any]) -> str:
    """Return methods, settings and versions."""
    method = (
        "<p>Rates: Wilson's score interval. Two policies: exact two-sided McNemar test on the start poses where only "
        "one of them succeeds, and Newcombe's interval of the difference of paired rates (method 10). An improvement "
        "is called clear when p is below 0.05. Success is the simulator's verdict within the allowed steps, one "
        "episode a start pose, without exploration.</p>"
    )
    parts = [f"<details><summary>How the figures were made</summary>{method}</details>"]
    for name, values in (("Settings", report["settings"]), ("Versions", report["versions"])):
        rows = dict(values or {})
        if name == "Versions" and report["commit"]:
            rows = {"commit": report["commit"], **rows}
        if rows:
            entries = "".join(f"<dt>{escape(str(key))}</dt><dd>{escape(str(rows[key]))}</dd>" for key in rows)
            parts.append(f"<details><summary>{name}</summary><dl>{entries}</dl></details>")
    return f"<h2>Fine print</h2>{''.join(parts)}"
