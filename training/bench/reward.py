# SPDX-License-Identifier: Apache-2.0
"""Measure the reward model's speed: ``lrm bench reward``.

Serial: one plain transformers call a head and frame (processor, whole model), with the forward read-out. Batched: all
three rewards of many frames in one call of the engine's model. As upstream's server does it: one call a head and frame
that writes the answer. The three take turns. Medians of wall-clock time; where other programs run, the ratio in CPU
time is the steadier one. ``--batch 12`` is 12 worlds, each with three heads. The bare forward passes are those of the
batched call on inputs that are there already; what is above them is the engine's own.

Every call brings new frames, as a camera does: a contrastive query compares its frame with the one the call before
asked about, which the model has seen then. "first pair" is a contrastive query of two frames it has not seen.

``--loads bf16 8bit 4bit`` measures no speed but what the answers lose when the weights are held so (``?load=``).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from lrm_ros.options import number, whole
from lrm_ros.reward.heads import HEADS
from lrm_ros.reward.models import READOUTS, find_model, split_load
from lrm_ros.reward.qwen import model as qwen_model
from lrm_ros.reward.qwen.model import QwenRewardModel
from lrm_ros.reward.qwen.quantized import LOADS
from lrm_ros.reward.qwen.writing import write
from lrm_ros.training.bench import parity
from lrm_ros.training.bench.adapters import ADAPTERS
from lrm_ros.training.bench.parity import reference_call
from lrm_ros.training.bench.size_course import measure_size, write_json
from lrm_ros.training.reward.train.qwen_sizes import SIZES
from lrm_ros.types import Frame, RewardQuery

_TASK = "put the red toy giraffe in the bowl"


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


def in_turns(works: Mapping[str, Callable[[], object]], budget_s: float) -> dict[str, NDArray[np.float64]]:
    """Return the times (rounds, 2) of works that take turns, of each call wall clock and CPU [s].

    Other load hits all of them so. In every round they come in another order: a work finds in the CPU's caches what the
    one before left there.
    """
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for work in works.values():
        work()
    order = random.Random(0)
    rounds, end = 0, time.perf_counter() + budget_s
    while rounds < 3 or time.perf_counter() < end:
        rounds += 1
        for name in order.sample(list(works), len(works)):
            start, cpu = time.perf_counter(), time.process_time()
            works[name]()
            taken[name].append((time.perf_counter() - start, time.process_time() - cpu))
    return {name: np.array(times) for name, times in taken.items()}


def bare_forward(model: QwenRewardModel, work: Callable[[], object]) -> Callable[[], object]:
    """Return the arithmetic of a call alone: vision tower, language model and logits of ``work()``, all made ready.

    Args:
        model: one without adapters.
        work: asks it once.
    """
    import torch

    calls: list[tuple[Callable[..., object], tuple]] = []

    def noted(module: object, name: str) -> object:
        stock = getattr(module, name)

        def note(*given: object) -> object:
            calls.append((stock, given))
            return stock(*given)

        return mock.patch.object(module, name, note)

    with contextlib.ExitStack() as stack:
        for module, name in ((qwen_model, "encode"), (qwen_model, "read"), (qwen_model, "linear")):
            stack.enter_context(noted(module, name))  # type: ignore[arg-type]
        work()

    def again() -> None:
        with torch.inference_mode():
            for stock, given in calls:
                stock(*given)

    return again


def measure(model: QwenRewardModel, batch: int, height: int, width: int, budget_s: float, generate: bool) -> dict:
    """Return the figures of one model.

    Args:
        model: the model.
        batch: frames in a batch.
        height: of the frames [pixels].
        width: of the frames [pixels].
        budget_s: time for each figure [s].
        generate: measure the ``generate`` read-out, too.
    """
    images = np.random.default_rng(0).integers(0, 256, (batch + 1, height, width, 3), dtype=np.uint8)
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

    # Made beforehand, in a ring; the model knows the frames of the call before alone, so they are new in every turn.
    ring = [pair[1] for pair in itertools.islice(pairs, 3 * batch)]
    queries = [query_about(head, ring[i - 1], frame) for i, frame in enumerate(ring) for head in HEADS]
    size = batch * len(HEADS)
    batches = itertools.cycle([queries[i : i + size] for i in range(0, len(queries), size)])

    def all_heads() -> None:
        model.score(next(batches))

    def one_by_one() -> None:
        pair = next(pairs)
        for head in HEADS:
            reference_call(model, query_about(head, *pair))

    def written() -> None:
        pair = next(pairs)
        for head in HEADS:
            write(model, [query_about(head, *pair)])

    all_heads()
    bare = {} if model.adapters else {"bare": bare_forward(model, all_heads)}
    ways = {"batched": all_heads, **bare, "serial": one_by_one} | ({"upstream": written} if generate else {})
    times = in_turns(ways, 2 * budget_s)
    found = {name: np.median(each, axis=0).tolist() for name, each in times.items()}
    taken, cpu = found["batched"]
    rows.append({"head": "all", "readout": "forward", "batch": batch, "ms_per_frame": 1e3 * taken / batch})
    return {
        "device": model.device,
        "model": model.name,
        "rows": rows,
        "batched_frames_per_s": batch / taken,
        "times_as_fast_in_cpu_time": found["serial"][1] * batch / cpu,
        **({"overhead": (np.median(times["batched"] / times["bare"], axis=0) - 1).tolist()} if bare else {}),
        **{f"{name}_frames_per_s": 1 / found[name][0] for name in ways if name not in ("batched", "bare")},
    }


def measure_model(args: argparse.Namespace, height: int, width: int) -> dict:
    """Return the figures of a model that is here."""
    name, load = split_load(args.model)
    model = QwenRewardModel(find_model(name), args.model, args.device, load=load)
    figures = measure(model, max(args.batch or (32,)), height, width, args.seconds, not args.no_generate)
    serial, batched = figures["serial_frames_per_s"], figures["batched_frames_per_s"]
    print(
        f"all three rewards: serial {serial:.1f} frames/s, batched {batched:.1f} frames/s, {batched / serial:.1f} x, "
        f"in CPU time {figures['times_as_fast_in_cpu_time']:.1f} x"
    )
    if overhead := figures.get("overhead"):
        print(f"above the bare forward passes: {100 * overhead[0]:.1f} %, in CPU time {100 * overhead[1]:.1f} %")
    if upstream := figures.get("upstream_frames_per_s"):
        print(
            f"as upstream's server does it (one by one, written): {upstream:.1f} frames/s, {batched / upstream:.1f} x"
        )
    if args.parity:
        queries = parity.queries_of(dict.fromkeys(HEADS, _TASK), args.parity, height, width)
        exact = None if model.device == "cpu" else QwenRewardModel(find_model(name), name, "cpu")
        figures["parity"] = parity.compare(model, queries, exact)
        print("batched against serial:", json.dumps(figures["parity"]))
    return figures


def measure_loads(args: argparse.Namespace, height: int, width: int) -> dict:
    """Return how the answers differ with the weights held otherwise, on random pictures or those of a folder."""
    import torch

    images = parity.pictures(args.images) if args.images else ()
    queries = parity.queries_of(dict.fromkeys(HEADS, args.task), args.parity or 99, height, width, images)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device
    found = parity.compare_loads(args.model, args.loads, device, queries)
    print(f"against {'float32' if device == 'cpu' else 'bfloat16'} on {device}:")
    for load, heads in found.items():
        for head, row in heads.items():
            print(
                f"{load:9s} {head:12s} {row['queries']:4d} queries  same answer {row['same_answer']:7.2%}  difference "
                f"max {row['max_difference']:.4f} mean {row['mean_difference']:.4f}  (values spread "
                f"{row['spread']:.3f})"
            )
    return {"loads": found, "model": args.model, "device": device}


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="lrm bench reward", description=__doc__)
    parser.add_argument("--model", default="tiny", help="'tiny', a folder or a Hugging Face name")
    parser.add_argument(
        "--size", choices=tuple(SIZES), help="instead of a model, a published size with random weights; needs a GPU"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--batch", type=whole(1), nargs="+", help="frames in a batch (default: 32); with --size 1 8 32 96"
    )
    parser.add_argument("--height", type=whole(1), help="height of the frames [pixels] (default: 96; with --size 480)")
    parser.add_argument("--width", type=whole(1), help="width of the frames [pixels] (default: 96; with --size 640)")
    parser.add_argument("--threads", type=whole(1), default=1, help="torch threads on a CPU; not with --size")
    parser.add_argument("--seconds", type=number(), default=2.0, help="time for each figure")
    parser.add_argument("--no-generate", action="store_true", help="skip the generate read-out")
    parser.add_argument("--generate-tokens", type=whole(1), default=64, help="--size: tokens of one-by-one generation")
    parser.add_argument(
        "--adapters",
        choices=ADAPTERS,
        nargs="+",
        default=["float32"],
        help="--size: types of the LoRA matrices, one after another (default: float32)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="--size: batches of one head alone; --parity compares the --adapters only"
    )
    parser.add_argument(
        "--experiments", action="store_true", help="--size: at last the kernels of a call, and one with torch.compile"
    )
    parser.add_argument(
        "--peak-tflops", type=number(above=True), help="--size: the GPU's dense bfloat16 peak, if not in the table"
    )
    parser.add_argument(
        "--parity", type=whole(0), default=0, help="compare so many batched answers with those of serial calls, too"
    )
    parser.add_argument("--json", type=Path, help="write the metrics to this file")
    parser.add_argument(
        "--loads",
        nargs="+",
        choices=LOADS[1:],
        metavar="LOAD",
        help="no speed, but how the answers differ with the weights held so, --parity queries (99): "
        + " ".join(LOADS[1:]),
    )
    parser.add_argument("--images", type=Path, help="--loads: a folder of pictures; else random ones")
    parser.add_argument("--task", default=_TASK, help="--loads: what is asked about them")
    args = parser.parse_args(argv)
    import torch

    if args.loads:
        torch.set_num_threads(args.threads)
        figures = measure_loads(args, args.height or 96, args.width or 96)
    elif args.size:
        figures = measure_size(args, args.height or 480, args.width or 640, _TASK)
    else:
        torch.set_num_threads(args.threads)
        figures = measure_model(args, args.height or 96, args.width or 96)
    write_json(args.json, figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
