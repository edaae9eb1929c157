# SPDX-License-Identifier: Apache-2.0
"""Speed of one world in this process: control steps a second when a picture is rendered once a chunk."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from lrm_ros.options import whole
from lrm_ros.sim.twin.expert import expert_targets
from lrm_ros.sim.twin.world import World

CHUNK = 8


def measure(world: World, steps: int) -> dict[str, float]:
    """Run the expert, episode after episode, and time everything but its planning.

    Args:
        world: any state.
        steps: control steps to make at least.

    Returns:
        ``steps_per_s`` over all, and what a step, a picture and a reset take [ms].
    """
    spent = {"step": 0.0, "frame": 0.0, "reset": 0.0}
    times = dict.fromkeys(spent, 0)

    def timed(what: str, work, *arguments: object) -> None:  # type: ignore[no-untyped-def]
        begin = time.perf_counter()
        work(*arguments)
        spent[what] += time.perf_counter() - begin
        times[what] += 1

    while times["step"] < steps:
        timed("reset", world.reset, times["reset"])
        timed("frame", world.frame)
        for k, target in enumerate(expert_targets(world), start=1):
            timed("step", world.step, target)
            if k % CHUNK == 0:
                timed("frame", world.frame)
    return {
        "steps_per_s": times["step"] / sum(spent.values()),
        **{f"{what}_ms": 1e3 * spent[what] / times[what] for what in spent},
    }


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m lrm_ros.training.bench.world", description=__doc__)
    parser.add_argument("--steps", type=whole(1), default=1000, help="control steps (default 1000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the metrics to this file")
    options = parser.parse_args(argv)
    import torch

    torch.set_num_threads(1)
    world = World()
    measure(world, 1)  # the first pictures compile shaders
    figures = {key: round(value, 3) for key, value in measure(world, options.steps).items()}
    world.close()
    print(
        "in process: {steps_per_s:.0f} steps/s ({step_ms:.2f} ms a step, {frame_ms:.2f} ms a picture every "
        "{chunk} steps, {reset_ms:.2f} ms a reset)".format(chunk=CHUNK, **figures)
    )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
