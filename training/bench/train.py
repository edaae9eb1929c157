# SPDX-License-Identifier: Apache-2.0
"""Measure a training step of a reward head, LoRA SFT and DPO: ``lrm bench train``.

The model has a published size and random weights (nothing is downloaded; speed and memory do not depend on the
values), the trainer is the real one, images and texts are random. Tokens are text and image tokens of the language
model, without padding; MFU is the needed operations (``lrm_ros.training.bench.flops``) over time and the GPU's peak in
bfloat16. A step is one batch and one step of the optimiser.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config_files import load_yaml
from lrm_ros.options import number, whole
from lrm_ros.reward.heads import HEADS
from lrm_ros.training.bench.flops import peak_tflops, step_flops
from lrm_ros.training.reward.train.config import LrmTrainConfig
from lrm_ros.training.reward.train.qwen_sizes import SIZES, full_size_processor, random_model
from lrm_ros.training.reward.train.rows import make_dataset

_HEADS = {"sft": "progress", "dpo": "contrastive"}
_WORD = " bowl"  # one token


@dataclass(frozen=True)
class _Random:
    """An example with random images."""

    head: str
    task: str
    images: tuple[NDArray[np.uint8], ...]
    value: float
    kind: str = "random"


class _Examples:
    """As many random examples as asked for, all of one size."""

    def __init__(self, head: str, count: int, height: int, width: int, task: str) -> None:
        self.head, self.count, self.shape, self.task = head, count, (height, width, 3), task

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> _Random:
        if not 0 <= index < self.count:
            raise IndexError(index)
        rng = np.random.default_rng(index)
        images = tuple(rng.integers(0, 256, self.shape, dtype=np.uint8) for _ in range(HEADS[self.head].max_frames))
        return _Random(self.head, self.task, images, HEADS[self.head].values[index % 2])


def filler(tokens: int, tokenizer: Any) -> str:
    """Return a text of a given number of the tiny model's tokens."""
    text = _WORD * tokens
    if len(tokenizer(text)["input_ids"]) != tokens:
        raise RuntimeError(f"'{_WORD}' is not one token of this tokenizer; choose another filler")
    return text


def measure(
    method: str,
    size: str,
    device: str,
    config: LrmTrainConfig,
    steps: int,
    height: int,
    width: int,
    prompt_tokens: int,
    reasoning_tokens: int,
    peak: float | None = None,
) -> dict[str, Any]:
    """Return the figures of one method.

    Args:
        method: ``"sft"`` (progress, two images) or ``"dpo"`` (contrastive, two images, two answers).
        size: ``"8b"``, ``"4b"``, ``"2b"`` or ``"tiny"``.
        device: ``"cuda"`` or ``"cpu"``.
        config: hyperparameters; steps, saving and logging are set here.
        steps: measured steps, after two to warm up.
        height: image height [pixels].
        width: image width [pixels].
        prompt_tokens: text tokens of the prompt.
        reasoning_tokens: text tokens before the label.
        peak: the GPU's peak rate [TFLOP/s]; ``None``: from the table.
    """
    import torch

    head = _HEADS[method]
    model, processor = _model(size, device)
    words = " ".join(["x", filler(max(0, prompt_tokens - _fixed_tokens(head, processor)), processor.tokenizer).strip()])
    reasoning = filler(reasoning_tokens, processor.tokenizer).strip() + "."
    config = dataclasses.replace(
        config, max_steps=steps + 2, gradient_accumulation=1, save_steps=0, logging_steps=10**6,
        reasoning_share=1.0, tensorboard=False,
    )  # fmt: skip
    examples = _Examples(head, config.batch_size * (steps + 2), height, width, words)
    data = make_dataset(examples, head, processor, (lambda example, value: reasoning) if reasoning_tokens else None)
    if method == "dpo":
        from lrm_ros.training.reward.train.dpo import dpo_trainer as make
    else:
        from lrm_ros.training.reward.train.sft import sft_trainer as make
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        clock = _step_timer(device)
        trainer = make(model, processor, data, None, head, config, Path(folder), device, [clock])
        batch = next(iter(trainer.get_train_dataloader()))
        batch = {key: value.cpu() for key, value in batch.items() if hasattr(value, "cpu")}
        trainer.train()
    taken = statistics.median(np.diff(clock.times)[1:])
    flops = step_flops(trainer.model, batch, method == "dpo")
    tokens = int(batch["attention_mask"].sum())
    peak = peak or (peak_tflops(torch.cuda.get_device_name()) if device == "cuda" else None)
    images = batch["image_grid_thw"].prod(1) // 4
    return {
        "method": method,
        "head": head,
        "batch_size": config.batch_size,
        "sequences": len(batch["input_ids"]),
        "tokens": tokens,
        "image_tokens": int(images.sum()),
        "image_size": [height, width],
        "frozen_parameters": sum(p.numel() for p in trainer.model.get_base_model().parameters() if not p.requires_grad),
        "trained_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "vision_tower_trained": head in config.train_vision,
        "steps": steps,
        "seconds_per_step": taken,
        "samples_per_s": config.batch_size / taken,
        "tokens_per_s": tokens / taken,
        "tflop_per_step": flops / 1e12,
        "tflops": flops / 1e12 / taken,
        "peak_tflops": peak,
        "mfu": flops / 1e12 / taken / peak if peak else None,
        "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None,
        "loss": trainer.state.log_history[-1].get("train_loss"),
    }


def _model(size: str, device: str) -> tuple[Any, Any]:
    if size == "tiny":
        from lrm_ros.training.reward.train.tiny.model import build_model, build_processor

        processor = build_processor()
        return build_model(processor).to(device), processor
    processor = full_size_processor()
    return random_model(size, processor, device), processor


def _fixed_tokens(head: str, processor: Any) -> int:
    """Return how many text tokens a prompt has before its task is lengthened."""
    from lrm_ros.training.reward.train.rows import prompt_of

    image = np.zeros((32, 32, 3), np.uint8)
    text = prompt_of(_Random(head, "x", (image,) * HEADS[head].max_frames, 0.0), processor)
    return len(processor.tokenizer(text.replace(processor.image_token, ""))["input_ids"])


def _step_timer(device: str) -> Any:
    """Return the callback that records the start of each step and the end of the last one [s]."""
    import torch
    from transformers import TrainerCallback

    class StepTimer(TrainerCallback):
        def __init__(self) -> None:
            self.times: list[float] = []

        def note(self) -> None:
            if device == "cuda":
                torch.cuda.synchronize()
            self.times.append(time.perf_counter())

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.note()

    return StepTimer()


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="lrm bench train", description=__doc__)
    parser.add_argument("--size", choices=(*SIZES, "tiny"), default="8b", help="published size; tiny: the test model")
    parser.add_argument("--method", choices=("sft", "dpo"), action="append", help="default: both")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--config", type=Path, help="hyperparameters (YAML); default: config/lrm_train.yaml's")
    parser.add_argument("--batch-size", type=whole(1), help="examples a step (default: the configuration's)")
    parser.add_argument("--steps", type=whole(1), default=5, help="measured steps, after two to warm up")
    parser.add_argument("--height", type=whole(1), default=480, help="image height [pixels]")
    parser.add_argument("--width", type=whole(1), default=640, help="image width [pixels]")
    parser.add_argument("--prompt-tokens", type=whole(0), default=200, help="text tokens of the prompt")
    parser.add_argument("--reasoning-tokens", type=whole(0), default=60, help="text tokens before the label")
    parser.add_argument(
        "--peak-tflops", type=number(above=True), help="the GPU's dense bfloat16 peak, if it is not in the table"
    )
    parser.add_argument("--json", type=Path, help="write the metrics to this file")
    args = parser.parse_args(argv)

    import torch

    device = ("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device
    if device == "cuda" and not torch.cuda.is_available():
        parser.exit(1, "lrm bench train: no CUDA device here; run on a machine with a GPU, or use --size tiny\n")
    if device == "cpu" and args.size != "tiny":
        parser.exit(
            1,
            f"lrm bench train: '{args.size}' would take hours and tens of GB on a CPU; run it on a machine with a GPU, "
            "or use --size tiny here\n",
        )
    config = load_yaml(args.config, LrmTrainConfig) if args.config else LrmTrainConfig()
    if args.batch_size:
        config = dataclasses.replace(config, batch_size=args.batch_size)
    results = []
    for method in args.method or ("sft", "dpo"):
        figures = measure(
            method, args.size, device, config, args.steps, args.height, args.width, args.prompt_tokens,
            args.reasoning_tokens, args.peak_tflops,
        )  # fmt: skip
        results.append(figures)
        mfu = f"MFU {figures['mfu']:.1%}" if figures["mfu"] is not None else "MFU unknown"
        memory = f"{figures['peak_memory_gib']:.1f} GiB" if figures["peak_memory_gib"] else "memory not measured"
        print(
            f"{args.size} {method}: {figures['seconds_per_step']:.3f} s a step of {figures['tokens']} tokens in "
            f"{figures['sequences']} sequences, {figures['samples_per_s']:.2f} samples/s, "
            f"{figures['tokens_per_s']:.0f} tokens/s, {mfu}, {memory}",
            flush=True,
        )
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
    if args.json:
        name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(
            json.dumps(
                {"size": args.size, "device": name, "gradient_checkpointing": config.gradient_checkpointing,
                 "lora_r": config.lora_r, "torch": torch.__version__, "rows": results}, indent=1,
            ) + "\n"
        )  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
