# SPDX-License-Identifier: Apache-2.0
"""Sources ``twin`` and ``twin-sort``: rollouts of the expert and its failures, simulated when an episode is opened."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy as np

from lrm_ros.seeds import GENERATED
from lrm_ros.sim.instructions import Labelled
from lrm_ros.sim.seen import Seen
from lrm_ros.sim.twin.expert import KINDS, MISTAKES
from lrm_ros.sim.twin.generate import record_episode, record_shuffled
from lrm_ros.sim.twin.world import World
from lrm_ros.training.reward.data.sources.episode import BadEpisode, Entry, SourceEpisode
from lrm_ros.training.reward.data.sources.rollouts import SHUFFLED, draw_kind, labelled_episode

SOURCES = {"twin": ("PlaceToyInBowl-v1", KINDS), "twin-sort": ("SortToys-v1", (*KINDS, *MISTAKES))}  # task and kinds
STRIDE = 2


def play_twin(
    episodes: int, seed: int = GENERATED.first, source: str = "twin", shuffled: bool = False
) -> Iterator[Entry]:
    """Yield labelled episodes of a task of the twin, as ``lrm_ros.sim.twin.generate`` records them.

    Progress is ``PlaceToyInBowlEnv.progress``: reaching to 0.35, holding 0.4, carrying to 0.85, in the bowl 0.9,
    lying there released 1; done means at rest for three control steps.

    Args:
        episodes: how many; their seeds, which are their ids, are ``seed``, ``seed + 1``, ...
        seed: first seed, >= 0.
        source: of ``SOURCES``: ``twin`` has a toy and a bowl, ``twin-sort`` several toys and two vessels.
        shuffled: no motion: everything is somewhere else in each picture of an episode; of ``twin-sort`` only.

    Raises:
        ValueError: the source cannot be shuffled.
    """
    if shuffled and source != "twin-sort":
        raise ValueError(f"source '{source}' has nothing to shuffle; 'twin-sort' and 'tabletop/...' have")
    world = functools.cache(lambda: World(SOURCES[source][0]))
    for number in range(seed, seed + episodes):
        yield Entry(source, str(number), functools.partial(_play, source, world, number, shuffled))


def _play(source: str, build: Callable[[], World], seed: int, shuffled: bool) -> SourceEpisode:
    """Simulate the episode of a seed.

    Raises:
        BadEpisode: out of the arm's reach, too short, or a failure that succeeded.
    """
    world = build()
    kind = SHUFFLED if shuffled else draw_kind(source, seed, SOURCES[source][1])
    row = record_shuffled(world, seed) if shuffled else record_episode(world, kind, seed, STRIDE)
    if row is None:
        raise BadEpisode("out of the arm's reach")
    fps = world.contract.control_hz / STRIDE
    done = row["success"].astype(bool)
    asked = Labelled(world.task_env.instructions, row["labels"].astype(np.float32))
    seen = Seen(tuple(name for name, _, _ in world.task_env.things()), row["cells"], row["where"])
    about = (source, str(seed), world.instruction, fps, kind)
    return labelled_episode(*about, row["frames"], row["progress"], done, asked=asked, seen=seen)
