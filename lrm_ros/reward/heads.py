# SPDX-License-Identifier: Apache-2.0
"""What a reward head is, and the three heads of the LRM: exact prompts, image order, candidates and parse rules.

The heads of other reward models, which watch the episode so far, are in ``lrm_ros.reward.video_heads``.

Prompts and parse rules are format constants: the released adapters were trained on them
(physical-superintelligence-lab/Large-Reward-Models:vlm_reward/vlm_reward_server.py). They differ between the heads:
contrastive and progress keep the text segments as they are, completion strips them; contrastive puts a "." after the
task.

Where upstream turns an answer it cannot read into a number, ``parse`` returns ``None`` here (the query is Unscored):

=============  ==================================================  ========
head           answer                                              upstream
=============  ==================================================  ========
contrastive    neither image named                                 0.0
progress       ``NA``, NaN, infinity, or no number anywhere        0.0 (NaN and infinity: 1.0)
completion     neither word, or both "yes" and "no" as free text   0.0
=============  ==================================================  ========

The order in which upstream tries its patterns, and its clamping of progress to [0, 1], are kept.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.types import Frame, RewardQuery


def no_text(text: str) -> None:
    """Read an answer of a head that says nothing: there is none in any text."""


@dataclass(frozen=True)
class Head:
    """One way to ask a reward model. What does not apply to a head is empty.

    Attributes:
        name: one of ``lrm_ros.types.HEADS`` or ``VIDEO_HEADS``.
        min_frames: fewest frames a query carries.
        max_frames: most frames that are shown (the goal image not counted).
        content: builds the user turn from the task and the images in upstream's order.
        low: smallest value.
        high: largest value.
        prefix: how the assistant's answer starts, up to the answer itself.
        suffix: how it ends.
        candidates: every answer the head can give, as text.
        values: the number each candidate stands for.
        max_new_tokens: budget of a generated answer; 0: the head says nothing.
        parse: answer text -> value, ``None`` if it cannot be read.
        video: whether it watches the episode so far. A query may then carry more than ``max_frames`` frames, of which
            some are shown, evenly spread from the first to the last.
    """

    name: str
    min_frames: int
    max_frames: int
    content: Callable[[RewardQuery], list[dict[str, Any]]]
    low: float
    high: float
    prefix: str = ""
    suffix: str = ""
    candidates: tuple[str, ...] = ()
    values: tuple[float, ...] = ()
    max_new_tokens: int = 0
    parse: Callable[[str], float | None] = no_text
    video: bool = False

    def check(self, query: RewardQuery) -> None:
        """Raise ValueError where a query cannot be asked of this head.

        That is a wrong number of frames, a goal image that the head does not take, or a task that is no text (half of a
        surrogate pair, as JSON can have it).
        """
        try:
            query.task.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"the task is no text: character {error.start} is half of a surrogate pair; send it whole"
            ) from None
        if not self.video and not self.min_frames <= len(query.frames) <= self.max_frames:
            counts = " or ".join(str(count) for count in range(self.min_frames, self.max_frames + 1))
            raise ValueError(f"head '{self.name}' needs {counts} frame(s), got {len(query.frames)}")
        if query.goal is not None and self.name != "progress":
            raise ValueError(f"head '{self.name}' takes no goal image; only 'progress' does")

    def messages(self, query: RewardQuery) -> list[dict[str, Any]]:
        """Return the chat messages of a query: one user turn of text and image parts.

        Raises:
            ValueError: see :meth:`check`.
        """
        self.check(query)
        return [{"role": "user", "content": self.content(query)}]

    def images(self, query: RewardQuery) -> list[Frame]:
        """Return the frames of a query in the order in which the messages show them."""
        frames = spread(query.frames, self.max_frames) if self.video else list(query.frames)
        return ([query.goal] if query.goal is not None else []) + frames

    def answer(self, value: float) -> str:
        """Return the answer text whose value is nearest to ``value`` (what a model is trained to say)."""
        nearest = min(range(len(self.values)), key=lambda i: abs(self.values[i] - value))
        return self.prefix + self.candidates[nearest] + self.suffix

    def begun(self, text: str) -> str | None:
        """Return what was written up to the answer itself (the last, if several), ``None`` if there is no answer."""
        key = re.findall(r'"\w+"', self.prefix)[0]
        starts = list(re.finditer(rf'{key}\s*:\s*"?', text))
        return text[: starts[-1].end()] if starts else None


def as_text(task: str) -> str:
    """Return a task's text in which a model reads no special token: a zero-width space parts "<" from "|".

    "<|image_pad|>" in a sentence of a person's would else be an image, and "<|im_end|>" the end of the question.
    """
    return task.replace("<|", "<\u200b|")


def spread(frames: Sequence[Frame], most: int) -> list[Frame]:
    """Return at most ``most`` frames, evenly spread, with the first and the last one (upstream's linspace)."""
    if len(frames) <= most:
        return list(frames)
    if most == 1:
        return [frames[-1]]
    return [frames[i] for i in np.linspace(0, len(frames) - 1, most, dtype=int)]


def _interleave(segments: list[str], frames: list[Frame]) -> list[dict[str, Any]]:
    """Return text, image, text, image, ..., text; segments without visible text are dropped, as upstream does."""
    content: list[dict[str, Any]] = []
    for index, segment in enumerate(segments):
        if segment.strip():
            content.append({"type": "text", "text": segment})
        if index < len(frames):
            content.append({"type": "image", "image": frames[index].image})
    return content


def _contrastive_content(query: RewardQuery) -> list[dict[str, Any]]:
    """Both labels read "Later observation": so do upstream's."""
    segments = [
        f"Task: Compare the completion progress.\n\nThe task is: {as_text(query.task)}.\n\n"
        "You are given:\n- Later observation (Image A): ",
        "\n- Later observation (Image B): ",
        "\n\nQuestion: Which of Image A or Image B is closer to completing the task?\n"
        'Select one value from the following list:\n["ImageA", "ImageB"]\n\n'
        "Please provide a step-by-step visual analysis first, and then output your answer in the following JSON "
        'format:\n{ "more_complete_image": "selected_value" }',
    ]
    return _interleave(segments, list(query.frames))


def _progress_content(query: RewardQuery) -> list[dict[str, Any]]:
    labels = (["Goal Standard"] if query.goal is not None else []) + (
        ["Initial observation", "Current observation"] if len(query.frames) == 2 else ["Current observation"]
    )
    question, definition = (
        ("Based on the task description, estimate the", "assess how close to completion")
        if query.goal is None
        else ("Compare the Current Observation with the Goal Standard. Estimate the", "assess visual distance to Goal")
    )
    segments = [f"\n- {label}: " for label in labels]
    segments[0] = (
        f"Task: Estimate the completion progress.\nThe task is: {as_text(query.task)}\nYou are given:" + segments[0]
    )
    segments.append(
        f"\n\nQuestion: {question} completion progress as a value between 0.0 and 1.0.\n"
        "Select one value from the following list:\n[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]\n\n"
        f"Definitions:\n- 0.0: Task has just started.\n- 0.1 - 0.9: Intermediate progress steps ({definition}).\n"
        "- 1.0: Task is Finished.\nOutput your answer in the following JSON format:\n"
        '{ "completion_progress": selected_value }'
    )
    return _interleave(segments, ([query.goal] if query.goal is not None else []) + list(query.frames))


def _completion_content(query: RewardQuery) -> list[dict[str, Any]]:
    segments = [
        f"Task: Whether the task has been completed.\n\nThe task is: {as_text(query.task)}\n\n"
        "You are given:\n- Current observation: ",
        "\n\nHas the task been completed?\nOutput your answer in the following JSON format:\n"
        '{ "task_completed": "yes" or "no" }',
    ]
    return _interleave([segment.strip() for segment in segments], list(query.frames))


def _first_json(text: str) -> dict[str, Any]:
    """Return the first ``{...}`` of an answer as a dictionary, empty if it is not JSON."""
    match = re.search(r"\{[^}]+\}", text)
    if match is None:
        return {}
    try:
        return json.loads(match.group(0))
    except (ValueError, RecursionError):  # also a number of thousands of digits
        return {}


def _unit(text: Any) -> float | None:
    """Return a number clamped to [0, 1], ``None`` if it is not a finite number."""
    try:
        number = float(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return min(1.0, max(0.0, number)) if math.isfinite(number) else None


def parse_contrastive(text: str) -> float | None:
    """Return +1 if image B is named, -1 for image A, ``None`` for neither (upstream: extract_comparison_result)."""
    name = _first_json(text).get("more_complete_image")
    if name not in ("ImageA", "ImageB"):
        match = re.search(r'"more_complete_image"\s*:\s*"(Image[AB])"', text)
        if match:
            name = match.group(1)
        else:
            last_a, last_b = text.rfind("ImageA"), text.rfind("ImageB")
            name = "ImageB" if last_b > last_a else "ImageA" if last_a > last_b else None
    return None if name is None else 1.0 if name == "ImageB" else -1.0


_PROGRESS_PATTERNS = (
    r"\b(0(\.[0-9]+)?|1(\.0)?)\b",
    r"Progress[:\s]*([0-9]*\.?[0-9]+)",
    r"progress[:\s]*([0-9]*\.?[0-9]+)",
    r"Score[:\s]*([0-9]*\.?[0-9]+)",
    r"score[:\s]*([0-9]*\.?[0-9]+)",
    r"([0-9]*\.?[0-9]+)\s*$",
    r"^([0-9]*\.?[0-9]+)",
)


def parse_progress(text: str) -> float | None:
    """Return progress in [0, 1], ``None`` if the answer holds none (upstream: extract_progress_score)."""
    answer = _first_json(text)
    if "completion_progress" in answer:
        value = answer["completion_progress"]
        if isinstance(value, str) and value.upper() == "NA":
            return None
        if not isinstance(value, bool) and (number := _unit(value)) is not None:
            return number
    match = re.search(r'"completion_progress"\s*:\s*"?(NA|([0-9.]+))"?', text, re.IGNORECASE)
    if match:
        if match.group(1).upper() == "NA":
            return None
        if (number := _unit(match.group(1))) is not None:
            return number
    for pattern in _PROGRESS_PATTERNS:
        match = re.search(pattern, text)
        if match:
            return _unit(match.group(1))
    return None


def parse_completion(text: str) -> float | None:
    """Return 1 for yes, 0 for no, ``None`` if neither or both are said (upstream: compute_vlm_completion)."""
    answers = re.findall(r'"task_completed"\s*:\s*"(yes|no)"', text, re.IGNORECASE)
    if answers:
        return 1.0 if answers[-1].lower() == "yes" else 0.0
    yes, no = "yes" in text.lower(), "no" in text.lower()
    return None if yes == no else 1.0 if yes else 0.0


HEADS: dict[str, Head] = {
    "contrastive": Head(
        name="contrastive",
        min_frames=2,
        max_frames=2,
        content=_contrastive_content,
        prefix='{ "more_complete_image": "',
        suffix='" }',
        candidates=("ImageA", "ImageB"),
        values=(-1.0, 1.0),
        low=-1.0,
        high=1.0,
        max_new_tokens=512,
        parse=parse_contrastive,
    ),
    "progress": Head(
        name="progress",
        min_frames=1,
        max_frames=2,
        content=_progress_content,
        prefix='{ "completion_progress": ',
        suffix=" }",
        candidates=tuple(f"{tenth / 10:.1f}" for tenth in range(11)),
        values=tuple(tenth / 10 for tenth in range(11)),
        low=0.0,
        high=1.0,
        max_new_tokens=128,
        parse=parse_progress,
    ),
    "completion": Head(
        name="completion",
        min_frames=1,
        max_frames=1,
        content=_completion_content,
        prefix='{ "task_completed": "',
        suffix='" }',
        candidates=("no", "yes"),
        values=(0.0, 1.0),
        low=0.0,
        high=1.0,
        max_new_tokens=128,
        parse=parse_completion,
    ),
}


def expectations(head: str, scores: NDArray[np.float64]) -> list[tuple[float | str, float | None]]:
    """Return the expectation over a head's candidates and their mass, of each query; or why there is none, and None.

    Args:
        head: one of ``HEADS``.
        scores: (N, 1 + candidates) log-probabilities of the answer's start and, after it, of every candidate.
    """
    highest = scores[:, 1:].max(1)
    with np.errstate(invalid="ignore"):  # not finite: told below
        weights = np.exp(scores[:, 1:] - highest[:, None])
        whole = weights.sum(1)
        values = weights @ np.array(HEADS[head].values) / whole
        masses = np.exp(scores[:, 0] + highest) * whole
    return [
        (value, mass) if math.isfinite(value) else ("the model's probabilities are not finite", None)
        for value, mass in zip(values.tolist(), masses.tolist(), strict=True)
    ]
