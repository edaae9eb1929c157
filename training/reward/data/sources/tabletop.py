# SPDX-License-Identifier: Apache-2.0
"""Sources ``tabletop/FAMILY``, ``fixtures/FAMILY``: a scripted Panda and its failures, a task drawn for each episode.

Progress and done are those of ``lrm_ros.sim.tabletop.world`` and ``lrm_ros.sim.tabletop.fixture_world``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from lrm_ros.sim.tabletop.fixture_scenes import FAMILIES as FIXTURES
from lrm_ros.sim.tabletop.fixture_world import FixtureWorld
from lrm_ros.sim.tabletop.scenes import FAMILIES
from lrm_ros.sim.tabletop.shuffle import shuffle
from lrm_ros.sim.tabletop.world import TabletopWorld
from lrm_ros.training.reward.data.sources.episode import Entry, SourceEpisode
from lrm_ros.training.reward.data.sources.rollouts import SHUFFLED, episode_of, picture_of, rollout_entries

STRIDE = 2  # of 20 control steps a second
SHUFFLED_PICTURES = 8  # of a shuffled scene
World = TypeVar("World", TabletopWorld, FixtureWorld)


def play_tabletop(family: str, episodes: int, seed: int = 0, keep: float = 1.0, kind: str = "") -> Iterator[Entry]:
    """Yield labelled episodes of a family of tasks with loose things; each is simulated when it is opened.

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
    source, build = f"tabletop/{family}", lambda: TabletopWorld(family)
    if kind == SHUFFLED:
        yield from _pictures(source, build, shuffle, episodes, seed, FAMILIES.index(family))
        return
    yield from rollout_entries(source, build, episodes, seed, STRIDE, keep, kind)


def play_fixtures(family: str, episodes: int, seed: int = 0, keep: float = 1.0, kind: str = "") -> Iterator[Entry]:
    """Yield labelled episodes of a family of ``lrm_ros.sim.tabletop.fixture_scenes``; see :func:`play_tabletop`."""
    if family not in FIXTURES:
        raise ValueError(f"no family '{family}' of fixtures; there are: {', '.join(FIXTURES)}")
    source, build = f"fixtures/{family}", lambda: FixtureWorld(family)
    if kind == SHUFFLED:
        yield from _pictures(source, build, FixtureWorld.shuffle, episodes, seed, FIXTURES.index(family))
        return
    yield from rollout_entries(source, build, episodes, seed, STRIDE, keep, kind)


def _pictures(
    source: str,
    build: Callable[[], World],
    shuffle: Callable[[World, np.random.Generator], None],
    episodes: int,
    seed: int,
    number: int,
) -> Iterator[Entry]:
    """Yield episodes of pictures without motion; ``number``: of the family, for draws of its own."""
    world = functools.cache(build)
    for one in range(seed, seed + episodes):
        yield Entry(source, str(one), functools.partial(_shuffled, source, world, shuffle, one, number))


def _shuffled(
    source: str,
    build: Callable[[], World],
    shuffle: Callable[[World, np.random.Generator], None],
    seed: int,
    number: int,
) -> SourceEpisode:
    """Return pictures of the scene of a seed, shuffled."""
    world, rng = build(), np.random.default_rng([seed, 6, number])
    world.reset(seed)
    pictures = []
    for _ in range(SHUFFLED_PICTURES):
        shuffle(world, rng)
        pictures.append(picture_of(world))
    return episode_of(source, seed, world, SHUFFLED, pictures, world.fps / STRIDE, 1.0)
