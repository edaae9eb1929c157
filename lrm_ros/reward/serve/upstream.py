# SPDX-License-Identifier: Apache-2.0
"""The upstream server's routes (Large-Reward-Models:vlm_reward/vlm_reward_server.py): same paths, payloads, defaults.

Its client and scripts work unchanged. Where upstream answers ``success: true`` with score 0 though it could read no
answer, this says ``success: false`` with the reason; what upstream's client makes of that is its own (score 0, success
false). ``score`` is upstream's: the answer itself (completion 0 or 1, comparison -1 or 1, progress in tenths when
generated); ``value`` beside it is the expectation over the answers that a forward pass read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from lrm_ros.reward.heads import HEADS
from lrm_ros.reward.serve.images import BadImage, bytes_of, raw_image
from lrm_ros.reward.serve.service import Refused
from lrm_ros.reward.video_heads import VIDEO_HEADS, topreward_log_prob
from lrm_ros.types import Frame, Reward, RewardQuery, Unscored

Shape = Annotated[list[int], Field(max_length=4)]


class RawImage(BaseModel):
    """An image as upstream's client encodes it."""

    data: str = Field(description="base64 of the array's bytes, row by row")
    shape: Shape = Field(description="[height, width, 3]", examples=[[480, 640, 3]])
    dtype: str = Field("uint8", description="uint8, or a float type of 0 to 1")


class _Request(BaseModel):
    """What all requests have: other keys are ignored, as upstream does."""

    model_config = ConfigDict(extra="ignore")
    task_description: str = Field(examples=["put the toy in the bowl"])


class CompletionRequest(_Request):
    """Whether the task is done in an image."""

    image: str | RawImage
    image_shape: Shape | None = None
    image_dtype: str = "uint8"


class RewardRequest(CompletionRequest):
    """Progress in an image, beside the first one of the episode or one of the goal if they are given."""

    reward_type: str = Field("progress", description="only 'progress'")
    initial_image: str | RawImage | None = None
    initial_image_shape: Shape | None = None
    initial_image_dtype: str | None = None
    goal_image: str | RawImage | None = None
    goal_image_shape: Shape | None = None
    goal_image_dtype: str | None = None


class ComparisonRequest(_Request):
    """Which of two images is closer to the goal."""

    image_a: str
    image_a_shape: Shape
    image_a_dtype: str = "uint8"
    image_b: str
    image_b_shape: Shape
    image_b_dtype: str = "uint8"


class BatchRequest(BaseModel):
    """Progress in several images, each with its own task."""

    images: list[RawImage]
    task_descriptions: list[str]
    reward_type: str = Field("progress", description="only 'progress'")


class VideoRequest(_Request):
    """An episode so far, for a video head."""

    frames: list[RawImage]
    fps: float = Field(1.0, gt=0, le=1000, description="frames a second; a model whose prompt shows times needs it")


class Decoder:
    """Makes queries of requests; runs in a thread, for it takes a core's time."""

    def __init__(self, max_pixels: int, max_images: int, max_text: int) -> None:
        """Keep the limits of an image's pixels, a request's images and a task's characters."""
        self._max_pixels, self._max_images, self._max_text = max_pixels, max_images, max_text

    def completion(self, request: CompletionRequest) -> list[RewardQuery]:
        """Return the query of ``/compute_completion``."""
        image = self._flat(request.image, request.image_shape, request.image_dtype, "image")
        return [self.query(request.task_description, "completion", [image])]

    def reward(self, request: RewardRequest) -> list[RewardQuery]:
        """Return the query of ``/compute_reward``."""
        self._progress_only(request.reward_type)
        shape, dtype = request.image_shape, request.image_dtype
        if isinstance(request.image, RawImage):
            shape, dtype = request.image.shape, request.image.dtype
        frames = [self._flat(request.image, shape, dtype, "image")]
        goal = None
        if request.initial_image:
            first = request.initial_image_shape or shape, request.initial_image_dtype or dtype
            frames.insert(0, self._flat(request.initial_image, *first, "initial_image"))
        if request.goal_image:
            last = request.goal_image_shape or shape, request.goal_image_dtype or dtype
            goal = self._flat(request.goal_image, *last, "goal_image")
        return [self.query(request.task_description, "progress", frames, goal)]

    def batch(self, request: BatchRequest) -> list[RewardQuery]:
        """Return the queries of ``/compute_rewards_batch``."""
        self._progress_only(request.reward_type)
        if len(request.images) != len(request.task_descriptions):
            raise Refused(422, f"{len(request.images)} images, but {len(request.task_descriptions)} task_descriptions")
        frames = self._frames(request.images, "images")
        return [
            self.query(task, "progress", [frame]) for frame, task in zip(frames, request.task_descriptions, strict=True)
        ]

    def comparison(self, request: ComparisonRequest) -> list[RewardQuery]:
        """Return the query of ``/compute_comparison``."""
        frames = [
            self._flat(request.image_a, request.image_a_shape, request.image_a_dtype, "image_a"),
            self._flat(request.image_b, request.image_b_shape, request.image_b_dtype, "image_b"),
        ]
        return [self.query(request.task_description, "contrastive", frames)]

    def video(self, head: str, request: VideoRequest) -> list[RewardQuery]:
        """Return the query of a video head's route."""
        return [self.query(request.task_description, head, self._frames(request.frames, "frames", 1e9 / request.fps))]

    def query(self, task: str, head: str, frames: Sequence[Frame], goal: Frame | None = None) -> RewardQuery:
        """Return a query that its head takes.

        Raises:
            Refused: 422, with the reason.
        """
        if len(task) > self._max_text:
            raise Refused(422, f"the task has {len(task)} characters, {self._max_text} is the most (--max-text)")
        try:
            query = RewardQuery(task, head, tuple(frames), goal)
            (HEADS | VIDEO_HEADS)[head].check(query)
        except ValueError as error:
            raise Refused(422, str(error)) from error
        return query

    def _frames(self, images: Sequence[RawImage], name: str, period_ns: float = 0.0) -> list[Frame]:
        if not 0 < len(images) <= self._max_images:
            raise Refused(422, f"{len(images)} {name}; give 1 to {self._max_images} (--max-images)")
        return [
            self._flat(image, None, "uint8", f"{name}[{number}]", round(number * period_ns))
            for number, image in enumerate(images)
        ]

    def _flat(self, image: str | RawImage, shape: list[int] | None, dtype: str, name: str, stamp_ns: int = 0) -> Frame:
        """Return an image that is given whole, or as a text with its shape and type beside it."""
        text = image
        if isinstance(image, RawImage):
            text, shape, dtype = image.data, image.shape, image.dtype
        if shape is None:
            raise Refused(422, f"{name} has no shape; give {name}_shape")
        try:
            return Frame(stamp_ns, name, raw_image(bytes_of(str(text)), shape, dtype, self._max_pixels))
        except BadImage as error:
            raise Refused(422, f"{name}: {error}") from error

    @staticmethod
    def _progress_only(reward_type: str) -> None:
        if reward_type != "progress":
            raise Refused(422, f"reward_type '{reward_type}' is not served; give 'progress'")


def answer(query: RewardQuery, answered: Reward | Unscored) -> dict[str, Any]:
    """Return the reply to one query as upstream forms it.

    Raises:
        Refused: it is Unscored: 504 if the model was not asked in time, else 500.
    """
    if isinstance(answered, Unscored):
        raise Refused(504 if answered.reason.startswith("not judged within") else 500, answered.reason)
    head = (HEADS | VIDEO_HEADS)[query.head]
    value = answered.value
    reply: dict[str, Any] = {"success": True, "score": value, "value": value, "response": ""}
    if head.values:
        reply["response"] = head.answer(value)
    if query.head == "completion":
        done = value >= 0.5
        reply |= {"score": float(done), "completed": done}
    elif query.head == "contrastive":
        result = "ImageB" if value > 0 else "ImageA" if value < 0 else None
        reply |= {"score": float((value > 0) - (value < 0)), "result": result}
    elif query.head == "roboreward":
        reply["raw_score"] = 1 + round(4 * value)
    elif query.head == "robometer":
        reply |= {"raw_score": None, "progress_per_frame": []}
    elif query.head == "topreward":
        reply |= {"log_prob": topreward_log_prob(value), "token_count": 1}
    return reply
