# SPDX-License-Identifier: Apache-2.0
"""What the shipped tiny model and the baselines answer, for a comparison between versions of the libraries.

``python tests/answers.py`` writes tests/data/answers.json; it was run with transformers 4.57.6 and torch 2.10.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from lrm_ros.reward.heads import HEADS
from lrm_ros.reward.models import TINY_FOLDER
from lrm_ros.reward.qwen.folder import qwen_config
from lrm_ros.reward.qwen.model import QwenRewardModel
from lrm_ros.reward.robometer import HEADS as METER_HEADS
from lrm_ros.reward.robometer import SPECIAL_TOKENS, Robometer
from lrm_ros.reward.roboreward import RoboReward
from lrm_ros.reward.topreward import TopReward
from lrm_ros.training.reward.train.tiny import model as tiny
from lrm_ros.types import VIDEO_HEADS, Frame, Reward, RewardQuery

FILE = Path(__file__).parent / "data" / "answers.json"
TASKS = ("put the red toy pig in the bowl", "push the green cube to the left", "Öffne die Schublade, 0.5 weit!")
SECOND = 10**9
# As Qwen's own template: with add_vision_id, images are numbered.
TEMPLATE = "{%- set count = namespace(n=0) %}" + tiny.CHAT_TEMPLATE.replace(
    "{{- '<|vision_start|><|image_pad|><|vision_end|>' }}",
    "{%- set count.n = count.n + 1 %}{%- if add_vision_id %}{{- 'Picture ' ~ count.n ~ ': ' }}{%- endif %}"
    "{{- '<|vision_start|><|image_pad|><|vision_end|>' }}",
)


def picture(seed: int, height: int = 96, width: int = 96) -> np.ndarray:
    """A table with a few coloured boxes on it, (height, width, 3) uint8."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), (188, 170, 148), np.uint8)
    for _ in range(6):
        top, left = rng.integers(0, (height - 16, width - 16))
        image[top : top + rng.integers(8, 32), left : left + rng.integers(8, 32)] = rng.integers(0, 256, 3)
    return image


def frames(seed: int, count: int, height: int = 96, width: int = 96) -> list[Frame]:
    """Pictures, a frame a second."""
    return [Frame(i * SECOND, "front", picture(100 * seed + i, height, width)) for i in range(count)]


def queries() -> list[RewardQuery]:
    """All heads; frames of the model's size, one that is shrunk and one that is enlarged."""
    a, b, c = frames(0, 3)
    large, small = frames(1, 1, 120, 160)[0], frames(2, 1, 64, 64)[0]
    return [
        query
        for task in TASKS
        for query in (
            RewardQuery(task, "contrastive", (a, b)),
            RewardQuery(task, "contrastive", (large, small)),
            RewardQuery(task, "progress", (b,)),
            RewardQuery(task, "progress", (a, large)),
            RewardQuery(task, "progress", (a, b), goal=c),
            RewardQuery(task, "completion", (c,)),
            RewardQuery(task, "completion", (small,)),
        )
    ]


CLIPS = [(TASKS[0], frames(3, 4)), (TASKS[1], frames(4, 1)), (TASKS[0], frames(5, 3, 120, 160))]


def reward_answers(folder: Path) -> dict[str, Any]:
    """What a reward model says: token ids, pixel values, and both read-outs of every query."""
    model = QwenRewardModel(folder, device="cpu")
    found: dict[str, Any] = {"ids": [], "pixels": [], "forward": [], "generate": []}
    for query in queries():
        head = HEADS[query.head]
        text = model.processor.apply_chat_template(head.messages(query), tokenize=False, add_generation_prompt=True)
        images = [frame.image.copy() for frame in head.images(query)]
        inputs = model.processor(text=[text + head.prefix], images=images, return_tensors="pt")
        found["ids"].append(inputs.input_ids[0].tolist())
        found["pixels"].append(inputs.pixel_values.flatten()[:: inputs.pixel_values.numel() // 7].tolist())
    for readout in ("forward", "generate"):
        for answer in model.score(queries(), readout):
            found[readout].append(answer.value if isinstance(answer, Reward) else answer.reason)
    return found


def write_adapter(folder: Path, base: Path) -> None:
    """Save a LoRA adapter with made-up weights on a model."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen3VLForConditionalGeneration

    model = Qwen3VLForConditionalGeneration.from_pretrained(base, config=qwen_config(base), dtype=torch.float32)
    peft = get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj", "down_proj"]))
    with torch.no_grad():
        for number, (name, parameter) in enumerate(sorted(peft.named_parameters())):
            if "lora" in name:
                values = np.random.default_rng([9, number]).normal(0, 0.1, parameter.shape)
                parameter.copy_(torch.from_numpy(values))
    peft.save_pretrained(folder)


def adapter_answers(folder: Path) -> list[float | str]:
    """What adapters say by a forward pass."""
    answers = QwenRewardModel(folder, device="cpu").score(queries())
    return [answer.value if isinstance(answer, Reward) else answer.reason for answer in answers]


def fill(model: Any) -> None:
    """Set every parameter to numbers that no version of the libraries has a part in."""
    import torch

    with torch.no_grad():
        for number, (name, parameter) in enumerate(sorted(model.named_parameters())):
            values = np.random.default_rng([7, number]).normal(0, 0.12, parameter.shape)
            parameter.copy_(torch.from_numpy(values + ("norm" in name and name.endswith("weight"))))


def write_model(folder: Path, words: tuple[str, ...] = (), rows: int = 0) -> Any:
    """Save a small Qwen3-VL with DeepStack whose visual tokens span two frames, and its processor; return the model."""
    from tokenizers import AddedToken

    processor = tiny.build_processor()
    processor.chat_template = TEMPLATE
    images, videos = processor.image_processor, processor.video_processor
    for pictures in (images, videos):
        pictures.temporal_patch_size = pictures.merge_size = 2
    videos.size = {"shortest_edge": 4096, "longest_edge": 25165824}
    processor.tokenizer.add_tokens([AddedToken(word, normalized=False, special=False) for word in words])
    shape = dict(tiny.VISION)
    try:
        tiny.VISION.update(temporal_patch_size=2, spatial_merge_size=2, deepstack_visual_indexes=[0, 2])
        model = tiny.build_model(processor)
    finally:
        tiny.VISION.update(shape)
    if rows:
        model.resize_token_embeddings(len(processor.tokenizer) + rows, mean_resizing=False)
    fill(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model


def write_robometer(folder: Path) -> None:
    """Save a small Robometer: no output layer, three heads."""
    import torch
    from safetensors.torch import save_file

    model = write_model(folder, rows=len(SPECIAL_TOKENS))
    state = {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}
    size = model.config.text_config.hidden_size
    shapes: dict[str, tuple[int, ...]] = {"frame_pool_attn.weight": (1, size)}
    for head, out in zip(METER_HEADS, (10, 1, 1), strict=True):
        shapes |= {
            f"{head}.0.weight": (size // 2, size),
            f"{head}.4.weight": (out, size // 2),
            f"{head}.4.bias": (out,),
        }
        shapes |= dict.fromkeys((f"{head}.0.bias", f"{head}.1.weight", f"{head}.1.bias"), (size // 2,))
    for number, (name, shape) in enumerate(sorted(shapes.items())):
        values = np.random.default_rng([8, number]).normal(0, 0.2, shape)
        state[name] = torch.from_numpy(values.astype(np.float32))
    save_file({name: value.clone() for name, value in state.items()}, folder / "model.safetensors", {"format": "pt"})


def baseline_answers(folder: Path) -> dict[str, Any]:
    """What baselines with made-up weights say; the models are written into ``folder`` by the installed versions."""
    for name in ("top", "meter"):
        (folder / name).mkdir()
    write_model(folder / "top", (" True", *(f"ANSWER: {n}" for n in range(1, 6))))
    write_robometer(folder / "meter")
    return read_baselines(folder)


def read_baselines(folder: Path) -> dict[str, Any]:
    """What the baselines that lie in ``folder`` say."""
    meter = Robometer(folder / "meter", device="cpu")
    asked = {head: [RewardQuery(task, head, tuple(clip)) for task, clip in CLIPS] for head in VIDEO_HEADS}
    readings = meter.read(asked["robometer"])
    return {
        "topreward": TopReward(folder / "top", device="cpu").log_probs(asked["topreward"]),
        "roboreward": RoboReward(folder / "top", device="cpu").replies(asked["roboreward"]),
        "robometer": [[reading.progress.tolist(), reading.success.tolist()] for reading in readings],
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        answers = {"tiny": reward_answers(TINY_FOLDER), **baseline_answers(Path(scratch))}
        write_adapter(Path(scratch) / "adapter", TINY_FOLDER)
        answers["adapter"] = adapter_answers(Path(scratch) / "adapter")
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(answers, indent=1) + "\n")
