# SPDX-License-Identifier: Apache-2.0
"""The rows of a batch for the language model: those that differ in their pictures alone are made once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.reward.qwen.language import Prompt


@dataclass(frozen=True)
class Row:
    """One forward pass of a prompt after its constant part.

    Attributes:
        number: of the row in :class:`Table`.
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
    ids: Any
    rotary: Any
    visual: Any
    past: Any
    places: list[int]
    spots: NDArray[np.int64]
    tokens: NDArray[np.int64]
    candidates: NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """Rows side by side, each with a first axis of as many as there are unless it says another.

    Attributes:
        ids: (N, L), padded on the right.
        rotary: (2, N, L, head size).
        visual: (N, L) where the visual tokens are.
        past: (layers, 2, N, key heads, P, head size), padded on the left.
        begins: (N,) where in P each row's constant part begins; None: at 0 in every row.
        places: (N, S) whose logits are wanted; the last one again where a row has fewer.
    """

    ids: Any
    rotary: Any
    visual: Any
    past: Any
    begins: Any
    places: Any


def row_of(number: int, prompt: Prompt, row: int, past: Any) -> Row:
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
    return Row(
        number, prompt.rows[row][begin:], prompt.rotary[row][:, begin:], visual, past, places, spots, tokens, candidates
    )


def table(rows: Sequence[Row], device: Any) -> Table:
    """Return rows of one model side by side."""
    import torch

    count, length = len(rows), max(len(row.ids) for row in rows)
    most, sizes = max(len(row.places) for row in rows), [row.past.shape[3] for row in rows]
    before = max(sizes)
    first, past = rows[0].rotary, rows[0].past
    made = Table(
        torch.zeros(count, length, dtype=torch.long, device=device),
        first.new_zeros(2, count, length, first.shape[-1]),
        torch.zeros(count, length, dtype=torch.bool, device=device),
        past.new_zeros(*past.shape[:2], count, past.shape[2], before, past.shape[4]),
        None if min(sizes) == before else torch.tensor([before - size for size in sizes], device=device),
        torch.tensor([row.places + row.places[-1:] * (most - len(row.places)) for row in rows], device=device),
    )
    for i, row in enumerate(rows):
        made.ids[i, : len(row.ids)] = row.ids
        made.rotary[:, i, : len(row.ids)] = row.rotary
        made.visual[i, row.visual] = True
        made.past[:, :, i, :, before - row.past.shape[3] :] = row.past
    return made


def wanted(rows: Sequence[Row], firsts: NDArray[np.int64], most: int) -> tuple[NDArray[np.int64], ...]:
    """Return which logits of a batch are wanted, and what each belongs to; those of equal rows are worked out at once.

    Args:
        rows: of the batch, in its order.
        firsts: (B,) of each, the number of its query's first candidate.
        most: S, places of a row.

    Returns:
        Of each wanted logit (T,): its place among the batch's B * S, its token, and the number of its candidate.
    """
    numbers = np.array([row.number for row in rows])
    found = []
    for row in {row.number: row for row in rows}.values():
        same = np.flatnonzero(numbers == row.number)
        at = (same[:, None] * most + row.spots).ravel()
        found.append((at, np.tile(row.tokens, len(same)), (firsts[same][:, None] + row.candidates).ravel()))
    return tuple(np.concatenate(each) for each in zip(*found, strict=True))
