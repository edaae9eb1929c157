# SPDX-License-Identifier: Apache-2.0
"""Sample the examples of a head from keyframes: balanced over sources, with negatives, reproducible.

Negatives teach to judge the state and not the time. Wrong task: the text of another one (progress 0.0, not completed).
Reversed: a clip played backwards, whose initial image shows the end; after k tenths the label is 1 - k/10 where labels
come from time, and the state's where they come from the state: in both cases the label of the frame itself. Stopped: a
clip that ends before the task is done. Failed episodes are keyframes like all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrm_ros.reward.heads import HEADS
from lrm_ros.training.reward.data.table import Keyframes
from lrm_ros.training.reward.train.examples.wrong_task import WrongTask

MIN_GAP = 0.1  # smallest difference of progress in a pair


@dataclass(frozen=True)
class ExampleMix:
    """Shares of the kinds of examples.

    Attributes:
        initial: share of the progress examples that show the episode's first frame beside the current one.
        wrong_task: share of the progress and completion examples with another task's text.
        reversed: share of the progress examples from a clip played backwards.
        stopped: share of the progress and completion examples at the end of a clip that stopped early.
        done: share of the completion examples that are no negatives with a finished task.
        repeats: maximum number of times that a keyframe of a small source is used for the same kind of example.
    """

    initial: float = 0.5
    wrong_task: float = 0.15
    reversed: float = 0.1
    stopped: float = 0.1
    done: float = 0.5
    repeats: int = 4

    def __post_init__(self) -> None:
        for name in ("initial", "done", "wrong_task", "reversed", "stopped"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"share '{name}' must be between 0 and 1, got {getattr(self, name)}")
        if self.wrong_task + self.reversed + self.stopped > 1:
            raise ValueError("the shares of negatives add up to more than 1")
        if self.repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {self.repeats}")


@dataclass(frozen=True, eq=False)
class SampledExamples:
    """Sampled examples of one head.

    Attributes:
        rows: (N, 2) keyframes to show; the first is -1 where there is only one.
        task: (N,) index into the keyframes' tasks.
        value: (N,) labels.
        kinds: (N,) behaviour in the images' episode, or the kind of negative: ``"wrong_task"``, ``"reversed_clip"`` or
            ``"stopped_clip"``.
    """

    rows: NDArray[np.int64]
    task: NDArray[np.int64]
    value: NDArray[np.float64]
    kinds: tuple[str, ...]


def sample_examples(keyframes: Keyframes, head: str, count: int, seed: int, mix: ExampleMix) -> SampledExamples:
    """Sample examples in random order.

    Args:
        keyframes: of one split.
        head: one of ``lrm_ros.types.HEADS``.
        count: how many; fewer where the keyframes do not suffice.
        seed: of everything.
        mix: shares of the kinds; a negative for which there are no keyframes is replaced by others.

    Raises:
        ValueError: unknown head, a negative count, or a label that has no answer.
    """
    if head not in HEADS:
        raise ValueError(f"unknown reward head '{head}'; choose one of {', '.join(HEADS)}")
    if count < 0:
        raise ValueError(f"the number of examples must not be negative, got {count}")
    rng = np.random.default_rng([seed, list(HEADS).index(head)])
    make = {"progress": _progress, "completion": _completion, "contrastive": _contrastive}[head]
    parts = [part for part in make(keyframes, count, rng, mix) if len(part.rows)]
    if not parts:
        return SampledExamples(np.zeros((0, 2), np.int64), np.zeros(0, np.int64), np.zeros(0), ())
    order = rng.permutation(sum(len(part.rows) for part in parts))
    kinds = [kind for part in parts for kind in part.kinds]
    return SampledExamples(
        np.concatenate([part.rows for part in parts])[order],
        np.concatenate([part.task for part in parts])[order],
        np.concatenate([part.value for part in parts])[order],
        tuple(kinds[place] for place in order),
    )


def round_to_tenths(progress: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return progress labels rounded to the head's answers.

    Raises:
        ValueError: a label is no number in [0, 1].
    """
    wrong = progress[~((progress >= 0) & (progress <= 1))]
    if len(wrong):
        raise ValueError(f"progress {wrong[0]} has none of the answers 0.0, 0.1, ... 1.0; correct the labels")
    return np.round(progress * 10) / 10


def sample_balanced(
    source: NDArray[np.int64], candidates: NDArray[np.int64], count: int, rng: np.random.Generator, repeats: int
) -> NDArray[np.int64]:
    """Sample candidates, equally many of each source as far as it has them.

    Args:
        source: (N,) source of each row.
        candidates: rows to draw from.
        count: how many.
        rng: source of randomness.
        repeats: most times that a candidate is taken.
    """
    groups = [candidates[source[candidates] == one] for one in np.unique(source[candidates])]
    quotas = [0] * len(groups)
    left = min(count, repeats * len(candidates))
    while left > 0:
        open_groups = [i for i, group in enumerate(groups) if quotas[i] < repeats * len(group)]
        share = max(1, left // len(open_groups))
        for i in open_groups:
            more = min(share, repeats * len(groups[i]) - quotas[i], left)
            quotas[i] += more
            left -= more
    taken = [
        np.concatenate([rng.permutation(group) for _ in range(-(-quota // len(group)))])[:quota]
        for group, quota in zip(groups, quotas, strict=True)
        if quota
    ]
    return np.concatenate(taken) if taken else np.zeros(0, np.int64)


def _examples(
    keyframes: Keyframes,
    rows: NDArray[np.int64],
    value: NDArray[np.float64] | float,
    kind: str | None = None,
    before: NDArray[np.int64] | None = None,
    task: NDArray[np.int64] | None = None,
) -> SampledExamples:
    """Return examples about rows, by default about their own task."""
    first = np.full(len(rows), -1) if before is None else before
    kinds = [kind] * len(rows) if kind else [keyframes.kinds[index] for index in keyframes.kind[rows]]
    return SampledExamples(
        np.stack([first, rows], axis=1),
        keyframes.task[rows] if task is None else task,
        np.broadcast_to(np.asarray(value, float), len(rows)),
        tuple(kinds),
    )


def _episode_bounds(keyframes: Keyframes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and the last row of each row's episode."""
    new = np.flatnonzero(np.append(True, np.diff(keyframes.episode) != 0)[: len(keyframes)])
    lengths = np.diff(np.append(new, len(keyframes)))
    return np.repeat(new, lengths), np.repeat(new + lengths - 1, lengths)


def _late_but_not_done(keyframes: Keyframes) -> NDArray[np.bool_]:
    """Return which rows are not done, but more than half way to the first one of their episode that is."""
    first, _ = _episode_bounds(keyframes)
    done_at: NDArray[np.int64] = np.full(len(keyframes), np.iinfo(np.int64).max)
    done = keyframes.done == 1
    np.minimum.at(done_at, first[done], keyframes.position[done])
    done_at = done_at[first]
    known = done_at <= 10
    return known & (keyframes.done == 0) & (keyframes.position < done_at) & (2 * keyframes.position >= done_at)


def _progress(keyframes: Keyframes, count: int, rng: np.random.Generator, mix: ExampleMix) -> Sequence[SampledExamples]:
    labelled = np.isfinite(keyframes.progress)
    first, last = _episode_bounds(keyframes)
    wrong_task = WrongTask(keyframes)

    def sample(mask: NDArray[np.bool_], number: int) -> NDArray[np.int64]:
        return sample_balanced(keyframes.source, np.flatnonzero(mask), number, rng, mix.repeats)

    def value(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return round_to_tenths(keyframes.progress[rows])

    def maybe_first(rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(rng.random(len(rows)) < mix.initial, first[rows], -1)

    wrong = sample(labelled & wrong_task.possible, round(mix.wrong_task * count))
    backwards = sample(labelled & (first < last), round(mix.reversed * count))
    stopped = sample(labelled & _late_but_not_done(keyframes), round(mix.stopped * count))
    plain = sample(labelled, count - len(wrong) - len(backwards) - len(stopped))
    return [
        _examples(keyframes, wrong, 0.0, "wrong_task", maybe_first(wrong), wrong_task.draw(wrong, rng)),
        _examples(keyframes, backwards, value(backwards), "reversed_clip", last[backwards]),
        _examples(keyframes, stopped, value(stopped), "stopped_clip", first[stopped]),
        _examples(keyframes, plain, value(plain), None, maybe_first(plain)),
    ]


def _completion(
    keyframes: Keyframes, count: int, rng: np.random.Generator, mix: ExampleMix
) -> Sequence[SampledExamples]:
    done, not_done = keyframes.done == 1, keyframes.done == 0
    wrong_task = WrongTask(keyframes)

    def sample(mask: NDArray[np.bool_], number: int) -> NDArray[np.int64]:
        return sample_balanced(keyframes.source, np.flatnonzero(mask), number, rng, mix.repeats)

    wrong = sample(done & wrong_task.possible, round(mix.wrong_task * count))
    stopped = sample(_late_but_not_done(keyframes), round(mix.stopped * count))
    rest = count - len(wrong) - len(stopped)
    yes = sample(done, round(mix.done * rest))
    no = sample(not_done, rest - len(yes))
    return [
        _examples(keyframes, wrong, 0.0, "wrong_task", None, wrong_task.draw(wrong, rng)),
        _examples(keyframes, stopped, 0.0, "stopped_clip"),
        _examples(keyframes, yes, 1.0),
        _examples(keyframes, no, 0.0),
    ]


def _contrastive(
    keyframes: Keyframes, count: int, rng: np.random.Generator, mix: ExampleMix
) -> Sequence[SampledExamples]:
    """Return pairs of one episode that differ clearly, each in both orders; the nearer one to the goal wins."""
    progress, pairs = keyframes.progress, []
    for gap in range(1, 11):
        a = np.arange(max(0, len(keyframes) - gap))
        with np.errstate(invalid="ignore"):
            clear = np.abs(progress[a + gap] - progress[a]) >= MIN_GAP - 1e-6
        a = a[clear & (keyframes.episode[a] == keyframes.episode[a + gap])]
        pairs.append(np.stack([a, a + gap], axis=1))
    every = np.concatenate(pairs)
    chosen = sample_balanced(keyframes.source[every[:, 0]], np.arange(len(every)), count // 2, rng, mix.repeats)
    a, b = every[chosen].T
    value = np.sign(progress[b] - progress[a])
    return [_examples(keyframes, b, value, None, a), _examples(keyframes, a, -value, None, b)]
