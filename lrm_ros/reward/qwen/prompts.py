# SPDX-License-Identifier: Apache-2.0
"""The prompts of queries as tokens: what is asked, how the answer begins, and where its candidates are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lrm_ros.reward.heads import HEADS
from lrm_ros.reward.models import too_long
from lrm_ros.reward.qwen.language import Prompt, rotary_of
from lrm_ros.types import RewardQuery
from lrm_ros.versions import rope_index

Grid = tuple[int, int, int]


def question(processor: Any, query: RewardQuery, grids: Sequence[Grid]) -> str:
    """Return the question with as many image tokens as its images of (t, h, w) patches need."""
    messages = HEADS[query.head].messages(query)
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    pad, merge = processor.image_token, processor.image_processor.merge_size
    text, *pieces = text.split(pad)
    for grid, piece in zip(grids, pieces, strict=True):
        text += pad * (grid[0] * grid[1] * grid[2] // merge**2) + piece
    return text


def tokenise(qwen: Any, processor: Any, query: RewardQuery, grids: Sequence[Grid], written: str | None) -> Prompt | str:
    """Return the tokenised prompt of a query; a text says why there is none: it is longer than what the model takes.

    Args:
        qwen: a Qwen3VLForConditionalGeneration.
        processor: its processor.
        query: the query.
        grids: (t, h, w) patches of its images.
        written: what the model wrote up to the answer; ``None``: the answer comes first.
    """
    import torch

    head, tokenizer, device = HEADS[query.head], processor.tokenizer, qwen.device
    asked = question(processor, query, grids) + (written or "")
    begun = asked + (head.prefix if written is None else "")
    answers = [tokenizer(begun + candidate, verbose=False)["input_ids"] for candidate in head.candidates]
    if reason := too_long(tokenizer, max(len(ids) for ids in answers), query.task):
        return reason
    # What every candidate shares is context; the rest is scored. Each row is a longest distinct context.
    contexts = {tuple(ids[:-1]) for ids in answers}
    rows = sorted(c for c in contexts if not any(len(o) > len(c) and o[: len(c)] == c for o in contexts))
    common = _shared(answers)
    terms = []
    for ids in answers:
        at = next(r for r, context in enumerate(rows) if context[: len(ids) - 1] == tuple(ids[:-1]))
        terms.append([(at, place - 1, ids[place]) for place in range(common, len(ids))])
    start = _shared([tokenizer(asked, verbose=False)["input_ids"] + [-1], answers[0]])
    begins = [(0, place - 1, answers[0][place]) for place in range(start, common)]
    image_grid = torch.tensor(grids, device=device)
    rotary = []
    for row in rows:
        rope = rope_index(qwen.model, torch.tensor([row], device=device), image_grid)
        rotary.append(rotary_of(qwen.model.language_model, rope[:, 0]))
    visual = np.flatnonzero(np.array(rows[0]) == qwen.config.image_token_id)
    # The first picture of an episode and the goal stay; the earlier one of a comparison does not.
    anchors = len(grids) - 1 if query.head == "progress" else 0
    merge = processor.image_processor.merge_size**2
    first = int(visual[sum(grid[0] * grid[1] * grid[2] // merge for grid in grids[:anchors])])
    return Prompt([np.array(row) for row in rows], rotary, visual, terms, begins, rows[0][:first], anchors)


def _shared(answers: Sequence[list[int]]) -> int:
    """Return how many tokens all begin with, the last of each not counted."""
    count = 0
    while all(len(ids) > count + 1 and ids[count] == answers[0][count] for ids in answers):
        count += 1
    return count
