# SPDX-License-Identifier: Apache-2.0
"""Sources ``maniskill/TASK``: scripted experts and their failures in ManiSkill's own tasks."""

from __future__ import annotations

from collections.abc import Iterator

from lrm_ros.sim.maniskill.tasks import TASKS
from lrm_ros.sim.maniskill.world import ManiSkillWorld
from lrm_ros.training.reward.data.sources.episode import Entry
from lrm_ros.training.reward.data.sources.rollouts import rollout_entries

STRIDE = 2  # of 20 control steps a second


def play_maniskill(task: str, episodes: int, seed: int = 0, keep: float = 1.0, kind: str = "") -> Iterator[Entry]:
    """Yield labelled episodes of a ManiSkill task; each is simulated when it is opened.

    Progress is the one of ``lrm_ros.sim.maniskill.progress``, done the task's own success.

    Args:
        task: a name in ``lrm_ros.sim.maniskill.tasks.TASKS``, e.g. ``"PickCube-v1"``.
        episodes: how many; their seeds, which are their ids, are ``seed``, ``seed + 1``, ...
        seed: first seed, >= 0.
        keep: share of the frames to keep, see ``lrm_ros.training.reward.data.sources.rollouts``.
        kind: the behaviour of all episodes; empty: drawn.

    Raises:
        ValueError: unknown task.
    """
    if task not in TASKS:
        raise ValueError(f"no expert for ManiSkill task '{task}'; there are: {', '.join(TASKS)}")
    yield from rollout_entries(f"maniskill/{task}", lambda: ManiSkillWorld(task), episodes, seed, STRIDE, keep, kind)
