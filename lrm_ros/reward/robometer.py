# SPDX-License-Identifier: Apache-2.0
"""Robometer: a Qwen3-VL with two small heads that read progress and success after every frame of an episode so far.

Five tokens are added to the vocabulary; ``<|prog_token|>`` follows each image, and the last hidden state there goes
through the progress head (logits of ten values from 0 to 1, of which the expectation is taken) and the success head.
The reward is the progress of the last frame.

Robometer-4B was trained by robometer/robometer, so where others differ this does as that repository does:

- The heads read the state after the last norm: upstream wraps a Qwen3VLModel, whose ``hidden_states[-1]`` is that.
  Large-Reward-Models' server asks a Qwen3VLForConditionalGeneration, whose last one is the state before the norm (seen
  in transformers 4.57.6).
- GELU in the heads (robometer/models/heads.py). Large-Reward-Models' server has SiLU, here ``activation="silu"``.
- Images are sized by Qwen's ``qwen_vl_utils`` and the processor does not resize (data/collators/rbm_heads.py). Large-
  Reward-Models shrinks them to 320 pixels and lets the processor enlarge small ones.
- Eight frames spread over the whole episode so far, which is what the README trains and evaluates with; lerobot takes
  the last eight (huggingface/lerobot:src/lerobot/rewards/robometer/processor_robometer.py).

A folder holds config.json, *.safetensors with exactly the names of the published ones (``model.language_model.*``,
``model.visual.*``, ``progress_head.*``, ``preference_head.*``, ``success_head.*``, ``frame_pool_attn.weight``), the
run's config.yaml, and a processor; without one, the base model's is taken as upstream does. LoRA checkpoints, those
that pool a frame's tokens instead of reading ``<|prog_token|>``, and lerobot's converted file are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.reward.models import find_model
from lrm_ros.reward.qwen.folder import check_processor, has_processor, has_robometer_heads, load_processor, qwen_config
from lrm_ros.reward.qwen.load import find_adapters
from lrm_ros.reward.qwen.weights import Stored, load_checked, read_json, stored
from lrm_ros.reward.video import check_length, readings, resized, rewards, torch_device
from lrm_ros.reward.video_heads import PROGRESS_TOKEN, VIDEO_HEADS
from lrm_ros.types import Reward, RewardQuery, Unscored

# The order gives the rows of the embedding (robometer/utils/setup_utils.py).
SPECIAL_TOKENS = ("<|split_token|>", "<|reward_token|>", "<|pref_token|>", "<|sim_token|>", PROGRESS_TOKEN)
HEADS = ("progress_head", "preference_head", "success_head")
BASE = "Qwen/Qwen3-VL-4B-Instruct"
TOKENS = (4, 16384)  # of an image, qwen_vl_utils' IMAGE_MIN_TOKEN_NUM and IMAGE_MAX_TOKEN_NUM
_LAYERS = tuple(f"{number}.{part}" for number in (0, 1, 4) for part in ("weight", "bias"))


@dataclass(frozen=True)
class Reading:
    """What the model says about the frames of a query that it was shown.

    Attributes:
        progress: (n,) in [0, 1] after each frame.
        success: (n,) probability that the task is done.
    """

    progress: NDArray[np.float64]
    success: NDArray[np.float64]


class Robometer:
    """Robometer-4B, or another checkpoint of its kind."""

    def __init__(self, folder: Path, name: str = "", device: str = "auto", activation: str = "gelu") -> None:
        """Load the model.

        Args:
            folder: the checkpoint.
            name: name of the model; the folder's if empty.
            device: torch device; ``auto`` takes the GPU when there is one. Weights are float32 on a CPU, else bfloat16.
            activation: ``gelu`` (as trained) or ``silu``.

        Raises:
            FileNotFoundError: files are missing.
            ValueError: another kind of checkpoint, or weights that are missing, unexpected or of another vocabulary.
        """
        import torch

        if activation not in ("gelu", "silu"):
            raise ValueError(f"activation '{activation}' is unknown; choose gelu or silu")
        settings = _settings(folder)
        files = stored(folder)
        if not any(key.startswith("progress_head.") for key in files):
            raise ValueError(_no_robometer(folder, "a Qwen3-VL without progress_head.*, e.g. an LRM"))
        self.name, self.head = name or folder.name, VIDEO_HEADS["robometer"]
        self.processor = _processor(folder, settings.get("base_model_id") or BASE)
        device = torch_device(device)
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        config = qwen_config(folder)
        qwen = load_checked(folder, config, dtype, _head_shapes(files, config.text_config.hidden_size))
        check_processor(self.processor, config, folder)
        self._token = _check_vocabulary(folder, self.processor.tokenizer, qwen.get_input_embeddings().num_embeddings)
        self.qwen = qwen.model.to(device).eval()
        self.progress_head = _head(files, "progress_head", activation).to(device, dtype).eval()
        self.success_head = _head(files, "success_head", activation).to(device, dtype).eval()
        if self.progress_head[-1].out_features < 2:
            raise ValueError(f"'{folder}' was trained to a single progress value; its values must be discrete")

    def score(self, queries: Sequence[RewardQuery], readout: str = "forward") -> list[Reward | Unscored]:
        """Return the progress at the last frame of each query, in order."""
        return rewards(
            self.name, queries, readout, self.read, lambda found: min(1.0, max(0.0, float(found.progress[-1])))
        )

    def read(self, queries: Sequence[RewardQuery]) -> list[Reading | Unscored]:
        """Return progress and success after each shown frame of each query, in order."""
        return readings(self.name, self.head, queries, self._ask)

    def _ask(self, queries: list[RewardQuery]) -> list[Reading | str]:
        import torch

        inputs = self.inputs(queries).to(self.qwen.device)
        with torch.inference_mode():
            hidden = self.qwen(**inputs).last_hidden_state
            rows, places = (inputs.input_ids == self._token).nonzero(as_tuple=True)
            states = hidden[rows, places]
            weights = self.progress_head(states).float().softmax(-1)
            progress = weights @ torch.linspace(0, 1, weights.shape[-1], device=weights.device)
            success = self.success_head(states)[:, 0].float().sigmoid()
        found: list[Reading | str] = []
        for row in range(len(queries)):
            own = rows == row
            reading = Reading(progress[own].double().cpu().numpy(), success[own].double().cpu().numpy())
            finite = np.isfinite(reading.progress).all() and np.isfinite(reading.success).all()
            found.append(reading if finite else f"progress or success is not finite: {reading}")
        return found

    def inputs(self, queries: Sequence[RewardQuery]) -> Any:
        """Return the model's inputs: one user turn a query, every image followed by the progress token."""
        images = self.processor.image_processor
        factor = images.patch_size * images.merge_size
        texts, pictures = [], []
        for query in queries:
            pictures += [resized(frame.image, factor, TOKENS) for frame in self.head.images(query)]
            texts.append(
                self.processor.apply_chat_template(
                    self.head.messages(query),
                    tokenize=False,
                    add_generation_prompt=False,
                    add_vision_id=True,  # "Picture 1: " before the first image
                )
            )
        made = self.processor(text=texts, images=pictures, do_resize=False, padding=True, return_tensors="pt")
        check_length(self.processor, made)
        return made


def _settings(folder: Path) -> dict[str, Any]:
    """Return section ``model`` of the run's config.yaml, empty without one; refuse what is no Robometer."""
    import yaml

    if find_adapters(folder):
        if has_robometer_heads(folder) or (folder / "config.yaml").is_file():
            raise ValueError(f"'{folder}' is a LoRA checkpoint of Robometer; merge it into its base first")
        raise ValueError(_no_robometer(folder, "LoRA adapters, as an LRM does"))
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise FileNotFoundError(
            f"'{folder}' has no config.json; on a machine with network run 'hf download robometer/Robometer-4B "
            f"--local-dir {folder}'"
        )
    kind = read_json(config_file).get("model_type")
    if kind != "qwen3_vl":
        raise ValueError(f"'{config_file}' describes a '{kind}' model; Robometer's own file describes a 'qwen3_vl'")
    path = folder / "config.yaml"
    if not path.is_file():
        return {}
    try:
        settings = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("model") or {}
    except (yaml.YAMLError, AttributeError) as error:
        raise ValueError(f"'{path}' cannot be read: {error}") from error
    for key, value in (("use_per_frame_progress_token", True), ("progress_loss_type", "discrete")):
        if settings.get(key, value) != value:
            raise ValueError(f"'{path}': model.{key} is {settings[key]!r}; only {value!r} can be read here")
    return settings


def _no_robometer(folder: Path, what: str) -> str:
    return (
        f"'{folder}' holds {what}, not a Robometer; give Robometer's weights (robometer/Robometer-4B), or use an LRM "
        "with mode completion, progress, contrastive or tri"
    )


def _processor(folder: Path, base: str) -> Any:
    """Return the folder's processor or else the base model's, with the special tokens."""
    own = has_processor(folder)
    try:
        place = folder if own else find_model(base)
        processor = load_processor(place)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"'{folder}' has no usable processor and that of its base model is not here ({error}); copy "
            f"tokenizer*.json, *processor_config.json and chat_template.* of '{base}' into it"
        ) from error
    known = processor.tokenizer.get_vocab()
    processor.tokenizer.add_tokens([token for token in SPECIAL_TOKENS if token not in known], special_tokens=True)
    processor.tokenizer.padding_side = "right"  # as trained
    return processor


def _check_vocabulary(folder: Path, tokenizer: Any, rows: int) -> int:
    """Return the progress token's id after a check that the special tokens are the last rows of the embedding."""
    found = tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS))
    if found != list(range(rows - len(SPECIAL_TOKENS), rows)):
        raise ValueError(
            f"'{folder}': the embedding has {rows} rows, so the special tokens must be {rows - len(SPECIAL_TOKENS)} to "
            f"{rows - 1}, but the tokenizer has them at {found}; use the base model's own tokenizer files"
        )
    return found[-1]


def _head_shapes(files: dict[str, Stored], size: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the heads' weights on hidden states of a size; progress has as many values as it has."""
    final = files.get("progress_head.4.weight")
    found: dict[str, tuple[int, ...]] = {"frame_pool_attn.weight": (1, size)}
    for head in HEADS:
        out = final.shape[0] if head == "progress_head" and final is not None and final.shape else 1
        for layer, shape in zip(
            _LAYERS, ((size // 2, size), *[(size // 2,)] * 3, (out, size // 2), (out,)), strict=True
        ):
            found[f"{head}.{layer}"] = shape
    return found


def _head(files: dict[str, Stored], head: str, activation: str) -> Any:
    """Return a head with its weights; their shapes give its sizes."""
    from safetensors import safe_open
    from torch import nn

    weights = {}
    for layer in _LAYERS:
        key = f"{head}.{layer}"
        with safe_open(files[key].file, framework="pt") as file:
            weights[layer] = file.get_tensor(key)
    (middle, size), (out, _) = weights["0.weight"].shape, weights["4.weight"].shape
    between = nn.GELU() if activation == "gelu" else nn.SiLU()
    module = nn.Sequential(
        nn.Linear(size, middle), nn.LayerNorm(middle), between, nn.Dropout(0.1), nn.Linear(middle, out)
    )
    module.load_state_dict(weights)
    return module
