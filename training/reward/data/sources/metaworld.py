# SPDX-License-Identifier: Apache-2.0
"""Sources ``metaworld/TASK``: Meta-World's scripted policies and their failures (needs the package ``metaworld``)."""

from __future__ import annotations

from collections.abc import Iterator

from lrm_ros.sim.metaworld.tasks import TASKS
from lrm_ros.sim.metaworld.world import MetaWorldWorld
from lrm_ros.training.reward.data.sources.episode import Entry
from lrm_ros.training.reward.data.sources.rollouts import rollout_entries

STRIDE = 4  # of 80 control steps a second


def play_metaworld(task: str, episodes: int, seed: int = 0, keep: float = 1.0, kind: str = "") -> Iterator[Entry]:
    """Yield labelled episodes of a Meta-World task; each is simulated when it is opened.

    Progress is the one of ``lrm_ros.sim.metaworld.world``, done the task's own success.

    Args:
        task: a name in ``lrm_ros.sim.metaworld.tasks.TASKS``, e.g. ``"drawer-open-v3"``.
        episodes: how many; their seeds, which are their ids, are ``seed``, ``seed + 1``, ...
        seed: first seed, >= 0.
        keep: share of the frames to keep, see ``lrm_ros.training.reward.data.sources.rollouts``.
        kind: the behaviour of all episodes; empty: drawn.

    Raises:
        ValueError: unknown task.
        ImportError: at the first ``open()``, if ``metaworld`` is not installed.
    """
    if task not in TASKS:
        raise ValueError(f"no instruction for Meta-World task '{task}'; there are: {', '.join(TASKS)}")
    yield from rollout_entries(f"metaworld/{task}", lambda: MetaWorldWorld(task), episodes, seed, STRIDE, keep, kind)
