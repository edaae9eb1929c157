# SPDX-License-Identifier: Apache-2.0
"""Refine a policy by PPO in simulated worlds, with the simulator's reward or a reward model's.

Each iteration plays ``worlds`` x ``steps`` control steps from new start poses, learns from them, and writes everything
a later process needs to go on: a run that is killed at any moment ends with the same policy, to the bit, as one that is
not (on the same kind of processor and number of threads).
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
from lrm_ros.commit import source_commit
from lrm_ros.config import RefineConfig, RobotContract
from lrm_ros.config_files import from_dict, to_dict
from lrm_ros.contract import load_contract, save_contract
from lrm_ros.sim.vector.rewards import WorldRewards
from lrm_ros.sim.vector.worlds import Stretch, VectorWorlds, Worlds
from lrm_ros.training.ppo.actors.act import Decisions
from lrm_ros.training.ppo.actors.load import load_actor
from lrm_ros.training.ppo.events import Events
from lrm_ros.training.ppo.films import Film, write_strip
from lrm_ros.training.ppo.ppo import Experience, advantages, against_group, update
from lrm_ros.training.ppo.watch import warnings_of
from lrm_ros.training.ppo.weights import weights_of
from lrm_ros.types import Observation

STATE, HISTORY, CONFIG, POLICY = "state.pt", "history.jsonl", "config.json", "policy"


@dataclass(frozen=True)
class Rollout:
    """What the worlds did in an iteration.

    Attributes:
        decisions: of each round, in all worlds.
        rewards: (T, N) summed over the steps of each decision.
        following: (T, N) value of what came after.
        ended: (T, N) bool.
        steps: control steps in all.
        effort: mean size of a commanded change of a joint in one step [rad].
        film: what the first worlds showed.
    """

    decisions: list[Decisions]
    rewards: Tensor
    following: Tensor
    ended: Tensor
    steps: int
    effort: float
    film: Film


class Refinement:
    """One run: worlds, reward, actor, optimiser, and their way to disk and back."""

    def __init__(self, config: RefineConfig, rewards: WorldRewards | None = None, worlds: Worlds | None = None) -> None:
        """Load or resume.

        Args:
            config: what to do.
            rewards: what a step is worth; made from ``config`` if not given.
            worlds: where episodes are played, by the rules of ``rewards``; made in processes here if not given.

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
        self.contract: RobotContract = load_contract(Path(config.checkpoint))
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

    def step(self, progress: Callable[[int], Any] | None = None) -> dict[str, Any]:
        """Play, learn, and write the state; returns the iteration's line of the history."""
        config, started = self.config, time.perf_counter()
        rollout = self._play(progress)
        played = time.perf_counter()
        experience = self._experience(rollout)
        figures = update(
            self.actor,
            self.optimiser,
            experience,
            config.ppo,
            self.generator,
            critic_only=self.iteration < config.ppo.critic_warmup,
        )
        learned = time.perf_counter()
        tally = self.rewards.tally
        line: dict[str, Any] = {
            "iteration": self.iteration,
            "reward_per_step": float(rollout.rewards.sum()) / rollout.steps,
            "episodes": tally.episodes,
            "success": tally.succeeded / tally.episodes if tally.episodes else None,
            "judged": float(np.mean(tally.judged)) if tally.judged else None,
            "end_progress": float(np.mean(tally.progress)) if tally.progress else None,
            "effort": rollout.effort,
            "steps": rollout.steps,
            "queries": tally.queries,
            **figures,
            "divergence": figures["divergence"] if config.ppo.kl_beta else None,  # without it nobody asks the reference
            "seconds": {
                "worlds": played - started - tally.seconds,
                "reward": tally.seconds,
                "update": learned - played,
                "all": learned - started,
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

    def _play(self, progress: Callable[[int], Any] | None) -> Rollout:
        """Play one iteration from new start poses."""
        config, worlds, actor = self.config, self.worlds, self.actor
        observations = worlds.reset(self._seeds(), rebuild=True)
        self.rewards.begin(observations)
        rounds = config.steps // config.execute_steps
        decided, rewards, following, ended = [], [], [], []
        steps, efforts, film = 0, [], Film(observations)
        free = actor.noise.sample(config.worlds, self.generator)
        for _ in range(rounds):
            decisions = actor.decide(observations, free)
            stretches = worlds.advance(list(decisions.actions))
            earned = self.rewards.score(stretches)
            film.add(stretches, earned)
            decided.append(decisions)
            rewards.append([float(own.sum()) for own in earned])
            ended.append([stretch.ended for stretch in stretches])
            following.append(self._values_at_ends(stretches))
            observations = [stretch.observation for stretch in stretches]
            new = actor.noise.sample(config.worlds, self.generator)
            over = torch.tensor(ended[-1])[:, None, None]
            free = torch.where(over, new, free) if config.hold_noise else new
            taken = sum(len(stretch.sent) for stretch in stretches)
            steps += taken
            efforts += [np.abs(np.diff(stretch.sent, axis=0)).mean() for stretch in stretches if len(stretch.sent) > 1]
            if progress:
                progress(taken)
        done = torch.tensor(ended)
        later = torch.stack([*(decisions.value for decisions in decided[1:]), actor.value(observations)])
        values = torch.where(done, torch.stack(following), later)
        return Rollout(
            decided, torch.tensor(rewards), values, done, steps, float(np.mean(efforts)) if efforts else 0.0, film
        )

    def _values_at_ends(self, stretches: list[Stretch]) -> Tensor:
        """Return (N,) the value of the last state of episodes that were cut off; 0 where one was done or goes on."""
        values = torch.zeros(len(stretches))
        cut: dict[int, Observation] = {
            world: stretch.final
            for world, stretch in enumerate(stretches)
            if stretch.cut_off and stretch.final is not None
        }
        if cut:
            values[list(cut)] = self.actor.value(list(cut.values()))
        return values

    def _experience(self, rollout: Rollout) -> Experience:
        """Return the decisions of all worlds in one row, with their advantages."""
        ppo, decided = self.config.ppo, rollout.decisions
        value = torch.stack([decisions.value for decisions in decided])
        advantage = advantages(rollout.rewards, value, rollout.following, rollout.ended, ppo.gamma, ppo.lam)
        inputs = {name: torch.cat([d.inputs[name] for d in decided]) for name in decided[0].inputs}
        drawn = torch.cat([decisions.drawn for decisions in decided])
        return Experience(
            inputs,
            drawn,
            torch.cat([decisions.log_prob for decisions in decided]),
            value.flatten(),
            against_group(advantage, self.config.group).flatten(),
            (advantage + value).flatten(),
            self.reference.means(inputs, drawn) if ppo.kl_beta else None,
        )

    def _seeds(self) -> list[list[int]]:
        """Return the start poses of this iteration: for each world as many as it can need, the same in a group."""
        config = self.config
        each = -(-config.steps // config.max_steps) + 1
        rng = np.random.default_rng([config.seed, self.iteration])
        first, size = (block := seeds.refinement(config.seed)).start, len(block)
        poses = [(first + rng.integers(size, size=each)).tolist() for _ in range(config.worlds // config.group)]
        return [own for own in poses for _ in range(config.group)]

    # ---- to disk and back --------------------------------------------------------------------------------------------

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

    def ways_on(self) -> str:
        """Return what can be done when an iteration fails, in sentences."""
        kept = list(self.folder.glob(f"iter_*/{POLICY}"))
        last = max(kept, key=lambda path: int(path.parent.name.removeprefix("iter_")), default=self.config.checkpoint)
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
        self._save_words()

    def _save_words(self) -> None:
        """Write what people and the report read; the state knows it, too."""
        about = {"config": to_dict(self.config), "commit": source_commit()}
        files.write_text(self.folder / HISTORY, "".join(json.dumps(line) + "\n" for line in self.history))
        files.write_json(self.folder / CONFIG, about)

    def _resume(self) -> None:
        """Take up the state of the run folder, if there is one."""
        path = self.folder / STATE
        if not path.is_file():
            return
        state = torch.load(path, weights_only=False)
        mine = to_dict(self.config)
        its = to_dict(from_dict(RefineConfig, state["config"], str(path)))  # settings it did not know: the defaults
        free = {"iterations", "processes", "ray", "device", "run", "tensorboard"}
        if differing := files.differing(its, mine, free):
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
            self._save_words()  # killed between the state and these files


def refine(
    config: RefineConfig,
    show: Callable[[dict[str, Any]], Any] | None = None,
    progress: Callable[[int], Any] | None = None,
    rewards: WorldRewards | None = None,
    worlds: Worlds | None = None,
) -> list[dict[str, Any]]:
    """Run all iterations that are left and write the final policy.

    Args:
        config: what to do; the final policy is ``config.run``/policy.
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
                line = run.step(progress)
            except (FloatingPointError, RuntimeError) as error:
                raise RuntimeError(f"{error}. {run.ways_on()}") from error
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
