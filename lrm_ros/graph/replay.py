# SPDX-License-Identifier: Apache-2.0
"""Replay a recorded episode on the arm or in the twin: ``lrm replay EPISODE``."""

from __future__ import annotations

import argparse

from lrm_ros.graph.graphs import nodes_of, parse_arguments
from lrm_ros.graph.runner import run_graph
from lrm_ros.programs import INTERRUPTED


def main(argv: list[str] | None = None) -> int:
    """Run ``lrm replay``."""
    parser = argparse.ArgumentParser(prog="lrm replay", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("episode", help="a journal of the recorder, FILE.mcap")
    parser.add_argument(
        "arguments", nargs="*", metavar="key:=value", help="as of 'lrm up', e.g. sim:=false contract:=FILE"
    )
    arguments = parser.parse_intermixed_args(argv)
    try:
        nodes = nodes_of("replay", {"replay.episode": arguments.episode, **parse_arguments(arguments.arguments)})
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    return run_graph(nodes, INTERRUPTED)


if __name__ == "__main__":
    raise SystemExit(main())
