# SPDX-License-Identifier: Apache-2.0
"""The vision tower of a Qwen3-VL on many images of one size at once.

transformers' own forward (Qwen3VLVisionModel) attends image by image in a loop and works out the positions anew each
time. This one runs the same modules, with LoRA or saved copies in them, over a batch; a test holds both equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


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

    grid_thw = torch.tensor([grid], device=device)
    angles = visual.rot_pos_emb(grid_thw)
    angles = torch.cat((angles, angles), dim=-1)
    return Positions(visual.fast_pos_embed_interpolate(grid_thw), angles.cos(), angles.sin())


def encode(visual: Any, patches: Any, positions: Positions) -> tuple[Any, list[Any], Any]:
    """Run the tower.

    Args:
        visual: a Qwen3VLVisionModel.
        patches: (N, P, values of a patch) of N images, in the image processor's order.
        positions: those of the images' size.

    Returns:
        Visual tokens (N, T, D), one (N, T, D) for each DeepStack level, and the last patch states (N, P, H).
    """
    from torch.nn.functional import linear, scaled_dot_product_attention
    from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb_vision

    n, count, _ = patches.shape
    tokens = count // visual.spatial_merge_size**2
    # A convolution whose kernel is the whole patch is a matrix product, and on a CPU seven times as fast as one.
    stem = visual.patch_embed.proj
    states = linear(patches, stem.weight.flatten(1), stem.bias) + positions.embedding
    levels = []
    for number, block in enumerate(visual.blocks):
        attention = block.attn
        query, key, value = attention.qkv(block.norm1(states)).view(n, count, 3, attention.num_heads, -1).unbind(2)
        query, key = apply_rotary_pos_emb_vision(query, key, positions.cos, positions.sin)
        seen = scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), scale=attention.scaling
        )
        states = states + attention.proj(seen.transpose(1, 2).reshape(n, count, -1))
        states = states + block.mlp(block.norm2(states))
        if number in visual.deepstack_visual_indexes:
            merger = visual.deepstack_merger_list[visual.deepstack_visual_indexes.index(number)]
            levels.append(merger(states.flatten(0, 1)).view(n, tokens, -1))
    return visual.merger(states.flatten(0, 1)).view(n, tokens, -1), levels, states
