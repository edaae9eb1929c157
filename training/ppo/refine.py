# SPDX-License-Identifier: Apache-2.0
"""Refine a policy by PPO in simulated worlds, with the simulator's reward or a reward model's.

Each iteration collects a rollout of ``worlds`` x ``steps`` control steps from new start poses, updates the policy, and
writes everything that is needed to resume: a run that is killed at any moment ends with the same policy, to the bit, as
one that is not (on the same kind of processor and number of threads).
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrm_ros import files, seeds
from lrm_ros.checkpoint import policy_contract
from lrm_ros.commit import source_commit
from lrm_ros.config import RobotContract
from lrm_ros.config_files import from_dict, to_dict
from lrm_ros.config_refine import RefineConfig
from lrm_ros.contract import save_contract
from lrm_ros.sim.vector.rewards import WorldRewards
from lrm_ros.sim.vector.worlds import ChunkResult, VectorWorlds, Worlds
from lrm_ros.training.ppo.actors.act import ActorOutput
from lrm_ros.training.ppo.actors.load import load_actor
from lrm_ros.training.ppo.events import Events
from lrm_ros.training.ppo.films import Film, write_strip
from lrm_ros.training.ppo.ppo import RolloutBuffer, compute_gae, leave_one_out, update
from lrm_ros.training.ppo.watch import warnings_of
from lrm_ros.training.ppo.weights import weights_of
from lrm_ros.types import Observation

STATE, HISTORY, CONFIG, POLICY = "state.pt", "history.jsonl", "config.json", "policy"


@dataclass(frozen=True)
class Rollout:
    """The rollout of an iteration: T chunks in each of N worlds.

    Attributes:
        outputs: of the actor, T of them, each for all worlds.
        rewards: (T, N) summed over the steps of each chunk.
        next_values: (T, N) value of the state after each chunk; 0 where the episode terminated.
        dones: (T, N) bool, terminated or truncated.
        steps: control steps in all.
        effort: mean size of a commanded change of a joint in one step [rad].
        film: frames of the first worlds.
    """

    outputs: list[ActorOutput]
    rewards: Tensor
    next_values: Tensor
    dones: Tensor
    steps: int
    effort: float
    film: Film


class Refinement:
    """One run: worlds, reward, actor, optimiser; saves and restores its state."""

    def __init__(self, config: RefineConfig, rewards: WorldRewards | None = None, worlds: Worlds | None = None) -> None:
        """Load or resume.

        Args:
            config: settings of the run.
            rewards: the reward of each control step; made from ``config`` if not given.
            worlds: where episodes run, by the rules of ``rewards``; made in processes here if not given.

        Raises:
            ValueError: a value out of its range; the run folder belongs to another configuration.
            FileNotFoundError: no such checkpoint or model.
        """
        for name in ("iterations", "worlds", "steps", "max_steps", "execute_steps", "save_every"):
            if getattr(config, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(config, name)}")
        if config.group < 1 or config.worlds % config.group:
            raise ValueError(f"worlds ({config.worlds}) must be a multiple of group ({config.group})")
        if config.steps % config.execute_steps:
            raise ValueError(f"steps ({config.steps}) must be a multiple of execute_steps ({config.execute_steps})")
        seeds.refinement(config.seed)  # before anything is loaded
        self.config, self.folder = config, Path(config.run)
        self.contract: RobotContract = policy_contract(config.checkpoint)
        self.rewards = rewards or WorldRewards(config)
        self.actor = load_actor(config, self.contract)
        groups = self.actor.parameter_groups(config.ppo.lr, config.ppo.value_lr, config.train)
        self.reference = self.actor.reference()
        self.optimiser = torch.optim.Adam(groups, betas=(0.9, 0.95), eps=1e-5)  # upstream's
        self.generator = torch.Generator().manual_seed(config.seed)
        self.iteration = 0
        self.history: list[dict[str, Any]] = []
        self._resume()
        self.worlds: Worlds = worlds or VectorWorlds(
            config.worlds,
            self.rewards.rules,
            config.execute_steps,
            config.processes or None,
            self.contract,
            ray=config.ray,
        )

    def close(self) -> None:
        """Stop the worlds."""
        self.worlds.close()

    # ---- an iteration ------------------------------------------------------------------------------------------------

    def run_iteration(self, progress: Callable[[int], Any] | None = None) -> dict[str, Any]:
        """Collect a rollout, update, and write the state; returns the iteration's line of the history."""
        config, started = self.config, time.perf_counter()
        rollout = self._collect_rollout(progress)
        collected = time.perf_counter()
        buffer = self._buffer(rollout)
        metrics = update(
            self.actor,
            self.optimiser,
            buffer,
            config.ppo,
            self.generator,
            critic_only=self.iteration < config.ppo.critic_warmup,
        )
        updated = time.perf_counter()
        stats = self.rewards.stats
        line: dict[str, Any] = {
            "iteration": self.iteration,
            "reward_per_step": float(rollout.rewards.sum()) / rollout.steps,
            "episodes": stats.episodes,
            "success": stats.successes / stats.episodes if stats.episodes else None,
            "judged": float(np.mean(stats.p_done)) if stats.p_done else None,
            "end_progress": float(np.mean(stats.final_progress)) if stats.final_progress else None,
            "effort": rollout.effort,
            "steps": rollout.steps,
            "queries": stats.queries,
            **metrics,
            "divergence": metrics["divergence"] if config.ppo.kl_beta else None,  # else there is no reference
            "seconds": {
                "worlds": collected - started - stats.seconds,
                "reward": stats.seconds,
                "update": updated - collected,
                "all": updated - started,
            },
        }
        self.history.append(line)
        line["warnings"] = warnings_of(self.history)
        self.iteration += 1
        if self.iteration % config.save_every == 0 or self.iteration == config.iterations:
            self.save_policy(self.folder / f"iter_{self.iteration:03d}" / POLICY)
            write_strip(rollout.film, self.folder / f"iter_{self.iteration:03d}" / "film.jpg")
        self._save()
        return line

    def _collect_rollout(self, progress: Callable[[int], Any] | None) -> Rollout:
        """Run the worlds for one iteration from new start poses."""
        config, worlds, actor = self.config, self.worlds, self.actor
        observations = worlds.reset(self._start_seeds(), rebuild=True)
        self.rewards.begin(observations)
        chunks = config.steps // config.execute_steps
        outputs, rewards, final_values, dones = [], [], [], []
        steps, efforts, film = 0, [], Film(observations)
        noise = actor.noise.sample(config.worlds, self.generator)
        for _ in range(chunks):
            output = actor.act(observations, noise)
            results = worlds.step(list(output.targets))
            earned = self.rewards.score(results)
            film.add(results, earned)
            outputs.append(output)
            rewards.append([float(own.sum()) for own in earned])
            dones.append([result.done for result in results])
            final_values.append(self._truncation_values(results))
            observations = [result.observation for result in results]
            new_noise = actor.noise.sample(config.worlds, self.generator)
            done = torch.tensor(dones[-1])[:, None, None]
            noise = torch.where(done, new_noise, noise) if config.hold_noise else new_noise
            taken = sum(len(result.sent) for result in results)
            steps += taken
            efforts += [np.abs(np.diff(result.sent, axis=0)).mean() for result in results if len(result.sent) > 1]
            if progress:
                progress(taken)
        all_dones = torch.tensor(dones)
        next_values = torch.stack([*(output.value for output in outputs[1:]), actor.value(observations)])
        next_values = torch.where(all_dones, torch.stack(final_values), next_values)
        effort = float(np.mean(efforts)) if efforts else 0.0
        return Rollout(outputs, torch.tensor(rewards), next_values, all_dones, steps, effort, film)

    def _truncation_values(self, results: list[ChunkResult]) -> Tensor:
        """Return (N,) the value of the last state of truncated episodes; 0 where one terminated or goes on."""
        values = torch.zeros(len(results))
        truncated: dict[int, Observation] = {
            world: result.final_observation
            for world, result in enumerate(results)
            if result.truncated and result.final_observation is not None
        }
        if truncated:
            values[list(truncated)] = self.actor.value(list(truncated.values()))
        return values

    def _buffer(self, rollout: Rollout) -> RolloutBuffer:
        """Return the chunks of all worlds, flattened, with their advantages."""
        ppo, outputs = self.config.ppo, rollout.outputs
        values = torch.stack([output.value for output in outputs])
        advantages = compute_gae(rollout.rewards, values, rollout.next_values, rollout.dones, ppo.gamma, ppo.lam)
        inputs = {name: torch.cat([output.inputs[name] for output in outputs]) for name in outputs[0].inputs}
        actions = torch.cat([output.actions for output in outputs])
        return RolloutBuffer(
            inputs,
            actions,
            torch.cat([output.log_prob for output in outputs]),
            values.flatten(),
            leave_one_out(advantages, self.config.group).flatten(),
            (advantages + values).flatten(),
            self.reference.means(inputs, actions) if ppo.kl_beta else None,
        )

    def _start_seeds(self) -> list[list[int]]:
        """Return the seeds of this iteration's episodes: for each world as many as it can need, the same in a group."""
        config = self.config
        each = -(-config.steps // config.max_steps) + 1
        rng = np.random.default_rng([config.seed, self.iteration])
        first, size = (block := seeds.refinement(config.seed)).start, len(block)
        poses = [(first + rng.integers(size, size=each)).tolist() for _ in range(config.worlds // config.group)]
        return [seeds_of_group for seeds_of_group in poses for _ in range(config.group)]

    # ---- saving and loading ------------------------------------------------------------------------------------------

    def save_policy(self, folder: Path) -> None:
        """Write the policy as LeRobot does, with the robot contract: what ``lrm evaluate`` and the nodes load."""
        runner = self.actor.runner
        part, old = (folder.with_name(folder.name + suffix) for suffix in (".part", ".old"))
        for rest in (part, old):
            shutil.rmtree(rest, ignore_errors=True)
        part.mkdir(parents=True)
        runner.policy.save_pretrained(part)
        runner.preprocess.save_pretrained(part)
        runner.postprocess.save_pretrained(part)
        save_contract(self.contract, part)
        if folder.exists():  # of fewer iterations
            os.rename(folder, old)
        os.rename(part, folder)
        shutil.rmtree(old, ignore_errors=True)

    def resume_hint(self) -> str:
        """Return how to go on after an iteration failed, in sentences."""
        saved = list(self.folder.glob(f"iter_*/{POLICY}"))
        last = max(saved, key=lambda path: int(path.parent.name.removeprefix("iter_")), default=self.config.checkpoint)
        return (
            f"'{self.folder}' keeps its {self.iteration} finished iterations, and the same command tries again. Other "
            f"settings, as a lower ppo.lr or another seed, need another --run; it can start from --checkpoint {last}"
        )

    def _save(self) -> None:
        """Write the state; the file is whole or the old one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "iteration": self.iteration,
            "actor": self.actor.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "history": self.history,
            "config": to_dict(self.config),
            "start": weights_of(Path(self.config.checkpoint)),
        }
        with files.replacing(self.folder / STATE) as stream:
            torch.save(state, stream)
        self._save_history()

    def _save_history(self) -> None:
        """Write the history and the settings for people and the report; the state holds them, too."""
        about = {"config": to_dict(self.config), "commit": source_commit()}
        files.write_text(self.folder / HISTORY, "".join(json.dumps(line) + "\n" for line in self.history))
        files.write_json(self.folder / CONFIG, about)

    def _resume(self) -> None:
        """Load the state of the run folder, if there is one."""
        path = self.folder / STATE
        if not path.is_file():
            return
        try:
            state = torch.load(path, weights_only=True)
        except Exception as error:
            raise ValueError(
                f"'{path}' is damaged, or holds other things than a refinement writes ({type(error).__name__}); "
                "choose another --run, or delete the folder"
            ) from error
        mine = to_dict(self.config)
        its = to_dict(from_dict(RefineConfig, state["config"], str(path)))  # settings it did not know: the defaults
        may_change = {"iterations", "processes", "ray", "device", "run", "tensorboard"}
        if differing := files.differing(its, mine, may_change):
            what = "; ".join(differing)
            raise ValueError(f"'{self.folder}' belongs to another configuration: {what}. Choose another --run")
        start = weights_of(Path(self.config.checkpoint))
        if state.get("start", start) != start:
            raise ValueError(f"'{self.folder}' began from weights that '{self.config.checkpoint}' no longer has")
        self.actor.load_state_dict(state["actor"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        self.iteration, self.history = state["iteration"], state["history"]
        written = len(files.read_lines(self.folder / HISTORY))
        if written != self.iteration or not (self.folder / CONFIG).is_file():
            self._save_history()  # killed between the state and these files


def refine(
    config: RefineConfig,
    show: Callable[[dict[str, Any]], Any] | None = None,
    progress: Callable[[int], Any] | None = None,
    rewards: WorldRewards | None = None,
    worlds: Worlds | None = None,
) -> list[dict[str, Any]]:
    """Run all remaining iterations and write the final policy.

    Args:
        config: settings of the run; the final policy is ``config.run``/policy.
        show: called with the history's line after each iteration.
        progress: called with the number of control steps.
        rewards: see ``Refinement``.
        worlds: see ``Refinement``.

    Returns:
        The history, one line an iteration.

    Raises:
        RuntimeError: an iteration failed; says why and how to go on.
    """
    events = Events(config.run) if config.tensorboard else None
    run = Refinement(config, rewards, worlds)
    try:
        while run.iteration < config.iterations:
            try:
                line = run.run_iteration(progress)
            except (FloatingPointError, RuntimeError) as error:
                raise RuntimeError(f"{error}. {run.resume_hint()}") from error
            if events:
                events.add(line)
            if show:
                show(line)
        run.save_policy(Path(config.run) / POLICY)
    finally:
        run.close()
        if events:
            events.close()
    return run.history
