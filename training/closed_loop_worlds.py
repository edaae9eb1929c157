# SPDX-License-Identifier: Apache-2.0
"""Measure a policy's success in many worlds at once, in this process: what ``lrm evaluate --worlds N`` does.

The scenes are built anew at the start and every world plays its own seeds in a fixed order, so the same policy, seeds
and number of worlds give the same result to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from lrm_ros.contract import load_contract
from sim.vector import EpisodeRules, VectorWorlds
from training.load_actor import load_player


def evaluate_in_worlds(
    checkpoint: str | Path,
    seeds: Sequence[int],
    worlds: int = 8,
    max_steps: int = 60,
    execute_steps: int = 8,
    noise_std: float = 0.0,
    noise_seed: int = 0,
    processes: int | None = None,
    progress: Callable[[int], Any] | None = None,
) -> dict[int, bool]:
    """Return for each seed whether the simulator saw success at any time in its episode.

    Args:
        checkpoint: folder of a policy that can be refined.
        seeds: one episode each, no seed twice.
        worlds: how many play at once.
        max_steps: control steps after which an episode ends.
        execute_steps: actions executed of every chunk.
        noise_std: deviation of the targets [rad], one draw an episode as in refinement; 0: the policy's own,
            deterministic actions. Flow and diffusion policies take more than 0 for the noise that refinement gives
            their sampler by default, and 0 for one fixed starting noise and no other; the steps are the checkpoint's.
        noise_seed: of that noise.
        processes: that share the worlds; default: one a core.
        progress: called with the number of episodes that ended.

    Raises:
        ValueError: no seed, or one twice.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"the evaluation needs different seeds, got {len(seeds)}, {len(set(seeds))} of them different")
    contract = load_contract(Path(checkpoint))
    actor = load_player(checkpoint, contract, execute_steps, noise_std)
    generator = torch.Generator().manual_seed(noise_seed)
    worlds = min(worlds, len(seeds))
    found: dict[int, bool] = {}
    with VectorWorlds(worlds, EpisodeRules(max_steps), execute_steps, processes, contract) as vector:
        left = [len(seeds[world::worlds]) for world in range(worlds)]
        observations = vector.reset([list(seeds[world::worlds]) for world in range(worlds)], rebuild=True)
        playing = [int(seeds[world]) for world in range(worlds)]
        free = actor.noise.sample(worlds, generator)
        while any(left):
            active = [world for world in range(worlds) if left[world]]
            seen = [observations[world] for world in active]
            decisions = actor.decide(seen, free[active] if noise_std else None)
            for world, stretch in zip(active, vector.advance(list(decisions.actions), active), strict=True):
                observations[world] = stretch.observation
                if stretch.ended:
                    free[world] = actor.noise.sample(1, generator)[0]
                    found[playing[world]] = bool(stretch.success.any())
                    playing[world] = stretch.seed
                    left[world] -= 1
                    if progress:
                        progress(1)
    return {seed: found[seed] for seed in seeds}
