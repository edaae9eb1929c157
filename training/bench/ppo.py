# SPDX-License-Identifier: Apache-2.0
"""``lrm bench ppo``: seconds of an iteration of refinement and its stages, by number of worlds, and through the nodes.

Every measurement is a run of its own in a fresh process; the first iteration of each (pictures and caches are new)
does not count. In process and through the nodes take turns with the same settings, so that their ratio is of one time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lrm_ros.files import read_lines
from lrm_ros.options import whole
from lrm_ros.programs import exit_code

STAGES = ("worlds", "reward", "update")


def measure(arguments: Sequence[str], run: Path, nodes: bool, settings: Sequence[str]) -> list[dict[str, Any]]:
    """Run a refinement and return its history without the first iteration.

    Args:
        arguments: of both ways: name, value, name, value.
        run: new run folder.
        nodes: through the nodes (``lrm up sim_refine``) or in one process (``lrm ppo``).
        settings: ``NAME=VALUE``.

    Raises:
        RuntimeError: the run failed; with the end of its output.
    """
    pairs = [*zip(arguments[::2], arguments[1::2], strict=True), ("run", str(run))]
    if nodes:
        words = [f"{name}:={value}" for name, value in pairs] + [f"settings:={' '.join(settings)}"]
        command = [sys.executable, "-m", "lrm_ros.graph.runner", "sim_refine", *words]
    else:
        options = [word for name, value in pairs for word in (f"--{name}", value)]
        command = [
            sys.executable,
            "-m",
            "lrm_ros.training.ppo.command",
            *options,
            *(w for s in settings for w in ("--set", s)),
        ]
    # One thread for arithmetic in both: the graph gives each of its nodes one where cores are few.
    env = {"OMP_NUM_THREADS": "1", **os.environ}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise RuntimeError(f"'{' '.join(command[1:])}' ended with code {done.returncode}:\n{done.stdout[-2000:]}")
    return read_lines(run / "history.jsonl")[1:]


def summary(history: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return median seconds of an iteration, the share of each stage, and control steps a second."""
    seconds = np.array([line["seconds"]["all"] for line in history])
    total = {name: sum(line["seconds"][name] for line in history) for name in STAGES}
    return {
        "seconds_per_iteration": float(np.median(seconds)),
        "steps_per_s": sum(line["steps"] for line in history) / float(seconds.sum()),
        **{f"{name}_share": value / sum(total.values()) for name, value in total.items()},
    }


def linear_fit(worlds: Sequence[int], seconds: Sequence[float]) -> dict[str, float]:
    """Return the least-squares line of seconds over worlds and how much of their variance it explains (R^2)."""
    from scipy.stats import linregress

    line = linregress(worlds, seconds)
    return {
        "seconds_per_world": float(line.slope), "constant_s": float(line.intercept), "r2": float(line.rvalue**2),
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="lrm bench ppo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, help="folder of the policy to refine; it is not changed")
    parser.add_argument("--config", default="config/ppo_twin.yaml", help="YAML file of settings")
    parser.add_argument("--reward", default="tri", help="which reward (default: tri)")
    parser.add_argument("--worlds", type=whole(1), nargs="+", default=[4, 8, 16, 32], help="numbers of worlds")
    parser.add_argument("--steps", type=whole(1), default=80, help="control steps of each world in an iteration")
    parser.add_argument(
        "--iterations", type=whole(1), default=4, help="iterations of a run, of which the first is left out"
    )
    parser.add_argument(
        "--rounds", type=whole(0), default=2, help="rounds of in process and through the nodes; 0: neither"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the metrics to this file")
    args = parser.parse_args(argv)
    if args.iterations < 2 or min(args.worlds) < 1:
        parser.error("give at least 2 iterations and 1 world")
    arguments = ["checkpoint", args.checkpoint, "config", args.config, "reward", args.reward]
    settings = [f"steps={args.steps}", f"iterations={args.iterations}", "group=1"]
    figures: dict[str, Any] = {"in_process": {}, "reward": args.reward, "steps": args.steps}
    try:
        with tempfile.TemporaryDirectory(prefix="lrm_bench_") as folder:
            for count in args.worlds:
                found = summary(measure(arguments, Path(folder) / f"w{count}", False, [*settings, f"worlds={count}"]))
                figures["in_process"][count] = found
                print(f"{count:3d} worlds: {_text(found)}", flush=True)
            most = max(args.worlds)
            turns: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
            for turn in range(args.rounds):
                for nodes, own in turns.items():
                    run = Path(folder) / f"turn{turn}_{nodes}"
                    own += measure(arguments, run, nodes, [*settings, f"worlds={most}"])
    except RuntimeError as error:
        parser.exit(exit_code(error), f"lrm bench ppo: {error}\n")
    if len(set(args.worlds)) > 2:
        seconds = [figures["in_process"][count]["seconds_per_iteration"] for count in args.worlds]
        figures["line"] = linear_fit(args.worlds, seconds)
        print(
            "{seconds_per_world:.3f} s a world and {constant_s:.2f} s besides; R^2 {r2:.4f}".format(**figures["line"])
        )
    if args.rounds:
        alone, through = summary(turns[False]), summary(turns[True])
        figures["turns"] = {"worlds": most, "in_process": alone, "nodes": through}
        figures["turns"]["ratio"] = through["steps_per_s"] / alone["steps_per_s"]
        print(f"{most:3d} worlds in process:        {_text(alone)}")
        print(f"{most:3d} worlds through the nodes: {_text(through)}: {figures['turns']['ratio']:.2f} of it")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def _text(found: dict[str, float]) -> str:
    shares = ", ".join(f"{name} {100 * found[f'{name}_share']:.0f} %" for name in STAGES)
    return f"{found['seconds_per_iteration']:.2f} s an iteration, {found['steps_per_s']:.0f} steps/s ({shares})"


if __name__ == "__main__":
    raise SystemExit(main())
