# SPDX-License-Identifier: Apache-2.0
"""Sources ``fixtures/FAMILY``: a scripted Panda and its failures at buttons, drawers, levers and handles."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy as np

from lrm_ros.sim.tabletop.fixture_scenes import FAMILIES
from lrm_ros.sim.tabletop.fixture_world import FixtureWorld
from lrm_ros.training.reward.data.sources.episode import Entry, SourceEpisode
from lrm_ros.training.reward.data.sources.rollouts import SHUFFLED, episode_of, picture_of, rollout_entries
from lrm_ros.training.reward.data.sources.tabletop import SHUFFLED_PICTURES, STRIDE


def play_fixtures(family: str, episodes: int, seed: int = 0, keep: float = 1.0, kind: str = "") -> Iterator[Entry]:
    """Yield labelled episodes of a family of tasks; each is simulated when it is opened.

    Progress and done are those of ``lrm_ros.sim.tabletop.fixture_world``.

    Args:
        family: one of ``lrm_ros.sim.tabletop.fixture_scenes.FAMILIES``, e.g. ``"drawer"``.
        episodes: how many; their seeds, which are their ids, are ``seed``, ``seed + 1``, ...
        seed: first seed, >= 0.
        keep: share of the frames to keep, see ``lrm_ros.training.reward.data.sources.rollouts``.
        kind: the behaviour of all episodes; empty: drawn; ``"shuffled"``: none, every joint is somewhere else in each
            picture.

    Raises:
        ValueError: unknown family.
    """
    if family not in FAMILIES:
        raise ValueError(f"no family '{family}' of fixtures; there are: {', '.join(FAMILIES)}")
    source = f"fixtures/{family}"
    if kind != SHUFFLED:
        yield from rollout_entries(source, lambda: FixtureWorld(family), episodes, seed, STRIDE, keep, kind)
        return
    world = functools.cache(lambda: FixtureWorld(family))
    for number in range(seed, seed + episodes):
        yield Entry(source, str(number), functools.partial(_shuffled, source, world, number))


def _shuffled(source: str, build: Callable[[], FixtureWorld], seed: int) -> SourceEpisode:
    """Return pictures of the scene of a seed, shuffled."""
    world, rng = build(), np.random.default_rng([seed, 6])
    world.reset(seed)
    pictures = []
    for _ in range(SHUFFLED_PICTURES):
        world.shuffle(rng)
        pictures.append(picture_of(world))
    return episode_of(source, seed, world, SHUFFLED, pictures, world.fps / STRIDE, 1.0)
