# SPDX-License-Identifier: Apache-2.0
"""Clips of an episode so far as input of a video model: what RoboReward, Robometer and TOPReward have in common.

A clip is (task, frames oldest first); of more than ``max_frames`` frames some are taken, evenly spread from the first
to the last. All clips of a call share a batch. A clip that gets no answer (an unreadable reply, no memory, a value that
is not finite) is Unscored with the reason, where upstream's server returns 0
(Large-Reward-Models:vlm_reward/vlm_reward_server.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lrm_ros.reward.qwen.load import find_adapters, load_qwen
from lrm_ros.types import Frame, Unscored

Clip = tuple[str, Sequence[Frame]]
T = TypeVar("T")


def answered(head: str, clips: Sequence[Clip], ask: Callable[[list[Clip]], list[T | str]]) -> list[T | Unscored]:
    """Ask about all clips in one batch; return an answer or the reason for none, in order.

    Args:
        head: name of the baseline.
        clips: (task, frames oldest first).
        ask: answers clips that have a task and frames; a text instead of an answer says why there is none.
    """
    found: list[T | str] = [_refuse(clip) for clip in clips]
    asked = [i for i, refusal in enumerate(found) if not refusal]
    if asked:
        try:
            replies = ask([clips[i] for i in asked])
        except (RuntimeError, ValueError, OSError, MemoryError) as error:  # torch's out of memory is a RuntimeError
            replies = [f"{type(error).__name__}: {error}"] * len(asked)
        for i, reply in zip(asked, replies, strict=True):
            found[i] = reply
    return [
        Unscored(frames[-1].stamp_ns if frames else 0, head, reply) if isinstance(reply, str) else reply
        for (_, frames), reply in zip(clips, found, strict=True)
    ]


def _refuse(clip: Clip) -> str:
    task, frames = clip
    return "the clip has no frames" if not frames else "" if task.strip() else "the task text is empty"


def spread(frames: Sequence[Frame], most: int) -> list[Frame]:
    """Return at most ``most`` frames, evenly spread, with the first and the last one (upstream's linspace)."""
    if len(frames) <= most:
        return list(frames)
    if most == 1:
        return [frames[-1]]
    return [frames[i] for i in np.linspace(0, len(frames) - 1, most, dtype=int)]


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


# ---- baselines that see a video --------------------------------------------------------------------------------------


def load_video_model(folder: Path, device: str) -> tuple[Any, Any]:
    """Load a whole Qwen3-VL and its processor, set up for batches of videos.

    Raises:
        FileNotFoundError: files are missing.
        ValueError: adapters, another model, weights that do not fit it, or a processor that cannot place videos.
    """
    if find_adapters(folder):
        raise ValueError(f"'{folder}' holds adapters; this baseline is a whole Qwen3-VL")
    model, processor, _ = load_qwen(folder, torch_device(device))
    tied = model.lm_head.weight is model.get_input_embeddings().weight  # and then not written twice
    check_weights(folder, set(model.state_dict()), {"lm_head.weight"} if tied else set())
    videos = processor.video_processor
    if videos.temporal_patch_size != videos.merge_size:
        raise ValueError(
            f"'{folder}': a token of a video spans {videos.temporal_patch_size} frames, but Qwen3-VL's processor "
            f"writes a time for every {videos.merge_size}; the shipped 'tiny' sees single images only"
        )
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
    return processor(
        text=texts,
        videos=videos,
        video_metadata=about,
        do_sample_frames=False,
        padding=True,
        return_tensors="pt",
        **settings,
    )


# ---- files -----------------------------------------------------------------------------------------------------------


def torch_device(device: str) -> str:
    """Return the torch device; ``auto`` is the GPU when there is one."""
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def weight_files(folder: Path) -> dict[str, Path]:
    """Return the file of each tensor of a checkpoint.

    Raises:
        FileNotFoundError: no weights, or a file of the index is missing.
    """
    from safetensors import safe_open

    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        with safe_open(whole, framework="pt") as file:
            return dict.fromkeys(file.keys(), whole)
    if not index.is_file():
        raise FileNotFoundError(
            f"'{folder}' has neither model.safetensors nor its index; the download is incomplete: run "
            f"'hf download NAME --local-dir {folder}' again on a machine with network"
        )
    files = {key: folder / name for key, name in json.loads(index.read_text())["weight_map"].items()}
    missing = sorted({str(path) for path in files.values() if not path.is_file()})
    if missing:
        raise FileNotFoundError(f"'{index}' names {missing[0]}, which is not there; the download is incomplete")
    return files


def check_weights(folder: Path, wanted: set[str], optional: set[str]) -> None:
    """Raise ValueError unless a checkpoint holds exactly the tensors a model has; ``optional`` ones may lack."""
    found = set(weight_files(folder))
    missing, unknown = sorted(wanted - optional - found), sorted(found - wanted - optional)
    if missing or unknown:
        parts = [f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
                 for what, keys in (("missing", missing), ("unexpected", unknown)) if keys]  # fmt: skip
        raise ValueError(f"the weights in '{folder}' are not those of this model: {' and '.join(parts)}")
