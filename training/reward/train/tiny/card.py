# SPDX-License-Identifier: Apache-2.0
"""The tiny reward model's card, from its own figures: ``python -m lrm_ros.training.reward.train.tiny.card FOLDER``.

Reads ``training.json`` (written by the training) and ``metrics.json`` (written by ``lrm reward eval --json``).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from lrm_ros.programs import exit_code

# head, figure, how it is called
_FIGURES = (
    ("progress", "mae", "progress, mean absolute error"),
    ("progress", "rmse", "progress, root mean square error"),
    ("progress", "spearman", "progress, Spearman correlation"),
    ("contrastive", "kendall", "contrastive, Kendall's tau (pairs that differ by 0.1)"),
    ("completion", "roc_auc", "completion, area under the ROC curve"),
    ("completion", "accuracy", "completion, accuracy"),
    ("completion", "ece", "completion, expected calibration error"),
)
_LIMITS = {"zero_shot": " of these few tasks: it says nothing about other tasks"}  # of an interval
_NOT_YET = "Not measured yet: `lrm reward eval` writes metrics.json, and then this card again."
_SETS = {"in_domain": "trained tasks, new episodes", "zero_shot": "tasks never trained on"}


def card(about: dict[str, Any], metrics: dict[str, Any] | None) -> str:
    """Return the model card as Markdown.

    Args:
        about: what ``lrm_ros.training.reward.train.tiny.train.train`` wrote to training.json.
        metrics: what ``lrm reward eval`` wrote to metrics.json; ``None``: not measured yet.
    """
    judge = about["left_out"]["judge_episodes"]
    quality = f"precision {_number(judge['precision'])}, recall {_number(judge['recall'])}"
    sources, minutes = about["sources"], sum(about["seconds"].values()) / 60
    return f"""---
license: apache-2.0
library_name: transformers
base_model: none
tags: [reward-model, robotics, qwen3_vl]
---
# {about.get("size", "tiny")}: a Large Reward Model for simulated tasks

A `Qwen3VLForConditionalGeneration` with {about["parameters"] / 1e6:.1f} M parameters and its own tokenizer and
processor, trained from scratch. It answers the three reward heads' prompts (contrastive, progress, completion) about
96 x 96 frames. It takes the same path as the 8B models: chat template, processor, forward pass or generate, LoRA.

**Use**: reward and judge of the demo on a CPU, and tests. **Not for** tasks that `training.json` does not list (the
table of tasks never trained on says how little it knows of them), real cameras or other viewpoints: it has seen drawn
scenes only, each task from one camera but for the tabletop's, and its language is the instructions of these tasks.

**Data**: {about["training_frames"]} frames of {about["training_episodes"]} simulated episodes from {len(sources)}
sources (`training.json` lists them): the twin, ManiSkill and Meta-World tasks and families of drawn tabletop tasks
(`sim/tabletop/`), played by scripted experts that succeed or fail in every way they can (halted, still held,
dropped, put beside, missed, pushed, random, reversed). Labels are functions of the simulator's state, not of time.
Frames in which the task has only just been done are not used for completion: that cannot be seen in one image.
{_texts(about)}
**Training**: commands in `training/reward/train/tiny/train.py` (seed {about["seed"]}, scale {about["scale"]:g}, commit
{about["commit"]}, {minutes:.0f} minutes on {_device(about)}). The
vision tower learns what is where (`sim/seen.py`), then also the labels of the texts, then the language model
learns to answer from the frozen tower's tokens, at last together with the tower. {_before(about)}Stored in bfloat16.

**Judge of an episode** (mean of the last 4 frames, threshold 0.5), on {judge["n"]} episodes left out of the training:
{quality}. These are hard cases, not a policy's episodes: half of
them go on with a random motion after the behaviour.

{_tables(metrics, about.get("size", "tiny")) if metrics else _NOT_YET}
"""


def _texts(about: dict[str, Any]) -> str:
    """Return what was said of each picture besides its own instruction, and which tasks were held out."""
    without = f"Left out, too: {', '.join(about['without'])}. " if about["without"] else ""
    blind = f"A control: trained without {about['blind']}. " if about["blind"] else ""
    return f"""{blind}Each picture was shown with several texts, labelled by the state (`sim/instructions.py`).
Held out, in no episode of the training: {", ".join(about["held_out"])}. {without}The tabletop
never shows a cube put on a cube or a cube drawn towards the robot.
"""


def _device(about: dict[str, Any]) -> str:
    """Return what the training ran on, and how much was in a batch."""
    if about.get("device", "cpu") == "cpu":
        return "one core that other work shared"
    return f"one {about['device']} that other trainings shared, {about['batch']} times the recipe's batch"


def _before(about: dict[str, Any]) -> str:
    """Return a sentence on the model that the training went on from, if there was one."""
    if "before" not in about:
        return ""
    minutes = sum(about["before"]["seconds"].values()) / 60
    return f"It went on from a model of commit {about['before']['commit']}, trained for {minutes:.0f} minutes before. "


def _reading(contrast: dict[str, Any]) -> str:
    """Return how many pairs of texts of one picture are ordered by p(done) as labelled, by kind."""
    models, own = list(contrast), contrast["model"]
    rows = [
        f"| {kind} | {own['kinds'][kind]['n']} | "
        + " | ".join(_percent(contrast[name]["kinds"][kind]["pairs"]) for name in models)
        + " |"
        for kind in own["kinds"]
        if own["kinds"][kind]["n"]
    ]
    every = " | ".join(
        f"{_percent(contrast[name]['pairs'])} ({' to '.join(_percent(end) for end in contrast[name]['pairs_ci95'])})"
        for name in models
    )
    names = " | ".join("this model" if name == "model" else name for name in models)
    return (
        f"**Does it read?** Two texts about one picture, ordered by p(done) as the state says (equal: a half;\n"
        f"`docs/reward_models.md`), {own['pictures']} pictures; 95 % interval over episodes:\n\n"
        f"| kind | pairs | {names} |\n| --- | --- |{' --- |' * len(models)}\n"
        f"| all | {own['n']} | {every} |\n" + "\n".join(rows) + "\n\n"
        f"Another wording changes p(done) by {own['paraphrase']:.3f} on average. Done states found at 5 % false\n"
        f"alarms: {_percent(own['found'])} of the own text's, {_percent(own['found_any'])} of any text's."
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _tables(metrics: dict[str, Any], size: str) -> str:
    parts = [_reading(metrics["contrast"])] if "contrast" in metrics else []
    for name in filter(metrics.__contains__, _SETS):
        n = metrics["n"][name]
        parts.append(
            f"**{_SETS[name].capitalize()}** ({n['episodes']} episodes, {n['frames']} keyframes, {n['pairs']} pairs; "
            f"in brackets the 95 % interval, bootstrapped over episodes{_LIMITS.get(name, '')})\n\n"
            f"| | {size} | same model untrained | constant | time index |\n| --- | --- | --- | --- | --- |\n"
            + "\n".join(
                f"| {text} | {_value(metrics[name], head, key)} | "
                + " | ".join(
                    _value(metrics["baselines"][name][who], head, key)
                    for who in ("untrained", "constant", "time_index")
                )
                + " |"
                for head, key, text in _FIGURES
            )
        )
        if name == "in_domain" and "twin" in metrics["sources"][name]:
            twin = metrics["sources"][name]["twin"]
            said = ", ".join(f"{text}: {_value(twin, head, key)}" for head, key, text in _FIGURES)
            parts.append(f"The twin alone, {twin['progress']['n']} keyframes: {said}.")
    rows = [
        f"| {_SETS[name]} | {kind} | {row['episodes']} | {row['spearman']:.2f} | {row['end_progress']:.2f} | "
        f"{row['end_progress_true']:.2f} |"
        for name, kinds in metrics["failures"].items()
        for kind, row in kinds.items()
    ]
    parts.append(
        "**Failures**: correlation of the said with the true progress, and progress at the end\n\n"
        "| set | what happens | episodes | Spearman | said at the end | true |\n| --- | --- | --- | --- | --- | --- |\n"
        + "\n".join(rows)
    )
    return "\n\n".join(parts)


def _value(figures: dict[str, Any], head: str, key: str) -> str:
    interval = figures.get(head, {}).get("ci95", {}).get(key)
    return _number(figures.get(head, {}).get(key)) + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def main(argv: list[str] | None = None) -> int:
    """Write README.md of a model's folder from the two files beside it."""
    parser = argparse.ArgumentParser(
        prog="python -m lrm_ros.training.reward.train.tiny.card", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="the model's folder, with training.json and metrics.json")
    args = parser.parse_args(argv)
    try:
        about, metrics = (
            json.loads((args.folder / name).read_text(encoding="utf-8")) for name in ("training.json", "metrics.json")
        )
    except FileNotFoundError as error:
        parser.exit(exit_code(error), f"tiny_card: {error}\n")
    (args.folder / "README.md").write_text(card(about, metrics), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
