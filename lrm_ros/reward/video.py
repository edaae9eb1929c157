# SPDX-License-Identifier: Apache-2.0
"""What the models of the video heads have in common: RoboReward, Robometer and TOPReward.

All queries of a call share a batch. One that gets no answer (another model's head, an unreadable reply, no memory, a
value that is not finite) is Unscored with the reason, where upstream's server returns 0
(Large-Reward-Models:vlm_reward/vlm_reward_server.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lrm_ros.reward.heads import Head
from lrm_ros.reward.models import READOUTS, other_head
from lrm_ros.reward.qwen.folder import check_template
from lrm_ros.reward.qwen.load import find_adapters, load_qwen
from lrm_ros.types import Frame, Reward, RewardQuery, Unscored

T = TypeVar("T")


def rewards(
    name: str,
    queries: Sequence[RewardQuery],
    readout: str,
    read: Callable[[Sequence[RewardQuery]], list[T | Unscored]],
    value: Callable[[T], float],
) -> list[Reward | Unscored]:
    """Answer queries, in order.

    Args:
        name: of the model.
        queries: any.
        readout: one of ``READOUTS``; the model of a video head has a way of its own, whichever it is.
        read: what the model says about each query.
        value: of that, in [0, 1].

    Raises:
        ValueError: unknown read-out.
    """
    if readout not in READOUTS:
        raise ValueError(f"unknown readout '{readout}'; choose one of {', '.join(READOUTS)}")
    start = time.perf_counter()
    found = read(queries)
    seconds = time.perf_counter() - start
    return [
        said if isinstance(said, Unscored) else Reward(query.stamp_ns, query.head, value(said), name, seconds)
        for query, said in zip(queries, found, strict=True)
    ]


def readings(
    name: str, head: Head, queries: Sequence[RewardQuery], ask: Callable[[list[RewardQuery]], list[T | str]]
) -> list[T | Unscored]:
    """Ask about all queries in one batch; return what the model says or the reason for nothing, in order.

    Args:
        name: of the model.
        head: the only one it answers.
        queries: any; those of another head or with a goal image are not asked.
        ask: answers the others; a text instead of an answer says why there is none.
    """
    found: list[T | str] = [_refuse(name, head, query) for query in queries]
    asked = [i for i, refusal in enumerate(found) if not refusal]
    if asked:
        for i, reply in zip(asked, _replies(ask, [queries[i] for i in asked]), strict=True):
            found[i] = reply
    return [
        Unscored(query.stamp_ns, query.head, reply) if isinstance(reply, str) else reply
        for query, reply in zip(queries, found, strict=True)
    ]


def _replies(ask: Callable[[list[RewardQuery]], list[T | str]], queries: list[RewardQuery]) -> list[T | str]:
    """Ask in one batch; where that is refused for what is in a query, ask about each by itself."""
    try:
        return ask(queries)
    except ValueError as error:
        if len(queries) > 1:
            return [reply for query in queries for reply in _replies(ask, [query])]
        return [f"ValueError: {error}"]
    except (RuntimeError, OSError, MemoryError) as error:  # torch's out of memory is a RuntimeError
        return [f"{type(error).__name__}: {error}"] * len(queries)


def _refuse(name: str, head: Head, query: RewardQuery) -> str:
    """Return why a query cannot be asked, empty if it can."""
    if query.head != head.name:
        return other_head(name, (head.name,), query.head)
    try:
        head.check(query)
    except ValueError as error:
        return str(error)
    return ""


def resized(image: NDArray[np.uint8], factor: int, tokens: tuple[int, int]) -> Any:
    """Return a PIL image whose sides are multiples of ``factor``, with a number of visual tokens in bounds.

    This is what Qwen's own ``qwen_vl_utils`` does before the processor, which is then told not to resize
    (QwenLM/Qwen3-VL:qwen-vl-utils/src/qwen_vl_utils/vision_process.py).

    Args:
        image: (H, W, 3) uint8.
        factor: pixels along the side of a visual token.
        tokens: fewest and most visual tokens of an image.
    """
    from PIL import Image
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    picture = Image.fromarray(image)
    low, high = (count * factor**2 for count in tokens)
    height, width = smart_resize(picture.height, picture.width, factor, low, high)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


# ---- models that see a video -----------------------------------------------------------------------------------------


def load_video_model(folder: Path, device: str) -> tuple[Any, Any]:
    """Load a whole Qwen3-VL and its processor, set up for batches of videos.

    Raises:
        FileNotFoundError: files are missing.
        ValueError: adapters, another model, weights that do not fit it, or a processor that cannot place videos.
    """
    if find_adapters(folder):
        raise ValueError(
            f"'{folder}' holds LoRA adapters, as an LRM does; this baseline is a whole Qwen3-VL: give its weights, or "
            "use an LRM with mode completion, progress, contrastive or tri"
        )
    model, processor, _ = load_qwen(folder, torch_device(device))
    videos = processor.video_processor
    if videos.temporal_patch_size < 2 or videos.temporal_patch_size != videos.merge_size:
        raise ValueError(
            f"'{folder}': a token of a video spans {videos.temporal_patch_size} frames, but Qwen3-VL's processor "
            f"writes a time for every {videos.merge_size}; the shipped 'tiny' sees single images only"
        )
    check_template(processor, "video", folder, "copy chat_template.* from the model's download into it")
    processor.tokenizer.padding_side = "left"
    return model, processor


def video_inputs(
    processor: Any, texts: list[str], clips: Sequence[Sequence[Frame]], fps: float | None, **settings: Any
) -> Any:
    """Return what the processor makes of one video a text, as a batch.

    An odd number of frames is made even by showing the last one twice, at the same time.

    Args:
        processor: of ``load_video_model``.
        texts: prompts with a video's placeholder.
        clips: the frames, all of a clip of one size.
        fps: frames a second, which the prompt shows as times; ``None``: the times are those of the frames' stamps.
        settings: more keywords for the processor.

    Raises:
        ValueError: stamps that run backwards, frames of several sizes in a clip, or fps not positive.
    """
    import torch

    if fps is not None and not fps > 0:
        raise ValueError(f"fps must be positive, got {fps}")
    group = processor.video_processor.temporal_patch_size
    videos, about = [], []
    for frames in clips:
        if len({frame.image.shape for frame in frames}) > 1:
            raise ValueError(f"frames of a clip differ in size: {sorted({frame.image.shape for frame in frames})}")
        milliseconds = [(frame.stamp_ns - frames[0].stamp_ns) // 10**6 for frame in frames]
        if fps is None and milliseconds != sorted(milliseconds):
            raise ValueError(f"the frames' stamps run backwards: {milliseconds} ms")
        shown = [*range(len(frames)), *[len(frames) - 1] * (-len(frames) % group)]
        videos.append(torch.from_numpy(np.stack([frames[i].image for i in shown])).permute(0, 3, 1, 2))
        about.append(
            {
                "fps": 1000.0 if fps is None else fps,
                "frames_indices": [milliseconds[i] for i in shown] if fps is None else shown,
                "total_num_frames": len(shown),
            }
        )
    inputs = processor(
        text=texts,
        videos=videos,
        video_metadata=about,
        do_sample_frames=False,
        padding=True,
        return_tensors="pt",
        **settings,
    )
    check_length(processor, inputs)
    return inputs


def check_length(processor: Any, inputs: Any) -> None:
    """Raise ValueError for a batch in which a question is longer than what the model takes."""
    length, most = inputs.input_ids.shape[1], processor.tokenizer.model_max_length
    if length > most:
        raise ValueError(f"the question has {length} tokens, the model takes {most}: shorten the task text")


# ---- files -----------------------------------------------------------------------------------------------------------


def torch_device(device: str) -> str:
    """Return the torch device; ``auto`` is the GPU when there is one."""
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
