# SPDX-License-Identifier: Apache-2.0
"""The values that flow through the stack: frozen, numpy only, no behaviour beyond checking themselves.

Units are SI everywhere: radians, metres, seconds; stamps are integer nanoseconds of the node clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

HEADS = ("contrastive", "progress", "completion")
# Heads of other reward models, which watch the episode so far; each needs weights of its own.
VIDEO_HEADS = ("roboreward", "robometer", "topreward")
_ALL_HEADS = (*HEADS, *VIDEO_HEADS)


def _read_only(array: NDArray, dtype: type) -> NDArray:
    """Return ``array`` as a read-only view of ``dtype`` (copied only if the type differs)."""
    view: NDArray = np.asarray(array, dtype=dtype).view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One camera image.

    Attributes:
        stamp_ns: time of exposure [ns].
        camera: camera name, e.g. ``"front"``.
        image: (H, W, 3) uint8 RGB, read-only.
    """

    stamp_ns: int
    camera: str
    image: NDArray[np.uint8]

    def __post_init__(self) -> None:
        image = np.asarray(self.image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"camera '{self.camera}': an image must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}"
            )
        if 0 in image.shape:
            raise ValueError(f"camera '{self.camera}': the image has no pixels, shape {image.shape}")
        object.__setattr__(self, "image", _read_only(image, np.uint8))


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """What a policy sees at one instant.

    Attributes:
        stamp_ns: time of the joint state [ns].
        frames: newest frame of each camera.
        state: (D,) float32 joint positions [rad; gripper as the joint's own rad], finite.
        task: language instruction.
        before: what was seen in the control steps before, oldest first, for a policy that looks back; fewer at the
            beginning of an episode.
    """

    stamp_ns: int
    frames: Mapping[str, Frame]
    state: NDArray[np.float32]
    task: str
    before: tuple[Observation, ...] = ()

    def __post_init__(self) -> None:
        state = _read_only(self.state, np.float32)
        if state.ndim != 1 or not np.isfinite(state).all():
            raise ValueError(f"joint state must be (D,) and finite, got {state!r}")
        object.__setattr__(self, "state", state)


@dataclass(frozen=True, slots=True, eq=False)
class ActionChunk:
    """Absolute joint position targets to execute one after the other.

    Attributes:
        stamp_ns: stamp of the observation it answers [ns].
        actions: (K, D) float32 [rad], K >= 1, finite.
        dt_s: time between two targets [s], > 0.
    """

    stamp_ns: int
    actions: NDArray[np.float32]
    dt_s: float

    def __post_init__(self) -> None:
        actions = _read_only(self.actions, np.float32)
        if actions.ndim != 2 or len(actions) == 0 or not np.isfinite(actions).all():
            raise ValueError(f"actions must be (K, D) with K >= 1 and finite, got shape {actions.shape}")
        if not self.dt_s > 0:
            raise ValueError(f"dt_s must be positive, got {self.dt_s}")
        object.__setattr__(self, "actions", actions)


@dataclass(frozen=True, slots=True, eq=False)
class RewardQuery:
    """A question to the reward model; a pure value.

    Attributes:
        task: language instruction.
        head: one of ``HEADS`` or ``VIDEO_HEADS``.
        frames: contrastive: (earlier, current); progress: (current,) or (initial, current); completion: (current,);
            a video head: the judged frames of the episode so far, oldest first.
        goal: optional image of the finished task (progress only).
    """

    task: str
    head: str
    frames: tuple[Frame, ...]
    goal: Frame | None = None

    def __post_init__(self) -> None:
        if self.head not in _ALL_HEADS:
            raise ValueError(f"unknown reward head '{self.head}'; choose one of {', '.join(_ALL_HEADS)}")
        if not self.frames:
            raise ValueError(f"head '{self.head}' needs at least one frame")
        if not self.task.strip():
            raise ValueError("the task text is empty; publish it on 'task' or set it in the configuration")

    @property
    def stamp_ns(self) -> int:
        """Stamp of the judged (last) frame [ns]."""
        return self.frames[-1].stamp_ns


@dataclass(frozen=True, slots=True)
class Reward:
    """An answer of the reward model.

    Attributes:
        stamp_ns: stamp of the judged frame [ns].
        head: one of ``HEADS`` or ``VIDEO_HEADS``, or ``"tri"``.
        value: contrastive in [-1, 1]; all others (tri unscaled) in [0, 1].
        model: name of the model that answered.
        latency_s: time the answer took [s].
        mass: probability that the model says one of the head's answers at all; ``None``: not read from probabilities.
    """

    stamp_ns: int
    head: str
    value: float
    model: str = ""
    latency_s: float = 0.0
    mass: float | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"reward of head '{self.head}' is {self.value}; a failed query must be Unscored")


@dataclass(frozen=True, slots=True)
class Unscored:
    """A query that got no answer, with the reason. Never a number (design principle 1)."""

    stamp_ns: int
    head: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One control step of an episode.

    Attributes:
        observation: what was seen before the action.
        action: (D,) float32 what was sent to the arm after limits [rad].
        wish: (D,) float32 what the policy or the person asked for [rad].
        rewards: the newest answer of each head for a frame up to this step.
        intervention: a person led the arm, who had taken over from a policy.
    """

    observation: Observation
    action: NDArray[np.float32]
    wish: NDArray[np.float32]
    rewards: Mapping[str, Reward | Unscored] = field(default_factory=dict)
    intervention: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Episode:
    """A finished episode.

    Attributes:
        episode_id: unique name, also the stem of its journal.
        task: language instruction.
        steps: control steps, oldest first.
        fps: control rate [Hz].
        outcome: ``True`` / ``False`` as judged by a person, ``None`` if nobody said.
        source: who acted: ``"policy"``, ``"teleop"``, ``"expert"``.
        final: the observation after the last action, if recorded.
        final_rewards: the newest answer of each head for a frame up to ``final``; empty without that.
    """

    episode_id: str
    task: str
    steps: Sequence[Step]
    fps: float
    outcome: bool | None = None
    source: str = ""
    final: Observation | None = None
    final_rewards: Mapping[str, Reward | Unscored] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judge's decision about one episode.

    Attributes:
        episode_id: which episode.
        keep: whether it is used for training.
        score: mean p(done) over the judged frames in [0, 1]; NaN if unscored.
        reason: one sentence for people.
    """

    episode_id: str
    keep: bool
    score: float
    reason: str
