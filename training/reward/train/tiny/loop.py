# SPDX-License-Identifier: Apache-2.0
"""The training loop of every stage of the tiny model, which goes on from its last checkpoint after a stop.

What a step draws depends on the seed and the number of the step alone, so a stage that was stopped and one that was
not see the same batches, and other processes can draw them ahead.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrm_ros.files import replacing

if TYPE_CHECKING:
    import torch
    from torch import nn

CHECKPOINT_S = 300.0  # seconds between two checkpoints


class _Steps:
    """The batches of the steps from ``first`` on, by their place."""

    def __init__(self, draw: Callable[[int], Any], first: int, steps: int) -> None:
        self._draw, self._first, self._steps = draw, first, steps

    def __len__(self) -> int:
        return self._steps - self._first

    def __getitem__(self, place: int) -> Any:
        return self._draw(self._first + place)


def _batches(draw: Callable[[int], Any], first: int, steps: int, workers: int, device: str) -> Iterator[Any]:
    """Yield the batches of the steps from ``first`` on, drawn here or ahead by ``workers`` other processes."""
    from torch.utils.data import DataLoader

    if not workers or first >= steps:
        yield from (draw(step) for step in range(first, steps))
        return
    yield from DataLoader(
        _Steps(draw, first, steps),  # type: ignore[arg-type]  # what a loader needs of a data set
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4,
        pin_memory=device.startswith("cuda"),
        multiprocessing_context="fork",  # the frames are shared, not copied
    )


def moved(batch: Any, device: str) -> Any:
    """Return a batch with its tensors on a device: a tensor, a tuple, or what is no tensor and stays."""
    import torch

    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, tuple):
        parts = [moved(part, device) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)
    return batch


def fit(
    module: nn.Module,
    draw: Callable[[int], Any],
    loss: Callable[[Any], torch.Tensor],
    steps: int,
    learning_rate: float,
    seed: int,
    name: str,
    evaluate: Callable[[], str],
    checkpoint: Path | None = None,
    device: str = "cpu",
    workers: int = 0,
) -> float:
    """Train with AdamW, a short warm-up and a cosine to zero; prints what ``evaluate`` returns eight times.

    Args:
        module: what is trained, on ``device``; it is in training mode during the steps.
        draw: number of the step -> its batch, of tuples and tensors on the CPU.
        loss: the batch, on ``device`` -> scalar.
        steps: optimizer steps.
        learning_rate: peak learning rate.
        seed: of torch's own generator (dropout of words).
        name: shown in the progress lines.
        evaluate: returns metrics as text.
        checkpoint: file that is written every ``CHECKPOINT_S`` seconds and at the end, and read at the start; ``None``:
            none.
        device: torch device of the module.
        workers: processes that draw batches ahead; 0: none, they are drawn here.

    Returns:
        Seconds that the steps took, those before the checkpoint included.
    """
    import torch
    from torch import nn

    optimiser = torch.optim.AdamW(
        module.parameters(), lr=learning_rate, weight_decay=0.02, betas=(0.9, 0.98), fused=device.startswith("cuda")
    )
    first, before = 0, 0.0
    if checkpoint is not None and checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True, map_location=device)
        module.load_state_dict(saved["module"])
        optimiser.load_state_dict(saved["optimiser"])
        first, before = saved["step"], saved["seconds"]
        print(f"{name} goes on at step {first} of {steps}", flush=True)
    start = saved_at = time.monotonic()
    for step, batch in zip(range(first, steps), _batches(draw, first, steps, workers, device), strict=True):
        module.train()
        torch.manual_seed((seed << 24) + step)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))
        value = loss(moved(batch, device))
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        seconds = before + time.monotonic() - start
        last = step + 1 == steps
        if (steps >= 8 and (step + 1) % (steps // 8) == 0) or last:
            module.eval()
            print(f"{name} {step + 1:5d}/{steps} {seconds:5.0f} s  loss {value.item():.3f}  {evaluate()}", flush=True)
        if checkpoint is not None and (last or time.monotonic() - saved_at > CHECKPOINT_S):
            state = {"module": module.state_dict(), "optimiser": optimiser.state_dict()}
            with replacing(checkpoint) as stream:
                torch.save({**state, "step": step + 1, "seconds": seconds}, stream)
            saved_at = time.monotonic()
    module.eval()
    return before + time.monotonic() - start
