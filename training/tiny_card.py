# SPDX-License-Identifier: Apache-2.0
"""The model card of the tiny reward model, written from its figures."""

from __future__ import annotations

from typing import Any


def write_card(figures: dict[str, Any]) -> str:
    """Return the model card as Markdown.

    Args:
        figures: what ``training.tiny.train`` measured.
    """
    found = figures["held_out"]
    judge, frame = found["judge_episodes"], found["completion_frames"]
    return f"""---
license: apache-2.0
library_name: transformers
base_model: none
tags: [reward-model, robotics, qwen3_vl]
---
# tiny: a Large Reward Model for the lrm_ros twin

A `Qwen3VLForConditionalGeneration` with {figures["parameters"] / 1e6:.1f} M parameters and its own tokenizer and
processor, trained from scratch. It answers the three reward heads' prompts (contrastive, progress, completion) about
96 x 96 frames of the twin's front camera, e.g. for the task "put the red toy giraffe in the bowl". It takes the same
path as the 8B models: chat template, processor, forward pass or generate, LoRA.

**Use**: reward and judge of the demo on a CPU, and tests. **Not for** real cameras, other tasks or other viewpoints: it
knows one scene. Its task text hardly matters to it: there is one toy and one bowl.

**Data**: {figures["training_frames"]} frames of {figures["training_episodes"]} simulated episodes
(`python -m sim.generate`): scripted successes and failures of every kind (halted, still held, dropped, put beside,
missed, pushed, random, reversed). Labels are functions of the simulator's state, not of time. Frames in which the toy
has only just come to rest are not used for completion: that cannot be seen in one image.

**Training**: `lrm reward train --data DATA --out OUT` (seed {figures["seed"]}, scale {figures["scale"]:g},
{sum(figures["seconds"].values()) / 60:.0f} minutes on one core that other work shared). A small convolutional network
learns the labels, the vision tower imitates its features and answers, then the language model learns to answer from the
frozen tower's tokens. Stored in bfloat16.

**Figures** on {found["frames"]} frames of {judge["n"]} held-out episodes of the same mixture (every tenth), through the
reward engine with the forward read-out; `metrics.json` has all of them:

| | |
| --- | --- |
| progress, mean absolute error | {found["progress_mae"]:.3f} |
| progress, Spearman correlation | {found["progress_spearman"]:.3f} |
| contrastive, right answers (pairs that differ by 0.1) | {found["contrastive_accuracy"]:.3f} |
| completion of a frame, area under the ROC curve | {found["completion_auc"]:.3f} |
| completion of a frame, precision / recall at 0.5 | {frame["precision"]:.3f} / {frame["recall"]:.3f} |
| judge of an episode (last 4 frames), precision / recall at 0.5 | {judge["precision"]:.3f} / {judge["recall"]:.3f} |

The judge's figures are those of hard cases, not of a policy's episodes: in the data half of the episodes go on with a
random motion after the behaviour. Most wrong verdicts are about a toy that lies in the bowl while the jaws, elsewhere,
have closed again (no success to the simulator), or about one that came to rest in the very last frame.
"""
