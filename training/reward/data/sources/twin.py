# SPDX-License-Identifier: Apache-2.0
"""Source ``twin``: rollouts of the expert and its failures in the twin, simulated when an episode is opened."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from lrm_ros.seeds import GENERATED
from lrm_ros.sim.twin.expert import KINDS
from lrm_ros.sim.twin.generate import record_episode
from lrm_ros.sim.twin.world import World
from lrm_ros.training.reward.data.sources.episode import BadEpisode, Entry, SourceEpisode
from lrm_ros.training.reward.data.sources.rollouts import draw_kind, labelled_episode

SOURCE = "twin"
STRIDE = 2


def play_twin(episodes: int, seed: int = GENERATED.first) -> Iterator[Entry]:
    """Yield labelled episodes of the task ``PlaceToyInBowl-v1``, as ``lrm_ros.sim.twin.generate`` records them.

    Progress is ``PlaceToyInBowlEnv.progress``: reaching to 0.35, holding 0.4, carrying to 0.85, in the bowl 0.9,
    lying there released 1; done means at rest for three control steps.

    Args:
        episodes: how many; their seeds, which are their ids, are ``seed``, ``seed + 1``, ...
        seed: first seed, >= 0.
    """
    world = functools.cache(World)
    for number in range(seed, seed + episodes):
        yield Entry(SOURCE, str(number), functools.partial(_play, world, number))


def _play(build: Callable[[], World], seed: int) -> SourceEpisode:
    """Simulate the episode of a seed.

    Raises:
        BadEpisode: out of the arm's reach, too short, or a failure that succeeded.
    """
    world = build()
    kind = draw_kind(SOURCE, seed, KINDS)
    row = record_episode(world, kind, seed, STRIDE)
    if row is None:
        raise BadEpisode("out of the arm's reach")
    fps = world.contract.control_hz / STRIDE
    done = row["success"].astype(bool)
    return labelled_episode(SOURCE, str(seed), world.instruction, fps, kind, row["frames"], row["progress"], done)
