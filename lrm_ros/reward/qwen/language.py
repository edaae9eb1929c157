# SPDX-License-Identifier: Apache-2.0
"""The language model of a Qwen3-VL on a batch of prompts, each behind a constant part that is worked out once.

transformers' own forward (Qwen3VLTextModel) works out mask and rotary positions at every call and every token in every
layer: in a small model that takes longer than the arithmetic. This one runs the same modules, with LoRA in them; a test
holds both equal. Keys and values of what does not change (the text before the picture, an episode's first picture) are
kept, and the last layer works on the tokens alone that are read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.reward.qwen.lora import linear

_MAX_ROWS = 96
_PADDING = 1.25
_SCORES = 1 << 22  # scores of a layer that a CPU may hold at once


@dataclass(frozen=True)
class Prompt:
    """A tokenised prompt with the answer's start.

    Attributes:
        rows: token ids of each forward pass that the candidates need (one unless candidates have several tokens).
        rotary: (2, L, head size) cosine and sine of each row's positions, on the model's device.
        visual: (V,) places of the image tokens, the same in every row.
        terms: per candidate, the (row, place of the logits, token id) whose log-probabilities add up to its own.
        begins: those of the answer's start, that every candidate shares; none if the model wrote it.
        constant: tokens before the picture that changes, the same in every row.
        anchors: pictures among these.
    """

    rows: list[NDArray[np.int64]]
    rotary: list[Any]
    visual: NDArray[np.int64]
    terms: list[list[tuple[int, int, int]]]
    begins: list[tuple[int, int, int]]
    constant: tuple[int, ...]
    anchors: int


def rotary_of(language: Any, positions: Any) -> Any:
    """Return cosine and sine (2, L, head size) of the rotary embedding for positions (3, L): time, height, width."""
    import torch

    weight = language.embed_tokens.weight
    return torch.cat(language.rotary_emb(weight, positions[:, None]))


def remember(language: Any, embeds: Any, rotary: Any, visual: Any, deep: list[Any]) -> Any:
    """Run the language model over the constant part of a prompt.

    Args:
        language: a Qwen3VLTextModel.
        embeds: (1, P, D) embedded tokens with their visual ones.
        rotary: (2, 1, P, head size) cosine and sine of ``rotary_of``.
        visual: (V,) places of the visual tokens.
        deep: DeepStack levels, each (visual tokens, D), in the order of ``visual``.

    Returns:
        (layers, 2, key heads, P, head size) rotated keys and values of every layer.
    """
    import torch

    length = embeds.shape[1]
    mask = _unseen(torch.ones(1, 1, length, length, dtype=torch.bool, device=embeds.device).tril(), embeds)
    states, kept = embeds, []
    for number, layer in enumerate(language.layers):
        states, keys = layer_of(layer, states, rotary, None, mask, None)
        states = _add(states, number, visual, deep)
        kept.append(keys[:, 0])
    return torch.stack(kept)


def read(
    language: Any, embeds: Any, rotary: Any, visual: Any, deep: list[Any], past: Any, begins: Any, places: Any
) -> Any:
    """Run the language model on what comes after the constant parts.

    Args:
        language: a Qwen3VLTextModel.
        embeds: (B, L, D) embedded rest of the prompts with their visual tokens, padded on the right.
        rotary: (2, B, L, head size) cosine and sine of ``rotary_of``.
        visual: (V,) places of the visual tokens, of row b at place p: b * L + p.
        deep: DeepStack levels, each (visual tokens, D), in the order of ``visual``.
        past: (layers, 2, B, key heads, P, head size) of ``remember``, padded on the left.
        begins: (B,) where in P each row's constant part begins; None: at 0 in every row.
        places: (B, S) which tokens are asked for; the last layer works on them alone.

    Returns:
        (B, S, D) last hidden states there, normalised.
    """
    import torch

    before, length = past.shape[4], embeds.shape[1]
    known = torch.arange(before + length, device=embeds.device)
    asked = known <= before + places[:, :, None]  # by the last layer, (B, S, P + L)
    if begins is not None:
        asked &= known >= begins[:, None, None]
    mask = _unseen(mask_of(length, before, begins, embeds.device), embeds)
    asked = _unseen(asked[:, None], embeds)
    states = embeds
    for number, layer in enumerate(language.layers):
        last = number == len(language.layers) - 1
        seen, spots = (asked, places) if last else (mask, None)
        states, _ = layer_of(layer, states, rotary, past[number], seen, spots)
        if not last:  # no visual token is asked for
            states = _add(states, number, visual, deep)
    return _norm(language.norm, states)


def mask_of(length: int, before: int, begins: Any, device: Any) -> Any:
    """Return which of P + L tokens each of the last L sees, for ``scaled_dot_product_attention``.

    A GPU's fastest kernel takes no mask of numbers, but knows the plain causal one.

    Args:
        length: L.
        before: P.
        begins: (B,) from which token on each row sees; None: from the first.
        device: torch device.

    Returns:
        (B, 1, L, P + L), or without ``begins`` (L, P + L), on a GPU in torch's own words.
    """
    import torch
    from torch.nn.attention.bias import causal_lower_right

    if begins is None and device.type == "cuda":
        return causal_lower_right(length, before + length)
    mask = torch.ones(length, before + length, dtype=torch.bool, device=device).tril(before)
    if begins is None:
        return mask
    return mask & (torch.arange(before + length, device=device) >= begins[:, None])[:, None, None]


def _unseen(mask: Any, states: Any) -> Any:
    """Return a mask as the numbers that are added to scores, where plain products want them, see ``_attend``."""
    import torch

    if states.device.type != "cpu" or states.dtype != torch.float32:
        return mask
    return torch.zeros(mask.shape).masked_fill_(~mask, float("-inf"))


def layer_of(layer: Any, states: Any, rotary: Any, past: Any, mask: Any, places: Any) -> tuple[Any, Any]:
    """Return the states after a layer, at ``places`` if given, and its keys and values (2, B, heads, L, head size)."""
    import torch

    attention, mlp = layer.self_attn, layer.mlp
    batch, length, _ = states.shape
    shape = (batch, length, -1, attention.head_dim)
    cos, sin = rotary[0][:, None], rotary[1][:, None]
    normal = _norm(layer.input_layernorm, states)
    key = _rotate(_norm(attention.k_norm, linear(attention.k_proj, normal).view(shape)).transpose(1, 2), cos, sin)
    value = linear(attention.v_proj, normal).view(shape).transpose(1, 2)
    own = torch.stack((key, value))
    if past is not None:
        own = torch.cat((past, own), 3)
    if places is not None:
        rows = torch.arange(batch, device=states.device)[:, None]
        states, normal = states[rows, places], normal[rows, places]
        cos, sin = (each[rows, 0, places][:, None] for each in (cos, sin))
        shape = (batch, places.shape[1], -1, attention.head_dim)
    query = _norm(attention.q_norm, linear(attention.q_proj, normal).view(shape)).transpose(1, 2)
    seen = _attend(_rotate(query, cos, sin), own, mask, attention.scaling)
    states = states + linear(attention.o_proj, seen.transpose(1, 2).reshape(*shape[:2], -1))
    normal = _norm(layer.post_attention_layernorm, states)
    inner = _gated(mlp, linear(mlp.gate_proj, normal), linear(mlp.up_proj, normal))
    return states + linear(mlp.down_proj, inner), own


def _attend(query: Any, own: Any, mask: Any, scale: float) -> Any:
    """Return what each head (B, Q, L, head size) sees of keys and values (2, B, K, S, head size), K dividing Q.

    Args:
        query: (B, Q, L, head size).
        own: keys and values.
        mask: of ``mask_of``, (L, S) or (B, 1, L, S); on a CPU in float32 of ``_unseen``.
        scale: of the scores.
    """
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    batch, heads, length, size = query.shape
    groups = heads // own.shape[2]
    small = query.device.type == "cpu" and batch * heads * length * own.shape[3] <= _SCORES
    if small and query.dtype == torch.float32:
        # Plain products, of all heads that share a key at once: a fifth less than the kernel takes, which saves memory.
        keys, values = own
        scores = torch.matmul(query.reshape(batch, -1, groups * length, size), keys.transpose(2, 3)).mul_(scale)
        scores.view(batch, -1, groups, length, scores.shape[-1]).add_(mask if mask.dim() == 2 else mask[:, :, None])
        weights = scores.softmax(-1)
        return torch.matmul(weights, values).view(batch, heads, length, size)
    # Beside a mask, a GPU's memory-saving kernel takes no groups of heads: with enable_gqa all scores would be written.
    keys, values = own.repeat_interleave(groups, 2)
    return scaled_dot_product_attention(query, keys, values, mask, scale=scale)


def _gated(mlp: Any, gate: Any, up: Any) -> Any:
    return mlp.act_fn(gate) * up


def _add(states: Any, number: int, visual: Any, deep: list[Any]) -> Any:
    """Return a layer's states, which are changed, with its DeepStack level added to the visual tokens."""
    if number < len(deep):
        states.view(-1, states.shape[-1])[visual] += deep[number].to(states.dtype)
    return states


def chunks(rows: list, lengths: list[int]) -> Iterator[list]:
    """Split rows into batches of similar length, so that little is padded."""
    chunk: list = []
    first = 0
    for i in sorted(range(len(rows)), key=lambda i: lengths[i]):
        if chunk and (len(chunk) >= _MAX_ROWS or (len(chunk) >= 8 and lengths[i] > _PADDING * first)):
            yield chunk
            chunk = []
        if not chunk:
            first = lengths[i]
        chunk.append(rows[i])
    if chunk:
        yield chunk


def greedy(model: Any, tokens: int) -> Any:
    """Return a ``GenerationConfig`` for greedy decoding of at most ``tokens`` tokens.

    They are the model's own but for that; asked without settings, transformers 5 builds a configuration of defaults at
    every call to compare with, which takes as long as a small model's answer.
    """
    import copy

    settings = copy.deepcopy(model.generation_config)
    settings.update(max_new_tokens=tokens, do_sample=False, temperature=None, top_p=None, top_k=None)
    return settings


def use_adapter(model: Any, name: str) -> None:
    """Make an adapter of a PeftModel the active one."""
    if model.active_adapter != name:
        model.set_adapter(name)


@contextlib.contextmanager
def adapter_rows(model: Any, names: list[str]) -> Iterator[None]:
    """Give each row of a batch its adapter; empty names: the model has none.

    Several adapters make a PEFT mixed batch, which picks its rows in every layer: on a GPU a fifth slower than one.
    """
    if len(set(names)) > 1:
        with model.base_model._enable_peft_forward_hooks(adapter_names=names):
            yield
        return
    if names[0]:
        use_adapter(model, names[0])
    yield


def _norm(module: Any, values: Any) -> Any:
    """Root-mean-square norm over the last axis, as the stock module does it."""
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextRMSNorm

    if type(module) is not Qwen3VLTextRMSNorm:  # an adapter's copy is in it
        return module(values)
    return _scaled(values, module.weight, module.variance_epsilon)


def _scaled(values: Any, weight: Any, least: float) -> Any:
    """Return values with mean square 1 over the last axis, worked out in float32, times a weight."""
    import torch
    from torch.nn.functional import rms_norm

    if values.device.type == "cpu" and values.dtype == torch.float32:  # there is no such kernel: fewer passes than its
        length = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
        return values * length.square_().div_(values.shape[-1]).add_(least).rsqrt_() * weight
    return weight * rms_norm(values, values.shape[-1:], None, least)


def _rotate(values: Any, cos: Any, sin: Any) -> Any:
    """Rotate pairs of channels (i, i + half) by their position's angle; values (B, H, L, head size)."""
    first, second = values.chunk(2, dim=-1)
    turned = values * cos  # half the stock function's passes over memory, and one rounding less
    ours, theirs = turned.chunk(2, dim=-1)
    early, late = sin.chunk(2, dim=-1)
    ours.addcmul_(second, early, value=-1)
    theirs.addcmul_(first, late)
    return turned
