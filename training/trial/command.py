# SPDX-License-Identifier: Apache-2.0
"""Compare policies blindly before a person, against the nodes of a running graph: ``lrm trial``.

First, in another terminal: lrm up trial (the twin), or lrm up trial sim:=false contract:=FILE (the arm). The order of
the policies is shuffled within each start and told to nobody. The person puts the scene in place where asked, and says
of each trial whether it was a success, by key or by the services of node 'trial'. Every answer is kept at once: stopped
or killed, on another day, the same command goes on. The completion head judges every trial, too; what it said is shown
at the end.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lrm_ros.config_person import TrialConfig
from lrm_ros.files import write_json
from lrm_ros.graph.graphs import NodeSpec
from lrm_ros.graph.runner import run_graph
from lrm_ros.options import number, whole
from lrm_ros.programs import INTERRUPTED, exit_code
from lrm_ros.training.trial.page import table
from lrm_ros.training.trial.report import PRECISION, write_report


def main(argv: list[str] | None = None) -> int:
    """Run ``lrm trial``."""
    defaults = TrialConfig()
    parser = argparse.ArgumentParser(
        prog="lrm trial", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("policies", nargs="*", help="folders of two or more policies; none: only the report")
    parser.add_argument("--task", default=defaults.task, help="instruction, where no other node publishes it (arm)")
    parser.add_argument("--out", type=Path, default=Path(defaults.run), help="folder of the answers and the report")
    parser.add_argument("--starts", type=whole(1), default=defaults.starts, help="trials of each policy")
    parser.add_argument("--other-starts", action="store_true", help="every policy meets starts of its own")
    parser.add_argument("--seconds", type=number(above=True), default=defaults.seconds, help="time cap of a trial [s]")
    parser.add_argument("--first-seed", type=whole(0), default=defaults.first_seed, help="twin: the first seed")
    parser.add_argument("--contract", default="", metavar="FILE", help="robot contract, as the graph's")
    parser.add_argument("--model", default=defaults.model, help="reward model of the judge")
    parser.add_argument(
        "--camera", default=defaults.judge_camera, help="whose frames the judge looks at; several: front,wrist"
    )
    parser.add_argument("--threshold", type=number(), default=defaults.judge_threshold, help="of the judge")
    parser.add_argument("--precision", type=number(above=True), default=PRECISION, help="wanted of the judge, 0 to 1")
    parser.add_argument("--ns", default="", help="namespace of the graph")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report to this file, too")
    args = parser.parse_args(argv)
    if args.precision > 1 or args.threshold > 1:
        parser.error("--precision and --threshold are shares, from 0 to 1")
    if args.policies:
        code = run_graph(_nodes(args), INTERRUPTED)
        if code:  # no figures: who goes on tomorrow is not to know who is ahead
            print(f"what is answered is kept in '{args.out}': the same command goes on", file=sys.stderr)
            return code
    try:
        report = write_report(args.out, args.precision)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code(error)
    if args.json:
        write_json(args.json, report, allow_nan=False)
    print(f"{table(report)}\n\nreport: {args.out / 'report.html'}")
    return 0


def _nodes(args: argparse.Namespace) -> list[NodeSpec]:
    """Return the two nodes of the comparison: it, and the person's keys."""
    given = {
        "policies": tuple(args.policies),
        "task": args.task,
        "run": str(args.out),
        "starts": args.starts,
        "same_starts": not args.other_starts,
        "seconds": args.seconds,
        "first_seed": args.first_seed,
        "model": args.model,
        "judge_camera": args.camera,
        "judge_threshold": args.threshold,
        **({"contract": args.contract} if args.contract else {}),
    }
    space = f"/{args.ns.strip('/')}" if args.ns else ""
    return [
        NodeSpec("trial", "trial", given, ends_graph=True, namespace=space),
        NodeSpec("answer", "answer", foreground=True, namespace=space),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
