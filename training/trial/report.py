# SPDX-License-Identifier: Apache-2.0
"""The figures of a blind comparison: rates, tests of each pair of policies, and the judge measured on every trial."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from lrm_ros.files import write_json, write_text
from lrm_ros.record.trials import Trials
from lrm_ros.training.report.stats import kappa, paired, precision_recall, precision_threshold, proportion, unpaired
from lrm_ros.training.trial.page import page

PRECISION = 0.9  # wanted of the judge, if nobody says another


def names_of(policies: Sequence[str]) -> list[str]:
    """Return the ends of policies' paths that tell them apart."""
    parts = [Path(policy).parts for policy in policies]
    length = 1
    while len({part[-length:] for part in parts}) < len(parts) and length < max(map(len, parts)):
        length += 1
    return ["/".join(part[-length:]) for part in parts]


def report_of(trials: Trials, precision: float = PRECISION) -> dict[str, Any]:
    """Return the report of a comparison, finished or not, as plain data.

    Returns:
        ``{trials, answered, void, corrected, same_starts, policies: [{policy, success}], pairs: [{first, second,
        unpaired, paired}], judge: {n, unjudged, agreement, precision..., threshold, by_policy}, settings}``; ``paired``
        is None where the starts were not the same.
    """
    settings, plan = trials.settings, trials.plan
    outcomes: list[dict[int, bool]] = [{} for _ in settings["policies"]]
    for trial in plan:
        if trial.number in trials.answers:
            outcomes[trial.policy][trial.start] = bool(trials.answers[trial.number]["success"])
    names = names_of(settings["policies"])
    successes = [proportion(sum(found.values()), len(found)) for found in outcomes]
    pairs = []
    for one, other in combinations(range(len(names)), 2):
        first, second = outcomes[one], outcomes[other]
        tested = bool(first) and bool(second)
        counts = (sum(first.values()), len(first), sum(second.values()), len(second))
        both = settings["same_starts"] and bool(first.keys() & second.keys())
        pairs.append(
            {
                "first": names[one],
                "second": names[other],
                "unpaired": unpaired(*counts) if tested else None,
                "paired": paired(first, second) if both else None,
            }
        )
    return {
        "trials": len(plan),
        "answered": len(trials.answers),
        "void": len(trials.voids),
        "corrected": sum(bool(row.get("corrected")) for row in trials.answers.values()),
        "same_starts": settings["same_starts"],
        "policies": [{"policy": name, "success": rate} for name, rate in zip(names, successes, strict=True)],
        "pairs": pairs,
        "judge": _judge(trials, names, precision),
        "settings": settings,
    }


def _judge(trials: Trials, names: Sequence[str], precision: float) -> dict[str, Any]:
    """Measure the judge against the person on every trial that both have said something of."""
    answered = [trial for trial in trials.plan if trial.number in trials.answers]
    seen = [one for one in answered if trials.verdicts.get(one.number, {}).get("score") is not None]
    said = [bool(trials.answers[one.number]["success"]) for one in seen]
    kept = [bool(trials.verdicts[one.number]["keep"]) for one in seen]
    scores = [float(trials.verdicts[one.number]["score"]) for one in seen]
    by_policy = {
        name: {
            "person": proportion(sum(said[i] for i in at), len(at)),
            "judge": proportion(sum(kept[i] for i in at), len(at)),
        }
        for place, name in enumerate(names)
        for at in [[i for i, one in enumerate(seen) if one.policy == place]]
    }
    cells = [sum((a, b) == cell for a, b in zip(said, kept, strict=True)) for cell in
             ((True, True), (True, False), (False, True), (False, False))]  # fmt: skip
    return {
        "model": trials.settings["model"],
        "threshold": trials.settings["judge_threshold"],
        "unjudged": len(answered) - len(seen),
        **precision_recall(kept, said),
        "agreement": kappa(*cells),
        "wanted": precision_threshold(scores, said, precision),
        "by_policy": by_policy,
        "disagree": [one.number for one, a, b in zip(seen, said, kept, strict=True) if a != b],
    }


def write_report(folder: Path, precision: float = PRECISION) -> dict[str, Any]:
    """Write ``report.json`` and the self-contained ``report.html`` of a comparison.

    Raises:
        FileNotFoundError: no comparison there.
        ValueError: a damaged file of it; names it and the cure.
    """
    report = report_of(Trials(folder), precision)
    document = page(report, folder.resolve().name)
    write_json(folder / "report.json", report, allow_nan=False)
    write_text(folder / "report.html", document)
    return report
