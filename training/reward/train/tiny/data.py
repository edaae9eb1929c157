# SPDX-License-Identifier: Apache-2.0
"""Labelled frames of generated sources for the tiny reward model: loading, splits, sampling, augmentation, targets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lrm_ros.sim.instructions import Instruction, fixed_labels, instructions_of, joined_labels
from lrm_ros.sim.seen import Seen, joined_seen, nothing_seen
from lrm_ros.training.reward.eval.blind import blind_images, blind_task

VAL_EVERY = 10  # every tenth episode is for validation
MAX_SHIFT = 3  # largest random shift of an image [pixels]
TWIN = "twin"
TWIN_SHARE = 0.30  # of the sampled frames, where there are other sources: the demo's task


@dataclass(frozen=True)
class Frames:
    """Frames with labels from the simulator's state.

    Attributes:
        images: (N, H, W, 3) uint8 RGB.
        progress: (N,) float32 in [0, 1].
        success: (N,) bool, the task is done (and has been for some steps).
        episode: (N,) int, which episode.
        kind: (N,) int, which behaviour.
        source: (N,) int, index into ``sources``.
        sources: names of the sources.
        tasks: language instruction of each episode.
        instructions: what could be asked of each episode's scene, its own instruction first.
        labels: (N, K, 2) float16, progress and done of each of them; NaN: not known, or no such instruction.
        things: names of the things of each episode; empty: where they are is not known (``lrm_ros.sim.seen``).
        cells: (N, SIDE, SIDE) uint8, which of them is at each place.
        where: (N, M) uint8, what each of them is on or in.
    """

    images: NDArray[np.uint8]
    progress: NDArray[np.float32]
    success: NDArray[np.bool_]
    episode: NDArray[np.int64]
    kind: NDArray[np.int64]
    source: NDArray[np.int64]
    sources: tuple[str, ...]
    tasks: dict[int, str]
    instructions: dict[int, tuple[Instruction, ...]]
    labels: NDArray[np.float16]
    things: dict[int, tuple[str, ...]]
    cells: NDArray[np.uint8]
    where: NDArray[np.uint8]

    def select(self, rows: NDArray) -> Frames:
        """Return some of the frames."""
        names = ("images", "progress", "success", "episode", "kind", "source", "labels", "cells", "where")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    @property
    def visible(self) -> NDArray[np.bool_]:
        """Where the completion label can be seen in the frame: (N,) bool.

        "At rest for three steps" is not visible; frames in which the toy has only just come to rest are left out.
        """
        return self.success | (self.progress < 0.999)


class SourceSampler:
    """Samples frames by the shares of the sources, however many frames each has.

    The twin has ``TWIN_SHARE`` where there are other sources; these share the rest by their numbers of episodes.
    """

    def __init__(self, frames: Frames, rows: NDArray[np.intp] | None = None) -> None:
        """Sample from ``rows`` of ``frames`` (default: all)."""
        self._rows = np.arange(len(frames.images)) if rows is None else rows
        source = frames.source[self._rows]
        counts = np.bincount(source, minlength=len(frames.sources))
        _, first = np.unique(frames.episode[self._rows], return_index=True)
        share = np.bincount(source[first], minlength=len(frames.sources)).astype(float)
        twin = np.array([name == TWIN for name in frames.sources])
        others = share[~twin].sum()
        if others and share[twin].any():
            share[twin] = others * TWIN_SHARE / (1 - TWIN_SHARE)
        self._edges = np.cumsum((share / np.maximum(counts, 1))[source])

    def __call__(self, rng: np.random.Generator, n: int) -> NDArray[np.intp]:
        """Return ``n`` rows, drawn with replacement."""
        places = np.searchsorted(self._edges, rng.uniform(0, self._edges[-1], n), side="right")
        return self._rows[np.minimum(places, len(self._rows) - 1)]


def load_frames(folders: Sequence[Path]) -> Frames:
    """Read the shards that ``sim.twin.generate`` and ``training.reward.data.generate`` wrote.

    Episodes of different folders are different episodes, even with the same number.

    Raises:
        FileNotFoundError: a folder without shards.
        ValueError: a shard without the expected arrays, or no folder.
    """
    needed = ("frames", "progress", "success", "episode", "kind", "tasks")
    columns: dict[str, list[NDArray]] = {name: [] for name in (*needed[:-1], "source")}
    tasks: dict[int, str] = {}
    instructions: dict[int, tuple[Instruction, ...]] = {}
    labels: list[NDArray] = []
    things: dict[int, tuple[str, ...]] = {}
    seen: list[Seen] = []
    sources: dict[str, int] = {}
    for folder in folders:
        paths = sorted(folder.glob("*.npz"))
        if not paths and any(folder.glob("shard-*.parquet")):
            raise FileNotFoundError(
                f"'{folder}' holds keyframes, which train adapters of a Qwen3-VL: give --model, too; the tiny model "
                "trains on shards (*.npz) of 'python -m lrm_ros.sim.twin.generate'"
            )
        if not paths:
            raise FileNotFoundError(
                f"'{folder}' holds no shards (*.npz); make them: 'python -m lrm_ros.sim.twin.generate --out {folder}'"
            )
        first = max(tasks, default=-1) + 1
        for path in paths:
            with np.load(path) as shard:
                missing = [name for name in needed if name not in shard]
                if missing:
                    raise ValueError(
                        f"shard '{path}' has no {', '.join(missing)}; again: 'python -m lrm_ros.sim.twin.generate'"
                    )
                source_of = {}
                for line in shard["tasks"]:
                    about = json.loads(str(line))
                    number = first + int(about["episode"])
                    tasks[number] = about["task"]
                    instructions[number] = instructions_of(about.get("instructions") or [["own", [about["task"]]]])
                    things[number] = tuple(about.get("things", ()))
                    name = about.get("source", TWIN)
                    source_of[int(about["episode"])] = sources.setdefault(name, len(sources))
                episode = shard["episode"].astype(np.int64)
                columns["episode"].append(first + episode)
                columns["source"].append(np.array([source_of[int(number)] for number in episode], np.int64))
                for name in ("frames", "progress", "success", "kind"):
                    columns[name].append(shard[name])
                labels.append(_own_first(shard))
                seen.append(
                    Seen((), shard["cells"], shard["where"]) if "cells" in shard else nothing_seen(len(episode))
                )
    if not tasks:
        raise ValueError("no folder of shards was given")
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    return Frames(
        joined["frames"],
        joined["progress"].astype(np.float32),
        joined["success"].astype(bool),
        joined["episode"],
        joined["kind"].astype(np.int64),
        joined["source"],
        tuple(sources),
        tasks,
        instructions,
        joined_labels(labels),
        things,
        *joined_seen(seen),
    )


def _own_first(shard: Any) -> NDArray[np.float16]:
    """Return the labels (N, K, 2) of a shard; those of the own instruction are progress and success.

    "At rest for three steps" is not visible: frames that are complete and not yet a success have no label of done.
    """
    own = fixed_labels(shard["progress"], shard["success"], [Instruction("own", ("-",))]).astype(np.float16)
    return np.concatenate([own, shard["labels"][:, 1:]], axis=1) if "labels" in shard else own


def left_out(frames: Frames, names: Sequence[str]) -> Frames:
    """Return the frames without the sources whose name begins with one of ``names``: a world, a robot, a task.

    Raises:
        ValueError: no source begins so, or none is left.
    """
    for name in names:
        if not any(source.startswith(name) for source in frames.sources):
            raise ValueError(f"no source begins with '{name}'; there are: {', '.join(frames.sources)}")
    kept = np.array([not source.startswith(tuple(names)) for source in frames.sources])
    rows = np.flatnonzero(kept[frames.source])
    if len(rows) == 0:
        raise ValueError(f"nothing is left to train on without {', '.join(names)}")
    return frames.select(rows) if names else frames


def blinded(frames: Frames, blind: str) -> Frames:
    """Return the frames for a control that is trained without the text or the pictures (``eval.blind.BLIND``)."""
    asked = {
        number: tuple(
            Instruction(one.kind, tuple(dict.fromkeys(blind_task(text, blind) for text in one.wordings)))
            for one in several
        )
        for number, several in frames.instructions.items()
    }
    tasks = {number: blind_task(task, blind) for number, task in frames.tasks.items()}
    return replace(frames, images=blind_images(frames.images, blind), tasks=tasks, instructions=asked)


def split(frames: Frames) -> tuple[Frames, Frames]:
    """Return training and validation frames; no episode is in both."""
    held_out = frames.episode % VAL_EVERY == 0
    return frames.select(~held_out), frames.select(held_out)


def to_tensor(images: Any) -> Any:
    """Return (N, 3, H, W) float32 in [-1, 1] of (N, H, W, 3) uint8, as the tiny model's processor normalises."""
    import torch

    return torch.as_tensor(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


class Pictures(NamedTuple):
    """Frames, and how they are changed: tensors, so that one process can draw them and a GPU change them.

    Attributes:
        images: (N, H, W, 3) uint8 RGB.
        shift: of all of them (rows, columns) [pixels], ``MAX_SHIFT`` for none.
        contrast: (N, 1, 1, 1) factors.
        balance: (N, 3, 1, 1) added to the channels.
    """

    images: Any
    shift: tuple[int, int]
    contrast: Any
    balance: Any


def draw_pictures(images: NDArray[np.uint8], generator: Any) -> Pictures:
    """Draw a shift of the batch by a few pixels, and contrast, brightness and colour balance of each image."""
    import torch

    dy, dx = torch.randint(0, 2 * MAX_SHIFT + 1, (2,), generator=generator).tolist()
    contrast = 1 + 0.12 * torch.randn(len(images), 1, 1, 1, generator=generator)
    balance = 0.08 * torch.randn(len(images), 3, 1, 1, generator=generator)
    return Pictures(torch.from_numpy(images), (dy, dx), contrast, balance)


def augment(pictures: Pictures) -> Any:
    """Return the changed images, (N, 3, H, W) float32."""
    from torch.nn.functional import pad

    images = to_tensor(pictures.images)
    height, width = images.shape[2:]
    dy, dx = pictures.shift
    images = pad(images, (MAX_SHIFT,) * 4, mode="replicate")[:, :, dy : dy + height, dx : dx + width]
    return images * pictures.contrast + pictures.balance


def progress_target(progress: Any) -> Any:
    """Return (N, 11) probabilities over 0.0 ... 1.0 of (N,) float32: progress shared between its two neighbours."""
    import torch

    tenths = torch.as_tensor(progress).clamp(0, 1) * 10
    low = tenths.floor().clamp(max=9).long()
    part = (tenths - low)[:, None]
    target = torch.zeros(len(low), 11, device=tenths.device)
    return target.scatter_(1, low[:, None], 1 - part).scatter_add_(1, low[:, None] + 1, part)
