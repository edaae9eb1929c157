# SPDX-License-Identifier: Apache-2.0
"""Record demonstrations of the twin's scripted expert, or of a person who teleoperates: ``lrm collect``.

With --teleop it starts graph ``teleop``. The expert works in process, without nodes, and writes what the recorder
writes when the twin's expert acts: joint states, images, the whole command, and each command as sent. The simulator's
truth is not looked at: ``lrm judge`` says which episodes to keep. An interrupted collection goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.graph.graphs import nodes_of, parse_arguments
from lrm_ros.graph.runner import run_graph
from lrm_ros.options import number, whole
from lrm_ros.programs import INTERRUPTED
from lrm_ros.progress import progress_bar
from lrm_ros.record.writer import JournalWriter
from lrm_ros.seeds import held_out_warning
from lrm_ros.sim.twin.world import World
from lrm_ros.types import ActionChunk

EPISODES = 20  # start poses, where nothing else is said


def record_episode(
    world: World,
    targets: NDArray[np.float32],
    path: str | Path,
    disturbance_std: float = 0.0,
    rng: np.random.Generator | None = None,
    image_format: str = "png",
) -> Path:
    """Execute joint targets in a freshly reset world and write the journal.

    Args:
        world: a world just reset.
        targets: (T, D) absolute joint targets [rad], one a control step.
        path: the journal, ``FOLDER/NAME.mcap``.
        disturbance_std: noise on the executed targets of all joints but the gripper [rad]; what is recorded as sent
            is without it, as by the twin node.
        rng: source of the noise.
        image_format: ``"png"`` (exact), ``"jpeg"`` or ``"raw"``.

    Returns:
        The finished journal.
    """
    rng = rng or np.random.default_rng(0)
    writer = JournalWriter(path, world.instruction, world.contract, "expert", image_format)
    writer.command(ActionChunk(world.stamp_ns, targets, world.contract.dt_s))
    for target in targets:
        stamp_ns = world.stamp_ns
        writer.state(stamp_ns, world.state)
        writer.frame(world.frame())
        sent = world.limit(target)
        executed = sent.copy()
        executed[:-1] += rng.normal(0.0, disturbance_std, len(sent) - 1).astype(np.float32)
        writer.sent(stamp_ns, sent)
        world.step(executed)
    writer.state(world.stamp_ns, world.state)
    writer.frame(world.frame())
    return writer.finish()


def collect(
    out: str | Path, episodes: int, seed: int = 0, kind: str = "success", disturbance_std: float = 0.02
) -> dict[str, Any]:
    """Record episodes of a scripted behaviour; existing journals are kept.

    Args:
        out: folder of the journals, named ``KIND_SEED.mcap``.
        episodes: number of start poses.
        seed: seed of the first start pose; each next one is one higher.
        kind: ``"success"`` (the expert) or a way to fail (``lrm_ros.sim.twin.expert.KINDS``).
        disturbance_std: noise on the executed targets [rad].

    Returns:
        Figures: episodes recorded now, there before, out of reach, control steps, seconds.
    """
    from lrm_ros.robot.so100.kinematics import Unreachable
    from lrm_ros.sim.twin.expert import behaviour_targets

    out = Path(out)
    figures = {"recorded": 0, "there_before": 0, "out_of_reach": 0, "steps": 0}
    started = time.perf_counter()
    world: World | None = None
    with progress_bar(episodes, f"collect {kind}", "episode") as bar:
        for number in range(seed, seed + episodes):
            path = out / f"{kind}_{number:07d}.mcap"
            if path.exists():
                figures["there_before"] += 1
            else:
                world = world or World()
                world.reset(number)
                rng = np.random.default_rng((number, 1))
                try:
                    targets = behaviour_targets(world, kind, rng)
                except Unreachable:
                    figures["out_of_reach"] += 1
                else:
                    record_episode(world, targets, path, disturbance_std, rng)
                    figures["recorded"] += 1
                    figures["steps"] += len(targets)
            bar.update(1)
    if world is not None:
        world.close()
    return {**figures, "seconds": round(time.perf_counter() - started, 2), "folder": str(out)}


def _teleoperate(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Run graph ``teleop`` until the person or the number of episodes ends it; returns its exit code."""
    for name in ("kind", "disturbance", "json"):
        if getattr(arguments, name) != parser.get_default(name):
            parser.error(f"--{name} is for the scripted expert, not for a person")
    settings: dict[str, Any] = {"teleop.input": arguments.teleop, "recorder.folder": str(arguments.out)}
    settings |= {"teleop.episodes": arguments.episodes or 0, "teleop.seed": arguments.seed}
    try:
        nodes = nodes_of("teleop", {**settings, **parse_arguments(arguments.arguments)})
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    return run_graph(nodes, INTERRUPTED)


def main(argv: list[str] | None = None) -> int:
    """Run ``lrm collect``."""
    from lrm_ros.sim.twin.expert import KINDS

    parser = argparse.ArgumentParser(prog="lrm collect", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", required=True, help="folder of the journals; an interrupted collection resumes")
    parser.add_argument(
        "--episodes", type=whole(1), help="number of start poses (default: 20); of a person: end after so many"
    )
    parser.add_argument(
        "--teleop",
        metavar="INPUT",
        help="a person acts, by the keyboard and this: keyboard, so101_leader, gamepad, phone, or another of LeRobot's",
    )
    parser.add_argument(
        "arguments", nargs="*", metavar="key:=value", help="with --teleop: arguments as of 'lrm up teleop'"
    )
    parser.add_argument(
        "--seed", type=whole(0), default=0, help="seed of the first start pose; the next are one higher"
    )
    parser.add_argument("--kind", choices=KINDS, default="success", help="the expert, or a kind of failure")
    parser.add_argument("--disturbance", type=number(), default=0.02, help="noise on the executed targets [rad]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the metrics to this file")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.teleop:
        return _teleoperate(parser, arguments)
    if arguments.arguments:
        parser.error(f"'{arguments.arguments[0]}' is for the nodes of a teleoperation: give --teleop, too")
    arguments.episodes = arguments.episodes or EPISODES
    if warning := held_out_warning(arguments.seed, arguments.episodes):
        print(f"warning: {warning}", file=sys.stderr)
    figures = collect(arguments.out, arguments.episodes, arguments.seed, arguments.kind, arguments.disturbance)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(
        f"{arguments.out}: {figures['recorded']} episodes recorded in {figures['seconds']:.0f} s, "
        f"{figures['there_before']} recorded before, {figures['out_of_reach']} start poses out of the expert's reach"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
