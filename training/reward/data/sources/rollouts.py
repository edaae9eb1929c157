# SPDX-License-Identifier: Apache-2.0
"""Rollouts of scripted behaviours, simulated when they are opened: frames in memory, labels from the state."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from lrm_ros.robot.so100.kinematics import Unreachable
from lrm_ros.sim.behaviour import KINDS, ExpertWorld, behave
from lrm_ros.sim.instructions import Labelled
from lrm_ros.training.reward.data.sources.episode import BadEpisode, Entry, SourceEpisode, array_reader

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

    Raises:
        BadEpisode: a failure that succeeded by chance, or too few frames.
    """
    if kind == "random":
        end = int(np.flatnonzero(progress <= progress[0] + MAX_RANDOM_GAIN)[-1]) + 1
        frames, progress, done = frames[:end], progress[:end], done[:end]
        asked = asked and Labelled(asked.instructions, asked.labels[:end])
    success = bool(done[-1])
    if kind == "success" and not success:
        kind = "failed"
    if kind not in ("success", "failed") and success:
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
    frames, progress, done, asked = [world.image()], [world.progress], [world.done], [world.labels()]
    if progress[0] > MAX_START_PROGRESS:
        raise BadEpisode("nearly done at the start")
    try:
        for step, _ in enumerate(behave(world, kind, rng), start=1):
            if step % stride == 0 and kept.uniform() < keep:
                frames.append(world.image())
                progress.append(world.progress)
                done.append(world.done)
                asked.append(world.labels())
    except Unreachable as error:
        raise BadEpisode("out of the arm's reach") from error
    images, labels, ends = np.stack(frames), np.array(progress, np.float32), np.array(done, bool)
    texts = Labelled(world.instructions, np.array(asked, np.float32))
    if kind == "reversed":
        if not ends[-1]:
            raise BadEpisode("the expert failed, nothing to reverse")
        images, labels, ends = images[::-1], labels[::-1], ends[::-1]
        texts = Labelled(texts.instructions, texts.labels[::-1])
    fps = world.fps / stride * keep
    return labelled_episode(source, str(seed), world.instruction, fps, kind, images, labels, ends, keep, texts)
