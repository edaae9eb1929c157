# SPDX-License-Identifier: Apache-2.0
"""Labelled frames for the reward model: expert episodes and failures of every kind, with exact labels.

Labels come from the simulator's state: ``progress`` in [0, 1] and ``success``. The seed fixes scenes and behaviours;
contacts may end differently in the details (see ``World.reset``). No other purpose has the default seeds
(``lrm_ros.seeds``).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from lrm_ros import seeds
from lrm_ros.files import claim_folder, replacing
from lrm_ros.options import whole
from lrm_ros.programs import exit_code
from lrm_ros.robot.so100.kinematics import Unreachable
from lrm_ros.sim.instructions import instructions_json, joined_labels
from lrm_ros.sim.seen import cells_of
from lrm_ros.sim.twin.expert import (
    GRIPPER_CLOSED,
    GRIPPER_OPEN,
    KINDS,
    Waypoint,
    behaviour_targets,
    joint_targets,
    random_walk,
)
from lrm_ros.sim.twin.world import World

SHARD = 100  # episodes a file
SHUFFLED = 8  # pictures of a shuffled scene
_SETTLE = 8  # control steps until what was put somewhere lies still
_WEIGHTS = {"success": 4.0, "reversed": 1.5, "beside": 1.5, "held": 1.0, "missed": 1.5}


def record_episode(world: World, kind: str, seed: int, stride: int) -> dict[str, np.ndarray] | None:
    """Run one behaviour and return frames with labels, or None if it was out of the arm's reach.

    Args:
        world: the simulated world.
        kind: one of ``lrm_ros.sim.twin.expert.KINDS``, in ``SortToys-v1`` also of its ``MISTAKES``.
        seed: fixes the scene and the behaviour.
        stride: keep every this-many-th control step.

    Returns:
        frames (T, H, W, 3), progress (T,), success (T,), t (T,) the control step, labels (T, K, 2): progress and done
        of the K ``instructions`` of the task (``lrm_ros.sim.instructions``), and cells and where of its ``things``
        (``lrm_ros.sim.seen``).
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
    pictures: list[dict[str, Any]] = []
    phase = int(rng.integers(stride))
    for t, target in enumerate(targets):
        if t % stride == phase or t == len(targets) - 1:
            pictures.append(_picture(world, t))
        world.step(target + np.append(rng.normal(0, noise, 5), 0.0).astype(np.float32))
    return _joined(pictures)


def record_shuffled(world: World, seed: int, pictures: int = SHUFFLED) -> dict[str, np.ndarray]:
    """Return pictures of one scene in which toys and arm are somewhere else each time, as :func:`record_episode` does.

    What may lie in what is then as varied as the scenes, not as the ways in which the expert fails.

    Args:
        world: the simulated world, of ``SortToys-v1``.
        seed: fixes the scene and where everything is put.
        pictures: how many.
    """
    rng = np.random.default_rng([seed, 1])
    world.reset(seed)
    rest, found = world.state, []
    for t in range(pictures):
        world.task_env.shuffle(rng)
        world.place_arm(_somewhere(world, rest, rng))
        for _ in range(_SETTLE):
            world.step(world.state)
        found.append(_picture(world, t))
    return _joined(found)


def _somewhere(world: World, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw joints (6,) [rad]: above a toy or a vessel, as after a random motion, or at rest."""
    lot = rng.uniform()
    if lot < 0.5:
        things = world.task_env.middles()
        over = things[int(rng.integers(len(things)))] + rng.uniform([-0.03, -0.03, 0.06], [0.03, 0.03, 0.14])
        gripper = float(rng.choice([GRIPPER_OPEN, GRIPPER_CLOSED]))
        try:
            return joint_targets(world, [Waypoint(over, math.pi / 2, gripper)])[-1]
        except Unreachable:
            pass
    return random_walk(rest, rng, steps=30)[-1] if lot < 0.8 else rest


def _picture(world: World, t: int) -> dict[str, Any]:
    """Render now; returns what a shard has of a picture."""
    env = world.task_env
    _, ids, movable = zip(*env.things(), strict=True)
    return {
        "frames": world.frame().image,
        "progress": np.float32(env.progress),
        "success": np.uint8(world.succeeded),
        "t": np.int32(t),
        "labels": np.array(env.labels(), np.float16),
        "cells": cells_of(world.segmentation(), ids, movable),
        "where": np.array(env.where(), np.uint8),
    }


def _joined(pictures: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    return {name: np.stack([one[name] for one in pictures]) for name in pictures[0]}


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
            things = [name for name, _, _ in world.task_env.things()]
            about = {"episode": index, "task": world.instruction, "kind": kind, "things": things}
            tasks.append(json.dumps(about | {"instructions": instructions}))
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
