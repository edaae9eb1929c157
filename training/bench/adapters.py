# SPDX-License-Identifier: Apache-2.0
"""LoRA matrices of one model in several types in turn, and what a GPU's time goes to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np

from lrm_ros.reward.heads import HEADS
from lrm_ros.reward.qwen import language, vision
from lrm_ros.reward.qwen.lora import cast
from lrm_ros.reward.qwen.model import QwenRewardModel
from lrm_ros.training.bench.parity import answers_of, difference
from lrm_ros.types import RewardQuery

ADAPTERS = ("float32", "tf32", "bfloat16")


@contextlib.contextmanager
def held_as(model: QwenRewardModel, adapters: str) -> Iterator[None]:
    """Have the LoRA matrices of a model in another type.

    Args:
        model: with adapters, whose matrices stay so: bfloat16 rounds them.
        adapters: ``float32`` (as PEFT loads them), ``tf32`` (the same numbers, but a GPU multiplies them with 11 bits
            of mantissa) or ``bfloat16``.
    """
    import torch

    cast(model.model, torch.bfloat16 if adapters == "bfloat16" else torch.float32)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = adapters == "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def agreement(
    queries: Sequence[RewardQuery], values: Sequence[float], reference: Sequence[float]
) -> dict[str, dict[str, float]]:
    """Return, by head, how the answers to the same queries differ from a reference's (``parity.difference``)."""
    found = {}
    for head in HEADS:
        places = [place for place, query in enumerate(queries) if query.head == head]
        if places:
            ours, theirs = ([given[place] for place in places] for given in (values, reference))
            found[head] = {"queries": len(places), **difference(head, ours, theirs), "spread": float(np.std(theirs))}
    return found


def values_of(model: QwenRewardModel, queries: Sequence[RewardQuery]) -> list[float]:
    """Return the values of queries, asked head by head: mixed batches go another way."""
    values = [0.0] * len(queries)
    for head in HEADS:
        places = [place for place, query in enumerate(queries) if query.head == head]
        for place, value in zip(places, answers_of(model, [queries[place] for place in places]), strict=True):
            values[place] = value
    return values


@contextlib.contextmanager
def compiled() -> Iterator[None]:
    """Let torch.compile make one kernel of what stands between the products; an experiment, no setting."""
    import torch

    def gated(_mlp: Any, gate: Any, up: Any) -> Any:
        return torch.nn.functional.silu(gate) * up

    with contextlib.ExitStack() as stack:
        for module, name, stock in (
            (language, "_scaled", language._scaled),
            (language, "_rotate", language._rotate),
            (language, "_gated", gated),
            (vision, "turned", vision.turned),
        ):
            made = torch.compile(stock, dynamic=False)
            stack.enter_context(mock.patch.object(module, name, made))
        yield


def kernels(work: Callable[[], object], count: int = 25) -> list[dict[str, Any]]:
    """Return the operations that take a GPU's time in a call, most first.

    Args:
        work: the call; it runs twice.
        count: of operations.

    Returns:
        Name, time on the device [ms] and calls of each; empty without a GPU.
    """
    from torch.profiler import ProfilerActivity, profile

    work()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as found:
        work()
    rows = [
        {"name": event.key, "ms": event.self_device_time_total / 1e3, "calls": event.count}
        for event in found.key_averages()
        if event.self_device_time_total > 0 and event.device_type.name == "CUDA"
    ]
    return sorted(rows, key=lambda row: -row["ms"])[:count]
