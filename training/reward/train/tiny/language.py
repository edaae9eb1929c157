# SPDX-License-Identifier: Apache-2.0
"""Teach the language model of the tiny reward model to answer the three heads' prompts from visual tokens.

First the vision tower is frozen, so that every frame is encoded once; at last both learn together. The loss is the
model's own next-token loss on the assistant's turn; at the answer itself the target is the label's distribution over
the candidate answers (progress lies between two tenths more often than on one).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from lrm_ros.reward.heads import HEADS
from lrm_ros.training.reward.train.tiny.data import Frames, SourceSampler, augment, progress_target, to_tensor
from lrm_ros.training.reward.train.tiny.texts import TextSampler
from lrm_ros.training.reward.train.tiny.vision import Tower
from lrm_ros.types import Frame, RewardQuery
from lrm_ros.versions import rope_index

_SHARES = {"contrastive": 0.4, "progress": 0.3, "completion": 0.3}
_FIRST_FRAME_SHARE = 0.4  # share of progress queries that show the first frame
_GOAL_SHARE = 0.15  # share of progress queries that show a goal image
_DONE_SHARE = 0.15  # share of completion queries drawn from finished frames on top of their natural share
_SAME_EPISODE_SHARE = 0.7  # share of contrastive pairs from one episode, the others from one instruction
_MIN_GAP = 0.05  # smallest difference of progress in a contrastive pair
_EVEN_SHARE = 0.2  # share of contrastive pairs in which nothing happens: neither frame is nearer
_TWICE_SHARE = 0.4  # of these: one and the same frame twice
_NO_CHANGE = 0.005  # largest difference of progress in these
TEXTS = 4  # texts that are asked about one picture in a batch
TOKEN_NOISE = 0.01  # share of the texts' tokens that are replaced in training: one unknown word must not hurt


Encoder = Callable[[list[int]], torch.Tensor]  # rows of the frames -> their visual tokens (R, T, D)
# Rows of the images in the prompt's order, whether the first is a goal, the text, and the target.
Query = tuple[list[int], bool, str, torch.Tensor]


def augmented_encoder(tower: Tower, frames: Frames, seed: int) -> Encoder:
    """Return an encoder that augments and encodes the frames at each call, with gradients to the tower."""
    generator = torch.Generator().manual_seed(seed)
    return lambda rows: tower.encode(augment(to_tensor(frames.images[rows]), generator))[0]


def cached_encoder(tokens: torch.Tensor, seed: int) -> Encoder:
    """Return an encoder that looks up precomputed tokens (copies, N, T, D), of a random copy at each call."""
    rng = np.random.default_rng(seed)
    return lambda rows: tokens[int(rng.integers(len(tokens)))][rows].float()


@torch.inference_mode()
def encode_all(tower: Tower, frames: Frames, seed: int, copies: int) -> torch.Tensor:
    """Return the visual tokens of every frame, (copies, N, T, D) float16; the first copy is not augmented."""
    generator = torch.Generator().manual_seed(seed)
    result = []
    for copy in range(copies):
        parts = []
        for at in range(0, len(frames.images), 64):
            images = to_tensor(frames.images[at : at + 64])
            parts.append(tower.encode(augment(images, generator) if copy else images)[0].half())
        result.append(torch.cat(parts))
    return torch.stack(result)


class Prompts:
    """Token ids and positions of prompts with the answer, cached by head, task and number of images."""

    def __init__(self, processor: Any, model: Any) -> None:
        """Take the processor and the model whose token ids and position scheme are used."""
        self._processor, self._model = processor, model
        self._cache: dict[tuple[str, str, int, bool], tuple[torch.Tensor, torch.Tensor, int]] = {}
        tokenizer = processor.tokenizer
        self.candidates = {
            name: [tokenizer(candidate)["input_ids"] for candidate in head.candidates] for name, head in HEADS.items()
        }
        if any(len(ids) != 1 for options in self.candidates.values() for ids in options):
            raise ValueError("every candidate answer must be one token of the tiny tokenizer")

    def get(self, head: str, task: str, images: int, goal: bool) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Return ids (L,), positions (3, L) and the place of the answer token, whatever the answer is."""
        key = (head, task, images, goal)
        if key not in self._cache:
            blank = Frame(0, "front", np.zeros((96, 96, 3), np.uint8))
            query = RewardQuery(task, head, (blank,) * (images - goal), blank if goal else None)
            messages = HEADS[head].messages(query)
            text = self._processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            answer = HEADS[head].answer(HEADS[head].values[0]) + self._processor.tokenizer.eos_token
            inputs = self._processor(text=[text + answer], images=[blank.image] * images, return_tensors="pt")
            positions = rope_index(self._model.model, inputs["input_ids"], inputs["image_grid_thw"])
            ids = inputs["input_ids"][0]
            place = int((ids == self.candidates[head][0][0]).nonzero()[-1])
            self._cache[key] = (ids, positions[:, 0], place)
        return self._cache[key]


def _grouped(labels: np.ndarray, rows: np.ndarray | None = None) -> dict[int, np.ndarray]:
    """Return the rows (of some, or of all) that carry each label, in their order."""
    rows = np.arange(len(labels)) if rows is None else rows
    order = rows[np.argsort(labels[rows], kind="stable")]
    names, starts = np.unique(labels[order], return_index=True)
    return dict(zip(names.tolist(), np.split(order, starts[1:]), strict=True))


def _same_instruction(frames: Frames) -> np.ndarray:
    """Return a number for each frame (N,): equal where source and instruction are."""
    numbers: dict[tuple[int, str], int] = {}
    pairs = zip(frames.source.tolist(), frames.episode.tolist(), strict=True)
    return np.array([numbers.setdefault((source, frames.tasks[episode]), len(numbers)) for source, episode in pairs])


class QuerySampler:
    """Samples labelled queries as rows of frames."""

    def __init__(self, frames: Frames, seed: int) -> None:
        """Index the frames by episode and instruction.

        Raises:
            ValueError: no frame shows a finished task.
        """
        if not frames.success.any():
            raise ValueError("no frame shows a finished task; add episodes that succeed")
        self.frames = frames
        self.rng = np.random.default_rng(seed)
        self.rows_of = _grouped(frames.episode)
        self.same = _same_instruction(frames)
        self.rows_from = _grouped(self.same)
        self.done_from = _grouped(self.same, np.flatnonzero(frames.success))
        self.any = SourceSampler(frames)
        self.done = SourceSampler(frames, np.flatnonzero(frames.success))
        self.asked = TextSampler(frames)

    def draw(self, head: str) -> list[Query]:
        """Return a group of labelled queries of a head: several texts about one picture, or a pair in both orders."""
        if head == "contrastive":
            return self._pair()
        rng, frames = self.rng, self.frames
        done = head == "completion" and rng.uniform() < _DONE_SHARE
        row = int((self.done if done else self.any)(rng, 1)[0])
        rows, goal = [row], False
        if head == "progress":
            finished = self.done_from.get(int(self.same[row]), ())
            goal = len(finished) > 0 and rng.uniform() < _GOAL_SHARE
            if rng.uniform() < _FIRST_FRAME_SHARE:
                rows.insert(0, int(self.rows_of[int(frames.episode[row])][0]))
            if goal:
                rows.insert(0, int(rng.choice(finished)))
        numbers = self.asked.draw(np.array([row]), TEXTS, rng)
        if goal:  # the goal image shows the own instruction done
            numbers = np.zeros((1, 1), np.int64)
        texts = self.asked.texts(np.array([row]), numbers, rng)
        labels = frames.labels[row, numbers[0], int(head == "completion")].astype(np.float32)
        return [
            (
                rows,
                goal,
                text,
                torch.tensor([1 - label, label]) if head == "completion" else progress_target(label[None])[0],
            )
            for text, label in zip(texts, labels, strict=True)
            if np.isfinite(label)
        ]

    def _pair(self) -> list[Query]:
        """Return two frames in both orders: an even pair, or one that differs for the text that is asked."""
        rng, frames = self.rng, self.frames
        even = rng.uniform() < _EVEN_SHARE
        while True:
            row = int(self.any(rng, 1)[0])
            number = int(self.asked.draw(np.array([row]), 1, rng)[0, 0])
            same = number > 0 or even or rng.uniform() < _SAME_EPISODE_SHARE
            near = self.rows_of[int(frames.episode[row])] if same else self.rows_from[int(self.same[row])]
            other = row if even and rng.uniform() < _TWICE_SHARE else int(rng.choice(near))
            delta = float(frames.labels[row, number, 0]) - float(frames.labels[other, number, 0])
            if (even and abs(delta) <= _NO_CHANGE) or (not even and abs(delta) > _MIN_GAP):
                break
        text = self.asked.texts(np.array([row]), np.array([[number]]), rng)[0]
        target = torch.tensor([0.5, 0.5] if even else [float(delta < 0), float(delta > 0)])
        return [([other, row], False, text, target), ([row, other], False, text, target.flip(0))]


class LanguageLoss:
    """Loss of the language model on sampled queries, from visual tokens."""

    def __init__(self, model: Any, processor: Any, frames: Frames, seed: int, token_noise: float = 0.0) -> None:
        """Sample queries about ``frames`` with ``seed``; ``token_noise``: share of instruction tokens replaced."""
        self.model = model
        self.token_noise = token_noise
        self.words = processor.tokenizer.vocab_size  # ids below are words of instructions; the prompts' come after
        self.prompts = Prompts(processor, model)
        self.sampler = QuerySampler(frames, seed)

    def loss(self, head: str, batch: int, encode: Encoder) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sample queries of one head and compute the loss.

        Args:
            head: which head.
            batch: number of queries at least.
            encode: gives the visual tokens of the frames.

        Returns:
            The loss, the probabilities of the candidate answers (N, C) and their targets (N, C).
        """
        model = self.model
        drawn: list[Query] = []
        while len(drawn) < batch:
            drawn += self.sampler.draw(head)
        batch = len(drawn)
        rows = [self.prompts.get(head, text, len(images), goal) for images, goal, text, _ in drawn]
        ids = nn.utils.rnn.pad_sequence([row[0] for row in rows], batch_first=True)
        positions = torch.zeros(3, batch, ids.shape[1], dtype=torch.long)
        real = torch.zeros_like(ids, dtype=torch.bool)
        for i, (row, at, _) in enumerate(rows):
            positions[:, i, : len(row)], real[i, : len(row)] = at, True
        if self.token_noise:
            changed = torch.from_numpy(self.sampler.rng.uniform(size=ids.shape) < self.token_noise)
            random_tokens = torch.from_numpy(self.sampler.rng.integers(256, self.words, ids.shape))
            before = torch.arange(ids.shape[1])[None] < torch.tensor([row[2] for row in rows])[:, None] - 1
            ids = torch.where(changed & before & (ids >= 256) & (ids < self.words), random_tokens, ids)
        visual = (ids == model.config.image_token_id)[..., None]
        shown = [row for images, *_ in drawn for row in images]
        distinct = list(dict.fromkeys(shown))
        place_of = {row: place for place, row in enumerate(distinct)}
        seen = encode(distinct)[[place_of[row] for row in shown]].flatten(0, 1)
        embeds = model.get_input_embeddings()(ids).masked_scatter(visual, seen)
        # Padded on the right as in reward/language.py; with a cache transformers makes no mask of the positions.
        hidden = model.model.language_model(
            inputs_embeds=embeds, position_ids=positions, use_cache=True
        ).last_hidden_state
        answer_at = torch.tensor([row[2] for row in rows])
        log_probs = model.lm_head(hidden[torch.arange(batch), answer_at - 1]).log_softmax(-1)
        log_probs = log_probs[:, [option[0] for option in self.prompts.candidates[head]]]
        target = torch.stack([target for *_, target in drawn])
        # The turn around the answer, so that ``generate`` writes it, too.
        place = torch.arange(ids.shape[1])[None]
        around = real & ((place == answer_at[:, None] - 1) | (place > answer_at[:, None]))
        turn = nn.functional.cross_entropy(model.lm_head(hidden[torch.roll(around, -1, 1)]), ids[around])
        return -(target * log_probs).sum(-1).mean() + 0.1 * turn, log_probs.softmax(-1), target

    @torch.inference_mode()
    def metrics(self, encode: Encoder, batch: int = 192) -> str:
        """Return the metrics of the heads on sampled queries, in one line."""
        errors = []
        for head in HEADS:
            values = torch.tensor(HEADS[head].values)
            _, found, target = self.loss(head, batch, encode)
            errors.append(((found @ values) - (target @ values)).abs())
        right = (errors[0] < 1).float().mean()
        done = (errors[2] < 0.5).float().mean()
        return f"contrastive {right:.3f} right  progress MAE {errors[1].mean():.3f}  completion {done:.3f} right"


def language_step(
    reader: LanguageLoss, encode: Callable[[int], Encoder], batch: int, seed: int
) -> Callable[[int], torch.Tensor]:
    """Return the loss of a step, of a head drawn by its share.

    Args:
        reader: model and training frames.
        encode: number of the step -> what gives the visual tokens of the training frames.
        batch: queries in a batch, all of one head.
        seed: fixes what every step draws.
    """

    def loss(step: int) -> torch.Tensor:
        rng = reader.sampler.rng = np.random.default_rng([seed, step])
        head = str(rng.choice(list(_SHARES), p=list(_SHARES.values())))
        return reader.loss(head, batch, encode(step))[0]

    return loss
