# SPDX-License-Identifier: Apache-2.0
"""Tiny LeRobot policies that denoise, of the true classes, for the tests of their actors: flows and diffusion."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from episodes import square_episodes  # type: ignore[import-not-found]

from lrm_ros.config import RobotContract
from lrm_ros.config_refine import RefineConfig
from lrm_ros.contract import save_contract
from lrm_ros.training.policy.batches import TrainingData
from lrm_ros.types import Frame, Observation
from lrm_ros.versions import at_least

CONTRACT, JOINTS = RobotContract(), 6


def observation(light: int = 100, pan: float = 0.0, task: str = "put the toy in the bowl") -> Observation:
    image = np.full((96, 96, 3), light, np.uint8)
    image[:48, :48] = 255 - light
    frame = Frame(0, "front", image)
    return Observation(0, {"front": frame}, np.array([pan, -1.2, 1.1, 1.2, 0, 0.2], np.float32), task)


SEEN = [observation(100), observation(30, 0.4, "push it"), observation(200, -0.4)]


def save(policy: Any, data: TrainingData, folder: Path) -> Path:
    """Write a policy as LeRobot does, with its processors and the robot contract."""
    from lerobot.policies.factory import make_pre_post_processors

    policy.save_pretrained(folder)
    for processor in make_pre_post_processors(policy.config, dataset_stats=data.statistics()):
        processor.save_pretrained(folder)
    save_contract(CONTRACT, folder)
    return folder


def sees_and_says(config: Any) -> Any:
    """Set what a policy sees and says to those of the contract."""
    from lerobot.configs.types import FeatureType, PolicyFeature

    config.input_features = {
        "observation.state": PolicyFeature(FeatureType.STATE, (JOINTS,)),
        "observation.images.front": PolicyFeature(FeatureType.VISUAL, (3, 96, 96)),
    }
    config.output_features = {"action": PolicyFeature(FeatureType.ACTION, (JOINTS,))}
    return config


def diffusion_folder(folder: Path, steps: int = 5, **options: Any) -> Path:
    """A diffusion policy after a few training steps."""
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
    from lerobot.policies.factory import make_pre_post_processors

    torch.manual_seed(0)
    small: dict[str, Any] = {
        "n_obs_steps": 1, "horizon": 16, "n_action_steps": 8, "down_dims": (16, 32), "diffusion_step_embed_dim": 16,
        "spatial_softmax_num_keypoints": 4, "resize_shape": (32, 32), "num_train_timesteps": 20, "device": "cpu",
        "pretrained_backbone_weights": None, "use_group_norm": True, "use_separate_rgb_encoder_per_camera": False,
    }  # fmt: skip
    policy = DiffusionPolicy(sees_and_says(DiffusionConfig(**(small | options))))
    data = TrainingData([square_episodes(3)], CONTRACT)
    preprocess, _ = make_pre_post_processors(policy.config, dataset_stats=data.statistics())
    optimiser = torch.optim.Adam(policy.parameters(), lr=1e-3)
    for step in range(steps):
        batch = preprocess(data.batch(data.sample_indices(0, step, 8), policy.config.action_delta_indices))
        batch["observation.state"] = batch["observation.state"][:, None]  # (B, 1, D)
        loss, _ = policy.forward(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return save(policy, data, folder)


def language_model(folder: Path) -> Path:
    """A SmolVLM of a few thousand parameters: configuration and processor, as SmolVLA wants them.

    The processor is declared as SmolVLM's predecessor's: SmolVLM's own needs num2words to be created, and all that
    SmolVLA takes from it are two token numbers.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import Idefics3ImageProcessor, PreTrainedTokenizerFast, SmolVLMConfig

    specials = ["<pad>", "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(specials + letters)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        extra_special_tokens={"fake_image_token": specials[2], "global_image_token": specials[3]},
    ).save_pretrained(folder)
    Idefics3ImageProcessor().save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "Idefics3Processor"}))
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 64,
        "patch_size": 16,
    }  # fmt: skip
    text = {
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": len(vocabulary),
        "pad_token_id": 0,
    }  # fmt: skip
    SmolVLMConfig(vision_config=vision, text_config=text, image_token_id=1, pad_token_id=0).save_pretrained(folder)
    return folder


def smolvla_folder(folder: Path, **options: Any) -> Path:
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

    torch.manual_seed(0)
    model = language_model(folder / "vlm")
    small: dict[str, Any] = {
        "vlm_model_name": str(model), "num_vlm_layers": 2, "chunk_size": 10, "n_action_steps": 10, "max_state_dim": 8,
        "max_action_dim": 8, "resize_imgs_with_padding": (64, 64), "num_steps": 10, "device": "cpu",
    }  # fmt: skip
    policy = SmolVLAPolicy(sees_and_says(SmolVLAConfig(**(small | options))))
    return save(policy, TrainingData([square_episodes(3)], CONTRACT), folder / "policy")


def pi_folder(kind: str, folder: Path, monkeypatch: Any) -> Path:
    """pi0 or pi0.5: LeRobot has their sizes and their tokenizer in its code, and both are made small there."""
    model = import_module(f"lerobot.policies.{kind}.modeling_{kind}")
    processor = import_module(f"lerobot.policies.{kind}.processor_{kind}")
    configuration = import_module(f"lerobot.policies.{kind}.configuration_{kind}")
    names = ("PaliGemmaForConditionalGeneration", "GemmaForCausalLM")
    if at_least("lerobot", 0, 6):
        names = ("PaliGemmaForConditionalGenerationWithPiGemma", "PiGemmaForCausalLM")
    reader, expert, tokenizer = getattr(model, names[0]), getattr(model, names[1]), processor.TokenizerProcessorStep

    def small_reader(config: Any) -> Any:
        vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        config.vision_config.update(vision | {"patch_size": 14, "projection_dim": 32})
        config.text_config.vocab_size, config.projection_dim = 300, 32
        return reader(config=config)

    def small_expert(config: Any) -> Any:
        config.vocab_size = 300
        return expert(config=config)

    words = str(language_model(folder / "vlm"))
    monkeypatch.setattr(model, names[0], small_reader)
    monkeypatch.setattr(model, names[1], small_expert)
    monkeypatch.setattr(model, "get_gemma_config", lambda _: model.GemmaConfig(32, 2, 32, 2, 1, 16))
    monkeypatch.setattr(processor, "TokenizerProcessorStep", lambda **k: tokenizer(**(k | {"tokenizer_name": words})))
    torch.manual_seed(0)
    config = getattr(configuration, f"{kind.upper()}Config")(
        chunk_size=10, n_action_steps=10, max_state_dim=8, max_action_dim=8, image_resolution=(28, 28), device="cpu"
    )
    policy = getattr(model, f"{kind.upper()}Policy")(sees_and_says(config))
    return save(policy, TrainingData([square_episodes(3)], CONTRACT), folder / "policy")


def settings(checkpoint: Path, **values: Any) -> RefineConfig:
    return RefineConfig(checkpoint=str(checkpoint), **values)


def draw(actor: Any, n: int, seed: int = 0) -> torch.Tensor:
    return actor.noise.sample(n, torch.Generator().manual_seed(seed))
