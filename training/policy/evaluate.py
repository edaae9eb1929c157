# SPDX-License-Identifier: Apache-2.0
"""Evaluate a policy's success rate in the twin on fixed seeds: ``lrm evaluate``.

Through the nodes as on a robot, or with --worlds in many worlds at once without them. Success is the simulator's truth,
at any time in the episode. With a second result file the two policies are compared on the seeds they share (exact
McNemar test).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from lrm_ros.config import EvaluatorConfig, PolicyConfig
from lrm_ros.files import write_json
from lrm_ros.graph.graphs import nodes_of
from lrm_ros.graph.runner import run_graph
from lrm_ros.options import number, whole
from lrm_ros.private_domain import use_private_domain
from lrm_ros.programs import INTERRUPTED, exit_code
from lrm_ros.seeds import HELD_OUT
from lrm_ros.training.report.stats import paired, proportion


def main(argv: list[str] | None = None) -> int:
    """Run ``lrm evaluate``."""
    defaults = EvaluatorConfig()
    parser = argparse.ArgumentParser(prog="lrm evaluate", description="Measure a policy in the twin on fixed seeds.")
    parser.add_argument("checkpoint", help="folder of the policy")
    parser.add_argument("--episodes", type=whole(1), default=defaults.episodes)
    parser.add_argument(
        "--first-seed", type=whole(0), default=0, help=f"keep those from {HELD_OUT.first} on for final results"
    )
    parser.add_argument("--max-steps", type=whole(1), default=defaults.max_steps, help="control steps an episode")
    parser.add_argument(
        "--execute-steps",
        type=whole(1),
        default=PolicyConfig.execute_steps,
        help="actions executed of every chunk, as the policy was refined with (default %(default)s)",
    )
    parser.add_argument(
        "--units",
        choices=("", "rad"),
        default=PolicyConfig.units,
        help="'rad': the joints of a checkpoint without a robot contract are the twin's, in its order, in rad",
    )
    parser.add_argument(
        "--json",
        type=Path,
        help="result file (default: CHECKPOINT.evaluation.json); through the nodes resumed if cut short",
    )
    parser.add_argument("--against", type=Path, metavar="FILE", help="result file of another policy to compare with")
    parser.add_argument(
        "--worlds", type=whole(0), default=0, help="parallel worlds in this process instead of the nodes"
    )
    parser.add_argument("--noise-std", type=number(), default=0.0, help="with --worlds: exploration noise, std [rad]")
    parser.add_argument("--noise-seed", type=whole(0), default=0, help="with --worlds: seed of that noise")
    args = parser.parse_args(argv)
    if args.json is None:
        folder = Path(args.checkpoint)
        args.json = folder.with_name(folder.name + ".evaluation.json")
    if args.noise_std and not args.worlds:
        parser.error("--noise-std needs --worlds: through the nodes the policy plays without noise")
    if args.units and args.worlds:
        parser.error("--units is for the nodes: with --worlds the checkpoint needs a contract.json")
    if args.worlds:
        try:
            _evaluate_in_worlds(args)
        except (ValueError, FileNotFoundError, RuntimeError) as error:
            print(f"lrm evaluate: {error}", file=sys.stderr)
            return exit_code(error)
        return _print_result(args)
    use_private_domain()
    settings = {
        "evaluator.checkpoint": args.checkpoint,
        "policy.checkpoint": args.checkpoint,
        "policy.execute_steps": args.execute_steps,
        "policy.units": args.units,
        "file": str(args.json),
        "first_seed": args.first_seed,
        "evaluator.episodes": args.episodes,
        "evaluator.max_steps": args.max_steps,
    }
    code = run_graph(nodes_of("evaluate", settings), INTERRUPTED)
    return code if code != 0 else _print_result(args)


def _evaluate_in_worlds(args: argparse.Namespace) -> None:
    """Evaluate without the nodes and write the result file."""
    from lrm_ros.progress import progress_bar
    from lrm_ros.training.ppo.play import evaluate_in_worlds

    seeds = list(range(args.first_seed, args.first_seed + args.episodes))
    with progress_bar(len(seeds), "evaluate", "ep") as bar:
        found = evaluate_in_worlds(
            args.checkpoint,
            seeds,
            args.worlds,
            args.max_steps,
            args.execute_steps,
            noise_std=args.noise_std,
            noise_seed=args.noise_seed,
            progress=bar.update,
        )
    result = {
        "checkpoint": args.checkpoint,
        "max_steps": args.max_steps,
        "execute_steps": args.execute_steps,
        "worlds": args.worlds,
        "noise_std": args.noise_std,
        "noise_seed": args.noise_seed,
        "seeds": seeds,
        "success": [found[seed] for seed in seeds],
    }
    write_json(args.json, result, indent=None)


def _print_result(args: argparse.Namespace) -> int:
    """Print the result, and the comparison of --against."""
    result = json.loads(args.json.read_text(encoding="utf-8"))
    figures = proportion(sum(result["success"]), len(result["success"]))
    low, high = figures["ci95"]
    print(f"success {figures['rate']:.1%} ({figures['count']}/{figures['n']}), 95 % interval {low:.1%} to {high:.1%}")
    print(f"written to {args.json}")
    if args.against:
        try:
            other = {"execute_steps": PolicyConfig.execute_steps} | json.loads(args.against.read_text(encoding="utf-8"))
            for name in ("max_steps", "execute_steps", "noise_std"):
                if name in other and name in result and other[name] != result[name]:
                    raise ValueError(f"{name} is {other[name]} there and {result[name]} here; compare like evaluations")
            found = paired(*(dict(zip(r["seeds"], r["success"], strict=True)) for r in (result, other)))
        except (OSError, ValueError, KeyError) as error:
            print(f"lrm evaluate: '{args.against}': {error}", file=sys.stderr)
            return 2
        print(
            f"difference {100 * found['difference']:+.1f} points on {found['n']} shared seeds, "
            f"McNemar's p = {found['p']:.3f}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
