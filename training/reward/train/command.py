# SPDX-License-Identifier: Apache-2.0
"""Train reward models: ``lrm reward train``.

Without --model: the tiny model from scratch (``lrm_ros.training.reward.train.tiny.train``). With --model: LoRA
adapters of the three heads on a Qwen3-VL, from keyframes of ``lrm reward data``: SFT for progress and completion, DPO
for contrastive (paper: III-C)::

    lrm reward data ... --out runs/keyframes
    lrm reward train --model Qwen/Qwen3-VL-8B-Instruct --head all --data runs/keyframes --out runs/lrm
    lrm reward eval --model runs/lrm ...

OUT then holds contrastive/, progress/ and completion/, as the published adapters do; upstream's server and
``lrm_ros.reward`` load them. The same command resumes an interrupted training. Several GPUs:
``accelerate launch [--multi_gpu | --config_file config/lrm_fsdp.yaml] -m lrm_ros.training.reward.train.command`` and
the same options.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import importlib.util
import json
import os
import zlib
from pathlib import Path
from typing import Any

from lrm_ros.config_files import from_dict, load_yaml, to_dict, yaml_value
from lrm_ros.options import whole
from lrm_ros.programs import exit_code
from lrm_ros.reward.heads import HEADS
from lrm_ros.training.reward.train.config import REASONINGS, LrmTrainConfig
from lrm_ros.training.reward.train.examples.reasoning import Teacher, template
from lrm_ros.training.reward.train.rows import Example, Examples, Reasoning, has_reasoning, label_of


def config_of(args: argparse.Namespace) -> LrmTrainConfig:
    """Return the hyperparameters: the file's or the defaults, then those of the command line.

    Raises:
        ValueError: an unknown name or a value of the wrong type.
    """
    values = to_dict(load_yaml(args.config, LrmTrainConfig) if args.config else LrmTrainConfig())
    for pair in args.set:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--set takes NAME=VALUE, got '{pair}'")
        try:
            values[name] = yaml_value(value)
        except ValueError as error:
            raise ValueError(f"--set {pair}: {error}") from error
    if args.reasoning:
        values["reasoning"] = args.reasoning
    config = from_dict(LrmTrainConfig, values, "--set")
    return dataclasses.replace(config, tensorboard=True) if args.tensorboard else config


def ask_teacher(teacher: Teacher, examples: Examples[Example], config: LrmTrainConfig, requests: int) -> None:
    """Fill the teacher's cache with every text that a training needs.

    Raises:
        TeacherError: an answer is missing.
    """
    chosen = [i for i in range(len(examples)) if has_reasoning(i, config.reasoning_share, config.seed)]

    def answers(example: Example) -> tuple[float, ...]:
        return HEADS[example.head].values if example.head == "contrastive" else (label_of(example),)

    total = len(chosen) * (len(answers(examples[chosen[0]])) if chosen else 0)
    wanted = ((example, value) for example in (examples[i] for i in chosen) for value in answers(example))
    teacher.fill_cache(wanted, total, requests)


def reasoning_of(config: LrmTrainConfig, args: argparse.Namespace) -> Reasoning | None:
    """Return the source of the text before the label, ``None`` for no text.

    Raises:
        ValueError: a teacher without address or name.
    """
    if config.reasoning == "none":
        return None
    if config.reasoning == "template":
        return template
    if not args.teacher_url or not args.teacher_model:
        raise ValueError(
            "reasoning 'teacher' needs --teacher-url and --teacher-model, e.g. --teacher-url http://localhost:8000/v1 "
            "--teacher-model Qwen/Qwen3-VL-235B-A22B-Instruct; or use --reasoning template"
        )
    return Teacher(
        args.teacher_url, args.teacher_model, args.teacher_cache or args.out / "teacher", args.teacher_key_variable
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lrm reward train --model", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="base model: a folder, 'tiny', or a cached Hugging Face name")
    parser.add_argument("--head", choices=(*HEADS, "all"), default="all")
    parser.add_argument("--data", type=Path, required=True, help="folder of keyframes by 'lrm reward data'")
    parser.add_argument("--out", type=Path, required=True, help="folder of the adapters; one folder a head in it")
    parser.add_argument("--config", type=Path, help="file of hyperparameters; default: those of config/lrm_train.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a hyperparameter")
    parser.add_argument("--reasoning", choices=REASONINGS, help="text before the label (default: the configuration's)")
    parser.add_argument("--teacher-url", default="", help="base address of an OpenAI-compatible server, ends in /v1")
    parser.add_argument("--teacher-model", default="", help="name of the vision-language model there")
    parser.add_argument("--teacher-cache", type=Path, help="folder of the teacher's texts (default: OUT/teacher)")
    parser.add_argument("--teacher-key-variable", default="", help="environment variable that holds the server's key")
    parser.add_argument("--teacher-requests", type=whole(1), default=8, help="requests at the same time")
    parser.add_argument("--reasoning-only", action="store_true", help="ask the teacher for every text, then stop")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--tensorboard", action="store_true", help="write TensorBoard logs into OUT/HEAD/logs")
    parser.add_argument("--json", type=Path, help="write the metrics of the heads to this file")
    return parser


def _missing(config: LrmTrainConfig) -> str:
    """Return the name of an optional package that is needed and not installed."""
    needed = ["trl", *(["tensorboard"] if config.tensorboard else [])]
    return next((name for name in needed if importlib.util.find_spec(name) is None), "")


def _data_name(data: Path) -> str:
    """Return the folder of keyframes with a checksum of its manifest."""
    manifest = data / "manifest.json"
    return f"{data}, {zlib.crc32(manifest.read_bytes()):08x}" if manifest.is_file() else str(data)


def _train(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from lrm_ros.training.reward.train.examples.dataset import load_examples
    from lrm_ros.training.reward.train.run import train_head

    config = config_of(args)
    if package := _missing(config):
        raise ValueError(f"package '{package}' is not installed; run: pip install 'lrm_ros[train]'")
    found = {}
    for head in HEADS if args.head == "all" else (args.head,):
        examples = load_examples(args.data, head, "train", config.seed)
        eval_examples = None
        if config.eval_examples:
            eval_examples = load_examples(args.data, head, "val", config.seed, config.eval_examples)
            if not len(eval_examples):
                raise ValueError(
                    f"'{args.data}' has no validation examples for head '{head}'; collect more episodes, or train "
                    "without validation: --set eval_examples=0"
                )
        reasoning = None if head == "completion" else reasoning_of(config, args)
        if isinstance(reasoning, Teacher) and (args.reasoning_only or os.environ.get("WORLD_SIZE", "1") == "1"):
            for some in (examples, eval_examples):
                if some is not None:
                    ask_teacher(reasoning, some, config, args.teacher_requests)
        if args.reasoning_only:
            continue
        found[head] = train_head(
            head, args.model, examples, args.out, config, eval_examples, reasoning, args.device, _data_name(args.data)
        )
        gc.collect()  # trainer and model refer to each other
        torch.cuda.empty_cache()
    return found


def main(argv: list[str] | None = None) -> int:
    """Train the tiny model, or LoRA adapters if --model is given."""
    import sys

    from lrm_ros.training.reward.train.tiny import train as tiny

    words = list(sys.argv[1:] if argv is None else argv)
    if not any(word == "--model" or word.startswith("--model=") for word in words):
        if {"-h", "--help"} & set(words):
            print(_parser().format_help())
            print("\nwithout --model:\n")
        return tiny.main(words)
    parser = _parser()
    args = parser.parse_args(words)
    try:
        figures = _train(args)
    except (ValueError, FileNotFoundError, FloatingPointError, RuntimeError) as error:
        parser.exit(exit_code(error), f"lrm reward train: {error}\n")
    for head, found in figures.items():
        print(
            f"{args.out / head}: {found['steps']} steps on {found['examples']} examples in {found['seconds']:.0f} s, "
            f"loss {found['loss_first']:.4f} -> {found['loss_last']:.4f}"
        )
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
