# SPDX-License-Identifier: Apache-2.0
"""The rows of a batch for the language model: all but the pictures, in which alone a camera's next batch differs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.reward.qwen.language import Prompt, chunks
from lrm_ros.types import Frame

_MAX_LOGITS = 512  # places whose logits over the vocabulary are held at once


@dataclass(frozen=True)
class _Row:
    """One forward pass of a prompt after its constant part.

    Attributes:
        number: of the row among those that differ in more than their pictures.
        ids: (L,) token ids.
        rotary: (2, L, head size) cosine and sine of its positions.
        visual: places of its visual tokens.
        past: (layers, 2, key heads, P, head size) of the constant part.
        places: whose logits are wanted.
        spots: (T,) of each wanted logit, its number in ``places``.
        tokens: (T,) whose logit.
        candidates: (T,) to which candidate it is added; 0 is the answer's start.
    """

    number: int
    ids: NDArray[np.int64]
    rotary: Any
    visual: NDArray[np.int64]
    past: Any
    places: list[int]
    spots: NDArray[np.int64]
    tokens: NDArray[np.int64]
    candidates: NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """Rows side by side, (B, ...) each, and which logits are wanted.

    Attributes:
        shape: (B, L), padded on the right.
        ids: (B * L,) token ids.
        rotary: (2, B, L, head size).
        seen: (V,) places of the visual tokens, of row b at place p: b * L + p.
        visual: (V,) the same on the device.
        past: (layers, 2, B, key heads, P, head size), padded on the left.
        begins: (B,) where in P each row's constant part begins; None: at 0 in every row.
        places: (B, S) whose logits are wanted; the last one again where a row has fewer.
        at: (T,) of each wanted logit, its place among the B * S.
        tokens: (T,) whose logit.
        candidates: (T,) to which candidate of the batch it is added.
        queries: of each row, the number of its query in the batch.
    """

    shape: tuple[int, int]
    ids: NDArray[np.int64]
    rotary: Any
    seen: NDArray[np.int64]
    visual: Any
    past: Any
    begins: Any
    places: Any
    at: NDArray[np.int64]
    tokens: NDArray[np.int64]
    candidates: NDArray[np.int64]
    queries: list[int]


@dataclass(frozen=True)
class Plan:
    """The rows of a batch in parts of similar length.

    Attributes:
        parts: the parts.
        words: (W,) token ids that occur, each once.
        orders: of each part, (B * L,) number of each token in ``words``.
        wanted: of each block of the places of all parts: where it is, and of each wanted logit (T,) its
            place in the block, whose it is, and to which candidate of the batch it is added.
        firsts: (N + 1,) number of each query's first candidate, and of all.
        made_of: prompts and anchors; kept, so that nothing else takes the id of one.
    """

    parts: list[Layout]
    words: Any
    orders: list[NDArray[np.int64]]
    wanted: list[tuple[slice, Any, Any, NDArray[np.int64]]]
    firsts: NDArray[np.int64]
    made_of: tuple[Sequence[Prompt], Sequence[Sequence[Frame]]]


class Plans:
    """Makes a batch's plan, or finds it. Those of a small model are kept; a large one's take more memory than time."""

    _KEPT, _KEPT_BYTES = 8, 1 << 24

    def __init__(self, device: str) -> None:
        """Keep none yet; they are made on ``device``."""
        self._device = device
        self._kept: OrderedDict[tuple[int, ...], Plan] = OrderedDict()

    def of(self, prompts: Sequence[Prompt], anchors: Sequence[Sequence[Frame]], past: Callable[[int], Any]) -> Plan:
        """Return the plan of a batch.

        Args:
            prompts: one a query.
            anchors: of each query, the pictures in its constant part.
            past: called with a query's number: keys and values (layers, 2, key heads, P, head size) of that part.
        """
        key = (*map(id, prompts), *[id(frame) for own in anchors for frame in own])
        plan = self._kept.get(key)
        if plan is None:
            firsts = np.cumsum([0, *[1 + len(prompt.terms) for prompt in prompts]])
            rows = [(number, row) for number, prompt in enumerate(prompts) for row in range(len(prompt.rows))]
            rests = [len(prompts[number].rows[row]) - len(prompts[number].constant) for number, row in rows]
            parts = [
                _made(
                    [(number, firsts[number], prompts[number], row, past(number)) for number, row in chunk],
                    self._device,
                )
                for chunk in chunks(rows, rests)
            ]
            words, order = np.unique(np.concatenate([part.ids for part in parts]), return_inverse=True)
            orders = np.split(order, np.cumsum([len(part.ids) for part in parts])[:-1])
            plan = Plan(
                parts,
                moved(words, self._device),
                orders,
                list(_blocks(parts, self._device)),
                firsts,
                (list(prompts), list(anchors)),
            )
            if sum(part.past.nbytes + part.rotary.nbytes for part in parts) > self._KEPT_BYTES:
                return plan
            self._kept[key] = plan
            if len(self._kept) > self._KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return plan


def _made(rows: Sequence[tuple[int, int, Prompt, int, Any]], device: str) -> Layout:
    """Return rows side by side; what equal ones share is worked out once.

    Args:
        rows: of each its query's number and first candidate, its prompt, which of its rows it is, and its past.
        device: torch device.
    """
    kinds: dict[tuple[int, int, int], _Row] = {}
    which = []
    for _, _, prompt, row, past in rows:
        key = (id(prompt), row, id(past))
        if key not in kinds:
            kinds[key] = _row(len(kinds), prompt, row, past)
        which.append(kinds[key])
    distinct = list(kinds.values())
    count, length = len(distinct), max(len(kind.ids) for kind in distinct)
    most, sizes = max(len(kind.places) for kind in distinct), [kind.past.shape[3] for kind in distinct]
    before = max(sizes)
    first, kept = distinct[0].rotary, distinct[0].past
    ids = np.zeros((count, length), np.int64)
    rotary = first.new_zeros(2, count, length, first.shape[-1])
    visual = np.zeros((count, length), bool)
    past = kept.new_zeros(*kept.shape[:2], count, kept.shape[2], before, kept.shape[4])
    for i, kind in enumerate(distinct):
        ids[i, : len(kind.ids)] = kind.ids
        rotary[:, i, : len(kind.ids)] = kind.rotary
        visual[i, kind.visual] = True
        past[:, :, i, :, before - kind.past.shape[3] :] = kind.past
    places = np.array([kind.places + kind.places[-1:] * (most - len(kind.places)) for kind in distinct])
    begins = None if min(sizes) == before else np.array([before - size for size in sizes])
    own = [kind.number for kind in which]
    index = moved(np.array(own), device)
    at = np.concatenate([i * most + kind.spots for i, kind in enumerate(which)])
    tokens = np.concatenate([kind.tokens for kind in which])
    candidates = np.concatenate([row[1] + kind.candidates for row, kind in zip(rows, which, strict=True)])
    seen = np.flatnonzero(visual[own])
    return Layout(
        (len(which), length),
        ids[own].ravel(),
        rotary.index_select(1, index),
        seen,
        moved(seen, device),
        past.index_select(2, index),
        None if begins is None else moved(begins[own], device),
        moved(places[own], device),
        at,
        tokens,
        candidates,
        [number for number, *_ in rows],
    )


def _blocks(parts: Sequence[Layout], device: str) -> Iterator[tuple[slice, Any, Any, NDArray[np.int64]]]:
    """Yield the wanted logits of all parts block by block, see :class:`Plan`."""
    counts = [part.places.numel() for part in parts]
    at = np.concatenate([before + part.at for before, part in zip(np.cumsum([0, *counts]), parts, strict=False)])
    tokens, candidates = (np.concatenate(each) for each in zip(*((p.tokens, p.candidates) for p in parts), strict=True))
    for start in range(0, sum(counts), _MAX_LOGITS):
        here = (at >= start) & (at < start + _MAX_LOGITS)
        spots, own = moved(at[here] - start, device), moved(tokens[here], device)
        yield slice(start, start + _MAX_LOGITS), spots, own, candidates[here]


def _row(number: int, prompt: Prompt, row: int, past: Any) -> _Row:
    """Return a row of a prompt, behind the keys and values of its constant part."""
    begin = len(prompt.constant)
    found = [
        (place - begin, token, candidate)
        for candidate, terms in enumerate([prompt.begins, *prompt.terms])
        for r, place, token in terms
        if r == row
    ]
    places = list(dict.fromkeys(place for place, *_ in found))
    spots, tokens, candidates = np.array([(places.index(place), *rest) for place, *rest in found], np.int64).T
    visual = prompt.visual[prompt.visual >= begin] - begin
    return _Row(
        number, prompt.rows[row][begin:], prompt.rotary[row][:, begin:], visual, past, places, spots, tokens, candidates
    )


def moved(values: NDArray[np.int64], device: str) -> Any:
    """Return integers on a device; to a GPU without waiting for it."""
    import torch

    if not device.startswith("cuda"):
        return torch.from_numpy(values).to(device)
    return torch.from_numpy(values).pin_memory().to(device, non_blocking=True)


def token_rows(lengths: NDArray[np.int64], shown: Sequence[int]) -> NDArray[np.int64]:
    """Return which rows of all pictures' tokens, one picture below the other, those shown have.

    Args:
        lengths: tokens of each picture.
        shown: numbers of the pictures.
    """
    which = np.array(shown, np.int64)
    own, begins = lengths[which], (np.cumsum(lengths) - lengths)[which]
    if len(own) and own.min() == own.max():  # nearly always; in fewer steps
        return (begins[:, None] + np.arange(own[0])).ravel()
    return np.arange(own.sum()) + np.repeat(begins - (np.cumsum(own) - own), own)
