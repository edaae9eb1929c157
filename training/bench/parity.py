# SPDX-License-Identifier: Apache-2.0
"""Whether the batched answers of a reward model are those of one plain transformers call a query.

In bfloat16 neither is exact: a batch is multiplied in another order. So both can be compared with float32, too.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.image_files import decode, kind_of
from lrm_ros.reward.heads import HEADS
from lrm_ros.reward.models import find_model
from lrm_ros.reward.qwen.model import QwenRewardModel
from lrm_ros.types import Frame, Reward, RewardQuery

_BATCH = 32


def reference_call(model: QwenRewardModel, query: RewardQuery) -> float:
    """Answer one query with one plain transformers call; the reference for speed and for parity.

    Raises:
        ValueError: a candidate answer has several tokens in this tokenizer, so that one call cannot score it.
    """
    import torch

    head = HEADS[query.head]
    if model.adapters:
        model.model.set_adapter(model.adapters[query.head])
    text = model.processor.apply_chat_template(head.messages(query), tokenize=False, add_generation_prompt=True)
    images = [frame.image for frame in head.images(query)]
    inputs = model.processor(text=[text + head.prefix], images=images, return_tensors="pt").to(model.device)
    tokens = [model.processor.tokenizer(candidate)["input_ids"] for candidate in head.candidates]
    if any(len(ids) != 1 for ids in tokens):
        raise ValueError(f"head '{head.name}': a candidate answer has several tokens; one plain call cannot score it")
    with torch.inference_mode():
        logits = model.model(**inputs).logits[0, -1]
    weights = logits[[ids[0] for ids in tokens]].double().softmax(0).cpu()
    return float(weights @ torch.tensor(head.values, dtype=torch.float64))


def blocks(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return an image (height, width, 3) of random squares of 16 pixels."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (-(-height // 16), -(-width // 16), 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(16, 0).repeat(16, 1)[:height, :width])


def pictures(folder: Path) -> list[NDArray[np.uint8]]:
    """Return the pictures of a folder, JPEG and PNG, in the order of their names.

    Raises:
        ValueError: fewer than two, or a damaged one.
    """
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if len(files) < 2:
        raise ValueError(f"'{folder}' has {len(files)} pictures (*.jpg, *.png); at least two are needed")
    return [decode(path.read_bytes(), kind_of(path.read_bytes()) or path.suffix[1:]) for path in files]


def queries_of(
    tasks: dict[str, str],
    count: int,
    height: int,
    width: int,
    images: Sequence[NDArray[np.uint8]] = (),
) -> list[RewardQuery]:
    """Return so many queries, each head's of each frame in turn, about the head's task.

    Args:
        tasks: by head.
        count: of queries; fewer if the images do not suffice.
        height: of random images [pixels].
        width: of random images [pixels].
        images: instead of random ones.
    """
    wanted = -(-count // len(HEADS)) + 1
    shown = list(images[:wanted]) or [blocks(seed, height, width) for seed in range(wanted)]
    frames = [Frame(stamp, "front", image) for stamp, image in enumerate(shown)]
    return [
        RewardQuery(tasks[head], head, pair if head == "contrastive" else pair[1:])
        for pair in itertools.pairwise(frames)
        for head in HEADS
    ][:count]


def compare(
    model: QwenRewardModel, queries: Sequence[RewardQuery], exact: QwenRewardModel | None = None
) -> dict[str, dict[str, Any]]:
    """Return, by head, how the model's answers in batches differ from those of one call each.

    Args:
        model: the model.
        queries: what is asked.
        exact: the same model in float32, if both are to be compared with it, too.

    Returns:
        Per head, for each pair of ways: the share of queries for which both mean the same of the head's answers, and
        the largest and mean difference of their values.

    Raises:
        ValueError: a query is not answered.
    """
    values = {"batched": answers_of(model, queries), "serial": [reference_call(model, query) for query in queries]}
    if exact is not None:
        values["float32"] = answers_of(exact, queries)
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(query.head for query in queries):
        places = [place for place, query in enumerate(queries) if query.head == name]
        found[name] = {"queries": len(places)}
        for one, other in itertools.combinations(values, 2):
            ours, theirs = ([values[way][place] for place in places] for way in (one, other))
            found[name][f"{one}_against_{other}"] = difference(name, ours, theirs)
        found[name]["spread"] = float(np.std([values["batched"][place] for place in places]))
    return found


def compare_loads(
    name: str, loads: Sequence[str], device: str, queries: Sequence[RewardQuery]
) -> dict[str, dict[str, Any]]:
    """Return, by way of holding the weights and head, how the answers differ from those of the weights as they are.

    Args:
        name: of a model for ``lrm_ros.reward.load``, without ``?load=``.
        loads: of ``lrm_ros.reward.qwen.quantized.LOADS``.
        device: torch device; the reference is float32 on a CPU, bfloat16 on a GPU.
        queries: what is asked, in batches.

    Returns:
        Per load and head, the share of queries with the same of the head's answers, and the largest and mean difference
        of their values; ``spread`` is the standard deviation of the reference's own.

    Raises:
        ValueError: a query is not answered, or bitsandbytes is missing.
    """
    heads: dict[str, list[int]] = {}
    for place, query in enumerate(queries):
        heads.setdefault(query.head, []).append(place)
    found: dict[str, dict[str, Any]] = {}
    exact: list[float] = []
    for load in ("", *loads):
        model = QwenRewardModel(find_model(name), name, device, load=load)
        values = answers_of(model, queries)
        del model
        if not load:
            exact = values
            continue
        found[load] = {}
        for head, places in heads.items():
            ours, theirs = ([given[place] for place in places] for given in (values, exact))
            found[load][head] = {"queries": len(places), **difference(head, ours, theirs)}
            found[load][head]["spread"] = float(np.std(theirs))
    return found


def difference(head: str, ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Return how the values of two ways to answer the same queries of a head differ."""
    gaps = np.abs(np.subtract(ours, theirs))
    same = [HEADS[head].answer(a) == HEADS[head].answer(b) for a, b in zip(ours, theirs, strict=True)]
    return {
        "same_answer": float(np.mean(same)),
        "max_difference": float(gaps.max()),
        "mean_difference": float(gaps.mean()),
    }


def answers_of(model: QwenRewardModel, queries: Sequence[RewardQuery]) -> list[float]:
    """Return the values of queries, asked ``_BATCH`` at a time."""
    answers = [a for start in range(0, len(queries), _BATCH) for a in model.score(queries[start : start + _BATCH])]
    for answer in answers:
        if not isinstance(answer, Reward):
            raise ValueError(f"a query of head '{answer.head}' was not answered: {answer.reason}")
    return [answer.value for answer in answers if isinstance(answer, Reward)]
