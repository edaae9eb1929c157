# SPDX-License-Identifier: Apache-2.0
"""Teach the language model of the tiny reward model to answer the three heads' prompts from visual tokens.

First the vision tower is frozen, so that every frame is encoded once; at last both learn together. The loss is the
model's own next-token loss on the assistant's turn; at the answer itself the target is the label's distribution over
the candidate answers (progress lies between two tenths more often than on one). Done and not done weigh alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from lrm_ros.reward.heads import HEADS
from lrm_ros.training.reward.train.tiny.data import (
    Frames,
    Pictures,
    SourceSampler,
    augment,
    draw_pictures,
    progress_target,
    to_tensor,
)
from lrm_ros.training.reward.train.tiny.loop import moved
from lrm_ros.training.reward.train.tiny.prompts import Prompts
from lrm_ros.training.reward.train.tiny.texts import TextSampler, device_of
from lrm_ros.training.reward.train.tiny.vision import Tower

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


# Rows of the images in the prompt's order, whether the first is a goal, the text, and the target.
Query = tuple[list[int], bool, str, torch.Tensor]


@torch.inference_mode()
def encode_all(tower: Tower, frames: Frames) -> torch.Tensor:
    """Return the visual tokens of every frame, (N, T, D) float16, where the tower is."""
    device, images = device_of(tower), frames.images
    starts = range(0, len(images), 64)
    return torch.cat([tower.encode(to_tensor(images[at : at + 64]).to(device))[0].half() for at in starts])


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


class Queries(NamedTuple):
    """A batch of B labelled queries of one head, with their answers.

    Attributes:
        rows: (K,) of the distinct frames that are shown.
        pictures: of these; ``None``: their visual tokens are known.
        shown: (I,) the images of all prompts, one prompt after another, as places in ``rows``.
        ids: (B, L) token ids, padded on the right.
        positions: (3, B, L) of time, height and width.
        answers: (B,) places of the answer tokens in the flattened ids.
        turn: (M,) places of the other tokens of the assistant's turn around the answer in the flattened ids.
        candidates: (C,) ids of the possible answers.
        target: (B, C) their probabilities.
        weights: (B,) of the queries in the loss, 1 on average.
    """

    rows: torch.Tensor
    pictures: Pictures | None
    shown: torch.Tensor
    ids: torch.Tensor
    positions: torch.Tensor
    answers: torch.Tensor
    turn: torch.Tensor
    candidates: torch.Tensor
    target: torch.Tensor
    weights: torch.Tensor


def _even_weights(done: torch.Tensor) -> torch.Tensor:
    """Return weights (B,) by which those that are done (B,), 0 or 1, count as much as the others, 1 on average.

    Several texts a picture make four states in five ones that are not done. How often a task is done when a model is
    asked is another question, and a threshold of one half is to part the two.
    """
    share = float(done.mean())
    if not 0 < share < 1:
        return torch.ones_like(done)
    return torch.where(done > 0.5, 0.5 / share, 0.5 / (1 - share))


class QueryBatches:
    """Draws the batches of the steps."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        frames: Frames,
        seed: int,
        batch: int,
        token_noise: float = 0.0,
        pictures_seed: int | None = None,
    ) -> None:
        """Ask about frames.

        Args:
            model: whose positions are used.
            processor: writes the prompts.
            frames: what is asked about.
            seed: fixes what every step draws.
            batch: queries in a batch at least, all of one head.
            token_noise: share of instruction tokens replaced.
            pictures_seed: of the augmentation of the pictures; ``None``: they are not shown, their visual tokens are
                known.
        """
        self._seed, self._batch, self._pictures_seed = seed, batch, pictures_seed
        self._token_noise = token_noise
        self._words = processor.tokenizer.vocab_size  # ids below are words of instructions; the prompts' come after
        self._prompts = Prompts(processor, model)
        self._sampler = QuerySampler(frames, seed)

    def __call__(self, step: int) -> Queries:
        """Return the batch of a step, of a head drawn by its share."""
        rng = self._sampler.rng = np.random.default_rng([self._seed, step])
        return self._drawn(str(rng.choice(list(_SHARES), p=list(_SHARES.values()))), self._batch, step)

    def of(self, head: str, batch: int) -> Queries:
        """Return queries of one head, the same at each call."""
        self._sampler.rng = np.random.default_rng(self._seed)
        return self._drawn(head, batch, 0)

    def _drawn(self, head: str, count: int, step: int) -> Queries:
        drawn: list[Query] = []
        while len(drawn) < count:
            drawn += self._sampler.draw(head)
        rows = [self._prompts.get(head, text, len(images), goal) for images, goal, text, _ in drawn]
        ids = nn.utils.rnn.pad_sequence([row[0] for row in rows], batch_first=True)
        positions = torch.zeros(3, len(drawn), ids.shape[1], dtype=torch.long)
        real = torch.zeros_like(ids, dtype=torch.bool)
        for i, (row, at, _) in enumerate(rows):
            positions[:, i, : len(row)], real[i, : len(row)] = at, True
        answers = torch.tensor([row[2] for row in rows])[:, None]
        place = torch.arange(ids.shape[1])[None]
        if self._token_noise:
            changed = torch.from_numpy(self._sampler.rng.uniform(size=ids.shape) < self._token_noise)
            random_tokens = torch.from_numpy(self._sampler.rng.integers(256, self._words, ids.shape))
            word = (place < answers - 1) & (ids >= 256) & (ids < self._words)
            ids = torch.where(changed & word, random_tokens, ids)
        shown = [row for images, *_ in drawn for row in images]
        distinct = list(dict.fromkeys(shown))
        place_of = {row: number for number, row in enumerate(distinct)}
        pictures = None
        if self._pictures_seed is not None:
            generator = torch.Generator().manual_seed((self._pictures_seed << 24) + step)
            pictures = draw_pictures(self._sampler.frames.images[distinct], generator)
        target = torch.stack([target for *_, target in drawn])
        # The turn around the answer, so that ``generate`` writes it, too.
        around = real & ((place == answers - 1) | (place > answers))
        return Queries(
            torch.tensor(distinct),
            pictures,
            torch.tensor([place_of[row] for row in shown]),
            ids,
            positions,
            answers[:, 0] + torch.arange(len(drawn)) * ids.shape[1],
            around.flatten().nonzero()[:, 0],
            torch.tensor([option[0] for option in self._prompts.candidates[head]]),
            target,
            _even_weights(target[:, 1]) if head == "completion" else torch.ones(len(drawn)),
        )


def query_loss(model: Any, batch: Queries, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the loss of the language model.

    Args:
        model: a Qwen3VLForConditionalGeneration.
        batch: queries, where the model is.
        tokens: (K, T, D) visual tokens of the distinct frames.

    Returns:
        The loss, and the probabilities of the candidate answers (B, C).
    """
    visual = (batch.ids == model.config.image_token_id)[..., None]
    seen = tokens[batch.shown].flatten(0, 1).float()
    embeds = model.get_input_embeddings()(batch.ids).masked_scatter(visual, seen)
    # Padded on the right as in reward/language.py; with a cache transformers makes no mask of the positions.
    states = model.model.language_model(
        inputs_embeds=embeds, position_ids=batch.positions, use_cache=True
    ).last_hidden_state.flatten(0, 1)
    log_probs = model.lm_head(states[batch.answers - 1]).log_softmax(-1)[:, batch.candidates]
    turn = nn.functional.cross_entropy(model.lm_head(states[batch.turn - 1]), batch.ids.flatten()[batch.turn])
    answer = (-(batch.target * log_probs).sum(-1) * batch.weights).mean()
    return answer + 0.1 * turn, log_probs.softmax(-1)


def look(tower: Tower, pictures: Pictures | None) -> torch.Tensor:
    """Return the visual tokens (K, T, D) of the pictures of a batch, with gradients to the tower."""
    if pictures is None:
        raise ValueError("the batch shows no pictures")
    return tower.encode(augment(pictures))[0]


@torch.inference_mode()
def query_metrics(
    model: Any, batches: QueryBatches, encode: Callable[[torch.Tensor], torch.Tensor], batch: int = 192
) -> str:
    """Return the metrics of the heads on sampled queries, in one line.

    Args:
        model: a Qwen3VLForConditionalGeneration.
        batches: draws the queries.
        encode: rows (K,) of the frames of ``batches`` -> their visual tokens (K, T, D).
        batch: queries of each head.
    """
    errors, device = [], device_of(model)
    for head in HEADS:
        queries = moved(batches.of(head, batch), str(device))
        values = torch.tensor(HEADS[head].values, device=device)
        _, found = query_loss(model, queries, encode(queries.rows))
        errors.append(((found @ values) - (queries.target @ values)).abs())
    right = (errors[0] < 1).float().mean()
    done = (errors[2] < 0.5).float().mean()
    return f"contrastive {right:.3f} right  progress MAE {errors[1].mean():.3f}  completion {done:.3f} right"
