# SPDX-License-Identifier: Apache-2.0
"""The vision tower of a Qwen3-VL on many images of one size at once.

transformers' own forward (Qwen3VLVisionModel) attends image by image in a loop and works out the positions anew each
time. This one runs the same modules, with LoRA or saved copies in them, over a batch; a test holds both equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.reward.qwen.product import linear, product
from lrm_ros.versions import tower_positions


@dataclass(frozen=True)
class Positions:
    """Where the patches of an image of one size are.

    Attributes:
        embedding: (P, H) learned position embedding, interpolated to the image's grid.
        cos: (P, head size) rotary embedding.
        sin: (P, head size) rotary embedding.
    """

    embedding: Any
    cos: Any
    sin: Any


def positions_of(visual: Any, grid: tuple[int, int, int], device: Any = "cpu") -> Positions:
    """Return the positions of one image of (1, rows, columns) patches; they depend on the tower's weights."""
    import torch

    return Positions(*tower_positions(visual, torch.tensor([grid], device=device)))


def patches_of(
    processor: Any, images: Sequence[NDArray[np.uint8]], device: str = "cpu", dtype: Any = None
) -> list[tuple[tuple[int, int, int], Any]]:
    """Return what the image processor makes of each image: its (t, h, w) grid and its patches (P, values).

    Args: see :func:`patches_by_grid`.
    """
    result: list[Any] = [None] * len(images)
    for grid, numbers, patches in patches_by_grid(processor, images, device, dtype):
        for number, own in zip(numbers, patches, strict=True):
            result[number] = (grid, own)
    return result


def patches_by_grid(
    processor: Any, images: Sequence[NDArray[np.uint8]], device: str = "cpu", dtype: Any = None
) -> list[tuple[tuple[int, int, int], list[int], Any]]:
    """Return what the image processor makes of images: of each (t, h, w) grid, which have it and their patches.

    These are (N, P, values), in float32 or ``dtype``.

    Images that need no resizing take a short way: the processor's own costs a tenth of a small model's answer. A test
    holds both equal. A GPU gets them as they are, an eighth of the patches' size, and makes the patches.

    Args:
        processor: Qwen's image processor.
        images: (H, W, 3) each, of any sizes.
        device: torch device of the patches.
        dtype: torch dtype of the patches; None: float32. They are scaled in float32.
    """
    import torch
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    size, merge = processor.patch_size, processor.merge_size
    shortest, longest = processor.size["shortest_edge"], processor.size["longest_edge"]
    same: dict[tuple[int, int], list[int]] = {}  # images by their size
    for number, image in enumerate(images):
        same.setdefault((image.shape[0], image.shape[1]), []).append(number)
    found: dict[tuple[int, int, int], list[tuple[list[int], Any]]] = {}
    for (height, width), numbers in same.items():
        if smart_resize(height, width, size * merge, shortest, longest) == (height, width):
            made = _cut([images[number] for number in numbers], processor, device).to(dtype or torch.float32)
            found.setdefault((1, height // size, width // size), []).append((numbers, made))
            continue
        for number in numbers:
            inputs = processor(images=[images[number].copy()], return_tensors="pt")  # torch wants to be able to write
            patches = inputs["pixel_values"].to(device, dtype or torch.float32)
            found.setdefault(tuple(inputs["image_grid_thw"][0].tolist()), []).append(([number], patches[None]))
    return [
        (
            grid,
            [number for numbers, _ in parts for number in numbers],
            parts[0][1] if len(parts) == 1 else torch.cat([patches for _, patches in parts]),
        )
        for grid, parts in found.items()
    ]


def _cut(images: Sequence[NDArray[np.uint8]], processor: Any, device: str) -> Any:
    """Return the patches (N, P, values) in float32 of images of one size that need no resizing."""
    import torch

    size, merge, repeat = processor.patch_size, processor.merge_size, processor.temporal_patch_size
    factor = np.float32(processor.rescale_factor)
    mean = np.array(processor.image_mean, np.float32) / factor
    scale = factor / np.array(processor.image_std, np.float32)
    height, width, _ = images[0].shape
    # Moved as bytes, a quarter of the numbers' size, on a CPU eight at once; then scaled in place.
    planes = _planes(images, device)
    word = 8 if planes.device.type == "cpu" and size % 8 == 0 else 1
    if word > 1:
        planes = planes.view(torch.int64)
    blocks = planes.view(3, -1, height // size // merge, merge, size, width // size // merge, merge, size // word)
    moved = blocks.permute(1, 2, 5, 3, 6, 0, 4, 7)[:, :, :, :, :, :, None]
    moved = moved.expand(-1, -1, -1, -1, -1, -1, repeat, -1, -1).reshape(len(images), -1, 3, repeat * size**2 // word)
    if word > 1:
        moved = moved.view(torch.uint8)
    if len({*zip(processor.image_mean, processor.image_std, strict=True)}) == 1:
        # Qwen's own: half the time of numbers that differ by channel.
        return moved.float().sub_(float(mean[0])).mul_(float(scale[0])).flatten(2)
    low, steps = (torch.from_numpy(each).to(device)[:, None] for each in (mean, scale))
    return moved.float().sub_(low).mul_(steps).flatten(2)


def _planes(images: Sequence[NDArray[np.uint8]], device: str) -> Any:
    """Return images of one size, colour by colour, as bytes (3, N, H, W) on a device; to a GPU without waiting."""
    import cv2
    import torch

    if not device.startswith("cuda"):
        height, width, _ = images[0].shape
        planes = np.empty((3, len(images) * height, width), np.uint8)
        cv2.split(np.stack(images).reshape(-1, width, 3), list(planes))
        return torch.from_numpy(planes).view(3, -1, height, width).to(device)
    pinned = torch.empty(len(images), *images[0].shape, dtype=torch.uint8, pin_memory=True)
    np.stack(images, out=pinned.numpy())
    return pinned.to(device, non_blocking=True).permute(3, 0, 1, 2)


def encode(visual: Any, patches: Any, positions: Positions) -> tuple[Any, list[Any], Any]:
    """Run the tower.

    Args:
        visual: a Qwen3VLVisionModel.
        patches: (N, P, values of a patch) of N images, in the image processor's order.
        positions: those of the images' size.

    Returns:
        Visual tokens (N, T, D), one (N, T, D) for each DeepStack level, and the last patch states (N, P, H).
    """
    from torch.nn import Conv3d
    from torch.nn.functional import scaled_dot_product_attention

    n, count, _ = patches.shape
    tokens = count // visual.spatial_merge_size**2
    stem = visual.patch_embed.proj
    if type(stem) is Conv3d:
        # A convolution whose kernel is the whole patch is a matrix product, and on a CPU seven times as fast as one.
        states = product(patches, stem.weight.flatten(1), stem.bias)
    else:  # an adapter is in it
        states = visual.patch_embed(patches.flatten(0, 1)).view(n, count, -1)
    states = states + positions.embedding
    levels = []
    for number, block in enumerate(visual.blocks):
        attention = block.attn
        made = linear(attention.qkv, block.norm1(states)).view(n, count, 3, attention.num_heads, -1)
        query, key = turned(made[:, :, :2], positions.cos, positions.sin)
        value = made[:, :, 2]
        seen = scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), scale=attention.scaling
        )
        states = states + linear(attention.proj, seen.transpose(1, 2).reshape(n, count, -1))
        states = states + _mlp(block.mlp, block.norm2(states), visual.config.hidden_act)
        if number in visual.deepstack_visual_indexes:
            merger = visual.deepstack_merger_list[visual.deepstack_visual_indexes.index(number)]
            levels.append(_merged(merger, states.flatten(0, 1)).view(n, tokens, -1))
    return _merged(visual.merger, states.flatten(0, 1)).view(n, tokens, -1), levels, states


def _mlp(mlp: Any, values: Any, function: str) -> Any:
    """Return what a block's two layers, with a function between them, make of values (N, P, H)."""
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionMLP

    if type(mlp) is not Qwen3VLVisionMLP or function != "gelu_pytorch_tanh":  # an adapter's copy is in it
        return mlp(values)
    return linear(mlp.linear_fc2, linear(mlp.linear_fc1, values, function))


def _merged(merger: Any, states: Any) -> Any:
    """Return the visual tokens (T, D) that a merger makes of patch states (P, H), P in the tower's order."""
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionPatchMerger

    if type(merger) is not Qwen3VLVisionPatchMerger:  # an adapter's copy is in it
        return merger(states)
    whole = (-1, merger.hidden_size)  # the patches of a token side by side
    states = merger.norm(states.view(whole) if merger.use_postshuffle_norm else states).view(whole)
    return linear(merger.linear_fc2, merger.act_fn(linear(merger.linear_fc1, states)))


def turned(pair: Any, cos: Any, sin: Any) -> tuple[Any, Any]:
    """Return queries and keys after the rotary embedding, worked out in float32 as the stock function does it.

    Args:
        pair: (N, P, 2, heads, head size) of queries and keys.
        cos: (P, head size).
        sin: (P, head size).

    Returns:
        (N, P, heads, head size) each.
    """
    import torch
    from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb_vision

    if torch.is_grad_enabled() and pair.requires_grad:
        query, key = pair.unbind(2)
        return apply_rotary_pos_emb_vision(query, key, cos, sin)
    # Queries and keys at once and half by half: half the stock function's passes over memory, in other types a third.
    if pair.dtype == torch.float32:
        result = pair * cos[:, None, None]
        (early, late), (first, second) = result.chunk(2, dim=-1), pair.chunk(2, dim=-1)
        sins = sin[:, None, None].chunk(2, dim=-1)
        early.addcmul_(second, sins[0], value=-1)
        late.addcmul_(first, sins[1])
        query, key = result.unbind(2)
        return query, key
    cos, sin = (each.float()[:, None, None].chunk(2, dim=-1) for each in (cos, sin))
    first, second = pair.chunk(2, dim=-1)
    result = torch.empty(pair.shape, dtype=pair.dtype, device=pair.device)
    early, late = result.chunk(2, dim=-1)
    torch.addcmul(first * cos[0], second, sin[0], value=-1, out=early)
    torch.addcmul(second * cos[1], first, sin[1], out=late)
    query, key = result.unbind(2)
    return query, key
