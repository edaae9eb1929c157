# SPDX-License-Identifier: Apache-2.0
"""Labelled frames for the reward model: expert episodes and failures of every kind, with exact labels.

Labels come from the simulator's state: ``progress`` in [0, 1] and ``success``. The seed fixes scenes and behaviours;
contacts may end differently in the details (see ``World.reset``). No other purpose has the default seeds
(``lrm_ros.seeds``).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from lrm_ros import seeds
from lrm_ros.files import claim_folder, replacing
from lrm_ros.options import whole
from lrm_ros.programs import exit_code
from lrm_ros.robot.so100.kinematics import Unreachable
from lrm_ros.sim.instructions import instructions_json, joined_labels
from lrm_ros.sim.twin.expert import KINDS, behaviour_targets, random_walk
from lrm_ros.sim.twin.world import World

SHARD = 100  # episodes a file
_WEIGHTS = {"success": 4.0, "reversed": 1.5, "beside": 1.5, "held": 1.0, "missed": 1.5}


def record_episode(world: World, kind: str, seed: int, stride: int) -> dict[str, np.ndarray] | None:
    """Run one behaviour and return frames with labels, or None if it was out of the arm's reach.

    Args:
        world: the simulated world.
        kind: one of ``lrm_ros.sim.twin.expert.KINDS``, in ``SortToys-v1`` also of its ``MISTAKES``.
        seed: fixes the scene and the behaviour.
        stride: keep every this-many-th control step.

    Returns:
        frames (T, H, W, 3), progress (T,), success (T,), t (T,) the control step, and labels (T, K, 2): progress and
        done of the K ``instructions`` of the task (``lrm_ros.sim.instructions``).
    """
    rng = np.random.default_rng(seed)
    world.reset(seed)
    try:
        targets = behaviour_targets(world, kind, rng)
    except Unreachable:
        return None
    if rng.uniform() < 0.5:  # the motion afterwards must not be a cue of the outcome
        targets = np.concatenate([targets, random_walk(targets[-1], rng, steps=int(rng.integers(4, 14)))])
    noise = rng.uniform(0.0, 0.04)
    frames, progress, success, times, labels = [], [], [], [], []
    phase = int(rng.integers(stride))
    for t, target in enumerate(targets):
        if t % stride == phase or t == len(targets) - 1:
            frames.append(world.frame().image)
            progress.append(world.task_env.progress)
            success.append(world.succeeded)
            times.append(t)
            labels.append(world.task_env.labels())
        world.step(target + np.append(rng.normal(0, noise, 5), 0.0).astype(np.float32))
    return {
        "frames": np.stack(frames),
        "progress": np.array(progress, dtype=np.float32),
        "success": np.array(success, dtype=np.uint8),
        "t": np.array(times, dtype=np.int32),
        "labels": np.array(labels, dtype=np.float16),
    }


def generate(out: Path, episodes: int, seed: int = seeds.GENERATED.first, stride: int = 2) -> int:
    """Write shards of labelled episodes; finished shards are kept when it is run again.

    Returns:
        Number of frames written.

    Raises:
        ValueError: the folder holds shards of other settings.
    """
    settings = {"source": "twin", "episodes": episodes, "seed": seed, "stride": stride}
    claim_folder(out, settings, "*.npz", "shards")
    world, written, start = World(), 0, time.monotonic()
    kinds = np.array(KINDS)
    weights = np.array([_WEIGHTS.get(kind, 1.0) for kind in KINDS])
    for first in range(0, episodes, SHARD):
        path = out / f"shard_{first // SHARD:04d}.npz"
        if path.exists():
            continue
        rows: list[dict[str, np.ndarray]] = []
        tasks: list[str] = []
        for index in range(first, min(first + SHARD, episodes)):
            kind = str(np.random.default_rng([seed, index]).choice(kinds, p=weights / weights.sum()))
            row = record_episode(world, kind, seed + index, stride)
            if row is None:
                continue
            count = len(row["frames"])
            row["episode"] = np.full(count, index, dtype=np.int32)
            row["kind"] = np.full(count, KINDS.index(kind), dtype=np.int8)
            rows.append(row)
            instructions = instructions_json(world.task_env.instructions)
            about = {"episode": index, "task": world.instruction, "kind": kind, "instructions": instructions}
            tasks.append(json.dumps(about))
        merged = {key: np.concatenate([row[key] for row in rows]) for key in rows[0] if key != "labels"}
        merged["labels"] = joined_labels([row["labels"] for row in rows])
        with replacing(path) as stream:
            np.savez(stream, allow_pickle=False, tasks=np.array(tasks), **merged)
        written += len(merged["frames"])
        print(f"{path.name}: {written} frames, {time.monotonic() - start:.0f} s", flush=True)
    return written


def main(argv: list[str] | None = None) -> int:
    """Command line: ``python -m lrm_ros.sim.twin.generate --out DIR --episodes N``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder for the shards")
    parser.add_argument("--episodes", type=whole(1), default=1500)
    parser.add_argument(
        "--seed", type=whole(0), default=seeds.GENERATED.first, help="of the first episode (default %(default)s)"
    )
    parser.add_argument("--stride", type=whole(1), default=2, help="keep every N-th control step")
    args = parser.parse_args(argv)
    if warning := seeds.held_out_warning(args.seed, args.episodes):
        print(f"warning: {warning}", file=sys.stderr)
    try:
        generate(args.out, args.episodes, args.seed, args.stride)
    except ValueError as error:
        parser.exit(exit_code(error), f"lrm_ros.sim.twin.generate: {error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
