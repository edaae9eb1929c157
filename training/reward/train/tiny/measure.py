# SPDX-License-Identifier: Apache-2.0
"""Metrics of a tiny reward model on validation episodes: heads, pairs, and the judge of episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lrm_ros.config import RewardConfig
from lrm_ros.reward.engine import RewardEngine
from lrm_ros.reward.qwen.model import QwenRewardModel
from lrm_ros.training.report.stats import precision_recall
from lrm_ros.training.reward.eval.metrics import roc_auc, spearman
from lrm_ros.training.reward.train.tiny.data import Frames
from lrm_ros.types import Frame, RewardQuery, Unscored

if TYPE_CHECKING:
    from lrm_ros.training.reward.train.tiny.texts import Words
    from lrm_ros.training.reward.train.tiny.things import Places
    from lrm_ros.training.reward.train.tiny.vision import Tower

_SHOWN = 2000  # frames that a network is measured on while it is trained
_MIN_GAP = 0.1  # smallest difference of progress in a contrastive pair


def label_metrics(tower: Tower, frames: Frames, words: Words, places: Places) -> str:
    """Return metrics of the labels that a tower's heads give on ``frames`` in one line; "-" where undefined.

    Args:
        tower: with its heads.
        frames: held-out frames, at most ``_SHOWN`` of which are shown.
        words: tokens of texts.
        places: what is where, of the training frames.
    """
    from lrm_ros.training.reward.train.tiny.texts import reading_metrics
    from lrm_ros.training.reward.train.tiny.vision import outputs_of, places_metrics

    frames = frames.select(np.random.default_rng(0).permutation(len(frames.images))[:_SHOWN])
    progress, done = outputs_of(tower, frames, words([frames.tasks[int(episode)] for episode in frames.episode]))
    seen = frames.visible
    found = precision_recall(done[seen] > 0.5, frames.success[seen])
    area = roc_auc(frames.success[seen], done[seen])
    precision, recall = ("-" if found[name] is None else f"{found[name]:.2f}" for name in ("precision", "recall"))
    return (
        f"progress MAE {np.abs(progress - frames.progress).mean():.3f}  "
        f"done AUC {'-' if area is None else format(area, '.3f')} precision {precision} recall {recall}  "
        f"{places_metrics(tower, frames, places)}  {reading_metrics(tower, frames, words)}"
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
    """Evaluate a model on labelled frames, through the reward engine.

    Returns:
        Progress MAE and Spearman, share of right contrastive answers (pairs of one episode that differ by at least 0.1
        progress), completion per frame, and the judge per episode (mean p(done) of the last frames against the truth
        at the end), overall and by behaviour. None where a metric is undefined.
    """
    rng = np.random.default_rng(seed)
    # However unlikely the answers are: a training that was too short has figures, too.
    config = RewardConfig(mode="completion", judge_frames=judge_frames, min_mass=0.0)
    engine = RewardEngine(config, model)
    shown = [Frame(i, "front", image) for i, image in enumerate(frames.images)]
    tasks = [frames.tasks[int(episode)] for episode in frames.episode]
    progress = score_all(engine, [RewardQuery(t, "progress", (f,)) for t, f in zip(tasks, shown, strict=True)])
    done = score_all(engine, [RewardQuery(t, "completion", (f,)) for t, f in zip(tasks, shown, strict=True)])
    pairs = []
    for row in rng.permutation(len(shown)):
        other = int(rng.choice(np.flatnonzero(frames.episode == frames.episode[row])))
        if abs(frames.progress[row] - frames.progress[other]) >= _MIN_GAP:
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
    seen, keep = frames.visible, end >= config.judge_threshold
    return {
        "frames": len(shown),
        "progress_mae": float(np.abs(progress - frames.progress).mean()),
        "progress_spearman": spearman(progress, frames.progress),
        "contrastive_accuracy": float(((contrastive > 0) == (gains > 0)).mean()),
        "contrastive_pairs": len(pairs),
        "completion_auc": roc_auc(frames.success[seen], done[seen]),
        "completion_frames": precision_recall(done[seen] > 0.5, frames.success[seen]),
        "judge_episodes": precision_recall(keep, success),
        "judge_by_kind": {str(k): precision_recall(keep[kind == k], success[kind == k]) for k in np.unique(kind)},
    }
