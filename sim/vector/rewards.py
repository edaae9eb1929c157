# SPDX-License-Identifier: Apache-2.0
"""Rewards of many worlds: from the simulator's state, or from the reward model that watches their frames.

Modes ``contrastive``, ``progress``, ``completion``, ``tri`` and the baselines never see the simulator's state. The
reward of a control step is the newest answer for a frame up to that step (interval-hold, paper eq. 8); before the first
answer of an episode there is nothing to hold and a step counts 0. The first frame of an episode is judged, too;
contrastive compares from the second on. The baselines (RoboReward, Robometer, TOPReward) watch all judged frames of the
episode so far. A query that fails ends the run, which can be resumed: nothing is learned from a made-up number.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RefineConfig, RewardConfig
from lrm_ros.reward.engine import Held, RewardEngine
from lrm_ros.reward.models import MODES, RewardModel
from lrm_ros.sim.vector.worlds import EpisodeRules, Stretch
from lrm_ros.types import VIDEO_HEADS, Frame, Observation, Reward, Unscored

ENV = "env"
REWARDS = (ENV, *MODES)


class FrameJudge(Protocol):
    """What is needed of a ``RewardEngine``; it may be in another process."""

    def reset(self, stream: str) -> None:
        """Begin a new episode of a stream."""

    def step(self, frames: Mapping[str, Frame], tasks: Mapping[str, str]) -> dict[str, Held]:
        """Judge the next frame of each stream."""
        ...

    def completion(self, frames: Mapping[str, Frame], tasks: Mapping[str, str]) -> dict[str, Reward | Unscored]:
        """Return p(done) of one frame of each stream."""
        ...


@dataclass
class Tally:
    """What happened to the episodes that ended.

    Attributes:
        episodes: how many ended.
        succeeded: by the simulator's truth, at any time: for people, not for the reward.
        judged: p(done) of the completion head at the end of each.
        progress: simulator's progress at the end of each.
        queries: questions to the reward model.
        seconds: time its answers took.
    """

    episodes: int = 0
    succeeded: int = 0
    judged: list[float] = field(default_factory=list)
    progress: list[float] = field(default_factory=list)
    queries: int = 0
    seconds: float = 0.0


class WorldRewards:
    """Turns what worlds did into a reward for each control step."""

    def __init__(
        self, config: RefineConfig, model: RewardModel | None = None, engine: FrameJudge | None = None
    ) -> None:
        """Choose the reward.

        Args:
            config: ``reward``, ``interval``, ``scale``, ``weights``, ``shaped``, ``model``, ``baseline``, ``device``.
            model: who answers; loaded if not given. ``env`` and the baselines ask it only how episodes ended.
            engine: asks the model in another process; made for ``model`` here if not given.

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
        self._engine: FrameJudge = engine or RewardEngine(engine_config(config), model)
        self._payer: FrameJudge = baseline or self._engine
        self._held: dict[int, float] = {}
        self._won: dict[int, bool] = {}
        self.tally = Tally()

    @property
    def rules(self) -> EpisodeRules:
        """Episodes of equal length: a reward model must not learn from the simulator when a task is done."""
        own = self._config.reward == ENV
        return EpisodeRules(self._config.max_steps, False, 0 if own else self._config.interval)

    def begin(self, observations: Sequence[Observation]) -> None:
        """Start new episodes in all worlds and a new tally."""
        self.tally = Tally()
        self._start(dict(enumerate(observations)))

    def score(self, stretches: Sequence[Stretch]) -> list[NDArray[np.float32]]:
        """Return the reward of every control step, one array (k,) for each world, in the order of the worlds."""
        finals = {world: stretch.final for world, stretch in enumerate(stretches) if stretch.final is not None}
        if self._config.reward == ENV:
            rewards = [self._from_state(world, stretch) for world, stretch in enumerate(stretches)]
        else:
            rewards = self._from_frames(stretches)
        for world, stretch in enumerate(stretches):
            self._won[world] = self._won.get(world, False) or bool(stretch.success.any())
            if stretch.ended:
                self.tally.episodes += 1
                self.tally.succeeded += self._won.pop(world)
                self.tally.progress.append(float(stretch.progress[-1]))
        self.tally.judged += self._done(finals)
        self._start({world: stretches[world].observation for world in finals})
        return rewards

    def _from_state(self, world: int, stretch: Stretch) -> NDArray[np.float32]:
        """Change of the simulator's progress, and 1 when the task is done (upstream's relative reward, facts 1.8)."""
        rewards = np.diff(stretch.progress).astype(np.float32)
        first = np.flatnonzero(stretch.success)
        if len(first) and not self._won.get(world, False):
            rewards[first[0]] += 1.0
        return rewards

    def _from_frames(self, stretches: Sequence[Stretch]) -> list[NDArray[np.float32]]:
        """Ask about the judged frames, the n-th of all worlds in one batch, and hold the answers."""
        rewards: list[NDArray[np.float32]] = []
        for world, stretch in enumerate(stretches):
            held = 0.0 if self._config.shaped else self._held[world]
            rewards.append(np.full(len(stretch.sent), held, np.float32))
        for n in range(max((len(stretch.judged) for stretch in stretches), default=0)):
            due = {world: stretch.judged[n] for world, stretch in enumerate(stretches) if len(stretch.judged) > n}
            tasks = {str(world): _task_of(stretches[world]) for world in due}
            answers = self._ask({str(world): frame for world, (_, frame) in due.items()}, tasks)
            for world, (place, _) in due.items():
                value = answers[str(world)]
                if self._config.shaped:
                    rewards[world][place - 1] = value - self._held[world]
                else:
                    rewards[world][place - 1 :] = value
                self._held[world] = value
        return rewards

    def _start(self, observations: Mapping[int, Observation]) -> None:
        """Begin episodes: forget what is held, judge the first frame."""
        for world in observations:
            self._payer.reset(str(world))
            self._held[world] = 0.0
            self._won[world] = False
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
        self.tally.seconds += time.perf_counter() - started
        self.tally.queries += len(frames) * (3 if self._config.reward == "tri" else 1)
        return signals

    def _signal(self, stream: str, held: Held, first: bool) -> float:
        if held.signal is not None:
            return held.signal
        for head, answer in held.answers.items():
            early = first and head == "contrastive"  # nothing to compare with yet, and so nothing for tri
            if isinstance(answer, Unscored) and head != "tri" and not early:
                who = head if head in VIDEO_HEADS else "the reward model"
                raise RuntimeError(f"world {stream}: {who} gave no answer: {answer.reason}; mend it and resume the run")
        return 0.0

    def _done(self, finals: Mapping[int, Observation]) -> list[float]:
        """Return p(done) at the end of episodes."""
        started = time.perf_counter()
        frames = {str(world): _frame_of(observation) for world, observation in finals.items()}
        tasks = {str(world): observation.task for world, observation in finals.items()}
        answers = self._engine.completion(frames, tasks)
        self.tally.seconds += time.perf_counter() - started
        self.tally.queries += len(finals)
        for stream, answer in answers.items():
            if isinstance(answer, Unscored):
                raise RuntimeError(
                    f"world {stream}: the judge gave no answer: {answer.reason}; mend it and resume the run"
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
        device=config.device,
    )


def baseline_config(config: RefineConfig) -> RewardConfig:
    """Return what the engine is told that pays by a baseline."""
    return RewardConfig(model=config.baseline, mode=config.reward, interval=1, scale=config.scale, device=config.device)


def _frame_of(observation: Observation) -> Frame:
    """Return the frame of an observation of one camera."""
    return next(iter(observation.frames.values()))


def _task_of(stretch: Stretch) -> str:
    """Return the task of the episode that the stretch belongs to."""
    return stretch.final.task if stretch.final is not None else stretch.observation.task
