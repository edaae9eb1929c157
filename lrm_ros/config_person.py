# SPDX-License-Identifier: Apache-2.0
"""The defaults of what a person has a part in: the loop on an arm, the blind comparison, the keys that answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lrm_ros import seeds
from lrm_ros.config import ImproverConfig
from lrm_ros.config_files import option as _opt


def _fix(*default_help_range: Any) -> Any:
    """Return a field that takes effect when the node is configured; it is refused at run time."""
    return _opt(*default_help_range, fixed=True)


@dataclass(frozen=True)
class AnswerConfig:
    """The answer node: a person's keys for the questions of other nodes."""

    rate_hz: float = _fix(20.0, "how often keys are looked for [Hz]", 0.1, 1000.0)


@dataclass(frozen=True)
class TrialConfig:
    """The trial node: a blind comparison of policies by a person (paper V, 60 trials)."""

    policies: tuple[str, ...] = _fix((), "folders of two or more policies")
    task: str = _fix("", "instruction, published on topic 'task'; empty: another node does, as the twin")
    run: str = _fix("runs/trial", "folder of the answers; an interrupted comparison goes on there")
    starts: int = _fix(30, "trials of each policy", 1, 10_000)
    same_starts: bool = _fix(True, "every policy meets the same starts, one after the other; false: starts of its own")
    seconds: float = _fix(20.0, "time after which the policy is stopped [s]", 0.1, 3600.0)
    first_seed: int = _fix(seeds.HELD_OUT.first, "in the twin: seed of the first start", 0, seeds.LIMIT - 1)
    start_speed: float = _fix(0.5, "speed of the way back to the first trial's pose [rad/s]; 0: it stays", 0.0, 3.0)
    model: str = _fix("tiny", "reward model of the judge; the reward node's is asked if it is the same")
    judge_camera: str = _fix(
        "", "camera whose frames are judged; several, separated by commas: the mean of their answers; empty: the first"
    )
    judge_frames: int = _fix(4, "judge a trial by the mean p(done) of its last frames", 1, 1_000_000)
    judge_threshold: float = _fix(0.5, "a success, for the judge, when that mean is at least this", 0.0, 1.0)


@dataclass(frozen=True)
class RobotImproverConfig(ImproverConfig):
    """The robot_improver node: the loop on an arm, where a person puts the scene back."""

    explore_std: float = _fix(0.0, "std of the gripper's sideways offset, drawn for each rollout [m]", 0.0, 1.0)
    episodes: int = _fix(10, "starts to roll out from in each iteration", 1, 1_000_000)
    tries: int = _fix(2, "attempts at a start until the judge keeps one", 1, 1_000_000)
    dataset: str = _fix(
        "",
        "demonstrations: a folder of journals, or of a LeRobotDataset; empty: they are recorded now, into "
        "RUN/demonstrations/episodes",
    )
    rollout_s: float = _fix(20.0, "time after which a rollout ends [s]", 0.1, 3600.0)
    ask_outcome: bool = _fix(False, "ask the person after each rollout whether it was a success, to check the judge")
    reset_policy: str = _fix("", "folder of a policy that puts the scene back; empty: a person does")
    reset_s: float = _fix(20.0, "time that it has for that [s]", 0.1, 3600.0)
    start_speed: float = _fix(0.5, "speed of the way to where the demonstrations begin [rad/s]; 0: none", 0.0, 3.0)
