# SPDX-License-Identifier: Apache-2.0
"""Training and evaluation examples of the three heads, from the keyframes of a folder.

How they are sampled: ``lrm_ros.training.reward.train.examples.sampling``. The same folder, head,
split, seed, count and shares give the same examples in the same order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lrm_ros.reward.heads import HEADS
from lrm_ros.training.reward.data.table import Keyframes, load_keyframes
from lrm_ros.training.reward.train.examples.sampling import ExampleMix, SampledExamples, sample_examples


@dataclass(frozen=True, eq=False)
class Example:
    """A query to a head and its label.

    Attributes:
        head: one of ``lrm_ros.types.HEADS``.
        task: language instruction.
        jpegs: the images in the order of ``RewardQuery.frames``: contrastive (A, B); progress (current,) or (initial,
            current); completion (current,).
        value: the label, one of the head's values.
        source: name of the source of the images.
        kind: behaviour in their episode, or the kind of negative: ``"wrong_task"``, ``"reversed_clip"`` or
            ``"stopped_clip"``.
    """

    head: str
    task: str
    jpegs: tuple[bytes, ...]
    value: float
    source: str
    kind: str

    @cached_property
    def images(self) -> tuple[NDArray[np.uint8], ...]:
        """The images, (H, W, 3) uint8 RGB."""
        decoded = (cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) for jpeg in self.jpegs)
        return tuple(np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8) for image in decoded)

    @property
    def answer(self) -> str:
        """The text that a model is trained to generate."""
        return HEADS[self.head].answer(self.value)


@dataclass(frozen=True, eq=False)
class ExampleDataset:
    """Examples of one head; images are read on access.

    Attributes:
        keyframes: where the images are.
        head: one of ``lrm_ros.types.HEADS``.
        sampled: which of them, with which task and label.
    """

    keyframes: Keyframes
    head: str
    sampled: SampledExamples

    def __len__(self) -> int:
        return len(self.sampled.rows)

    def __getitem__(self, index: int) -> Example:
        rows = [row for row in self.sampled.rows[index].tolist() if row >= 0]
        return Example(
            self.head,
            self.keyframes.tasks[self.sampled.task[index]],
            tuple(self.keyframes.jpeg(row) for row in rows),
            float(self.sampled.value[index]),
            self.keyframes.sources[self.keyframes.source[rows[-1]]],
            self.sampled.kinds[index],
        )

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many examples there are of each source and kind."""
        sources = self.keyframes.source[self.sampled.rows[:, 1]].tolist()
        found: dict[str, Counter[str]] = {}
        for source, kind in zip(sources, self.sampled.kinds, strict=True):
            found.setdefault(self.keyframes.sources[source], Counter())[kind] += 1
        return {name: dict(counter) for name, counter in found.items()}


def load_examples(
    folder: Path,
    head: str,
    split: str = "train",
    seed: int = 0,
    count: int | None = None,
    mix: ExampleMix | None = None,
) -> ExampleDataset:
    """Return the examples of a head from the keyframes of a folder, in random order.

    Args:
        folder: where ``lrm reward data`` wrote.
        head: one of ``lrm_ros.types.HEADS``.
        split: ``"train"`` or ``"val"``.
        seed: of the sampling.
        count: how many; default: as many as the split has labelled keyframes, the same for each head. There are fewer
            where keyframes do not suffice.
        mix: shares of the kinds of examples.

    Raises:
        FileNotFoundError: no keyframes in the folder.
        ValueError: unknown head or split, or unreadable keyframes.
    """
    return make_examples(load_keyframes(folder, split), head, count, seed, mix or ExampleMix())


def make_examples(keyframes: Keyframes, head: str, count: int | None, seed: int, mix: ExampleMix) -> ExampleDataset:
    """Return the examples of a head from keyframes, see :func:`load_examples`."""
    if count is None:
        count = int((np.isfinite(keyframes.progress) | (keyframes.done >= 0)).sum())
    return ExampleDataset(keyframes, head, sample_examples(keyframes, head, count, seed, mix))
