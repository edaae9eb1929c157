# SPDX-License-Identifier: Apache-2.0
"""Eval set of a reward model, and the predictions on it: the model's, an untrained model's, trivial baselines'."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.progress import progress_bar
from lrm_ros.reward.models import RewardModel
from lrm_ros.types import Frame, RewardQuery, Unscored

MIN_GAP = 0.1  # smallest difference of progress in a pair
PAIRS_PER_EPISODE = 8  # each in both orders
EQUAL = 400  # keyframes that are compared with themselves, evenly spread
_BATCH = 64


@dataclass(frozen=True)
class EvalSet:
    """Labelled keyframes of many episodes and the pairs to compare.

    Attributes:
        jpegs: (N,) encoded images.
        tasks: (N,) language instructions.
        sources: (N,) names of the sources.
        kinds: (N,) what happens in the episode.
        episode: (N,) number of the episode.
        position: (N,) tenths of the episode's time, 0 to 10.
        progress: (N,) labels in [0, 1]; NaN where there is none.
        done: (N,) 1 done, 0 not, -1 not known.
        pairs: (M, 2) rows (first, second) of one episode, each pair in both orders, one after the other.
    """

    jpegs: Sequence[bytes]
    tasks: NDArray
    sources: NDArray
    kinds: NDArray
    episode: NDArray[np.int64]
    position: NDArray[np.int64]
    progress: NDArray[np.float64]
    done: NDArray[np.int64]
    pairs: NDArray[np.int64]


@dataclass(frozen=True)
class Predictions:
    """Predictions on an eval set: progress (N,) in [0, 1], done (N,) p(done), contrastive (M,) in [-1, 1].

    Attributes:
        equal: (K,) of the contrastive head about a keyframe beside itself, for ``EQUAL`` keyframes or all, where it
            says anything; none of a baseline.
        mass: head -> probabilities that the model says one of the head's answers at all; none where they are not read.
    """

    progress: NDArray[np.float64]
    done: NDArray[np.float64]
    contrastive: NDArray[np.float64]
    equal: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    mass: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


def make_eval_set(rows: Iterable[Mapping[str, Any]], seed: int = 0) -> EvalSet:
    """Return the eval set of keyframe rows (``lrm_ros.training.reward.data.keyframes``); ``seed`` draws the pairs.

    Raises:
        ValueError: no rows.
    """
    rows = list(rows)
    if not rows:
        raise ValueError(
            "no keyframes to evaluate on; write some with 'lrm reward data', or take those of all episodes: --split all"
        )
    numbers: dict[tuple[str, str], int] = {}
    episode = np.array([numbers.setdefault((r["source"], r["episode_id"]), len(numbers)) for r in rows])
    progress = np.array([np.nan if r["progress"] is None else r["progress"] for r in rows], float)
    rng = np.random.default_rng(seed)
    pairs: list[tuple[int, int]] = []
    for number in range(len(numbers)):
        inside = np.flatnonzero((episode == number) & np.isfinite(progress))
        first, second = np.triu_indices(len(inside), 1)
        first, second = inside[first], inside[second]
        clear = np.flatnonzero(np.abs(progress[first] - progress[second]) >= MIN_GAP - 1e-6)
        for index in rng.permutation(clear)[:PAIRS_PER_EPISODE]:
            a, b = int(first[index]), int(second[index])
            pairs += [(a, b), (b, a)]
    return EvalSet(
        [r["jpeg"] for r in rows],
        np.array([r["task"] for r in rows], object),
        np.array([r["source"] for r in rows], object),
        np.array([r["kind"] for r in rows], object),
        episode,
        np.array([r["position"] for r in rows]),
        progress,
        np.array([-1 if r["done"] is None else int(r["done"]) for r in rows]),
        np.array(pairs, dtype=np.int64).reshape(-1, 2),
    )


def predict(
    model: RewardModel, eval_set: EvalSet, readout: str = "forward", initial: bool = False, name: str = ""
) -> Predictions:
    """Return a model's predictions on an eval set; memory holds the JPEGs and one batch of frames.

    Args:
        model: the reward model.
        eval_set: keyframes and pairs.
        readout: ``forward``, ``reason`` or ``generate``.
        initial: show the episode's first frame beside the current one in progress queries.
        name: for the progress bar.

    Raises:
        RuntimeError: a query got no answer.
    """
    firsts = {number: row for row, number in reversed(list(enumerate(eval_set.episode)))}
    mass: dict[str, NDArray[np.float64]] = {}
    twice = [(int(row), int(row)) for row in np.unique(np.linspace(0, len(eval_set.jpegs) - 1, EQUAL).astype(int))]
    total = 2 * len(eval_set.jpegs) + len(twice) + len(eval_set.pairs)
    with progress_bar(total, f"predict {name}".strip(), "query") as bar:

        def values_of(head: str, rows: Sequence[tuple[int, ...]], needed: bool = True) -> NDArray[np.float64]:
            values, masses = [], []
            for at in range(0, len(rows), _BATCH):
                part = rows[at : at + _BATCH]
                frames = {row: Frame(row, "camera", _decode(eval_set.jpegs[row])) for some in part for row in some}
                queries = [
                    RewardQuery(eval_set.tasks[some[-1]], head, tuple(frames[row] for row in some)) for some in part
                ]
                for answer in model.score(queries, readout):
                    if isinstance(answer, Unscored):
                        if not needed:
                            continue
                        raise RuntimeError(f"head '{head}' gave no answer: {answer.reason}")
                    values.append(answer.value)
                    masses += [] if answer.mass is None else [answer.mass]
                bar.update(len(part))
            if masses:
                mass[head] = np.array(masses)
            return np.array(values)

        alone = [(row,) for row in range(len(eval_set.jpegs))]
        shown = [(int(firsts[eval_set.episode[row]]), row) for row in range(len(eval_set.jpegs))] if initial else alone
        progress, done = values_of("progress", shown), values_of("completion", alone)
        equal = values_of("contrastive", twice, needed=False)  # a model may say nothing of equal frames
        pairs = values_of("contrastive", [tuple(pair) for pair in eval_set.pairs.tolist()])
        return Predictions(progress, done, pairs, equal, mass)


def trivial_baselines(eval_set: EvalSet, training: EvalSet | None = None) -> dict[str, Predictions]:
    """Return the predictions of baselines that look at no image.

    ``constant``: the mean label of ``training`` (of the eval set itself if there is none, which favours it), the second
    image always. ``time_index``: the share of the episode's time that has passed, done at its end, the later image.
    """
    known = training or eval_set
    n, m = len(eval_set.jpegs), len(eval_set.pairs)
    mean = float(np.nanmean(known.progress))
    rate = float((known.done[known.done >= 0] == 1).mean())
    time = eval_set.position / 10
    return {
        "constant": Predictions(np.full(n, mean), np.full(n, rate), np.ones(m)),
        "time_index": Predictions(
            time,
            (eval_set.position == 10).astype(float),
            np.sign(eval_set.position[eval_set.pairs[:, 1]] - eval_set.position[eval_set.pairs[:, 0]]).astype(float),
        ),
    }


def untrained(load: Callable[[], Any], seed: int = 0) -> Any:
    """Return a model of the same class with randomly initialized weights: the baseline of a model trained from scratch.

    Args:
        load: loads the model, a ``QwenRewardModel`` without adapters.
        seed: of the weights.

    Raises:
        ValueError: the model has adapters; its base is the model they were trained on.
    """
    import torch

    model = load()
    if model.adapters:
        raise ValueError(f"model '{model.name}' has adapters; give their base model with --base")
    torch.manual_seed(seed)
    fresh = type(model.qwen)(model.qwen.config)
    model.qwen.load_state_dict(fresh.state_dict())
    return model


def _decode(jpeg: bytes) -> NDArray[np.uint8]:
    """Return an RGB image."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
