# SPDX-License-Identifier: Apache-2.0
"""The batch route ``/v1/score``: many queries of any head and task about images that are sent once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lrm_ros.config_serve import ServeConfig
from lrm_ros.reward.serve.images import BadImage, bytes_of, file_image, raw_image, shared_image
from lrm_ros.reward.serve.service import Refused
from lrm_ros.reward.serve.upstream import Decoder
from lrm_ros.types import HEADS, VIDEO_HEADS, Frame, Reward, RewardQuery, Unscored

HeadName = Literal["contrastive", "progress", "completion", "roboreward", "robometer", "topreward"]
assert set(HeadName.__args__) == {*HEADS, *VIDEO_HEADS}  # type: ignore[attr-defined]
_STAMP = (-(2**63), 2**63 - 1)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ScoreImage(_Strict):
    """An image: ``data`` alone is a JPEG or PNG, with ``shape`` a raw array; or ``shared_memory`` with ``shape``."""

    data: str | None = Field(None, description="base64 of a JPEG, a PNG, or of a raw array's bytes")
    shape: Annotated[list[int], Field(max_length=4)] | None = Field(None, description="[height, width, 3]")
    dtype: str = Field("uint8", description="of a raw array: uint8, or a float type of 0 to 1")
    shared_memory: str | None = Field(None, description="name of a segment on this machine, begins with lrm_")
    offset: int = Field(0, description="where the image begins in it [bytes]", ge=0, le=2**40)
    stamp_ns: int = Field(
        0, description="time of exposure [ns]; comes back with the answers", ge=_STAMP[0], le=_STAMP[1]
    )


class ScoreQuery(_Strict):
    """One question; images by their place in ``images``."""

    head: HeadName
    task: str = Field(examples=["put the toy in the bowl"])
    images: list[int] = Field(
        description="contrastive: [earlier, later]; progress: [current] or [initial, current]; completion: [current]; "
        "a video head: the episode so far"
    )
    goal: int | None = Field(None, description="progress: image of the finished task")


class ScoreRequest(_Strict):
    """Images and questions about them."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "images": [{"data": "<base64 of a JPEG>"}, {"data": "<base64 of a JPEG>"}],
                    "queries": [
                        {"head": "contrastive", "task": "put the toy in the bowl", "images": [0, 1]},
                        {"head": "completion", "task": "put the toy in the bowl", "images": [1]},
                    ],
                }
            ]
        },
    )
    images: list[ScoreImage]
    queries: list[ScoreQuery]
    readout: Literal["forward", "reason", "generate"] | None = Field(None, description="default: the server's")
    timeout_s: float = Field(30.0, gt=0, le=3600, description="do not judge what waited longer [s]")


class ScoreAnswer(BaseModel):
    """The answer to one query: a value, or why there is none. Never both, and never 0 for "none"."""

    head: str
    stamp_ns: int
    value: float | None = Field(None, description="contrastive in [-1, 1], all others in [0, 1]")
    mass: float | None = Field(None, description="probability that the model says one of the head's answers at all")
    unscored: str | None = None


class ScoreReply(BaseModel):
    """Answers in the order of the queries."""

    model: str
    answers: list[ScoreAnswer]


def read_request(request: ScoreRequest, config: ServeConfig, decoder: Decoder) -> list[RewardQuery | Unscored]:
    """Return the queries; one that its head cannot take, or with an image that is damaged, is Unscored.

    Raises:
        Refused: 422: too much at once, or an index of no image.
    """
    for what, count, most in (
        ("images", len(request.images), config.max_images),
        ("queries", len(request.queries), config.max_queries),
    ):
        if not 0 < count <= most:
            raise Refused(422, f"{count} {what}; give 1 to {most} (--max-{what})")
    frames = [_frame(image, number, config.max_pixels) for number, image in enumerate(request.images)]
    return [_query(asked, number, frames, decoder) for number, asked in enumerate(request.queries)]


def _frame(image: ScoreImage, number: int, max_pixels: int) -> Frame | str:
    """Return an image as a frame, or why it cannot be judged."""
    try:
        if image.shared_memory is not None:
            pixels = shared_image(image.shared_memory, image.offset, image.shape or [], max_pixels)
        elif image.data is None:
            raise BadImage("it has neither data nor shared_memory")
        elif image.shape is None:
            pixels = file_image(bytes_of(image.data), max_pixels)
        else:
            pixels = raw_image(bytes_of(image.data), image.shape, image.dtype, max_pixels)
        return Frame(image.stamp_ns, f"images[{number}]", pixels)
    except BadImage as error:
        return f"images[{number}]: {error}"


def _query(asked: ScoreQuery, number: int, frames: Sequence[Frame | str], decoder: Decoder) -> RewardQuery | Unscored:
    places = [*asked.images, *([] if asked.goal is None else [asked.goal])]
    if wrong := [place for place in places if not 0 <= place < len(frames)]:
        raise Refused(422, f"queries[{number}]: there is no image {wrong[0]}, only 0 to {len(frames) - 1}")
    shown = [frames[place] for place in places]
    stamp = next((frames[p].stamp_ns for p in asked.images[::-1] if isinstance(frames[p], Frame)), 0)  # type: ignore[union-attr]
    if bad := [frame for frame in shown if isinstance(frame, str)]:
        return Unscored(stamp, asked.head, bad[0])
    good = [frame for frame in shown if isinstance(frame, Frame)]
    goal = None if asked.goal is None else good.pop()
    try:
        return decoder.query(asked.task, asked.head, good, goal)
    except Refused as error:
        return Unscored(stamp, asked.head, str(error))


def as_answer(answer: Reward | Unscored) -> dict[str, Any]:
    """Return an answer as ``ScoreAnswer`` has it."""
    about = {"head": answer.head, "stamp_ns": answer.stamp_ns}
    if isinstance(answer, Unscored):
        return about | {"unscored": answer.reason}
    return about | {"value": answer.value, "mass": answer.mass}
