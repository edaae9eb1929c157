# SPDX-License-Identifier: Apache-2.0
"""What an evaluation asks a reward model, its answers, and those of the untrained base and of trivial predictors."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.progress import progress_bar
from lrm_ros.reward.models import RewardModel
from lrm_ros.types import Frame, RewardQuery, Unscored

CLEARLY = 0.1  # pairs differ by at least this much progress
PAIRS = 8  # pairs of an episode, each asked in both orders
_BATCH = 64


@dataclass(frozen=True)
class Exam:
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
        pairs: (M, 2) rows (first, second) of one episode, each pair in both orders.
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
class Answers:
    """What a predictor said: progress (N,) in [0, 1], done (N,) p(done), contrastive (M,) in [-1, 1]."""

    progress: NDArray[np.float64]
    done: NDArray[np.float64]
    contrastive: NDArray[np.float64]


def make_exam(rows: Iterable[Mapping[str, Any]], seed: int = 0) -> Exam:
    """Return the exam of keyframe rows (see ``lrm_ros.training.reward.data.keyframes``), with pairs drawn by ``seed``.

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
        clear = np.flatnonzero(np.abs(progress[first] - progress[second]) >= CLEARLY - 1e-6)
        for pick in rng.permutation(clear)[:PAIRS]:
            a, b = int(first[pick]), int(second[pick])
            pairs += [(a, b), (b, a)]
    return Exam(
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


def ask(model: RewardModel, exam: Exam, readout: str = "forward", initial: bool = False, name: str = "") -> Answers:
    """Ask a model everything; constant memory but for the JPEGs.

    Args:
        model: who answers.
        exam: the questions.
        readout: ``forward`` or ``generate``.
        initial: show the episode's first frame beside the current one when asking for progress.
        name: for the progress bar.

    Raises:
        RuntimeError: a question got no answer.
    """
    firsts = {number: row for row, number in reversed(list(enumerate(exam.episode)))}
    total = 2 * len(exam.jpegs) + len(exam.pairs)
    with progress_bar(total, f"ask {name}".strip(), "question") as bar:

        def answers(head: str, rows: Sequence[tuple[int, ...]]) -> NDArray[np.float64]:
            values = []
            for at in range(0, len(rows), _BATCH):
                part = rows[at : at + _BATCH]
                frames = {row: Frame(row, "camera", _decode(exam.jpegs[row])) for some in part for row in some}
                queries = [RewardQuery(exam.tasks[some[-1]], head, tuple(frames[row] for row in some)) for some in part]
                for answer in model.score(queries, readout):
                    if isinstance(answer, Unscored):
                        raise RuntimeError(f"head '{head}' gave no answer: {answer.reason}")
                    values.append(answer.value)
                bar.update(len(part))
            return np.array(values)

        alone = [(row,) for row in range(len(exam.jpegs))]
        shown = [(int(firsts[exam.episode[row]]), row) for row in range(len(exam.jpegs))] if initial else alone
        return Answers(
            answers("progress", shown),
            answers("completion", alone),
            answers("contrastive", [tuple(pair) for pair in exam.pairs.tolist()]),
        )


def trivial(exam: Exam, training: Exam | None = None) -> dict[str, Answers]:
    """Return what predictors say that never look at an image.

    ``constant``: the mean label of ``training`` (of the exam itself if there is none, which favours it), the second
    image always. ``time_index``: the share of the episode's time that has passed, done at its end, the later image.
    """
    known = training or exam
    n, m = len(exam.jpegs), len(exam.pairs)
    mean = float(np.nanmean(known.progress))
    rate = float((known.done[known.done >= 0] == 1).mean())
    time = exam.position / 10
    return {
        "constant": Answers(np.full(n, mean), np.full(n, rate), np.ones(m)),
        "time_index": Answers(
            time,
            (exam.position == 10).astype(float),
            np.sign(exam.position[exam.pairs[:, 1]] - exam.position[exam.pairs[:, 0]]).astype(float),
        ),
    }


def untrained(load: Callable[[], Any], seed: int = 0) -> Any:
    """Return a model of the same class whose weights are drawn anew: the base of a model trained from scratch.

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
