# SPDX-License-Identifier: Apache-2.0
"""The demo: the whole self-improvement loop in the twin, through the real nodes, with a report at the end.

``make demo`` runs it in full, ``make demo QUICK=1`` with smaller numbers and the same code. An interrupted demo goes
on where it was; ``--fresh`` starts anew.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

from lrm_ros.environment import import_fault
from lrm_ros.graph.graphs import nodes_of
from lrm_ros.graph.runner import run_graph
from lrm_ros.options import whole
from lrm_ros.private_domain import use_private_domain
from lrm_ros.programs import INTERRUPTED
from lrm_ros.seeds import QUICK_DEMO

# Small enough for five minutes on two CPU cores; too small to show an improvement.
QUICK = {
    "iterations": 1,
    "demonstrations": 10,
    "episodes": 8,
    "tries": 2,
    "sft_steps": 400,
    "finetune_steps": 100,
    "eval_episodes": 10,
    "eval_seed": QUICK_DEMO.first,  # the held-out seeds are for the real run
}


def main(argv: list[str] | None = None) -> int:
    """Run the demo; returns the graph's exit code."""
    parser = argparse.ArgumentParser(prog="python -m lrm_ros.training.demo", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller numbers, same code: under five minutes")
    parser.add_argument("--fresh", action="store_true", help="delete an earlier run first")
    parser.add_argument("--run", type=Path, help="run folder (default runs/demo, with --quick runs/demo_quick)")
    parser.add_argument("--seed", type=whole(0), default=0)
    args = parser.parse_args(argv)
    run = args.run or Path("runs/demo_quick" if args.quick else "runs/demo")
    if wrong := import_fault():
        print(f"error: {wrong}", file=sys.stderr)
        return 2
    if args.fresh and run.exists():
        shutil.rmtree(run)
    use_private_domain()
    settings = {"run": str(run), "improver.seed": args.seed, **(QUICK if args.quick else {})}
    started = time.monotonic()
    code = run_graph(nodes_of("self_improve", settings), INTERRUPTED, log=run / "nodes.log", show={"improver"})
    if code == INTERRUPTED:
        print(f"the demo was interrupted; start it again to go on, all output is in {run / 'nodes.log'}")
        return code
    if code != 0:
        print(f"the demo stopped with code {code}; all output is in {run / 'nodes.log'}")
        return code
    from lrm_ros.training.report import command as report

    code = report.main([str(run)])
    print(f"{time.monotonic() - started:.0f} s in all")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
