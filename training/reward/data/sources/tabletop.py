# SPDX-License-Identifier: Apache-2.0
"""Sources ``tabletop/FAMILY``: a scripted Panda and its failures in tasks sampled for every episode."""

from __future__ import annotations

from collections.abc import Iterator

from lrm_ros.sim.tabletop.scenes import FAMILIES
from lrm_ros.sim.tabletop.world import TabletopWorld
from lrm_ros.training.reward.data.sources.episode import Entry
from lrm_ros.training.reward.data.sources.rollouts import rollout_entries

STRIDE = 2  # of 20 control steps a second


def play_tabletop(family: str, episodes: int, seed: int = 0, keep: float = 1.0, kind: str = "") -> Iterator[Entry]:
    """Yield labelled episodes of a family of tasks; each is simulated when it is opened.

    Progress and done are those of ``lrm_ros.sim.tabletop.world``.

    Args:
        family: one of ``lrm_ros.sim.tabletop.scenes.FAMILIES``, e.g. ``"stack"``.
        episodes: how many; their seeds, which are their ids, are ``seed``, ``seed + 1``, ...
        seed: first seed, >= 0.
        keep: share of the frames to keep, see ``lrm_ros.training.reward.data.sources.rollouts``.
        kind: the behaviour of all episodes; empty: drawn.

    Raises:
        ValueError: unknown family.
    """
    if family not in FAMILIES:
        raise ValueError(f"no family '{family}' of tabletop tasks; there are: {', '.join(FAMILIES)}")
    yield from rollout_entries(f"tabletop/{family}", lambda: TabletopWorld(family), episodes, seed, STRIDE, keep, kind)
