# SPDX-License-Identifier: Apache-2.0
"""Training examples as rows for TRL: the reward head's prompt and the answer to learn.

The prompt is rendered by the same code as at inference (``lrm_ros.reward.heads`` and the model's chat template). The
answer is the reasoning text, if any, an empty line, the head's JSON answer and the end of the turn; only these tokens
count in the loss.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from lrm_ros.reward.heads import HEADS
from lrm_ros.types import Frame, RewardQuery

E = TypeVar("E", covariant=True)


class Example(Protocol):
    """A training example; ``lrm_ros.training.reward.train.examples.dataset`` makes them from keyframes.

    Attributes:
        head: one of ``lrm_ros.types.HEADS``.
        task: language instruction.
        images: (H, W, 3) uint8 RGB images in the order in which the head's query has them.
        value: the label, one of the head's values.
        kind: what happens in the images' episode, or ``"wrong_task"`` where the text is that of another one.
    """

    @property
    def head(self) -> str: ...  # noqa: D102
    @property
    def task(self) -> str: ...  # noqa: D102
    @property
    def images(self) -> Sequence[NDArray[np.uint8]]: ...  # noqa: D102
    @property
    def value(self) -> float: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102


class Examples(Protocol[E]):
    """A sequence of examples; ``self[i]`` may decode the images of example ``i`` only then."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> E: ...


Reasoning = Callable[[Any, float], str]
"""(example, value) -> text that leads to the answer ``value``."""


def query_of(example: Example) -> RewardQuery:
    """Return the query that asks for an example's label."""
    frames = tuple(Frame(i, "front", image) for i, image in enumerate(example.images))
    return RewardQuery(example.task, example.head, frames)


def label_of(example: Example) -> float:
    """Return an example's label.

    Raises:
        ValueError: not one of the head's values.
    """
    values = HEADS[example.head].values
    for value in values:
        if abs(value - example.value) < 1e-6:
            return value
    raise ValueError(
        f"example '{example.task}': label {example.value!r} is none of head '{example.head}': {list(values)}; round "
        "the labels to the head's values when the examples are made"
    )


def prompt_of(example: Example, processor: Any) -> str:
    """Return the user's turn and the start of the assistant's, as at inference."""
    messages = HEADS[example.head].messages(query_of(example))
    return processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def answer_of(example: Example, value: float, reasoning: Reasoning | None, processor: Any) -> str:
    """Return the assistant's turn that answers ``value``, with the end of the turn.

    Whole sentences are cut from the end of the reasoning where the answer would be longer than what the head may
    generate.

    Raises:
        ValueError: the answer does not read as ``value`` (the reasoning says something else).
    """
    head, tokenizer = HEADS[example.head], processor.tokenizer
    label = head.answer(value)
    text = reasoning(example, value).strip() if reasoning else ""
    while text and len(tokenizer(f"{text}\n\n{label}")["input_ids"]) > head.max_new_tokens - 1:
        text = text[: max(text.rfind(stop, 0, -1) for stop in ".!?") + 1]
    answer = f"{text}\n\n{label}" if text else label
    if head.parse(answer) != value:
        raise ValueError(
            f"example '{example.task}': the answer {answer!r} reads as {head.parse(answer)}, not as {value}; the "
            "reasoning must not hold a JSON object"
        )
    return answer + tokenizer.eos_token


def has_reasoning(index: int, share: float, seed: int) -> bool:
    """Return whether an example gets reasoning text; the same in every run."""
    return random.Random(f"{seed}/{index}").random() < share


def sft_row(example: Example, reasoning: Reasoning | None, processor: Any) -> dict[str, Any]:
    """Return prompt, completion and images of an example for ``trl.SFTTrainer``."""
    return {
        "prompt": prompt_of(example, processor),
        "completion": answer_of(example, label_of(example), reasoning, processor),
        "images": list(example.images),
    }


def dpo_row(example: Example, reasoning: Reasoning | None, processor: Any) -> dict[str, Any]:
    """Return prompt, chosen and rejected answer and images of an example for ``trl.DPOTrainer``.

    Chosen is the answer of the true order, rejected the other one, each with the reasoning that leads to it (paper:
    III-C, equation 5). Both end with the label: what follows is the same in both, and with it DPO can win by making the
    end of a wrong answer unlikely, without ever preferring the right label.
    """
    head, value = HEADS[example.head], label_of(example)
    if len(head.values) != 2:
        raise ValueError(f"head '{head.name}' has {len(head.values)} answers; a preference needs two: use SFT")
    end = head.suffix + processor.tokenizer.eos_token
    other = head.values[0] if value == head.values[1] else head.values[1]
    return {
        "prompt": prompt_of(example, processor),
        "chosen": answer_of(example, value, reasoning, processor).removesuffix(end),
        "rejected": answer_of(example, other, reasoning, processor).removesuffix(end),
        "images": list(example.images),
    }


def make_dataset(
    examples: Examples[Example],
    head: str,
    processor: Any,
    reasoning: Reasoning | None,
    share: float = 1.0,
    seed: int = 0,
) -> Any:
    """Return a ``datasets.Dataset`` that makes the row of an example on access.

    Args:
        examples: examples of one head.
        head: that head; contrastive gives preference rows, the others prompt and completion.
        processor: the model's processor.
        reasoning: text before the label; ``None``: the label only. Completion has none (paper: III-C, equation 7).
        share: share of the examples that get reasoning text.
        seed: chooses them.

    Raises:
        ValueError: no example.
    """
    from datasets import Dataset

    if not len(examples):
        raise ValueError(f"no examples for head '{head}'; check the keyframes and their split")
    make = dpo_row if head == "contrastive" else sft_row
    text = None if head == "completion" else reasoning

    def build(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        made = []
        for index in batch["index"]:
            example = examples[index]
            if example.head != head:
                raise ValueError(f"example {index} is for head '{example.head}', the training is for '{head}'")
            made.append(make(example, text if has_reasoning(index, share, seed) else None, processor))
        return {name: [row[name] for row in made] for name in made[0]}

    return Dataset.from_dict({"index": list(range(len(examples)))}).with_transform(build)
