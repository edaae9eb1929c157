# SPDX-License-Identifier: Apache-2.0
"""Open-loop evaluation of a reward model on rollouts, against the simulator's rewards: ``lrm reward openloop``.

Records trajectories of each policy in the twin (those on disk are kept), scores every frame, and computes the metrics
of the paper's Tables V and VI and Figure 2. Recordings, scores and metrics are in the layout of Large-Reward-Models, so
its scripts read them. With --scores it computes the metrics of existing score files, also upstream's.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lrm_ros.config_files import given_path, real_path
from lrm_ros.files import write_json, write_text
from lrm_ros.options import number, whole
from lrm_ros.programs import exit_code
from lrm_ros.seeds import HELD_OUT
from lrm_ros.training.report.stats import proportion
from lrm_ros.training.reward.eval.metrics import cumulative_accuracy, progress_metrics
from lrm_ros.training.reward.eval.openloop_page import page, text
from lrm_ros.training.reward.eval.trajectories.read import COMPARISON, ScoredTrajectory, read_scores
from lrm_ros.training.reward.eval.trajectories.score import (
    ANSWERS,
    MODES,
    Trajectory,
    progress_pairs,
    read_recording,
    score,
    video_mode,
)
from lrm_ros.training.reward.eval.trajectory_metrics import (
    FORMS,
    blind_predictions,
    compute_metrics,
    counts,
    no_change_pct,
    upstream_metrics,
)
from lrm_ros.types import VIDEO_HEADS

SCORES = "vlm_scores.json"
METRICS = "openloop_metrics.json"
REPORT = "openloop"


def metrics_of_scores(trajectories: Sequence[ScoredTrajectory], mode: str, rounds: int) -> dict[str, Any]:
    """Return both forms of the metrics of one score file, those of a blind baseline, and counts."""
    return {
        "counts": counts(trajectories),
        **{form: compute_metrics(trajectories, mode, form, rounds) for form in FORMS},
        "blind": compute_metrics(blind_predictions(trajectories, mode), mode, FORMS[1], rounds),
        "still_pct": no_change_pct(trajectories) if mode == COMPARISON else None,
    }


def analyse(folder: Path, trajectories: Sequence[Trajectory], files: Mapping[str, Any], rounds: int) -> dict[str, Any]:
    """Write scores and upstream's metrics of one policy and return its part of ``openloop.json``.

    Args:
        folder: of the policy's recording; each mode gets a folder in it.
        trajectories: recorded.
        files: mode -> content of its score file.
        rounds: of the bootstrap.
    """
    modes: dict[str, Any] = {}
    for mode, content in files.items():
        path = folder / mode / SCORES
        write_json(path, content, allow_nan=False)
        _, scored = read_scores([path])
        metrics = upstream_metrics(scored, mode, [str(path)])
        write_json(folder / mode / "metrics" / METRICS, metrics, indent=2, allow_nan=False)
        modes[mode] = metrics_of_scores(scored, mode, rounds)
    success = [bool(trajectory.summary["success_once"]) for trajectory in trajectories]
    part: dict[str, Any] = {"success": proportion(sum(success), len(success)), "modes": modes}
    pairs = progress_pairs(trajectories, files["progress"]) if "progress" in files else None
    if pairs is not None:
        actual, predicted, time = pairs.T
        constant = 0 * actual + actual.mean()
        part["progress"] = {"n": len(actual), **progress_metrics(actual, predicted)}
        part["figure_2"] = {
            name: cumulative_accuracy(actual, answer)
            for name, answer in (("model", predicted), ("constant", constant), ("time_index", time))
        }
    return part


def policy_name(policy: str) -> tuple[str, Path]:
    """Return name and folder of ``NAME=FOLDER`` or ``FOLDER``; the name of ``x/policy`` is ``x``."""
    name, equals, folder = policy.partition("=")
    path = given_path(folder if equals else policy)
    whole = real_path(path)
    return (name if equals else whole.parent.name if whole.name == "policy" else whole.name), path


def run_policies(args: argparse.Namespace) -> dict[str, Any]:
    """Record, score and analyse policies; returns the content of ``openloop.json``."""
    import torch

    from lrm_ros.checkpoint import policy_contract
    from lrm_ros.commit import source_commit
    from lrm_ros.config import RewardConfig
    from lrm_ros.progress import progress_bar
    from lrm_ros.reward.engine import RewardEngine
    from lrm_ros.training.reward.eval.trajectories.record import record

    if args.threads:
        torch.set_num_threads(args.threads)
    policies = [policy_name(policy) for policy in args.policy]
    names = [name for name, _ in policies]
    if len(set(names)) != len(names) or any(not name or "/" in name for name in names):
        raise ValueError(f"policies need different names, got {', '.join(names)}; give NAME=FOLDER")
    readout = "generate" if args.answers == "written" else "forward"
    mode = video_mode(args.modes) or "completion"
    engine = RewardEngine(RewardConfig(args.model, mode, readout=readout, device=args.device))
    seeds = range(args.first_seed, args.first_seed + args.episodes)
    recorded: dict[str, list[Trajectory]] = {}
    for name, checkpoint in policies:
        with progress_bar(len(seeds), f"record {name}", "ep") as bar:
            record(
                checkpoint, seeds, args.out / name, args.worlds, args.max_steps, noise_std=args.noise_std,
                noise_seed=args.noise_seed, processes=args.processes, progress=bar.update,
            )  # fmt: skip
        recorded[name] = read_recording(args.out / name, policy_contract(checkpoint).control_hz)
    parts: dict[str, Any] = {}
    for name, checkpoint in policies:
        trajectories = recorded[name]
        with progress_bar(sum(len(one.steps) for one in trajectories), f"score {name}", "frame") as bar:
            files = score(engine, trajectories, args.modes, args.interval, args.answers, bar.update)
        parts[name] = {"policy": str(checkpoint)} | analyse(args.out / name, trajectories, files, args.rounds)
    return {
        "model": args.model,
        "answers": args.answers,
        "interval": args.interval,
        "episodes": args.episodes,
        "first_seed": args.first_seed,
        "max_steps": args.max_steps,
        "worlds": args.worlds,
        "noise": {"std": args.noise_std, "seed": args.noise_seed},
        "bootstrap": {"rounds": args.rounds, "seed": 0},
        "policies": parts,
        "commit": source_commit(),
    }


def run_scores(paths: Sequence[Path], out: Path | None, rounds: int) -> dict[str, Any]:
    """Return the metrics of score files taken together as one set."""
    mode, scored = read_scores(paths)
    if out:
        metrics = upstream_metrics(scored, mode, list(map(str, paths)))
        write_json(out / METRICS, metrics, indent=2, allow_nan=False)
    success = [one.success for one in scored]
    part = {"success": proportion(sum(success), len(success)), "modes": {mode: metrics_of_scores(scored, mode, rounds)}}
    return {
        "model": "of the score files",
        "bootstrap": {"rounds": rounds, "seed": 0},
        "policies": {paths[0].parent.name or "scores": part},
        "scores": list(map(str, paths)),
    }


def main(argv: list[str] | None = None) -> int:
    """Run ``lrm reward openloop``."""
    parser = argparse.ArgumentParser(
        prog="lrm reward openloop", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--policy", action="append", metavar="[NAME=]FOLDER", help="a policy; give it once for each")
    what.add_argument("--scores", nargs="+", type=Path, metavar="FILE", help="only metrics, of these vlm_scores.json")
    parser.add_argument("--out", type=Path, help="folder of recordings, scores and metrics; an interrupted run resumes")
    parser.add_argument("--json", type=Path, help="write the metrics to this file, too")
    parser.add_argument("--model", default="tiny", help="'tiny', a folder or a Hugging Face name")
    parser.add_argument("--device", default="auto", help="torch device of the reward model")
    parser.add_argument(
        "--modes", nargs="+", choices=(*MODES, *VIDEO_HEADS), default=list(MODES),
        help=f"default: {' '.join(MODES)}; any other is asked alone, with its own weights as --model",
    )  # fmt: skip
    parser.add_argument("--interval", type=whole(1), default=1, help="score every K-th frame; official numbers: 1")
    parser.add_argument(
        "--answers", choices=ANSWERS, default="mean",
        help="mean: expectation of the answer (default); nearest: the answer next to it; written: text, as upstream's",
    )  # fmt: skip
    parser.add_argument("--episodes", type=whole(1), default=80, help="start poses (default 80, as in the paper)")
    parser.add_argument(
        "--first-seed", type=whole(0), default=0, help=f"keep those from {HELD_OUT.first} on for final results"
    )
    parser.add_argument("--max-steps", type=whole(1), default=60, help="control steps of every episode")
    parser.add_argument("--worlds", type=whole(1), default=8, help="simulated worlds at once")
    parser.add_argument("--processes", type=whole(1), help="worker processes of the worlds; default: one a core")
    parser.add_argument(
        "--noise-std", type=number(), default=0.0, help="standard deviation of the exploration noise [rad]"
    )
    parser.add_argument("--noise-seed", type=whole(0), default=0, help="seed of that noise")
    parser.add_argument("--rounds", type=whole(0), default=1000, help="bootstrap rounds")
    parser.add_argument("--threads", type=whole(1), help="torch threads (default: torch's)")
    args = parser.parse_args(argv)
    if args.policy and not args.out:
        parser.error("--policy needs --out, a folder for the recordings")
    try:
        report = run_policies(args) if args.policy else run_scores(args.scores, args.out, args.rounds)
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        parser.exit(exit_code(error), f"lrm reward openloop: {error}\n")
    for path in filter(None, (args.out and args.out / f"{REPORT}.json", args.json)):
        write_json(path, report, allow_nan=False)
    print(text(report))
    if args.out:
        write_text(args.out / f"{REPORT}.html", page(report))
        print(f"\n{args.out / REPORT}.html")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
