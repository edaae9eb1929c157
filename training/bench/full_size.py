# SPDX-License-Identifier: Apache-2.0
"""Measure the reward heads of a published size of Qwen3-VL with random weights: ``lrm bench reward --size 8b``.

Nothing is downloaded: speed and memory do not depend on the weights' values. Three LoRA adapters are on the base model,
of the rank and with the modules that training gives them (progress with a vision tower of its own), as float32 matrices
on a bfloat16 base, which is how PEFT loads them, or otherwise (``--adapters``). Prompts are in the shipped tiny model's
tokens; their task is lengthened so that a prompt has as many text tokens as Qwen's pre-tokenisation makes pieces of it.

Every call brings new frames. Operations (``lrm_ros.training.bench.flops``) are those that a query needs; the frame
before, of a contrastive query, went through the vision tower in the call before, the text before the image through the
language model once. The language model has no end token
here: a generated answer is always as long as it may be.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.reward.heads import HEADS
from lrm_ros.reward.qwen.language import greedy
from lrm_ros.reward.qwen.lora import cast
from lrm_ros.reward.qwen.model import QwenRewardModel
from lrm_ros.reward.qwen.vision import encode, patches_by_grid, patches_of, positions_of
from lrm_ros.training.bench.flops import query_flops
from lrm_ros.training.bench.parity import blocks, reference_call
from lrm_ros.training.reward.train.config import LrmTrainConfig, lora_config
from lrm_ros.training.reward.train.qwen_sizes import full_size_processor, random_model
from lrm_ros.types import Frame, RewardQuery

_ORDER = ("progress", "contrastive", "completion")  # as lrm_ros.reward.qwen.load attaches them
_FILLER = " bowl"  # one token of the tiny model's


def build(size: str, device: str, seed: int = 0) -> QwenRewardModel:
    """Return a reward model of a published size with random weights and three random adapters, made on the device.

    Args:
        size: of ``lrm_ros.training.reward.train.qwen_sizes.SIZES``.
        device: torch device.
        seed: of all weights.
    """
    import torch
    from peft import get_peft_model

    processor = full_size_processor()
    base = random_model(size, processor, device, seed)
    base.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    base.generation_config.eos_token_id = None
    model: Any = None
    with torch.device(device):
        for head in _ORDER:
            settings = lora_config(LrmTrainConfig(), head)
            settings.inference_mode = True
            if model is None:
                model = get_peft_model(base, settings, adapter_name=head)
            else:
                model.add_adapter(head, settings)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".lora_B." in name:
                    parameter.normal_(std=0.02)
            cast(model, torch.float32)
    built = (model.to(device).eval(), processor, {head: head for head in _ORDER})
    return QwenRewardModel(Path(size), f"random {size}", device, built)


@dataclass(frozen=True)
class Prompts:
    """The queries of one model and image size.

    Attributes:
        tasks: per head, a task that gives the prompt its length.
        text: per head, text tokens of a prompt.
        visual: per head, visual tokens of a prompt.
        constant: per head, tokens before the first image.
        grid: (t, h, w) patches of an image.
    """

    tasks: dict[str, str]
    text: dict[str, int]
    visual: dict[str, int]
    constant: dict[str, int]
    grid: tuple[int, int, int]

    def query(self, head: str, before: Frame, frame: Frame) -> RewardQuery:
        """Return a head's query about a frame, contrastive against the frame before."""
        return RewardQuery(self.tasks[head], head, (before, frame) if head == "contrastive" else (frame,))


def prompts_of(processor: Any, height: int, width: int, task: str) -> Prompts:
    """Return queries with images of height x width [pixels] about a task, of realistic length."""
    image = blocks(0, height, width)
    ((grid, _),) = patches_of(processor.image_processor, [image])
    image_tokens = int(np.prod(grid)) // processor.image_processor.merge_size**2
    tokenizer = processor.tokenizer
    split = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str
    tasks, text, visual, constant = {}, {}, {}, {}
    for head in HEADS:
        frames = (Frame(0, "front", image),) * (2 if head == "contrastive" else 1)
        prompt = _text_of(processor, RewardQuery(task, head, frames))
        pieces = [piece for piece in re.split(r"(<\|\w+\|>)", prompt) if piece]
        wanted = sum(1 if piece.startswith("<|") else len(split(piece)) for piece in pieces)
        tasks[head] = task + _FILLER * max(0, wanted - len(tokenizer(prompt)["input_ids"]))
        text[head] = len(tokenizer(_text_of(processor, RewardQuery(tasks[head], head, frames)))["input_ids"])
        visual[head] = image_tokens * len(frames)
        start = _text_of(processor, RewardQuery(tasks[head], head, frames)).partition("<|vision_start|>")[0]
        constant[head] = len(tokenizer(start)["input_ids"]) + 1
    return Prompts(tasks, text, visual, constant, grid)


def _text_of(processor: Any, query: RewardQuery) -> str:
    """Return a query's prompt with the answer's start, without its image tokens."""
    head = HEADS[query.head]
    chat = processor.apply_chat_template(head.messages(query), tokenize=False, add_generation_prompt=True)
    return chat.replace(processor.image_token, "") + head.prefix


def timed(work: Callable[[], object], budget_s: float, least: int) -> NDArray[np.float64]:
    """Return the times of calls [s]: at least ``least``, and more while ``budget_s`` lasts; one call warms up."""
    work()
    taken: list[float] = []
    while len(taken) < least or sum(taken) < budget_s:
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return np.array(taken)


def generate_call(model: QwenRewardModel, query: RewardQuery, tokens: int) -> None:
    """Generate ``tokens`` tokens greedily for one query in plain transformers calls, as upstream's server does it."""
    import torch

    head = HEADS[query.head]
    model.model.set_adapter(model.adapters[query.head])
    text = model.processor.apply_chat_template(head.messages(query), tokenize=False, add_generation_prompt=True)
    images = [frame.image for frame in head.images(query)]
    inputs = model.processor(text=[text], images=images, return_tensors="pt").to(model.device)
    with torch.inference_mode():
        output = model.model.generate(**inputs, generation_config=greedy(model.qwen, tokens))
    made = output.shape[1] - inputs["input_ids"].shape[1]
    if made != tokens:
        raise RuntimeError(f"{made} tokens were generated instead of {tokens}; the model has an end token")
    model.processor.batch_decode(output, skip_special_tokens=True)


def stages(model: QwenRewardModel, images: Sequence[NDArray[np.uint8]], budget_s: float) -> dict[str, float]:
    """Return the time of what precedes the language model, by stage [ms an image].

    Patches are made where the device likes it, a GPU after copying.
    """
    import torch

    visual = model.qwen.model.visual

    def settle() -> None:
        if model.device.startswith("cuda"):
            torch.cuda.synchronize()

    def make() -> list[Any]:
        found = patches_by_grid(model.processor.image_processor, images, model.device, visual.dtype)
        settle()
        return found

    def tower(batch: Any, positions: Any) -> None:
        encode(visual, batch, positions)
        settle()

    with torch.inference_mode():
        ((grid, _, patches),) = make()
        works: dict[str, Callable[[], object]] = {
            "patches": make,
            "vision_tower": partial(tower, patches, positions_of(visual, grid, model.device)),
        }
        return {name: 1e3 * float(np.median(timed(work, budget_s, 3))) / len(images) for name, work in works.items()}


def measure(
    model: QwenRewardModel, prompts: Prompts, height: int, width: int, batches: Sequence[int], budget_s: float,
    generate_tokens: int, peak: float | None, heads: Sequence[str] = tuple(HEADS), quick: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Return the figures of a model.

    Args:
        model: of ``build``.
        prompts: its queries.
        height: of the images [pixels].
        width: of the images [pixels].
        batches: queries in a call.
        budget_s: time for each figure [s]; at least five calls are timed (three of over 32
            queries, one that generates).
        generate_tokens: tokens of the one-by-one generation; 0: nothing is generated.
        peak: the device's rate in bfloat16 [TFLOP/s].
        heads: that are asked.
        quick: only batches of one head: no single plain calls, nothing generated, no mixed batches, no stages.
    """
    import torch

    cuda = model.device.startswith("cuda")
    images = [blocks(seed, height, width) for seed in range(max(batches) + 1)]
    stream = itertools.pairwise(Frame(stamp, "front", image) for stamp, image in enumerate(itertools.cycle(images)))
    language = {
        head: query_flops(model.model, head, prompts.text[head] + prompts.visual[head], [], prompts.constant[head])
        for head in HEADS
    }
    look = query_flops(model.model, "completion", 0, [prompts.grid]) - query_flops(model.model, "completion", 0, [])
    rows: list[dict[str, Any]] = []

    def add(
        way: str, heads: Sequence[str], seen: int, readout: str, work: Callable[[], object], least: int = 5
    ) -> None:
        """Add the row of a call that asks ``heads`` and takes ``seen`` images through a vision tower."""
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        taken = timed(work, budget_s, least)
        p50, p95 = (1e3 * float(value) for value in np.percentile(taken, (50, 95)))
        name = heads[0] if len(set(heads)) == 1 else "all"
        row: dict[str, Any] = {"way": way, "head": name, "readout": readout, "batch": len(heads), "calls": len(taken)}
        row |= {"queries_per_s": 1e3 * len(heads) / p50, "ms_p50": p50, "ms_p95": p95, "mfu": None}
        if readout == "forward":
            tflop = (sum(language[head] for head in heads) + look * seen) / 1e12
            row |= {"tflop_per_query": tflop / len(heads), "tflops": 1e3 * tflop / p50}
            row["mfu"] = row["tflops"] / peak if peak else None
        row["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30 if cuda else None
        rows.append(row)
        mfu = "" if row["mfu"] is None else f"  MFU {row['mfu']:6.1%}"
        print(
            f"{way:8s} {name:12s} {readout:12s} batch {len(heads):3d} {row['queries_per_s']:8.2f} queries/s  "
            f"p50 {p50:9.1f}  p95 {p95:9.1f} ms{mfu}",
            flush=True,
        )

    def asked(heads: Sequence[str]) -> list[RewardQuery]:
        """Return queries about new frames: each head of a frame in turn, or one head of as many frames."""
        several = len(set(heads)) > 1
        pairs = list(itertools.islice(stream, -(-len(heads) // len(HEADS)) if several else len(heads)))
        return [
            prompts.query(head, *pairs[place // len(HEADS) if several else place]) for place, head in enumerate(heads)
        ]

    def score(heads: Sequence[str], readout: str) -> Callable[[], object]:
        return lambda: model.score(asked(heads), readout)

    for head in () if quick else heads:
        shown = prompts.visual[head] // min(prompts.visual.values())
        add("serial", [head], shown, "forward", partial(_serial, model, asked, head))
    if generate_tokens and not quick:
        for head in heads:
            call = partial(_serial_text, model, asked, head, generate_tokens)
            add("serial", [head], 0, f"generate {generate_tokens}", call, 1)
        length = HEADS["completion"].max_new_tokens
        for count in sorted({min(batches), min(32, max(batches))}):
            same = ["completion"] * count
            add("batched", same, 0, f"generate {length}", score(same, "generate"), 1)
    for count in sorted(batches):
        least = 5 if count <= 32 else 3
        for head in heads:
            add("batched", [head] * count, count, "forward", score([head] * count, "forward"), least)
        if count >= len(HEADS) and not quick:
            mixed = list(itertools.islice(itertools.cycle(HEADS), count))
            frames = -(-count // len(HEADS))  # each goes through the tower of progress and that of the other two
            add("batched", mixed, 2 * frames, "forward", score(mixed, "forward"), least)
    if quick:
        return {"rows": rows}
    return {
        "rows": rows,
        "against_serial": {head: _gains([row for row in rows if row["head"] == head]) for head in heads},
        "stages_ms_per_image": stages(model, images[: min(32, max(batches))], budget_s),
    }


def _gains(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return how many times as many queries a second one head answers in its best batch as one by one, by read-out."""
    rates = {(row["way"], row["readout"].split()[0]): row["queries_per_s"] for row in rows if row["way"] == "serial"}
    best = max(row["queries_per_s"] for row in rows if row["way"] == "batched" and row["readout"] == "forward")
    return {readout: best / rate for (_, readout), rate in rates.items()}


def _serial(model: QwenRewardModel, asked: Callable[[Sequence[str]], list[RewardQuery]], head: str) -> None:
    reference_call(model, asked([head])[0])


def _serial_text(
    model: QwenRewardModel, asked: Callable[[Sequence[str]], list[RewardQuery]], head: str, tokens: int
) -> None:
    generate_call(model, asked([head])[0], tokens)
