# SPDX-License-Identifier: Apache-2.0
"""The course of ``lrm bench reward --size``: one random model, its LoRA matrices in several types in turn."""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from lrm_ros.errors import one_line
from lrm_ros.reward.heads import HEADS
from lrm_ros.training.bench import full_size, parity
from lrm_ros.training.bench.adapters import agreement, compiled, held_as, kernels, values_of
from lrm_ros.training.bench.flops import peak_tflops
from lrm_ros.types import Frame


def measure_size(args: argparse.Namespace, height: int, width: int, task: str) -> dict:
    """Return the figures of a published size with random weights; written to ``--json`` after each part, too."""
    import torch

    if args.device == "auto" and not torch.cuda.is_available():
        raise SystemExit(
            f"lrm bench reward: no CUDA device here for size '{args.size}'; run on a machine with a GPU, or give "
            "--device cpu (hours and tens of GB)"
        )
    device = "cuda" if args.device == "auto" else args.device
    name = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"
    peak = args.peak_tflops or peak_tflops(name)
    start = time.perf_counter()
    model = full_size.build(args.size, device)
    prompts = full_size.prompts_of(model.processor, height, width, task)
    print(
        f"{args.size} with random weights on {name}, made in {time.perf_counter() - start:.0f} s; "
        f"images {width}x{height}; prompts in the tiny model's tokens, tokens of a query (text + visual): "
        + ", ".join(f"{head} {prompts.text[head]} + {prompts.visual[head]}" for head in HEADS),
        flush=True,
    )
    figures: dict[str, Any] = {"size": args.size, "adapters": args.adapters, "device": name, "peak_tflops": peak}
    figures |= {"image_size": [height, width], "text_tokens": prompts.text, "visual_tokens": prompts.visual}
    figures |= {"parameters": sum(parameter.numel() for parameter in model.model.parameters()), "rows": []}
    counts = sorted(set(args.batch or (1, 8, 32, 96)))
    tokens = 0 if args.no_generate else args.generate_tokens
    queries = parity.queries_of(prompts.tasks, args.parity, height, width) if args.parity else []
    first: list[float] = []

    def speed(adapters: str, batches: Sequence[int], heads: Sequence[str], quick: bool) -> None:
        """Add the rows of adapters held so, and beside the first ones what they share."""
        print(f"adapters {adapters}:", flush=True)
        found = full_size.measure(
            model, prompts, height, width, batches, args.seconds, tokens, peak, heads, quick
        )  # fmt: skip
        figures["rows"] += [{"adapters": adapters, **row} for row in found.pop("rows")]
        figures.update({key: value for key, value in found.items() if key not in figures})
        write_json(args.json, figures)

    for adapters in args.adapters:
        with held_as(model, adapters):
            if queries and not args.quick and not first:  # before the rest: it needs the least memory
                figures["parity"] = parity.compare(model, queries)
                print("batched against serial:", json.dumps(figures["parity"]), flush=True)
            if queries and len(args.adapters) > 1:
                values = values_of(model, queries)
                if not first:  # a batch of one head goes another way than a mixed one, so it is compared, too
                    few = queries[: len(HEADS) * 8]
                    serial = [parity.reference_call(model, query) for query in few]
                    figures["one_head_against_serial"] = agreement(few, values[: len(few)], serial)
                    print("one head against serial:", json.dumps(figures["one_head_against_serial"]), flush=True)
                first = first or values
                found = figures.setdefault("agreement", {})[adapters] = agreement(queries, values, first)
                print(f"adapters {adapters} against {args.adapters[0]}:", json.dumps(found), flush=True)
            speed(adapters, counts, tuple(HEADS), args.quick)
    for way in () if not args.experiments else ("stages", "kernels", "compiled"):
        try:  # each for itself: none may take the figures before it along
            with held_as(model, args.adapters[-1]):
                if way == "stages":
                    images = [parity.blocks(seed, height, width) for seed in range(min(32, max(counts)))]
                    figures["stages_ms_per_image"] = full_size.stages(model, images, args.seconds)
                elif way == "kernels":
                    images = [parity.blocks(seed, height, width) for seed in range(max(counts))]
                    pairs = itertools.pairwise(Frame(n, "front", image) for n, image in enumerate(3 * images))
                    figures["kernels"] = kernels(
                        lambda pairs=pairs: model.score(  # type: ignore[misc]
                            [prompts.query("progress", *next(pairs)) for _ in range(max(counts))]
                        )
                    )
                    for row in figures["kernels"]:
                        print(f"{row['ms']:9.2f} ms {row['calls']:6d} calls  {row['name'][:80]}", flush=True)
                else:
                    with compiled():
                        speed(f"{args.adapters[-1]}, compiled", counts[-1:], ("progress",), True)
        except Exception as error:  # torch.compile and the profiler raise any
            figures[f"{way}_failed"] = one_line(error)
            print(f"{way} failed: {one_line(error)}", flush=True)
        write_json(args.json, figures)
    for key, what in (
        ("stages_ms_per_image", "ms an image before the language model:"),
        ("against_serial", "best batch, forward, against one by one (times as fast):"),
    ):
        if key in figures:
            print(what, json.dumps(figures[key]))
    return figures


def write_json(file: Path | None, figures: dict) -> None:
    """Write figures and the versions of what made them, if a file is given."""
    if file is None:
        return
    figures["versions"] = {name: metadata.version(name) for name in ("torch", "transformers", "peft", "numpy")}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(figures, indent=1))
