# SPDX-License-Identifier: Apache-2.0
"""The rows of a batch for the language model: all but the pictures, made once for batches that differ in them alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.reward.qwen.language import Prompt


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
    ids: Any
    rotary: Any
    visual: Any
    past: Any
    places: list[int]
    spots: NDArray[np.int64]
    tokens: NDArray[np.int64]
    candidates: NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """Rows side by side, (B, ...) each, and which logits are wanted.

    Attributes:
        ids: (B, L), padded on the right.
        rotary: (2, B, L, head size).
        visual: (V,) places of the visual tokens, of row b at place p: b * L + p.
        past: (layers, 2, B, key heads, P, head size), padded on the left.
        begins: (B,) where in P each row's constant part begins; None: at 0 in every row.
        places: (B, S) whose logits are wanted; the last one again where a row has fewer.
        at: (T,) of each wanted logit, its place among the B * S.
        tokens: (T,) whose logit.
        candidates: (T,) to which candidate it is added.
        made_of: what the rows were made of; kept, so that nothing else takes the id of it.
    """

    ids: Any
    rotary: Any
    visual: Any
    past: Any
    begins: Any
    places: Any
    at: NDArray[np.int64]
    tokens: NDArray[np.int64]
    candidates: NDArray[np.int64]
    made_of: Sequence[tuple[int, Prompt, int, Any]]


class Layouts:
    """Makes the layout of a batch, or finds it: from frame to frame a camera's queries differ in their pictures alone.

    Those of a small model are kept; a large one's take more memory than time.
    """

    _KEPT, _KEPT_BYTES = 8, 1 << 24

    def __init__(self, device: Any) -> None:
        """Keep none yet; they are made on ``device``."""
        self._device = device
        self._kept: OrderedDict[tuple[tuple[int, int, int, int], ...], Layout] = OrderedDict()

    def of(self, rows: Sequence[tuple[int, Prompt, int, Any]]) -> Layout:
        """Return the layout of rows.

        Args:
            rows: of each, the number of its query's first candidate, its prompt, which of the prompt's rows it is, and
                keys and values (layers, 2, key heads, P, head size) of the constant part.
        """
        key = tuple((first, id(prompt), row, id(past)) for first, prompt, row, past in rows)
        layout = self._kept.get(key)
        if layout is None:
            layout = _made(rows, self._device)
            if layout.past.nbytes + layout.rotary.nbytes > self._KEPT_BYTES:
                return layout
            self._kept[key] = layout
            if len(self._kept) > self._KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return layout


def _made(rows: Sequence[tuple[int, Prompt, int, Any]], device: Any) -> Layout:
    """Return the layout of rows, see :meth:`Layouts.of`; what equal ones share is worked out once."""
    import torch

    kinds: dict[tuple[int, int, int], _Row] = {}
    which = []
    for _, prompt, row, past in rows:
        key = (id(prompt), row, id(past))
        if key not in kinds:
            kinds[key] = _row(len(kinds), prompt, row, past)
        which.append(kinds[key])
    distinct = list(kinds.values())
    count, length = len(distinct), max(len(kind.ids) for kind in distinct)
    most, sizes = max(len(kind.places) for kind in distinct), [kind.past.shape[3] for kind in distinct]
    before = max(sizes)
    first, kept = distinct[0].rotary, distinct[0].past
    ids = torch.zeros(count, length, dtype=torch.long, device=device)
    rotary = first.new_zeros(2, count, length, first.shape[-1])
    visual = torch.zeros(count, length, dtype=torch.bool, device=device)
    past = kept.new_zeros(*kept.shape[:2], count, kept.shape[2], before, kept.shape[4])
    for i, kind in enumerate(distinct):
        ids[i, : len(kind.ids)] = kind.ids
        rotary[:, i, : len(kind.ids)] = kind.rotary
        visual[i, kind.visual] = True
        past[:, :, i, :, before - kind.past.shape[3] :] = kind.past
    places = torch.tensor([kind.places + kind.places[-1:] * (most - len(kind.places)) for kind in distinct])
    begins = None if min(sizes) == before else torch.tensor([before - size for size in sizes], device=device)
    index = torch.tensor([kind.number for kind in which], device=device)
    return Layout(
        ids[index],
        rotary.index_select(1, index),
        visual[index].flatten().nonzero().squeeze(1),
        past.index_select(2, index),
        None if begins is None else begins[index],
        places.to(device)[index],
        np.concatenate([i * most + kind.spots for i, kind in enumerate(which)]),
        np.concatenate([kind.tokens for kind in which]),
        np.concatenate([begin + kind.candidates for (begin, *_), kind in zip(rows, which, strict=True)]),
        list(rows),
    )


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
