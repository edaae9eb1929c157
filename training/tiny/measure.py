# SPDX-License-Identifier: Apache-2.0
"""How good a tiny reward model is on episodes left out of its training: heads, pairs, and the judge of episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lrm_ros.config import RewardConfig
from lrm_ros.reward.engine import RewardEngine
from lrm_ros.reward.qwen import QwenRewardModel
from lrm_ros.training.reward_metrics import ranks
from lrm_ros.training.tiny.data import Frames
from lrm_ros.types import Frame, RewardQuery, Unscored

if TYPE_CHECKING:
    import torch
    from torch import nn

_CLEARLY = 0.1  # contrastive pairs of the evaluation differ by at least this much progress


def auc(positive: np.ndarray, score: np.ndarray) -> float:
    """Return the area under the ROC curve, NaN with one class only."""
    n, m = int(positive.sum()), int((~positive).sum())
    return float((ranks(score)[positive].sum() - n * (n + 1) / 2) / (n * m)) if n and m else float("nan")


def precision_recall(truth: np.ndarray, kept: np.ndarray) -> dict[str, float | int]:
    """Return precision, recall and the numbers behind them."""
    both = int((truth & kept).sum())
    return {
        "precision": both / max(1, int(kept.sum())),
        "recall": both / max(1, int(truth.sum())),
        "kept": int(kept.sum()),
        "true": int(truth.sum()),
        "n": len(truth),
    }


def label_figures(network: nn.Module, frames: Frames, words: torch.Tensor) -> str:
    """Return in one line how well the labels of a teacher or student are on ``frames``."""
    from lrm_ros.training.tiny.vision import outputs_of

    progress, done = outputs_of(network, frames, words)
    seen = frames.decided
    found = precision_recall(frames.success[seen], done[seen] > 0.5)
    return (
        f"progress MAE {np.abs(progress - frames.progress).mean():.3f}  "
        f"done AUC {auc(frames.success[seen], done[seen]):.3f} "
        f"precision {found['precision']:.2f} recall {found['recall']:.2f}"
    )


def score_all(engine: RewardEngine, queries: Sequence[RewardQuery], batch: int = 64) -> np.ndarray:
    """Return the values of queries; every one must be answered."""
    values = []
    for at in range(0, len(queries), batch):
        for answer in engine.score(queries[at : at + batch]):
            if isinstance(answer, Unscored):
                raise RuntimeError(f"head '{answer.head}' gave no answer: {answer.reason}")
            values.append(answer.value)
    return np.array(values)


def measure(model: QwenRewardModel, frames: Frames, seed: int = 0, judge_frames: int = 4) -> dict[str, Any]:
    """Measure a model on frames with known truth, through the reward engine.

    Returns:
        Progress MAE and Spearman, share of right contrastive answers (pairs of one episode that differ by at least 0.1
        progress), completion per frame, and the judge per episode (mean p(done) of the last frames against the truth
        at the end), overall and by behaviour.
    """
    rng = np.random.default_rng(seed)
    config = RewardConfig(mode="completion", judge_frames=judge_frames)
    engine = RewardEngine(config, model)
    shown = [Frame(i, "front", image) for i, image in enumerate(frames.images)]
    tasks = [frames.tasks[int(episode)] for episode in frames.episode]
    progress = score_all(engine, [RewardQuery(t, "progress", (f,)) for t, f in zip(tasks, shown, strict=True)])
    done = score_all(engine, [RewardQuery(t, "completion", (f,)) for t, f in zip(tasks, shown, strict=True)])
    pairs = []
    for row in rng.permutation(len(shown)):
        other = int(rng.choice(np.flatnonzero(frames.episode == frames.episode[row])))
        if abs(frames.progress[row] - frames.progress[other]) >= _CLEARLY:
            pairs.append((other, int(row)))
        if len(pairs) == 1000:
            break
    contrastive = score_all(engine, [RewardQuery(tasks[b], "contrastive", (shown[a], shown[b])) for a, b in pairs])
    gains = np.array([frames.progress[b] - frames.progress[a] for a, b in pairs])
    ends, truth, kinds = [], [], []
    for episode in np.unique(frames.episode):
        rows = np.flatnonzero(frames.episode == episode)[-judge_frames:]
        ends.append(float(done[rows].mean()))
        truth.append(bool(frames.success[rows[-1]]))
        kinds.append(int(frames.kind[rows[-1]]))
    end, success, kind = np.array(ends), np.array(truth), np.array(kinds)
    seen, keep = frames.decided, end >= config.judge_threshold
    return {
        "frames": len(shown),
        "progress_mae": float(np.abs(progress - frames.progress).mean()),
        "progress_spearman": float(np.corrcoef(ranks(progress), ranks(frames.progress))[0, 1]),
        "contrastive_accuracy": float(((contrastive > 0) == (gains > 0)).mean()),
        "contrastive_pairs": len(pairs),
        "completion_auc": auc(frames.success[seen], done[seen]),
        "completion_frames": precision_recall(frames.success[seen], done[seen] > 0.5),
        "judge_episodes": precision_recall(success, keep),
        "judge_by_kind": {str(k): precision_recall(success[kind == k], keep[kind == k]) for k in np.unique(kind)},
    }
