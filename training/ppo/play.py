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

from lrm_ros.checkpoint import policy_contract
from lrm_ros.sim.vector.worlds import EpisodeRules, VectorWorlds
from lrm_ros.training.ppo.actors.load import load_eval_actor


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
    _check(seeds)
    contract = policy_contract(checkpoint)
    with VectorWorlds(
        min(worlds, len(seeds)), EpisodeRules(max_steps), execute_steps, processes, contract
    ) as vector:  # fmt: skip
        return play_seeds(vector, checkpoint, seeds, noise_std, noise_seed, progress)


def play_seeds(
    worlds: VectorWorlds,
    checkpoint: str | Path,
    seeds: Sequence[int],
    noise_std: float = 0.0,
    noise_seed: int = 0,
    progress: Callable[[int], Any] | None = None,
) -> dict[int, bool]:
    """Measure one of several policies in the same worlds; the result does not depend on what was played before.

    Args:
        worlds: at most one a seed; their chunk is what is executed of every chunk.
        checkpoint: see ``evaluate_in_worlds``, also for the others and what is returned.
        seeds: one episode each.
        noise_std: deviation of the targets [rad].
        noise_seed: of that noise.
        progress: called with the number of episodes that ended.

    Raises:
        ValueError: no seed, one twice, or fewer than worlds.
    """
    _check(seeds)
    count = worlds.count
    if len(seeds) < count:
        raise ValueError(f"{count} worlds need at least as many seeds, got {len(seeds)}")
    actor = load_eval_actor(checkpoint, worlds.contract, worlds.chunk, noise_std)
    generator = torch.Generator().manual_seed(noise_seed)
    found: dict[int, bool] = {}
    left = [len(seeds[world::count]) for world in range(count)]
    observations = worlds.reset([list(seeds[world::count]) for world in range(count)], rebuild=True)
    playing = [int(seeds[world]) for world in range(count)]
    noise = actor.noise.sample(count, generator)
    while any(left):
        active = [world for world in range(count) if left[world]]
        seen = [observations[world] for world in active]
        output = actor.act(seen, noise[active] if noise_std else None)
        for world, result in zip(active, worlds.step(list(output.targets), active), strict=True):
            observations[world] = result.observation
            if result.done:
                noise[world] = actor.noise.sample(1, generator)[0]
                found[playing[world]] = bool(result.success.any())
                playing[world] = result.seed
                left[world] -= 1
                if progress:
                    progress(1)
    return {seed: found[seed] for seed in seeds}


def _check(seeds: Sequence[int]) -> None:
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"the evaluation needs different seeds, got {len(seeds)}, {len(set(seeds))} of them different")
