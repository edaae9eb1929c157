# SPDX-License-Identifier: Apache-2.0
"""The LeRobot policy that ``lrm finetune`` trains, new or from a checkpoint, and its learning rate schedule."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from pathlib import Path
from typing import Any

from lrm_ros.config import FinetuneConfig
from lrm_ros.training.policy.batches import TrainingData
from lrm_ros.versions import load_policy_config


def load_or_create(data: TrainingData, settings: FinetuneConfig, source: str | Path | None) -> tuple[Any, Any, Any]:
    """Return policy, pre-processor and post-processor: loaded from ``source``, or new for the data.

    Args:
        data: what is to be trained on; tells a new policy its inputs, its outputs and their normalisation.
        settings: of the training; ``policy``, ``options`` and ``lr`` count.
        source: checkpoint to start from.

    Raises:
        ValueError: an unknown type or field, a policy other than diffusion that looks at more than the present, or its
            first weights cannot be fetched.
    """
    from lerobot.configs.policies import PreTrainedConfig
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    contract = data.contract
    if source is not None:
        config = load_policy_config(source)
        for key, value in _options(config.type, type(config), settings.options).items():
            setattr(config, key, value)
    else:
        known = PreTrainedConfig.get_known_choices()
        kind = settings.policy
        if kind not in known:
            raise ValueError(f"policy '{kind}' is unknown; LeRobot and this package have {', '.join(sorted(known))}")
        config = known[kind](**_options(kind, known[kind], settings.options))
        joints = (len(contract.joints),)
        config.input_features = {"observation.state": PolicyFeature(FeatureType.STATE, joints)}
        for camera in contract.cameras:
            size = (3, camera.height, camera.width)
            config.input_features[f"observation.images.{camera.name}"] = PolicyFeature(FeatureType.VISUAL, size)
        config.output_features = {"action": PolicyFeature(FeatureType.ACTION, joints)}
    if settings.lr is not None:
        config.optimizer_lr = settings.lr
        if hasattr(config, "optimizer_lr_backbone"):  # ACT's second parameter group
            config.optimizer_lr_backbone = settings.lr
    if config.type != "diffusion" and has_time_axis(config) and list(config.observation_delta_indices) != [0]:
        raise ValueError(
            f"policy '{config.type}' looks at {len(config.observation_delta_indices)} control steps, which only"
            " diffusion can here; set its n_obs_steps to 1 (--options '{\"n_obs_steps\": 1}')"
        )
    policy_class = get_policy_class(config.type)
    if source is not None:
        policy = policy_class.from_pretrained(source, config=config, strict=True)
        return policy, *make_pre_post_processors(config, pretrained_path=str(source))
    try:
        policy = policy_class(config).to(config.device)
    except OSError as error:
        raise ValueError(
            f"policy '{config.type}' cannot be made ({error}); it begins with weights from the network: connect, or"
            " turn that off where the policy can do without (--options '{\"pretrained_backbone_weights\": null}')"
        ) from error
    return policy, *make_pre_post_processors(config, dataset_stats=data.statistics())


def _options(kind: str, config: type, options: dict[str, Any]) -> dict[str, Any]:
    """Return JSON values in the types of a policy's configuration: a list is a tuple where a tuple is declared.

    Raises:
        ValueError: the configuration lacks a field (names the nearest one), or a value is not of its type.
    """
    import draccus

    fields = [field.name for field in dataclasses.fields(config) if field.init]
    types, found = typing.get_type_hints(config), {}
    for name, value in options.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            cure = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(fields)}"
            raise ValueError(f"policy '{kind}' has no option '{name}'; {cure}")
        try:
            found[name] = draccus.decode(types[name], value)
        except Exception as error:  # draccus raises several, also plain ones
            raise ValueError(f"policy '{kind}' takes no {name} = {value!r}; give {types[name]}") from error
    return found


def lr_schedule(settings: FinetuneConfig, lr: float) -> Any:
    """Return LeRobot's schedule configuration."""
    from lerobot.optim.schedulers import CosineDecayWithWarmupSchedulerConfig

    last = lr / 100 if settings.schedule == "cosine" else lr
    warmup = min(settings.warmup, settings.steps // 10)
    return CosineDecayWithWarmupSchedulerConfig(warmup, settings.steps, peak_lr=lr, decay_lr=last)


def has_time_axis(config: Any) -> bool:
    """Return whether a policy takes observations with a time axis (B, T, ...), as LeRobot gives them to it."""
    return config.observation_delta_indices is not None
