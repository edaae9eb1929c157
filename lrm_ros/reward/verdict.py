# SPDX-License-Identifier: Apache-2.0
"""The rule by which the completion head's answers about its last frames decide an episode (paper IV-C)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lrm_ros.reward.views import newest
from lrm_ros.types import Frame, Reward, RewardQuery, Unscored, Verdict


def judge_queries(frames: Sequence[Frame], task: str, count: int, cameras: Sequence[str] = ()) -> list[RewardQuery]:
    """Return the questions that decide an episode.

    Args:
        frames: of the episode, oldest first.
        task: language instruction; nothing is asked if it is blank.
        count: how many of its last frames are judged, of each camera.
        cameras: who judges; of several the frames stand view by view (``lrm_ros.reward.views``).
    """
    return completion_queries(newest(frames, cameras, count), task) if task.strip() else []


def completion_queries(frames: Sequence[Frame], task: str) -> list[RewardQuery]:
    """Return the completion head's question about each frame."""
    return [RewardQuery(task, "completion", (frame,)) for frame in frames]


def verdict(episode_id: str, task: str, answers: Sequence[Reward | Unscored], threshold: float) -> Verdict:
    """Decide about one episode.

    It is kept when the mean p(done) of its last frames is at least ``threshold``. If any of them has no answer, or the
    task text is blank, it is not kept and its score is NaN.

    Args:
        episode_id: which episode.
        task: language instruction.
        answers: to :func:`judge_queries`, in order; with several cameras one a view (``views.joined``).
        threshold: in [0, 1].
    """
    if not task.strip():
        return Verdict(episode_id, False, float("nan"), "not judged: its task text is blank")
    failed = [answer.reason for answer in answers if isinstance(answer, Unscored)]
    if failed or not answers:
        why = f"{len(failed)} of {len(answers)} frames unscored: {failed[0]}" if failed else "it has no frames"
        return Verdict(episode_id, False, float("nan"), f"not judged: {why}")
    score = float(np.mean([answer.value for answer in answers if isinstance(answer, Reward)]))
    keep = score >= threshold
    return Verdict(
        episode_id,
        keep,
        score,
        f"p(done) {score:.2f} over the last {len(answers)} frames is {'at least' if keep else 'below'} {threshold:.2f}",
    )
