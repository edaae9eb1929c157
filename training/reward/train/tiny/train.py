# SPDX-License-Identifier: Apache-2.0
r"""Train the tiny reward model: ``lrm reward train``.

The commands of a whole training, its controls, its figures and its card::

    GENERATE="python -m lrm_ros.training.reward.data.generate"
    python -m lrm_ros.sim.twin.generate --out runs/tiny/twin --episodes 1200
    $GENERATE --source twin-sort --episodes 1500 --out runs/tiny/sort
    $GENERATE --source twin-sort --episodes 3000 --seed 5200000 --kind shuffled --out runs/tiny/sort_shuffled
    $GENERATE --source others --episodes 60 --keep 0.4 --out runs/tiny/others
    $GENERATE --source tabletop --episodes 240 --seed 7000000 --keep 0.4 --out runs/tiny/tabletop
    $GENERATE --source tabletop --episodes 400 --seed 7500000 --kind shuffled --out runs/tiny/tabletop_shuffled
    $GENERATE --source fixtures --episodes 240 --seed 7200000 --keep 0.4 --out runs/tiny/fixtures
    $GENERATE --source fixtures --episodes 400 --seed 7800000 --kind shuffled --out runs/tiny/fixtures_shuffled
    $GENERATE --source others --episodes 10 --seed 8000000 --keep 0.4 --kind random --out runs/tiny/random
    DATA="--data runs/tiny/twin --data runs/tiny/sort --data runs/tiny/sort_shuffled --data runs/tiny/others"
    DATA="$DATA --data runs/tiny/tabletop --data runs/tiny/tabletop_shuffled --data runs/tiny/random"
    DATA="$DATA --data runs/tiny/fixtures --data runs/tiny/fixtures_shuffled"
    lrm reward train $DATA --out runs/tiny/model
    lrm reward train $DATA --blind text --scale 0.3 --out runs/tiny/without_text
    lrm reward train $DATA --blind pictures --scale 0.3 --out runs/tiny/without_pictures
    python -m lrm_ros.sim.twin.generate --out runs/tiny/eval_set/twin --episodes 150 --seed 6000000
    $GENERATE --source twin-sort --episodes 150 --seed 6000000 --out runs/tiny/eval_set/sort
    $GENERATE --source others --episodes 12 --seed 6000000 --out runs/tiny/eval_set/others
    $GENERATE --source zero-shot --episodes 60 --seed 6000000 --out runs/tiny/zero_shot
    lrm reward data --generated runs/tiny/eval_set --out runs/tiny/eval_set_keyframes
    lrm reward data --generated runs/tiny/zero_shot --out runs/tiny/zero_shot_keyframes
    lrm reward eval --model runs/tiny/model --data runs/tiny/eval_set_keyframes --split all \
        --zero-shot runs/tiny/zero_shot_keyframes --contrast runs/tiny/eval_set \
        --without text=runs/tiny/without_text --without pictures=runs/tiny/without_pictures \
        --out runs/tiny/eval --json runs/tiny/model/metrics.json
    python -m lrm_ros.training.reward.train.tiny.card runs/tiny/model

On one core: some three hours for ``tiny``, nine for ``--size small``; a GPU takes ``--device cuda --workers 3`` and
has room for ``--batch 4``. The same command goes on from the last
checkpoint, which is five minutes old at most. ``--leave-out twin`` (a world), ``--leave-out metaworld/`` (a simulator)
and the like train without some sources. What each range of seeds is for stands in ``lrm_ros.seeds``. The model in
``lrm_ros/models/tiny`` was made by these commands at 0.6 times the episodes, scale 0.5 and batch 4, when "done" did not
yet weigh as much as "not done", and went on with 480 more episodes of the twin (its card has the commits)::

    python -m lrm_ros.sim.twin.generate --out runs/tiny/twin_more --episodes 480 --seed 5000720
    lrm reward train --data runs/tiny/twin --data runs/tiny/twin_more ... --start FIRST --scale 1.2 --seed 1 --out ...

Steps: the vision tower learns what is where in each picture, then also the labels of several texts (``vision``); the
language model learns to answer the three heads' prompts from the frozen tower's tokens, then both together
(``language``); the saved model is loaded again and evaluated on validation episodes through the reward engine. One
thread, fixed seeds: the same data give the same weights on the same kind of processor (not on a GPU) with the same
versions of torch and transformers (5 draws the first weights in another order than 4.57).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lrm_ros.commit import source_commit
from lrm_ros.options import number, whole
from lrm_ros.programs import exit_code
from lrm_ros.reward.models import TINY_FOLDER
from lrm_ros.reward.qwen.folder import load_processor, qwen_config
from lrm_ros.training.reward.eval.blind import BLIND
from lrm_ros.training.reward.train.tiny.data import Frames, split
from lrm_ros.training.reward.train.tiny.finish import finish
from lrm_ros.training.reward.train.tiny.loop import fit
from lrm_ros.training.reward.train.tiny.measure import label_metrics
from lrm_ros.training.reward.train.tiny.model import SIZES, build_model, build_processor
from lrm_ros.training.reward.train.tiny.settings import Compute, TinySettings, claim_checkpoints, load_training_frames


def continue_training(
    start: Path, data: Sequence[Path], out: Path, settings: TinySettings, compute: Compute
) -> dict[str, Any]:
    """Continue the joint training of tower and language model of a tiny model; save and evaluate the result.

    Args:
        start: folder of the model to start from, by :func:`train`; its size is kept.
        data: folders of shards.
        out: folder that receives what :func:`train` writes.
        settings: scale, seed and the like.
        compute: where it runs.

    Returns:
        What is written to training.json; ``before`` is that of the model it started from.

    Raises:
        FileNotFoundError: no such model there.
    """
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    from lrm_ros.training.reward.train.tiny.things import Places
    from lrm_ros.training.reward.train.tiny.vision import Tower

    if not (start / "training.json").is_file():
        raise FileNotFoundError(f"'{start}' is no tiny model (no training.json); give a folder of 'lrm reward train'")
    torch.set_num_threads(1)
    commit = source_commit()
    before = json.loads((start / "training.json").read_text(encoding="utf-8"))
    settings = replace(settings, size=before.get("size", "tiny"))
    checkpoints = claim_checkpoints(out, data, settings, str(start))
    training, held_out = split(load_training_frames(data, settings))
    processor = load_processor(start)
    model = Qwen3VLForConditionalGeneration.from_pretrained(start, config=qwen_config(start), dtype=torch.float32)
    tower = Tower(model.model.visual, len(processor.tokenizer), Places(training).sizes)
    tower.to(compute.device)
    model.to(compute.device)
    steps, rate = _steps(1500, settings.scale), 1e-4  # gently: it is trained already
    together = _together(model, processor, tower, training, held_out, settings, compute, steps, rate, checkpoints)
    seconds = {"together": together}
    return finish(model, processor, training, held_out, out, settings, compute, commit, seconds, before)


def _together(
    model: Any,
    processor: Any,
    tower: Any,
    training: Frames,
    held_out: Frames,
    settings: TinySettings,
    compute: Compute,
    steps: int,
    learning_rate: float,
    checkpoints: Path,
) -> float:
    """Train tower and language model together; return the seconds."""
    from lrm_ros.training.reward.train.tiny.language import (
        TOKEN_NOISE,
        QueryBatches,
        encode_all,
        look,
        query_loss,
        query_metrics,
    )

    seed = settings.seed
    shown = QueryBatches(model, processor, held_out, seed, 0)
    return fit(
        model,
        QueryBatches(model, processor, training, seed + 6, 48 * settings.batch, TOKEN_NOISE, seed + 5),
        lambda batch: query_loss(model, batch, look(tower, batch.pictures))[0],
        steps,
        learning_rate,
        seed + 6,
        "together",
        lambda: query_metrics(model, shown, lambda rows: encode_all(tower, held_out.select(rows.cpu().numpy()))),
        checkpoints / "together.pt",
        compute.device,
        compute.workers,
    )


def train(data: Sequence[Path], out: Path, settings: TinySettings, compute: Compute) -> dict[str, Any]:
    """Train, save and evaluate the tiny model; a training that was stopped goes on from its last checkpoint.

    Args:
        data: folders of shards by ``lrm_ros.sim.twin.generate`` and ``lrm_ros.training.reward.data.generate``.
        out: folder that receives model, processor, training.json and the model card (README.md), while it trains the
            checkpoints.
        settings: size, scale, seed and the like.
        compute: where it runs.

    Returns:
        What is written to training.json: the data, the time, and the figures on the episodes that were left out, of
        the twin if it is among the sources.

    Raises:
        ValueError: ``out`` holds checkpoints of other settings.
    """
    import torch

    from lrm_ros.training.reward.train.tiny.language import (
        TOKEN_NOISE,
        QueryBatches,
        encode_all,
        query_loss,
        query_metrics,
    )
    from lrm_ros.training.reward.train.tiny.texts import Words
    from lrm_ros.training.reward.train.tiny.things import Places
    from lrm_ros.training.reward.train.tiny.vision import (
        PlaceBatches,
        Questions,
        Tower,
        initialise,
        places_metrics,
        tower_loss,
    )

    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU that has it; a CPU has none
    seed, scale, commit = settings.seed, settings.scale, source_commit()
    checkpoints = claim_checkpoints(out, data, settings)
    seconds: dict[str, float] = {}
    training, held_out = split(load_training_frames(data, settings))
    print(f"{len(training.images)} frames to train on, {len(held_out.images)} held out", flush=True)
    processor = build_processor(settings.size)
    words = Words(processor.tokenizer)
    torch.manual_seed(seed)
    model = build_model(processor, seed, settings.size)
    places = Places(training)
    tower = Tower(model.model.visual, len(processor.tokenizer), places.sizes)
    initialise(tower)
    tower.to(compute.device)
    model.to(compute.device)
    where = (compute.device, compute.workers)
    if places.known.any():
        seconds["places"] = fit(
            tower,
            PlaceBatches(training, places, seed + 1, 48 * settings.batch),
            lambda batch: tower_loss(tower, batch),
            _steps(3000, scale),
            1e-3,
            seed + 1,
            "places  ",
            lambda: places_metrics(tower, held_out, places),
            checkpoints / "places.pt",
            *where,
        )
    seconds["vision"] = fit(
        tower,
        Questions(training, words, places, seed + 2, 32 * settings.batch),
        lambda batch: tower_loss(tower, batch),
        _steps(6000, scale),
        1e-3,
        seed + 2,
        "vision  ",
        lambda: label_metrics(tower, held_out, words, places),
        checkpoints / "vision.pt",
        *where,
    )
    begun = time.monotonic()
    known, held_out_known = (encode_all(tower, frames) for frames in (training, held_out))
    seconds["encode"] = time.monotonic() - begun
    shown = QueryBatches(model, processor, held_out, seed, 0)
    seconds["language"] = fit(
        model.model.language_model,
        QueryBatches(model, processor, training, seed + 5, 64 * settings.batch, TOKEN_NOISE),
        lambda batch: query_loss(model, batch, known[batch.rows])[0],
        _steps(10000, scale),
        1e-3,
        seed + 5,
        "language",
        lambda: query_metrics(model, shown, lambda rows: held_out_known[rows]),
        checkpoints / "language.pt",
        *where,
    )
    steps, rate = _steps(6000, scale), 3e-4
    seconds["together"] = _together(
        model, processor, tower, training, held_out, settings, compute, steps, rate, checkpoints
    )
    return finish(model, processor, training, held_out, out, settings, compute, commit, seconds)


def _cuda_is_there() -> bool:
    """Return whether there is a GPU; torch is imported late."""
    import torch

    return torch.cuda.is_available()


def _steps(full: int, scale: float) -> int:
    return max(1, round(full * scale))


def main(argv: list[str] | None = None) -> int:
    """Train the tiny reward model."""
    parser = argparse.ArgumentParser(
        prog="lrm reward train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        required=True,
        metavar="DIR",
        help="shards by lrm_ros.sim.twin.generate or lrm_ros.training.reward.data.generate; more than once for more",
    )
    parser.add_argument("--out", type=Path, required=True, help=f"folder for the model; the shipped one: {TINY_FOLDER}")
    parser.add_argument(
        "--scale", type=number(above=True), default=1.0, help="factor on all training steps; 0.02 for a quick trial"
    )
    parser.add_argument("--seed", type=whole(0), default=0)
    parser.add_argument(
        "--batch", type=whole(1), default=1, help="factor on the pictures and queries of a step, for a GPU (default 1)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where it runs (default cpu)")
    parser.add_argument(
        "--workers", type=whole(0), default=0, help="processes that draw batches ahead, for a GPU (default 0)"
    )
    parser.add_argument(
        "--size", choices=tuple(SIZES), default="tiny", help="tiny: patches of 16 x 16, small: of 8 x 8"
    )
    parser.add_argument("--blind", choices=BLIND, default="", help="a control: train without the text or the pictures")
    parser.add_argument(
        "--leave-out",
        action="append",
        default=[],
        metavar="SOURCE",
        help="train without the sources whose name begins so, e.g. twin, metaworld/; more than once for more",
    )
    parser.add_argument("--start", type=Path, metavar="MODEL", help="continue from this tiny model: the last step only")
    parser.add_argument("--json", type=Path, help="write the metrics to this file, too")
    args = parser.parse_args(argv)
    settings = TinySettings(args.size, args.scale, args.seed, args.blind, tuple(args.leave_out), args.batch)
    compute = Compute(args.device, args.workers)
    if args.device == "cuda" and not _cuda_is_there():
        parser.exit(1, "lrm reward train: no CUDA device here; run on a machine with a GPU, or leave out --device\n")
    try:
        if args.start:
            figures = continue_training(args.start, args.data, args.out, settings, compute)
        else:
            figures = train(args.data, args.out, settings, compute)
    except (ValueError, FileNotFoundError) as error:
        parser.exit(exit_code(error), f"lrm reward train: {error}\n")
    print(json.dumps(figures, indent=1))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
