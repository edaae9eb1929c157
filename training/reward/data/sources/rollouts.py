# SPDX-License-Identifier: Apache-2.0
"""Rollouts of scripted behaviours, simulated when they are opened: frames in memory, labels from the state."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.robot.so100.kinematics import Unreachable
from lrm_ros.sim.behaviour import KINDS, ExpertWorld, behave
from lrm_ros.sim.instructions import Labelled
from lrm_ros.sim.seen import Seen, cells_of
from lrm_ros.training.reward.data.sources.episode import BadEpisode, Entry, SourceEpisode, array_reader

SHUFFLED = "shuffled"  # kind of an episode without motion, in which everything is somewhere else in each picture
MIN_FRAMES = 8  # frames
MAX_START_PROGRESS = 0.3  # of a usable episode
MAX_RANDOM_GAIN = 0.1  # of progress at the end of random motion


def draw_kind(source: str, seed: int, kinds: tuple[str, ...] = KINDS) -> str:
    """Return ``"success"`` for half of the episodes, else one of the other kinds, all equally likely."""
    rng = np.random.default_rng([seed, zlib.crc32(source.encode())])
    if rng.uniform() < 0.5:
        return "success"
    return str(rng.choice([kind for kind in kinds if kind != "success"]))


def labelled_episode(
    source: str,
    episode_id: str,
    task: str,
    fps: float,
    kind: str,
    frames: NDArray[np.uint8],
    progress: NDArray[np.float32],
    done: NDArray[np.bool_],
    keep: float = 1.0,
    asked: Labelled | None = None,
    seen: Seen | None = None,
) -> SourceEpisode:
    """Return a rollout as an episode of a source.

    Random motion is cut where it was last as far from the goal as at the start. An expert that failed is of kind
    ``"failed"``.

    Args:
        source: name of the source.
        episode_id: unique in the source.
        task: the instruction.
        fps: frames a second.
        kind: the behaviour.
        frames: (T, H, W, 3) RGB.
        progress: (T,) in [0, 1].
        done: (T,) whether the task is done.
        keep: share of the frames that were kept.
        asked: other instructions for the scene, with their labels.
        seen: what is seen where.

    Raises:
        BadEpisode: a failure that succeeded by chance, or too few frames.
    """
    if kind == "random":
        end = int(np.flatnonzero(progress <= progress[0] + MAX_RANDOM_GAIN)[-1]) + 1
        frames, progress, done = frames[:end], progress[:end], done[:end]
        asked = asked and Labelled(asked.instructions, asked.labels[:end])
        seen = seen and Seen(seen.things, seen.cells[:end], seen.where[:end])
    success = bool(done[-1])
    if kind == "success" and not success:
        kind = "failed"
    if kind not in ("success", "failed", SHUFFLED) and success:
        raise BadEpisode(f"{kind} motion that succeeded")
    if len(frames) < MIN_FRAMES * keep:
        raise BadEpisode(f"fewer than {MIN_FRAMES} frames")
    return SourceEpisode(
        source=source,
        episode_id=episode_id,
        task=task,
        fps=fps,
        length=len(frames),
        read=array_reader(frames),
        success=success,
        kind=kind,
        progress=progress,
        done=done,
        asked=asked,
        seen=seen,
    )


def rollout_entries(
    source: str,
    build: Callable[[], ExpertWorld],
    episodes: int,
    seed: int,
    stride: int,
    keep: float = 1.0,
    kind: str = "",
) -> Iterator[Entry]:
    """Yield entries that simulate one episode each; the world is built when the first of them is opened.

    Args:
        source: name of the source.
        build: makes the world.
        episodes: how many; their seeds, which are their ids, are ``seed``, ``seed + 1``, ...
        seed: first seed, >= 0.
        stride: control steps from one frame to the next.
        keep: share of these frames to keep, drawn from the seed; the first always. Neighbours look nearly the same: a
            third of the frames of three times the episodes are better training data.
        kind: the behaviour of all episodes, of ``lrm_ros.sim.behaviour.KINDS``; empty: drawn from each seed.

    Raises:
        ValueError: ``episodes`` or ``seed`` is negative, ``stride`` is below 1, ``keep`` is not in (0, 1], or the kind
            is unknown.
    """
    if episodes < 0 or seed < 0 or stride < 1:
        raise ValueError(f"episodes {episodes} and seed {seed} must be >= 0 and stride {stride} >= 1")
    if not 0 < keep <= 1:
        raise ValueError(f"share of frames to keep must be in (0, 1], got {keep}")
    if kind and kind not in KINDS:
        raise ValueError(f"no behaviour '{kind}'; there are: {', '.join(KINDS)}")
    world = functools.cache(build)
    for number in range(seed, seed + episodes):
        yield Entry(source, str(number), functools.partial(_play, source, world, number, stride, keep, kind))


def _play(
    source: str, build: Callable[[], ExpertWorld], seed: int, stride: int, keep: float, kind: str
) -> SourceEpisode:
    """Simulate the episode of a seed.

    Raises:
        BadEpisode: nearly done at the start, out of the arm's reach, too short, or a failure that succeeded.
    """
    world = build()
    rng, kept = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 4])
    kind = kind or draw_kind(source, seed)
    world.reset(seed)
    pictures = [picture_of(world)]
    if pictures[0]["progress"] > MAX_START_PROGRESS:
        raise BadEpisode("nearly done at the start")
    try:
        for step, _ in enumerate(behave(world, kind, rng), start=1):
            if step % stride == 0 and kept.uniform() < keep:
                pictures.append(picture_of(world))
    except Unreachable as error:
        raise BadEpisode("out of the arm's reach") from error
    if kind == "reversed":
        if not pictures[-1]["done"]:
            raise BadEpisode("the expert failed, nothing to reverse")
        pictures = pictures[::-1]
    return episode_of(source, seed, world, kind, pictures, world.fps / stride * keep, keep)


def picture_of(world: ExpertWorld) -> dict[str, Any]:
    """Render a world now; returns the picture and its labels."""
    things = world.things()
    names, ids, movable = zip(*things, strict=True) if things else ((), (), ())
    return {
        "image": world.image(),
        "progress": world.progress,
        "done": world.done,
        "labels": world.labels(),
        "cells": cells_of(world.segmentation(), ids, movable) if names else None,
        "where": world.where(),
    }


def episode_of(
    source: str, seed: int, world: ExpertWorld, kind: str, pictures: list[dict[str, Any]], fps: float, keep: float
) -> SourceEpisode:
    """Return pictures by :func:`picture_of` as an episode; see :func:`labelled_episode`."""
    columns = {name: [one[name] for one in pictures] for name in pictures[0]}
    texts, things = Labelled(world.instructions, np.array(columns["labels"], np.float32)), world.things()
    seen = None
    if things:
        where = np.array(columns["where"], np.uint8)
        seen = Seen(tuple(name for name, _, _ in things), np.stack(columns["cells"]), where)
    progress, done = np.array(columns["progress"], np.float32), np.array(columns["done"], bool)
    about = (source, str(seed), world.instruction, fps, kind, np.stack(columns["image"]), progress, done)
    return labelled_episode(*about, keep, texts, seen)
