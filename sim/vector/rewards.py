# SPDX-License-Identifier: Apache-2.0
"""Rewards of many worlds: from the simulator's state, or from the reward model that watches their frames.

Modes ``contrastive``, ``progress``, ``completion``, ``tri`` and the baselines never see the simulator's state. The
reward of a control step is the newest answer for a frame up to that step (interval-hold, paper eq. 8); before the first
answer of an episode there is nothing to hold and a step counts 0. The first frame of an episode is judged, too;
contrastive compares from the second on. The baselines (RoboReward, Robometer, TOPReward) get all judged frames of the
episode so far. A query that fails ends the run, which can be resumed: no reward is made up.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RewardConfig
from lrm_ros.config_refine import RefineConfig
from lrm_ros.reward.engine import Held, RewardEngine
from lrm_ros.reward.models import MODES, RewardModel
from lrm_ros.sim.vector.worlds import ChunkResult, EpisodeRules
from lrm_ros.types import VIDEO_HEADS, Frame, Observation, Reward, Unscored

ENV = "env"
REWARDS = (ENV, *MODES)


class FrameScorer(Protocol):
    """The methods of ``RewardEngine`` that are used; it may be in another process."""

    def reset(self, stream: str) -> None:
        """Begin a new episode of a stream."""

    def step(self, frames: Mapping[str, Frame], tasks: Mapping[str, str]) -> dict[str, Held]:
        """Judge the next frame of each stream."""
        ...

    def completion(self, frames: Mapping[str, Frame], tasks: Mapping[str, str]) -> dict[str, Reward | Unscored]:
        """Return p(done) of one frame of each stream."""
        ...


@dataclass
class EpisodeStats:
    """Statistics of the episodes that ended since the last ``begin``.

    Attributes:
        episodes: number of episodes.
        successes: of these, by the simulator, at any time: for people, not for the reward.
        p_done: of the completion head at the end of each.
        final_progress: simulator's progress at the end of each.
        queries: to the reward model.
        seconds: time of its answers.
    """

    episodes: int = 0
    successes: int = 0
    p_done: list[float] = field(default_factory=list)
    final_progress: list[float] = field(default_factory=list)
    queries: int = 0
    seconds: float = 0.0


class WorldRewards:
    """Computes the reward of each control step from the worlds' results."""

    def __init__(
        self, config: RefineConfig, model: RewardModel | None = None, engine: FrameScorer | None = None
    ) -> None:
        """Choose the reward.

        Args:
            config: what is rewarded, by which model, and how it is asked.
            model: the reward model; loaded if not given. ``env`` and the baselines use it only for ``p_done``.
            engine: for a model in another process; made for ``model`` here if not given.

        Raises:
            ValueError: an unknown reward, ``shaped`` where it means nothing, or no ``baseline`` where one is needed.
            FileNotFoundError: the model or the baseline is not here.
        """
        if config.reward not in REWARDS:
            raise ValueError(f"reward '{config.reward}' is unknown; choose one of {', '.join(REWARDS)}")
        if config.shaped and config.reward != "progress":
            raise ValueError(f"'shaped' is the change of progress; it has no meaning for reward '{config.reward}'")
        if config.interval < 1:
            raise ValueError(f"interval must be at least 1, got {config.interval}")
        self._config = config
        baseline = RewardEngine(baseline_config(config)) if config.reward in VIDEO_HEADS else None
        self._engine: FrameScorer = engine or RewardEngine(engine_config(config), model)
        self._payer: FrameScorer = baseline or self._engine
        self._held: dict[int, float] = {}
        self._succeeded: dict[int, bool] = {}
        self.stats = EpisodeStats()

    @property
    def rules(self) -> EpisodeRules:
        """Episodes of equal length: a reward model must not learn from the simulator when a task is done."""
        own = self._config.reward == ENV
        return EpisodeRules(self._config.max_steps, False, 0 if own else self._config.interval)

    def begin(self, observations: Sequence[Observation]) -> None:
        """Start new episodes in all worlds and new statistics."""
        self.stats = EpisodeStats()
        self._start(dict(enumerate(observations)))

    def score(self, results: Sequence[ChunkResult]) -> list[NDArray[np.float32]]:
        """Return the reward of every control step, one array (k,) for each world, in the order of the worlds."""
        finals = {
            world: result.final_observation
            for world, result in enumerate(results)
            if result.final_observation is not None
        }
        if self._config.reward == ENV:
            rewards = [self._from_state(world, result) for world, result in enumerate(results)]
        else:
            rewards = self._from_frames(results)
        for world, result in enumerate(results):
            self._succeeded[world] = self._succeeded.get(world, False) or bool(result.success.any())
            if result.done:
                self.stats.episodes += 1
                self.stats.successes += self._succeeded.pop(world)
                self.stats.final_progress.append(float(result.progress[-1]))
        self.stats.p_done += self._final_p_done(finals)
        self._start({world: results[world].observation for world in finals})
        return rewards

    def _from_state(self, world: int, result: ChunkResult) -> NDArray[np.float32]:
        """Change of the simulator's progress, and 1 when the task is done (upstream's relative reward, facts 1.8)."""
        rewards = np.diff(result.progress).astype(np.float32)
        first = np.flatnonzero(result.success)
        if len(first) and not self._succeeded.get(world, False):
            rewards[first[0]] += 1.0
        return rewards

    def _from_frames(self, results: Sequence[ChunkResult]) -> list[NDArray[np.float32]]:
        """Ask about the judged frames, the n-th of all worlds in one batch, and hold the answers."""
        rewards: list[NDArray[np.float32]] = []
        for world, result in enumerate(results):
            held = 0.0 if self._config.shaped else self._held[world]
            rewards.append(np.full(len(result.sent), held, np.float32))
        for n in range(max((len(result.judged) for result in results), default=0)):
            due = {world: result.judged[n] for world, result in enumerate(results) if len(result.judged) > n}
            tasks = {str(world): _task_of(results[world]) for world in due}
            answers = self._ask({str(world): frame for world, (_, frame) in due.items()}, tasks)
            for world, (step, _) in due.items():
                value = answers[str(world)]
                if self._config.shaped:
                    rewards[world][step - 1] = value - self._held[world]
                else:
                    rewards[world][step - 1 :] = value
                self._held[world] = value
        return rewards

    def _start(self, observations: Mapping[int, Observation]) -> None:
        """Begin episodes: reset the held reward, judge the first frame."""
        for world in observations:
            self._payer.reset(str(world))
            self._held[world] = 0.0
            self._succeeded[world] = False
        if self._config.reward == ENV or not observations:
            return
        frames = {str(world): _frame_of(observation) for world, observation in observations.items()}
        tasks = {str(world): observation.task for world, observation in observations.items()}
        for stream, value in self._ask(frames, tasks, first=True).items():
            self._held[int(stream)] = value

    def _ask(self, frames: Mapping[str, Frame], tasks: Mapping[str, str], first: bool = False) -> dict[str, float]:
        """Return the signal of each stream's frame; contrastive has none for the first frame of an episode."""
        started = time.perf_counter()
        held = self._payer.step(frames, tasks)
        signals = {stream: self._signal(stream, found, first) for stream, found in held.items()}
        self.stats.seconds += time.perf_counter() - started
        self.stats.queries += len(frames) * (3 if self._config.reward == "tri" else 1)
        return signals

    def _signal(self, stream: str, held: Held, first: bool) -> float:
        if held.signal is not None:
            return held.signal
        for head, answer in held.answers.items():
            early = first and head == "contrastive"  # nothing to compare with yet, and so nothing for tri
            if isinstance(answer, Unscored) and head != "tri" and not early:
                who = head if head in VIDEO_HEADS else "the reward model"
                raise RuntimeError(f"world {stream}: {who} gave no answer: {answer.reason}; fix it and resume the run")
        return 0.0

    def _final_p_done(self, finals: Mapping[int, Observation]) -> list[float]:
        """Return p(done) at the end of episodes."""
        started = time.perf_counter()
        frames = {str(world): _frame_of(observation) for world, observation in finals.items()}
        tasks = {str(world): observation.task for world, observation in finals.items()}
        answers = self._engine.completion(frames, tasks)
        self.stats.seconds += time.perf_counter() - started
        self.stats.queries += len(finals)
        for stream, answer in answers.items():
            if isinstance(answer, Unscored):
                raise RuntimeError(
                    f"world {stream}: the judge gave no answer: {answer.reason}; fix it and resume the run"
                )
        return [answer.value for answer in answers.values() if not isinstance(answer, Unscored)]


def engine_config(config: RefineConfig) -> RewardConfig:
    """Return what the engine behind a refinement is told; with ``env`` or a baseline it only judges episodes' ends."""
    return RewardConfig(
        model=config.model,
        mode="completion" if config.reward in (ENV, *VIDEO_HEADS) else config.reward,
        interval=1,  # only frames that are due come to it
        scale=config.scale,
        weights=config.weights,
        readout=config.readout,
        min_mass=config.min_mass,
        initial_image=config.initial_image,
        contrastive=config.contrastive,
        both_orders=config.both_orders,
        completion=config.completion,
        device=config.device,
    )


def baseline_config(config: RefineConfig) -> RewardConfig:
    """Return what the engine is told that pays by a baseline."""
    return RewardConfig(model=config.baseline, mode=config.reward, interval=1, scale=config.scale, device=config.device)


def _frame_of(observation: Observation) -> Frame:
    """Return the frame of an observation of one camera."""
    return next(iter(observation.frames.values()))


def _task_of(result: ChunkResult) -> str:
    """Return the task of the episode that the result belongs to."""
    return result.final_observation.task if result.final_observation is not None else result.observation.task
