# SPDX-License-Identifier: Apache-2.0
"""The training loop of every stage of the tiny model, which goes on from its last checkpoint after a stop.

What a step draws depends on the seed and the number of the step alone, so a stage that was stopped and one that was
not see the same batches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lrm_ros.files import replacing

if TYPE_CHECKING:
    import torch
    from torch import nn

CHECKPOINT_S = 300.0  # seconds between two checkpoints


def fit(
    module: nn.Module,
    loss: Callable[[int], torch.Tensor],
    steps: int,
    learning_rate: float,
    seed: int,
    name: str,
    evaluate: Callable[[], str],
    checkpoint: Path | None = None,
) -> float:
    """Train with AdamW, a short warm-up and a cosine to zero; prints what ``evaluate`` returns eight times.

    Args:
        module: what is trained; it is in training mode during the steps.
        loss: number of the step -> scalar.
        steps: optimizer steps.
        learning_rate: peak learning rate.
        seed: of torch's own generator (dropout of words).
        name: shown in the progress lines.
        evaluate: returns metrics as text.
        checkpoint: file that is written every ``CHECKPOINT_S`` seconds and at the end, and read at the start; ``None``:
            none.

    Returns:
        Seconds that the steps took, those before the checkpoint included.
    """
    import torch
    from torch import nn

    optimiser = torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=0.02, betas=(0.9, 0.98))
    first, before = 0, 0.0
    if checkpoint is not None and checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True)
        module.load_state_dict(saved["module"])
        optimiser.load_state_dict(saved["optimiser"])
        first, before = saved["step"], saved["seconds"]
        print(f"{name} goes on at step {first} of {steps}", flush=True)
    start = saved_at = time.monotonic()
    for step in range(first, steps):
        module.train()
        torch.manual_seed((seed << 24) + step)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))
        value = loss(step)
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
