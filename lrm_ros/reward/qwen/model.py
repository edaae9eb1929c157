# SPDX-License-Identifier: Apache-2.0
"""A Qwen3-VL that answers reward queries in batches: from one forward pass, after it has written, or by what it wrote.

``forward`` continues the assistant's turn with the answer's fixed start, e.g. ``{ "completion_progress": ``, reads the
probabilities of the head's candidate answers and returns their expectation: progress in [0, 1], p(yes) for completion,
p(B) - p(A) for contrastive. Candidates of several tokens are scored token by token. Upstream generates text instead
(contrastive with an analysis before the answer); ``generate`` does the same, greedily. ``reason`` lets the model write
what it was trained to write before its answer, and reads the probabilities there.

With a read answer comes its mass: the probability of the answer's fixed start times that of all candidates together. A
model that was trained to reason first gives the start next to none, and what is read after it is not what it would say.

The forward pass is the stock model's, in three parts: each distinct frame goes through the vision tower once and is
shared by all queries of the batch that show it, and by the next batch's (where it is the earlier image of a contrastive
query); prompts are tokenised once per task, and the text before the picture (for progress the first picture of an
episode, too) goes through the language model once; LoRA heads share one pass (PEFT mixed batch).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.reward.heads import HEADS, expectations
from lrm_ros.reward.models import READOUTS, not_an_lrm, other_head
from lrm_ros.reward.qwen.allocator import keep_freed_memory
from lrm_ros.reward.qwen.language import Prompt, adapter_rows, read, remember, use_adapter
from lrm_ros.reward.qwen.load import load_qwen
from lrm_ros.reward.qwen.product import linear
from lrm_ros.reward.qwen.prompts import Grid, tokenise
from lrm_ros.reward.qwen.rows import Plans, moved, token_rows
from lrm_ros.reward.qwen.vision import Positions, encode, patches_by_grid, positions_of
from lrm_ros.reward.qwen.writing import write
from lrm_ros.types import Frame, Reward, RewardQuery, Unscored

_MAX_PROMPTS = 512
_MAX_PAST = 1 << 30  # bytes of constant parts that are kept
_Answer = tuple[float | str, float | None]  # a value, or why there is none; and the mass, if it was read


@dataclass(frozen=True)
class _Frames:
    """Frames after the vision tower.

    Attributes:
        frames: the frames; kept, so that no other frame takes the id of one of them.
        index: id of a Frame -> its position.
        grids: (t, h, w) patches of each frame.
        features: (tokens, D) of each frame.
        deep: per DeepStack level, (tokens, D) of each frame.
        first: number of the first frame among those of all vision towers.
    """

    frames: list[Frame]
    index: dict[int, int]
    grids: list[tuple[int, int, int]]
    features: list[Any]
    deep: list[list[Any]]
    first: int


class QwenRewardModel:
    """Reward heads on a Qwen3VLForConditionalGeneration, with or without LoRA adapters."""

    def __init__(
        self,
        folder: Path,
        name: str = "",
        device: str = "auto",
        built: tuple[Any, Any, dict[str, str]] | None = None,
        load: str = "",
    ) -> None:
        """Load the model.

        Args:
            folder: a whole model or adapters (``lrm_ros.reward.qwen.load``).
            name: name written into every answer; the folder's name if empty.
            device: torch device; ``auto`` takes the GPU when there is one.
            built: what ``load_qwen`` would return, made elsewhere on ``device``; nothing is loaded then.
            load: how the weights are held, one of ``lrm_ros.reward.qwen.quantized.LOADS``.

        Raises:
            FileNotFoundError: files are missing.
            ValueError: not a Qwen3-VL, or the weights of a Robometer or RoboReward. RoboReward is a whole Qwen3-VL and
                is known only by its Hugging Face name, not in a folder.
        """
        import torch

        if name.startswith("teetone/RoboReward-"):
            raise not_an_lrm(name, "the weights of a RoboReward", "roboreward")
        self.name = name or folder.name
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        if self.device == "cpu":
            keep_freed_memory()
        self.model, self.processor, self.adapters = built or load_qwen(folder, self.device, load)
        self.qwen = self.model.get_base_model() if self.adapters else self.model
        self.processor.tokenizer.padding_side = "left"
        self._prompts: OrderedDict[tuple, Prompt | str] = OrderedDict()
        self._pasts: OrderedDict[tuple, tuple[Any, list[Frame]]] = OrderedDict()
        self._positions: dict[tuple[str, tuple[int, int, int]], Positions] = {}
        self._plans = Plans(self.device)
        self._seen: dict[str, _Frames] = {}  # frames of the newest batch by vision tower
        # An adapter that changes the vision tower has encodings of its own; all others share one ("").
        names = [name for name, _ in self.model.named_parameters()]
        self._tower_of = {
            adapter: adapter if any(".visual." in name and f".{adapter}." in name for name in names) else ""
            for adapter in set(self.adapters.values())
        }

    def score(self, queries: Sequence[RewardQuery], readout: str = "forward") -> list[Reward | Unscored]:
        """Answer every query, in order.

        Args:
            queries: any mix of heads and tasks.
            readout: ``forward``, ``reason`` or ``generate``.

        Returns:
            A Reward, with its mass unless it was generated; or Unscored when the query does not fit its head, the head
            is a video head or one that the model has no adapter for, or what was written cannot be read.

        Raises:
            ValueError: unknown read-out.
        """
        import torch

        if readout not in READOUTS:
            raise ValueError(f"unknown readout '{readout}'; choose one of {', '.join(READOUTS)}")
        start = time.perf_counter()
        answers: list[_Answer] = [(self._refuse(query), None) for query in queries]
        asked = [i for i, (refusal, _) in enumerate(answers) if not refusal]
        if asked:
            read = {"forward": self._forward, "reason": self._reason, "generate": self._generate}[readout]
            with torch.inference_mode():
                for i, answer in zip(asked, read([queries[i] for i in asked]), strict=True):
                    answers[i] = answer
        seconds = time.perf_counter() - start
        return [
            Unscored(query.stamp_ns, query.head, answer)
            if isinstance(answer, str)
            else Reward(query.stamp_ns, query.head, answer, self.name, seconds, mass)
            for query, (answer, mass) in zip(queries, answers, strict=True)
        ]

    def _refuse(self, query: RewardQuery) -> str:
        """Return why a query cannot be asked, empty if it can."""
        if query.head not in HEADS:
            return other_head(self.name, tuple(HEADS), query.head)
        if self.adapters and query.head not in self.adapters:
            return f"model '{self.name}' has no adapter for head '{query.head}', only for {', '.join(self.adapters)}"
        try:
            HEADS[query.head].check(query)
        except ValueError as error:
            return str(error)
        return ""

    # ---- write -------------------------------------------------------------------------------------------------------

    def _generate(self, queries: Sequence[RewardQuery]) -> list[_Answer]:
        """Read the answers in what the model writes."""
        answers: list[_Answer] = []
        for query, written in zip(queries, write(self, queries), strict=True):
            value = HEADS[query.head].parse(written.text)
            unread = f"the answer cannot be read: {written.text[:200]!r}" if value is None else value
            answers.append((written.failure or unread, None))
        return answers

    def _reason(self, queries: Sequence[RewardQuery]) -> list[_Answer]:
        """Let the model write up to its answer, and read the probabilities there."""
        answers: list[_Answer] = [("", None)] * len(queries)
        begun: dict[int, str] = {}
        for i, (query, written) in enumerate(zip(queries, write(self, queries), strict=True)):
            start = HEADS[query.head].begun(written.text)
            if start is None:
                answers[i] = (written.failure or f"it wrote no answer: {written.text[:200]!r}", None)
            else:
                begun[i] = start
        if begun:
            read = self._forward([queries[i] for i in begun], list(begun.values()))
            for i, answer in zip(begun, read, strict=True):
                answers[i] = answer
        return answers

    # ---- forward -----------------------------------------------------------------------------------------------------

    def _forward(self, queries: Sequence[RewardQuery], written: Sequence[str] | None = None) -> list[_Answer]:
        """Return the expectation over the candidate answers of each query, after what was written for it."""
        images = [HEADS[query.head].images(query) for query in queries]
        shown: dict[str, list[Frame]] = {}
        heads: dict[str, str] = {}  # one that looks by this vision tower
        for query, frames in zip(queries, images, strict=True):
            shown.setdefault(self._tower(query), []).extend(frames)
            heads.setdefault(self._tower(query), query.head)
        seen: dict[str, _Frames] = {}
        for tower, frames in shown.items():
            if self.adapters:
                use_adapter(self.model, self.adapters[heads[tower]])
            seen[tower] = self._encode(frames, tower, sum(len(known.frames) for known in seen.values()))
        self._seen = seen
        answers: list[_Answer] = [("", None)] * len(queries)
        prompts: list[Prompt] = []
        looks: list[tuple[_Frames, list[int]]] = []
        asked: list[int] = []
        for number, (query, frames) in enumerate(zip(queries, images, strict=True)):
            known = seen[self._tower(query)]
            places = [known.index[id(frame)] for frame in frames]
            grids = tuple([known.grids[place] for place in places])
            prompt = self._prompt(query, grids) if written is None else self._tokenise(query, grids, written[number])
            if isinstance(prompt, str):
                answers[number] = (prompt, None)
                continue
            prompts.append(prompt)
            looks.append((known, places))
            asked.append(number)
        of: dict[str, list[int]] = {}  # places in ``asked``
        for place, number in enumerate(asked):
            of.setdefault(queries[number].head, []).append(place)
        found, firsts = self._language([queries[number].head for number in asked], prompts, looks, list(seen.values()))
        for head, same in of.items():
            own = firsts[same][:, None] + np.arange(1 + len(prompts[same[0]].terms))
            for place, answer in zip(same, expectations(head, found[own]), strict=True):
                answers[asked[place]] = answer
        return answers

    def _tower(self, query: RewardQuery) -> str:
        return self._tower_of[self.adapters[query.head]] if self.adapters else ""

    def _encode(self, frames: list[Frame], tower: str, first: int) -> _Frames:
        """Run every distinct frame that the last batch did not show through the vision tower, one size together."""
        visual = self.qwen.model.visual
        known = self._seen.get(tower)
        distinct = list({id(frame): frame for frame in frames}.values())
        count = len(distinct)
        grids: list[Any] = [None] * count
        features: list[Any] = [None] * count
        deep: list[list[Any]] = [[None] * count for _ in visual.deepstack_visual_indexes]
        new = []
        for place, frame in enumerate(distinct):
            at = known.index.get(id(frame)) if known else None
            if known is None or at is None:
                new.append(place)
                continue
            grids[place], features[place] = known.grids[at], known.features[at]
            for level, values in enumerate(known.deep):
                deep[level][place] = values[at]
        shown = [distinct[place].image for place in new]
        for grid, rows, patches in patches_by_grid(self.processor.image_processor, shown, self.device, visual.dtype):
            if (tower, grid) not in self._positions:
                self._positions[tower, grid] = positions_of(visual, grid, self.device)
            tokens, levels, _ = encode(visual, patches, self._positions[tower, grid])
            for row, own, *deeper in zip(rows, tokens.unbind(), *(level.unbind() for level in levels), strict=True):
                grids[new[row]], features[new[row]] = grid, own
                for level, values in enumerate(deeper):
                    deep[level][new[row]] = values
        return _Frames(distinct, {id(frame): i for i, frame in enumerate(distinct)}, grids, features, deep, first)

    def _prompt(self, query: RewardQuery, grids: tuple[Grid, ...]) -> Prompt | str:
        """Return the tokenised prompt of a query, from the cache if head, task and image sizes were seen before."""
        key = (query.head, query.task, query.goal is not None, grids)
        prompt = self._prompts.get(key)
        if prompt is None:
            prompt = self._prompts[key] = self._tokenise(query, grids)
            if len(self._prompts) > _MAX_PROMPTS:
                self._prompts.popitem(last=False)
        self._prompts.move_to_end(key)
        return prompt

    def _tokenise(self, query: RewardQuery, grids: tuple[Grid, ...], written: str | None = None) -> Prompt | str:
        return tokenise(self.qwen, self.processor, query, grids, written)

    def _language(
        self, heads: list[str], prompts: list[Prompt], looks: list[tuple[_Frames, list[int]]], seen: list[_Frames]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the log-probabilities of the answer's start and every candidate, query by query, and their begins."""
        import torch

        anchors, changing = [], []
        for prompt, (frames, places) in zip(prompts, looks, strict=True):
            anchors.append([frames.frames[place] for place in places[: prompt.anchors]])
            changing.append([frames.first + place for place in places[prompt.anchors :]])

        def past(number: int) -> Any:
            return self._past(heads[number], prompts[number], *looks[number])

        plan = self._plans.of(prompts, anchors, past)
        pictures = [own for frames in seen for own in frames.features]
        text = self.qwen.get_input_embeddings()(plan.words)
        tokens = torch.cat([text, *pictures]).to(text.dtype)
        levels = [
            torch.cat([own for frames in seen for own in frames.deep[level]]) for level in range(len(seen[0].deep))
        ]
        lengths = np.array([len(own) for own in pictures])
        hidden = []
        for part, order in zip(plan.parts, plan.orders, strict=True):
            visual = token_rows(lengths, [picture for number in part.queries for picture in changing[number]])
            order = order.copy()
            order[part.seen] = len(text) + visual
            embeds = tokens.index_select(0, moved(order, self.device)).view(*part.shape, -1)
            deep = [level.index_select(0, moved(visual, self.device)) for level in levels]
            with adapter_rows(self.model, [self.adapters.get(heads[number], "") for number in part.queries]):
                language = self.qwen.model.language_model
                found = read(language, embeds, part.rotary, part.visual, deep, part.past, part.begins, part.places)
            hidden.append(found.flatten(0, 1))
        states = torch.cat(hidden)
        totals = np.zeros(plan.firsts[-1])
        for block, spots, wanted, candidates in plan.wanted:
            scores = linear(self.qwen.lm_head, states[block]).float().log_softmax(-1)
            np.add.at(totals, candidates, scores[spots, wanted].cpu().numpy())
        return totals, plan.firsts

    def _past(self, head: str, prompt: Prompt, frames: _Frames, places: list[int]) -> Any:
        """Return keys and values of a prompt's constant part, kept from an earlier query if it is the same."""
        import torch

        shown = [frames.frames[place] for place in places[: prompt.anchors]]
        key = (head, prompt.constant, *map(id, shown))
        if key not in self._pasts:
            size = len(prompt.constant)
            ids = torch.tensor([prompt.constant], device=self.device)
            visual = torch.as_tensor(prompt.visual[prompt.visual < size], device=self.device)
            embeds, deep = self.qwen.get_input_embeddings()(ids), []
            if shown:
                own = places[: prompt.anchors]
                embeds[0, visual] = torch.cat([frames.features[place] for place in own]).to(embeds.dtype)
                deep = [torch.cat([level[place] for place in own]) for level in frames.deep]
            rotary = prompt.rotary[0][:, None, :size]
            with adapter_rows(self.model, [self.adapters.get(head, "")]):
                kept = remember(self.qwen.model.language_model, embeds, rotary, visual, deep)
            self._pasts[key] = (kept, shown)  # the frames, too, so that no other takes the id of one
            while len(self._pasts) > 1 and sum(past.nbytes for past, _ in self._pasts.values()) > _MAX_PAST:
                self._pasts.popitem(last=False)
        self._pasts.move_to_end(key)
        return self._pasts[key][0]
