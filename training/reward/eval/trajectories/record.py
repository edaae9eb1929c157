# SPDX-License-Identifier: Apache-2.0
"""Record rollouts of a policy in the twin, a frame a control step, in upstream's layout for open-loop scoring.

``worker_0/trajectories/traj_<world:04d>_<episode:02d>/`` holds ``frame_000.png`` (after the first action) and so on,
``metadata.jsonl`` (a line a control step: t, oracle_reward, cumulative_reward, success) and ``summary.json``
(Large-Reward-Models:envs/recording_maniskill_env.py). ``simulator.json`` beside them is ours: the episode's seed and
the simulator's progress before the first step and after each.

``oracle_reward`` is the change of the simulator's progress, and 1 more when the task is first done: reward ``env`` of
``lrm ppo``. All episodes have the same length. They run in rounds, one in each world, in rebuilt scenes, so
a recording that was cut short goes on and ends the same to the bit.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from lrm_ros.checkpoint import policy_contract
from lrm_ros.commit import source_commit
from lrm_ros.files import read_json, write_json
from lrm_ros.sim.vector.worlds import EpisodeRules, VectorWorlds
from lrm_ros.training.ppo.actors.load import load_eval_actor
from lrm_ros.types import Frame

RECORDING = "recording.json"
WORKER = "worker_0"
SIMULATOR = "simulator.json"


@dataclass
class RecordedEpisode:
    """An episode of T control steps.

    Attributes:
        seed: of its start pose.
        task: language instruction.
        frames: T, each after its action.
        progress: (T + 1) simulator's progress, in [0, 1].
        success: (T) simulator's success.
    """

    seed: int
    task: str
    frames: list[Frame] = field(default_factory=list)
    progress: list[float] = field(default_factory=list)
    success: list[bool] = field(default_factory=list)


def record(
    checkpoint: str | Path,
    seeds: Sequence[int],
    out: Path,
    worlds: int = 8,
    max_steps: int = 60,
    execute_steps: int = 8,
    noise_std: float = 0.0,
    noise_seed: int = 0,
    processes: int | None = None,
    progress: Callable[[int], Any] | None = None,
) -> int:
    """Record an episode for each seed, unless it is on disk already.

    Args:
        checkpoint: folder of the policy.
        seeds: of the start poses, no seed twice.
        out: folder of the recording.
        worlds: simulated at once; a recording is the same to the bit only with the same number.
        max_steps: control steps of every episode, at most 1000 (upstream's frames have three digits).
        execute_steps: actions executed of every chunk.
        noise_std: standard deviation of the exploration noise [rad], drawn once an episode as in refinement; 0: none.
        noise_seed: of that noise.
        processes: worker processes of the worlds; default: one a core.
        progress: called with the number of episodes that are on disk now.

    Returns:
        How many were recorded now.

    Raises:
        FileNotFoundError: no policy there.
        ValueError: a number out of its range, or ``out`` holds something else than this recording.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"a recording needs different seeds, got {len(seeds)}, {len(set(seeds))} of them different")
    if worlds < 1 or not 1 <= max_steps <= 1000:
        raise ValueError(f"worlds must be at least 1 and steps 1 to 1000, got {worlds} and {max_steps}")
    worlds = min(worlds, len(seeds))
    about = {
        "weights": _weights(Path(checkpoint)),
        "seeds": list(map(int, seeds)),
        "worlds": worlds,
        "max_steps": max_steps,
        "execute_steps": execute_steps,
        "noise_std": noise_std,
        "noise_seed": noise_seed,
    }
    _check_recording(out, about | {"policy": str(checkpoint), "commit": source_commit()}, tuple(about))
    rounds = [list(seeds[at : at + worlds]) for at in range(0, len(seeds), worlds)]
    missing = [
        round_index
        for round_index, own in enumerate(rounds)
        if not all(_folder(out, w, round_index).is_dir() for w in range(len(own)))
    ]
    if progress:
        progress(sum(len(own) for round_index, own in enumerate(rounds) if round_index not in missing))
    if not missing:
        return 0
    count = 0
    contract = policy_contract(checkpoint)
    actor = load_eval_actor(checkpoint, contract, execute_steps, noise_std)
    rules = EpisodeRules(max_steps, stop_at_success=False, judge_every=1)
    with VectorWorlds(worlds, rules, execute_steps, processes, contract) as vector:
        for round_index in missing:
            episodes = _rollout(vector, actor, rounds[round_index], noise_seed if noise_std else None)
            for world, episode in enumerate(episodes):
                if not _folder(out, world, round_index).is_dir():
                    _write(episode, _folder(out, world, round_index))
                    count += 1
            if progress:
                progress(len(episodes))
    return count


def oracle_rewards(progress: Sequence[float], success: Sequence[bool]) -> list[float]:
    """Return the simulator's reward of each step: change of progress, and 1 when the task is first done.

    Args:
        progress: (T + 1) before the first step and after each.
        success: (T) after each.
    """
    first = next((t for t, done in enumerate(success) if done), -1)
    return [float(now - before) + (t == first) for t, (before, now) in enumerate(pairwise(progress))]


def _rollout(vector: VectorWorlds, actor: Any, seeds: Sequence[int], noise_seed: int | None) -> list[RecordedEpisode]:
    """Run one episode in each of the first worlds; the others are idle."""
    active = list(range(len(seeds)))
    starts = [*seeds, *[seeds[-1]] * (vector.count - len(seeds))]
    observations = vector.reset([[seed] for seed in starts], rebuild=True)[: len(seeds)]
    episodes = [RecordedEpisode(seed, observation.task) for seed, observation in zip(seeds, observations, strict=True)]
    noise = None if noise_seed is None else torch.cat([_noise(actor, noise_seed, seed) for seed in seeds])
    while active:
        chunks = list(actor.act(observations, noise).targets)
        results = vector.step(chunks, active)
        for episode, result in zip(episodes, results, strict=True):
            episode.frames += [frame for _, frame in result.judged]
            episode.progress += result.progress.tolist()[1 if episode.progress else 0 :]
            episode.success += result.success.tolist()
        if results[0].done:  # all together: episodes have the same length
            return episodes
        observations = [result.observation for result in results]
    return episodes


def _noise(actor: Any, noise_seed: int, seed: int) -> torch.Tensor:
    """Return the noise (1, R, D) of an episode; it depends on both seeds alone."""
    state = int(np.random.SeedSequence([noise_seed, seed]).generate_state(1)[0])
    return actor.noise.sample(1, torch.Generator().manual_seed(state))


# ---- files -----------------------------------------------------------------------------------------------------------


def _folder(out: Path, world: int, round_index: int) -> Path:
    return out / WORKER / "trajectories" / f"traj_{world:04d}_{round_index:02d}"


def _write(episode: RecordedEpisode, folder: Path) -> None:
    """Write a trajectory; it appears under its name when it is whole."""
    part = folder.parents[1] / ".part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    rewards, total, lines = oracle_rewards(episode.progress, episode.success), 0.0, []
    for t, (frame, reward, done) in enumerate(zip(episode.frames, rewards, episode.success, strict=True)):
        Image.fromarray(frame.image).save(part / f"frame_{t:03d}.png")
        total += reward
        lines.append({"t": t, "oracle_reward": reward, "cumulative_reward": total, "success": done})
    summary = {"success_once": any(episode.success), "total_oracle_reward": total, "task_description": episode.task}
    (part / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (part / "summary.json").write_text(json.dumps(summary, indent=2))
    (part / SIMULATOR).write_text(json.dumps({"seed": episode.seed, "progress": episode.progress}))
    folder.parent.mkdir(parents=True, exist_ok=True)
    os.replace(part, folder)


def _check_recording(out: Path, about: dict[str, Any], same: Sequence[str]) -> None:
    """Write what the recording was made with, or check that what is there was made with the same."""
    path = out / RECORDING
    if path.is_file():
        before = read_json(path, "give another --out")
        differing = [name for name in same if before.get(name) != about[name]]
        if differing:
            raise ValueError(f"'{out}' holds a recording with other {', '.join(differing)}; give another --out")
        return
    if (out / WORKER).exists():
        raise ValueError(f"'{out}' holds trajectories but no {RECORDING} that says of what; give another --out")
    write_json(path, about, indent=None)


def _weights(policy: Path) -> str:
    """Return a hash of a policy's weights."""
    path = policy / "model.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"'{policy}' holds no policy (no model.safetensors); give a folder of 'lrm finetune' or 'lrm ppo'"
        )
    return hashlib.sha256(path.read_bytes()).hexdigest()
