# SPDX-License-Identifier: Apache-2.0
"""Which frames are judged, with the stamp of each reward, and what becomes of the answers.

Windows, keeping a value for the frames in between (interval-hold), combination of heads, verdicts about episodes.

The same engine runs live (reward node), offline (judge) and in vector environments. Paper eq. 8: every K-th frame is
judged, ``r = scale * R(...)``, and the value is held in between.

Where it differs from upstream (Large-Reward-Models:envs/vlm_maniskill_env.py), on purpose:

- The first frame of an episode is judged at once (upstream: the held value is 0 until step K). It is also the first
  "earlier" image, so contrastive answers from frame K on (upstream: 0 until step 2K).
- A missing answer (failed query, no earlier frame yet) is Unscored, and so is a tri of which any part is Unscored
  (upstream: 0 for the part). An Unscored answer is held like any other: it does not revive the value before it.
- Every stream (camera, world) counts its own frames (upstream: one counter for all, reset when any episode ends).
- The last frame of an episode can be judged whatever the count (``last=True``).

A video head is asked with all judged frames of the episode so far. They are kept until the stream's reset, for any of
them may be shown as the episode grows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

from lrm_ros.config import RewardConfig
from lrm_ros.reward.load import load_model
from lrm_ros.reward.models import MODES, RewardModel, trusted
from lrm_ros.reward.verdict import judge_queries, verdict
from lrm_ros.reward.views import joined, side_by_side
from lrm_ros.types import HEADS, VIDEO_HEADS, Episode, Frame, Reward, RewardQuery, Unscored, Verdict

FIRST_FRAME = "no earlier frame in this episode yet"  # why the contrastive head cannot judge an episode's first frame


@dataclass(frozen=True, slots=True)
class Held:
    """The reward that holds for a frame.

    Attributes:
        answers: newest answer of each head that was asked; with mode ``tri`` also under ``"tri"``. Unscaled.
        signal: scale x the answer of the active mode; ``None`` if that is Unscored.
        fresh: whether this frame was judged (``False``: held).
    """

    answers: Mapping[str, Reward | Unscored]
    signal: float | None
    fresh: bool


@dataclass(slots=True)
class _Window:
    """State of one stream since its last reset; ``judged`` is filled for a video head only."""

    count: int = 0
    first: Frame | None = None
    previous: Frame | None = None
    judged: list[Frame] = field(default_factory=list)
    answers: dict[str, Reward | Unscored] = field(default_factory=dict)


class RewardEngine:
    """Builds the queries of frame streams and of whole episodes, and combines the model's answers."""

    def __init__(self, config: RewardConfig, model: RewardModel | None = None) -> None:
        """Build the engine.

        Args:
            config: mode, interval, scale, weights, judge settings.
            model: the reward model; loaded as ``config.model`` for ``config.mode`` if not given.

        Raises:
            ValueError: a value out of its range, naming it.
            FileNotFoundError: the model is not here.
        """
        check_config(config)
        self.config = config
        self.model = model or load_model(config.model, config.device, config.mode)
        self._windows: dict[str, _Window] = {}

    def score(self, queries: Sequence[RewardQuery]) -> list[Reward | Unscored]:
        """Answer queries in one batch, in order.

        A model that raises (out of memory, broken image, an error in its code) leaves every query of the batch Unscored
        with the reason: the caller goes on, and nothing is taken for a reward.
        """
        if not queries:
            return []
        try:
            return self._ask(queries)
        except Exception as error:
            reason = f"model '{self.model.name}' failed: {type(error).__name__}: {error}"
            return [Unscored(query.stamp_ns, query.head, reason) for query in queries]

    def _ask(self, queries: Sequence[RewardQuery]) -> list[Reward | Unscored]:
        """Ask the model; whatever it raises is passed on."""
        turned = [i for i, query in enumerate(queries) if self.config.both_orders and query.head == "contrastive"]
        asked = [*queries, *(replace(queries[i], frames=queries[i].frames[::-1]) for i in turned)]
        answers = self.model.score(asked, self.config.readout)
        if len(answers) != len(asked):
            raise ValueError(f"{len(answers)} answers to {len(asked)} queries")
        trust = [trusted(answer, self.config.min_mass) for answer in answers]
        for i, other in zip(turned, trust[len(queries) :], strict=True):
            trust[i] = in_both_orders(trust[i], other)
        return trust[: len(queries)]

    # ---- streams -----------------------------------------------------------------------------------------------------

    def reset(self, stream: str = "") -> None:
        """Begin a new episode of a stream: clear its frames, count and held value."""
        self._windows.pop(stream, None)

    def step(
        self, frames: Mapping[str, Frame], tasks: Mapping[str, str] | str, last: Sequence[str] = ()
    ) -> dict[str, Held]:
        """Take the next frame of each stream; judge those that are due in one batch, hold the others.

        Args:
            frames: stream -> its next frame.
            tasks: stream -> language instruction, or one for all.
            last: streams whose episode ends with this frame: judged whatever the count.

        Returns:
            The reward that holds for each stream's frame.
        """
        queries: list[RewardQuery] = []
        asked: list[tuple[str, str]] = []
        due: list[str] = []
        for stream, frame in frames.items():
            window = self._windows.setdefault(stream, _Window())
            window.first = window.first or frame
            if window.count % self.config.interval == 0 or stream in last:
                due.append(stream)
                window.answers = {}
                if self.config.mode in VIDEO_HEADS:
                    window.judged.append(frame)
                for head in self._heads():
                    query = self._query(head, window, frame, tasks if isinstance(tasks, str) else tasks[stream])
                    if isinstance(query, Unscored):
                        window.answers[head] = query
                    else:
                        queries.append(query)
                        asked.append((stream, head))
            window.count += 1
        for (stream, head), answer in zip(asked, self.score(queries), strict=True):
            self._windows[stream].answers[head] = decided(answer, self.config)
        for stream in due:
            window = self._windows[stream]
            window.previous = frames[stream]
            if self.config.mode == "tri":
                window.answers["tri"] = combine(window.answers, self.config.weights)
        return {stream: self._held(stream, stream in due) for stream in frames}

    def late(self, stream: str, frame: Frame, task: str, previous: Frame | None, later: Sequence[Frame]) -> Held:
        """Judge a frame as if the later ones had not come; what holds and what is judged next stay as they are.

        Args:
            stream: whose frame it is; one that has been judged in this episode.
            frame: the frame.
            task: language instruction.
            previous: the frame that was judged last before it in this episode, ``None``: there is none.
            later: frames that were judged and came after it.
        """
        window = self._windows[stream]
        judged = [each for each in window.judged if not any(each is one for one in later)]
        self._windows[stream] = _Window(window.count, window.first if previous else None, previous, judged)
        try:
            return self.step({stream: frame}, task, [stream])[stream]
        finally:
            self._windows[stream] = window

    def completion(self, frames: Mapping[str, Frame], tasks: Mapping[str, str] | str) -> dict[str, Reward | Unscored]:
        """Return p(done) of one frame of each stream, in one batch; what is held stays as it is.

        Unscored with the reason if the model has no completion head.
        """
        asked = {
            stream: RewardQuery(tasks if isinstance(tasks, str) else tasks[stream], "completion", (frame,))
            for stream, frame in frames.items()
        }
        return dict(zip(asked, self.score(list(asked.values())), strict=True))

    def _heads(self) -> tuple[str, ...]:
        return HEADS if self.config.mode == "tri" else (self.config.mode,)

    def _query(self, head: str, window: _Window, frame: Frame, task: str) -> RewardQuery | Unscored:
        """Return a head's query about a frame, or the reason why there is none yet."""
        if head == "contrastive":
            if window.previous is None:
                return Unscored(frame.stamp_ns, head, FIRST_FRAME)
            images: tuple[Frame, ...] = (window.previous, frame)
        elif head in VIDEO_HEADS:
            images = tuple(window.judged)
        elif head == "progress" and self.config.initial_image and window.first is not None:
            images = (window.first, frame)
        else:
            images = (frame,)
        if not task.strip():
            return Unscored(frame.stamp_ns, head, "no task yet; publish it on 'task'")
        return RewardQuery(task, head, images)

    def _held(self, stream: str, fresh: bool) -> Held:
        answers = dict(self._windows[stream].answers)
        active = answers[self.config.mode]
        signal = self.config.scale * active.value if isinstance(active, Reward) else None
        return Held(answers, signal, fresh)

    # ---- episodes ----------------------------------------------------------------------------------------------------

    def judge(self, frames: Sequence[Frame], task: str, episode_id: str = "") -> Verdict:
        """Decide about one episode: see ``judge_all``."""
        return self.judge_all([(episode_id, task, frames)])[0]

    def judge_all(self, episodes: Sequence[tuple[str, str, Sequence[Frame]]]) -> list[Verdict]:
        """Decide by the completion head which episodes succeeded (paper IV-C), all in one batch.

        The rule is :func:`lrm_ros.reward.verdict.verdict`, about the last ``judge_frames`` frames of each. If the
        batch fails each episode is judged by itself: one spoils no other.

        Args:
            episodes: (episode id, task, frames oldest first) of each; with several cameras view by view
                (``lrm_ros.reward.views``).
        """
        cameras = self.config.cameras
        asked = [judge_queries(frames, task, self.config.judge_frames, cameras) for _, task, frames in episodes]
        together = [query for queries in asked for query in queries]
        try:
            found = iter(self._ask(together) if together else [])
            answers = [[next(found) for _ in queries] for queries in asked]
        except Exception:
            answers = [self.score(queries) for queries in asked]
        return [
            verdict(name, task, joined([q.frames[0] for q in queries], given, cameras), self.config.judge_threshold)
            for (name, task, _), queries, given in zip(episodes, asked, answers, strict=True)
        ]


def check_config(config: RewardConfig) -> None:
    """Raise ValueError for a value out of its range, naming it and the cure."""
    if config.mode not in MODES:
        raise ValueError(f"reward mode '{config.mode}' is unknown; choose one of {', '.join(MODES)}")
    for option in fields(config):
        choices, value = option.metadata.get("choices"), getattr(config, option.name)
        if choices and value not in choices:
            raise ValueError(f"{option.name} must be {' or '.join(map(repr, choices))}, got {value!r}")
    if not all(config.cameras) or len(set(config.cameras)) < len(config.cameras):
        raise ValueError(f"camera '{config.camera}' does not name one or several different ones, separated by commas")
    if config.interval < 1:
        raise ValueError(f"reward interval must be at least 1 frame, got {config.interval}")
    if config.judge_frames < 1:
        raise ValueError(f"judge_frames must be at least 1, got {config.judge_frames}")
    if not 0 <= config.judge_threshold <= 1:
        raise ValueError(f"judge_threshold must be in [0, 1], got {config.judge_threshold}")
    if not np.isfinite(config.scale):
        raise ValueError(f"reward scale must be finite, got {config.scale}")
    weights = config.weights
    if len(weights) != len(HEADS) or min(weights) < 0 or abs(sum(weights) - 1) > 1e-6:
        raise ValueError(
            f"tri weights must be three numbers of at least 0 for {', '.join(HEADS)} that sum to 1, got {weights}"
        )


def in_both_orders(answer: Reward | Unscored, other: Reward | Unscored) -> Reward | Unscored:
    """Return half the difference of a contrastive answer and that about the same frames in the other order, in [-1, 1].

    Two equal frames get 0, whatever place a model prefers. Unscored, with its reason, if either is.
    """
    if isinstance(answer, Unscored):
        return answer
    if isinstance(other, Unscored):
        return replace(other, stamp_ns=answer.stamp_ns)
    masses = [each.mass for each in (answer, other) if each.mass is not None]
    return replace(answer, value=(answer.value - other.value) / 2, mass=min(masses, default=None))


def decided(answer: Reward | Unscored, config: RewardConfig) -> Reward | Unscored:
    """Return an answer as it is paid: the expectation, or one of two values (paper eq. 2 and 4)."""
    if isinstance(answer, Unscored):
        return answer
    if answer.head == "contrastive" and config.contrastive == "sign":
        return replace(answer, value=float(np.sign(answer.value)))
    if answer.head == "completion" and config.completion == "binary":
        return replace(answer, value=float(answer.value >= 0.5))
    return answer


def combine(answers: Mapping[str, Reward | Unscored], weights: Sequence[float]) -> Reward | Unscored:
    """Combine the three heads: w_c (s_c + 1) / 2 + w_p s_p + w_k s_k, in [0, 1] (upstream vlm_maniskill_env.py, tri).

    Returns:
        A Reward of head ``tri``; Unscored if any part with a weight is.
    """
    total, latency, model = 0.0, 0.0, ""
    stamp = max(answer.stamp_ns for answer in answers.values())
    for head, weight in zip(HEADS, weights, strict=True):
        answer = answers[head]
        if weight == 0:
            continue
        if isinstance(answer, Unscored):
            return Unscored(stamp, "tri", f"{head} is unscored: {answer.reason}")
        total += weight * ((answer.value + 1) / 2 if head == "contrastive" else answer.value)
        latency, model = max(latency, answer.latency_s), answer.model
    return Reward(stamp, "tri", total, model, latency)


def scene_frames(episode: Episode, cameras: Sequence[str]) -> list[Frame]:
    """Return the frames of the cameras that judge an episode, view by view; see :func:`episode_frames`."""
    return side_by_side({camera: episode_frames(episode, camera) for camera in cameras})


def episode_frames(episode: Episode, camera: str) -> list[Frame]:
    """Return the distinct frames of one camera in an episode, oldest first (held frames once).

    Raises:
        ValueError: the episode has no frames of that camera; names those it has.
    """
    observations = [step.observation for step in episode.steps] + ([episode.final] if episode.final else [])
    frames = {o.frames[camera].stamp_ns: o.frames[camera] for o in observations if camera in o.frames}
    if not frames:
        cameras = sorted({name for o in observations for name in o.frames})
        raise ValueError(f"episode '{episode.episode_id}' has no frames of camera '{camera}', only of {cameras}")
    return [frames[stamp] for stamp in sorted(frames)]
