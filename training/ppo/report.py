# SPDX-License-Identifier: Apache-2.0
"""Compare refinements on held-out start poses: ``lrm ppo report`` (paper Tables III and IV, in kind).

Every policy meets the same start poses, deterministic and sampled with the noise_std of the training (its other noise
settings are the defaults), beside the policy that all refinements started from. What is measured already is not
measured again.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.files import write_json, write_text
from lrm_ros.options import whole
from lrm_ros.programs import exit_code
from lrm_ros.seeds import HELD_OUT
from lrm_ros.training.ppo.evaluate import SFT, WAYS, RefinedRun, evaluate_all, read_runs
from lrm_ros.training.report.stats import mcnemar, wilson
from lrm_ros.training.report.text import p_value, percent, span
from lrm_ros.training.report.trainings import compare_with, gap_closed, pooled_rate

ENV = "env"
ORDER = (ENV, "contrastive", "progress", "completion", "tri", "roboreward", "robometer", "topreward")

Outcomes = Mapping[str, Mapping[int, NDArray[np.bool_]]]


def figures(runs: Sequence[RefinedRun], found: Mapping[str, Outcomes], seeds: Sequence[int]) -> dict[str, Any]:
    """Return the content of ``ppo_report.json``.

    Args:
        runs: the refinements.
        found: way -> reward -> training seed -> (P,) success, ``sft`` among the rewards.
        seeds: of the start poses.
    """
    rewards = sorted(found[WAYS[0]].keys() - {SFT}, key=_place)
    seconds = {
        reward: float(np.mean([line["seconds"]["all"] for run in runs if run.reward == reward for line in run.history]))
        for reward in rewards
    }
    return {
        "task": "PlaceToyInBowl-v1",
        "seeds": sorted({run.config["seed"] for run in runs}),
        "episodes": len(seeds),
        "first_seed": int(seeds[0]),
        "iterations": len(runs[0].history),
        "episodes_per_iteration": runs[0].history[-1]["episodes"],
        "success": _successes(found["deterministic"], rewards),
        "sampled": _successes(found["sampled"], rewards),
        "seconds_per_iteration": seconds,
        "missing": [reward for reward in ORDER if reward not in {run.config["reward"] for run in runs}],
        "curves": {
            reward: {
                run.config["seed"]: [line["success"] for line in run.history] for run in runs if run.reward == reward
            }
            for reward in rewards
        },
        "warnings": sorted(
            {f"{run.folder.name}: {w}" for run in runs for line in run.history for w in line["warnings"]}
        ),
        "commits": sorted({run.commit for run in runs}),
    }


def _successes(found: Outcomes, rewards: Sequence[str]) -> dict[str, Any]:
    """Return rates, comparisons with SFT and shares of the gap to the simulator's reward; None where nothing ran."""
    base = found[SFT][0]
    top = np.stack(list(found[ENV].values())) if ENV in found else None
    successes: dict[str, Any] = {
        SFT: pooled_rate(base[None]) | {"p_vs_sft": None, "ci95": list(wilson(int(base.sum()), len(base)))}
    }
    for reward in rewards:
        outcomes = np.stack([found[reward][seed] for seed in sorted(found[reward])])
        change = compare_with(outcomes, base)
        successes[reward] = pooled_rate(outcomes) | {
            "p_vs_sft": change["p"],
            "difference": change["difference"],
            "difference_ci95": change["ci95"],
            "gap_closed": None if top is None or reward == ENV else gap_closed(outcomes, base, top),
            "by_seed": [_one(seed, found[reward][seed], base) for seed in sorted(found[reward])],
        }
    return {name: successes.get(name) for name in (SFT, *ORDER, *(r for r in rewards if r not in ORDER))}


def _one(seed: int, own: NDArray[np.bool_], base: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the figures of one training."""
    count, n = int(own.sum()), len(own)
    p = mcnemar(int((own & ~base).sum()), int((base & ~own).sum()))
    return {"seed": seed, "rate": count / n, "count": count, "n": n, "ci95": list(wilson(count, n)), "p_vs_sft": p}


def _place(reward: str) -> tuple[int, str]:
    """Return where a reward stands in tables."""
    return (ORDER.index(reward) if reward in ORDER else len(ORDER), reward)


def table(report: Mapping[str, Any]) -> str:
    """Return the figures as a table for a terminal (Markdown)."""
    lines = []
    for way, key in zip(WAYS, ("success", "sampled"), strict=True):
        lines += [
            f"{way}, {report['episodes']} held-out start poses from seed {report['first_seed']}",
            "",
            "| reward | success | trainings | against SFT | gap to env closed |",
            "| --- | --- | --- | --- | --- |",
        ]
        for name, part in report[key].items():
            if part is None:
                continue
            each = ", ".join(percent(one["rate"]) for one in part.get("by_seed", ()))
            gain = closed = ""
            if name != SFT:
                sure = f"({span(part['difference_ci95'], True)}), {p_value(part['p_vs_sft'])}"
                gain = f"{100 * part['difference']:+.1f} points {sure}"
                share = part["gap_closed"]
                closed = f"{percent(share['value'])} ({span(share['ci95'])})" if share else ""
            lines.append(f"| {name} | {percent(part['rate'])} ({span(part['ci95'])}) | {each} | {gain} | {closed} |")
        lines.append("")
    if report["missing"]:
        lines.append(f"not run: {', '.join(report['missing'])}")
    return "\n".join(lines)


def write_report(
    runs: Sequence[RefinedRun], found: Mapping[str, Outcomes], seeds: Sequence[int], out: Path
) -> dict[str, Any]:
    """Write ``ppo_report.json`` and ``ppo_report.html`` and return the content of the first."""
    from lrm_ros.training.ppo.page import page

    report = figures(runs, found, seeds)
    write_json(out / "ppo_report.json", report, allow_nan=False)
    write_text(out / "ppo_report.html", page(report, out.name))
    return report


def main(argv: list[str] | None = None) -> int:
    """Run ``lrm ppo report``."""
    parser = argparse.ArgumentParser(
        prog="lrm ppo report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="finished run folders of 'lrm ppo' from one policy")
    parser.add_argument("--out", required=True, type=Path, help="folder of the report and of what was measured")
    parser.add_argument("--episodes", type=whole(1), default=320, help="start poses (default 320)")
    parser.add_argument(
        "--first-seed", type=whole(0), default=0, help=f"keep those from {HELD_OUT.first} on for final results"
    )
    parser.add_argument("--worlds", type=whole(1), default=16, help="simulated worlds at once")
    parser.add_argument("--max-steps", type=whole(1), default=60, help="control steps an episode")
    args = parser.parse_args(argv)
    if args.episodes < 1:
        parser.error(f"--episodes must be at least 1, got {args.episodes}")
    try:
        runs = read_runs(args.runs)
        seeds = range(args.first_seed, args.first_seed + args.episodes)
        say = lambda line: print(line, flush=True)  # noqa: E731
        found = evaluate_all(runs, seeds, args.out / "evaluations", args.worlds, args.max_steps, say)
        report = write_report(runs, found, seeds, args.out)
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        parser.exit(exit_code(error), f"lrm ppo report: {error}\n")
    print(f"\n{table(report)}\n{args.out / 'ppo_report.html'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
