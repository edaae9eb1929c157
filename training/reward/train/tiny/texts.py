# SPDX-License-Identifier: Apache-2.0
"""What is asked of each picture in the training: its own instruction and others, with labels from the state.

Several texts of one picture are in every batch, done ones and not done ones: only who reads can tell them apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from lrm_ros.sim.instructions import KINDS
from lrm_ros.training.reward.train.tiny.data import Frames, progress_target

MAX_WORDS = 24  # tokens of an instruction that are used
OWN_SHARE = 0.35  # of the texts, the picture's own one
DONE_SHARE = 0.4  # of the others, those that are done, where there are such
# Kind of an instruction -> whether all that it names is in the scene.
THERE = dict.fromkeys(("own", "thing", "place", "both", "opposite"), 1.0) | dict.fromkeys(
    ("colour", "absent", "absent_place"), 0.0
)


def token_rows(texts: list[str], tokenizer: Any) -> torch.Tensor:
    """Return the tokens of texts, plus 1; 0 is padding: (N, ``MAX_WORDS``) int64."""
    rows = [tokenizer(text)["input_ids"][:MAX_WORDS] for text in texts]
    return torch.tensor([[*(number + 1 for number in row), *[0] * (MAX_WORDS - len(row))] for row in rows])


class TextSampler:
    """Draws instructions for pictures."""

    def __init__(self, frames: Frames) -> None:
        """Index the kinds of the instructions of every episode."""
        self._frames = frames
        self._episodes, self._place = np.unique(frames.episode, return_inverse=True)
        self._weights = np.zeros((len(self._episodes), frames.labels.shape[1]), np.float32)
        self._there = np.full(self._weights.shape, np.nan, np.float32)
        for place, episode in enumerate(self._episodes.tolist()):
            kinds = [one.kind for one in frames.instructions[episode]]
            # Every kind alike, however many instructions of it there are.
            self._weights[place, : len(kinds)] = [1 / kinds.count(kind) for kind in kinds]
            if len(kinds) > 1:
                self._there[place, : len(kinds)] = [THERE.get(kind, np.nan) for kind in kinds]

    def draw(self, rows: NDArray, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return the numbers of ``count`` instructions of each row's episode, (R, count), with replacement.

        ``OWN_SHARE`` of them are the own one. Of the others ``DONE_SHARE`` are done in the picture, if there are such.
        """
        weights = self._weights[self._place[rows]].copy()
        done = np.asarray(self._frames.labels[rows, :, 1] == 1)
        own, others = weights[:, :1].copy(), weights[:, 1:]
        yes = np.where(done[:, 1:], others, 0)
        no = others - yes
        total_yes, total_no = yes.sum(1, keepdims=True), no.sum(1, keepdims=True)
        share = np.where(total_yes == 0, 0.0, np.where(total_no == 0, 1.0, DONE_SHARE))
        others = yes / np.maximum(total_yes, 1e-9) * share + no / np.maximum(total_no, 1e-9) * (1 - share)
        alone = others.sum(1, keepdims=True) == 0
        own = np.where(alone, 1.0, OWN_SHARE)
        edges = np.cumsum(np.concatenate([own, others * (1 - OWN_SHARE)], axis=1), axis=1)
        drawn = rng.uniform(0, 1, (len(rows), count)) * edges[:, -1:]
        return (drawn[:, :, None] >= edges[:, None, :]).sum(-1).clip(0, weights.shape[1] - 1)

    def there(self, rows: NDArray, numbers: NDArray) -> NDArray[np.float32]:
        """Return whether all that the instructions (R, count) name is in the scene: 1, 0, or NaN."""
        return self._there[self._place[rows][:, None], numbers]

    def texts(self, rows: NDArray, numbers: NDArray, rng: np.random.Generator) -> list[str]:
        """Return a wording of each instruction (R, count), row by row."""
        frames, found = self._frames, []
        for row, several in zip(rows.tolist(), numbers.tolist(), strict=True):
            instructions = frames.instructions[int(frames.episode[row])]
            for number in several:
                wordings = instructions[number].wordings
                found.append(wordings[int(rng.integers(len(wordings)))])
        return found


def device_of(network: torch.nn.Module) -> torch.device:
    """Return where the weights of a network are; the CPU if it has none."""
    return next((weight.device for weight in network.parameters()), torch.device("cpu"))


class Words:
    """The tokens of texts, cached."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, torch.Tensor] = {}

    def __call__(self, texts: list[str]) -> torch.Tensor:
        """Return :func:`token_rows` of texts, cut to the longest: (N, W)."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, token_rows(new, self._tokenizer), strict=True))
        rows = torch.stack([self._known[text] for text in texts])
        return rows[:, : int((rows > 0).sum(1).max())]


def text_loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropies of progress, of completion, and of whether what the text names is there, where labelled.

    The last is learnt first: it tells the features what things there are, and what their words are.

    Args:
        outputs: (R, Q, 13): logits of the eleven progress answers, of completion, and of what is named being there.
        labels: (R, Q, 3) float32 progress, done and there; NaN: not known.
    """
    outputs, labels = outputs.flatten(0, 1), labels.flatten(0, 1)
    known = labels.isfinite()
    progress, *others = labels.nan_to_num().unbind(-1)
    errors = [-(progress_target(progress) * outputs[:, :11].log_softmax(-1)).sum(-1)]
    for output, label in zip((11, 12), others, strict=True):
        errors.append(functional.binary_cross_entropy_with_logits(outputs[:, output], label, reduction="none"))
    # Means over what is known, without asking a GPU what that is.
    return ((torch.stack(errors, -1) * known).sum(0) / known.sum(0).clamp(min=1)).sum()


@torch.inference_mode()
def reading_metrics(network: torch.nn.Module, frames: Frames, words: Words, pictures: int = 300, seed: int = 0) -> str:
    """Return in one line how many pairs of texts of one picture a network orders by p(done) as labelled.

    Args:
        network: images and words (R, Q, W) -> outputs (R, Q, 13), and features.
        frames: held-out frames.
        words: tokens of texts.
        pictures: how many are shown.
        seed: draws the pictures.
    """
    from lrm_ros.training.reward.train.tiny.data import to_tensor

    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(frames.images))[:pictures]
    device = device_of(network)
    right: dict[str, list[float]] = {kind: [] for kind in KINDS[1:]}
    for row in rows.tolist():
        instructions = frames.instructions[int(frames.episode[row])]
        labels = frames.labels[row, : len(instructions)]
        if len(instructions) == 1 or not np.isfinite(labels[0, 1]):
            continue
        tokens = words([one.wordings[0] for one in instructions])[None]
        done = network(to_tensor(frames.images[[row]]).to(device), tokens.to(device))[0][0, :, 11].cpu().numpy()
        for number, one in enumerate(instructions):
            if abs(labels[number, 1] - labels[0, 1]) == 1:
                order = np.sign(done[number] - done[0]) * np.sign(labels[number, 1] - labels[0, 1])
                right[one.kind].append(float((order + 1) / 2))
    every = [value for values in right.values() for value in values]
    if not every:
        return "pairs -"
    return (
        f"pairs {np.mean(every):.3f} of {len(every)} ("
        + ", ".join(f"{kind} {np.mean(values):.2f}" for kind, values in right.items() if values)
        + ")"
    )
