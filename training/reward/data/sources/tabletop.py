# SPDX-License-Identifier: Apache-2.0
"""Sources ``tabletop/FAMILY``: a scripted Panda and its failures in tasks sampled for every episode."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy as np

from lrm_ros.sim.tabletop.scenes import FAMILIES
from lrm_ros.sim.tabletop.world import TabletopWorld
from lrm_ros.training.reward.data.sources.episode import Entry, SourceEpisode
from lrm_ros.training.reward.data.sources.rollouts import SHUFFLED, episode_of, picture_of, rollout_entries

STRIDE = 2  # of 20 control steps a second
SHUFFLED_PICTURES = 8  # of a shuffled scene


def play_tabletop(family: str, episodes: int, seed: int = 0, keep: float = 1.0, kind: str = "") -> Iterator[Entry]:
    """Yield labelled episodes of a family of tasks; each is simulated when it is opened.

    Progress and done are those of ``lrm_ros.sim.tabletop.world``.

    Args:
        family: one of ``lrm_ros.sim.tabletop.scenes.FAMILIES``, e.g. ``"stack"``.
        episodes: how many; their seeds, which are their ids, are ``seed``, ``seed + 1``, ...
        seed: first seed, >= 0.
        keep: share of the frames to keep, see ``lrm_ros.training.reward.data.sources.rollouts``.
        kind: the behaviour of all episodes; empty: drawn; ``"shuffled"``: none, everything is somewhere else in each
            picture.

    Raises:
        ValueError: unknown family.
    """
    if family not in FAMILIES:
        raise ValueError(f"no family '{family}' of tabletop tasks; there are: {', '.join(FAMILIES)}")
    if kind == SHUFFLED:
        world = functools.cache(lambda: TabletopWorld(family))
        for number in range(seed, seed + episodes):
            yield Entry(f"tabletop/{family}", str(number), functools.partial(_shuffled, family, world, number))
        return
    yield from rollout_entries(f"tabletop/{family}", lambda: TabletopWorld(family), episodes, seed, STRIDE, keep, kind)


def _shuffled(family: str, build: Callable[[], TabletopWorld], seed: int) -> SourceEpisode:
    """Return pictures of the scene of a seed, shuffled."""
    from lrm_ros.sim.tabletop.shuffle import shuffle

    world, rng = build(), np.random.default_rng([seed, 6, FAMILIES.index(family)])
    world.reset(seed)
    pictures = []
    for _ in range(SHUFFLED_PICTURES):
        shuffle(world, rng)
        pictures.append(picture_of(world))
    return episode_of(f"tabletop/{family}", seed, world, SHUFFLED, pictures, world.fps / STRIDE, 1.0)
