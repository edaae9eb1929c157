# SPDX-License-Identifier: Apache-2.0
"""Measure the reward model's speed: ``lrm bench reward``.

Serial: one plain transformers call a head and frame (processor, whole model), as upstream's server does it, with the
forward read-out. Batched: all three rewards of many frames in one call of the engine's model. Wall-clock medians.

Every call brings new frames, as a camera does: a contrastive query compares its frame with the one the call before
asked about, which the model has seen then. "first pair" is a contrastive query of two frames it has not seen.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lrm_ros.options import number, whole
from lrm_ros.reward.heads import HEADS
from lrm_ros.reward.models import READOUTS, find_model
from lrm_ros.reward.qwen.model import QwenRewardModel
from lrm_ros.types import Frame, RewardQuery

_TASK = "put the red toy giraffe in the bowl"


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


def pairs_of(images: Sequence[NDArray[np.uint8]]) -> Iterator[tuple[Frame, Frame]]:
    """Yield (frame before, frame) of a camera that shows images (H, W, 3) over and over, each time as a new frame."""
    return itertools.pairwise(Frame(stamp, "front", image) for stamp, image in enumerate(itertools.cycle(images)))


def query_about(head: str, before: Frame, frame: Frame) -> RewardQuery:
    """Return a head's query about a frame, contrastive against the frame before."""
    return RewardQuery(_TASK, head, (before, frame) if head == "contrastive" else (frame,))


def seconds(work: Callable[[], object], budget_s: float) -> float:
    """Return the median time of a call [s] over at least 3 calls and at most ``budget_s``; two calls warm up."""
    work()
    work()
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < budget_s:
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def measure(model: QwenRewardModel, batch: int, size: int, budget_s: float, generate: bool) -> dict:
    """Return the figures of one model.

    Args:
        model: the model.
        batch: frames in a batch.
        size: width and height of the frames [pixels].
        budget_s: time for each figure [s].
        generate: measure the ``generate`` read-out, too.
    """
    images = np.random.default_rng(0).integers(0, 256, (batch + 1, size, size, 3), dtype=np.uint8)
    pairs = pairs_of(list(images))
    rows: list[dict] = []

    def add(head: str, name: str, readout: str, count: int, pairs: Iterator[tuple[Frame, Frame]]) -> None:
        def score() -> None:
            model.score([query_about(head, *next(pairs)) for _ in range(count)], readout)

        taken = seconds(score, budget_s)
        rows.append({"head": name, "readout": readout, "batch": count, "ms_per_frame": 1e3 * taken / count})
        print(f"{name:22s} {readout:8s} batch {count:3d} {rows[-1]['ms_per_frame']:9.2f} ms/frame", flush=True)

    for readout in READOUTS if generate else READOUTS[:1]:
        for head in HEADS:
            for count in (1, batch):
                add(head, head, readout, count, pairs)
    add("contrastive", "contrastive first pair", "forward", 1, itertools.islice(pairs, 0, None, 2))

    def all_heads() -> None:
        asked = list(itertools.islice(pairs, batch))
        model.score([query_about(head, *pair) for pair in asked for head in HEADS])

    taken = seconds(all_heads, budget_s)
    rows.append({"head": "all", "readout": "forward", "batch": batch, "ms_per_frame": 1e3 * taken / batch})
    serial = sum(seconds(partial(reference_call, model, query_about(head, *next(pairs))), budget_s) for head in HEADS)
    return {
        "device": model.device,
        "model": model.name,
        "rows": rows,
        "serial_frames_per_s": 1 / serial,
        "batched_frames_per_s": batch / taken,
    }


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="lrm bench reward", description=__doc__)
    parser.add_argument("--model", default="tiny", help="'tiny', a folder or a Hugging Face name")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=whole(1), default=32, help="frames in a batch")
    parser.add_argument("--size", type=whole(1), default=96, help="width and height of the frames [pixels]")
    parser.add_argument("--threads", type=whole(1), default=1, help="torch threads on a CPU")
    parser.add_argument("--seconds", type=number(), default=2.0, help="time for each figure")
    parser.add_argument("--no-generate", action="store_true", help="skip the generate read-out")
    parser.add_argument("--json", type=Path, help="write the metrics to this file")
    args = parser.parse_args(argv)
    import torch

    torch.set_num_threads(args.threads)
    model = QwenRewardModel(find_model(args.model), args.model, args.device)
    figures = measure(model, args.batch, args.size, args.seconds, not args.no_generate)
    serial, batched = figures["serial_frames_per_s"], figures["batched_frames_per_s"]
    print(f"all three rewards: serial {serial:.1f} frames/s, batched {batched:.1f} frames/s, {batched / serial:.1f} x")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
