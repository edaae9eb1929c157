# SPDX-License-Identifier: Apache-2.0
"""Load the actor for a checkpoint, by the type of its policy."""

from __future__ import annotations

import json
from pathlib import Path

from lrm_ros.config import RobotContract
from lrm_ros.config_refine import RefineConfig
from lrm_ros.training.ppo.actors.act import ActActor
from lrm_ros.training.ppo.actors.diffusion import DiffusionActor
from lrm_ros.training.ppo.actors.flow import ENCODERS, FlowActor


def load_actor(config: RefineConfig, contract: RobotContract) -> ActActor | FlowActor | DiffusionActor:
    """Load the policy that ``config.checkpoint`` holds as an actor of its kind.

    Raises:
        ValueError: no actor is built for this policy, or a setting does not fit it; or see ``PolicyRunner``.
    """
    path = Path(config.checkpoint) / "config.json"
    kind = (
        json.loads(path.read_text(encoding="utf-8"))["type"] if path.is_file() else ""
    )  # without one the policy's loader raises
    if kind != "diffusion" and kind not in ENCODERS:
        return ActActor(
            config.checkpoint, contract, config.execute_steps, config.noise_std, config.noise_rank, config.learn_std,
            config.seed,
        )  # fmt: skip
    if config.learn_std:
        raise ValueError(f"learn_std is for ACT; the noise of a {kind} policy is that of its sampler")
    if kind == "diffusion":
        return DiffusionActor(
            config.checkpoint, contract, config.execute_steps, config.diffusion_steps, config.diffusion_eta,
            config.diffusion_std, config.seed,
        )  # fmt: skip
    return FlowActor(
        config.checkpoint, contract, config.execute_steps, config.flow_steps, config.flow_noise, config.flow_single,
        config.seed,
    )  # fmt: skip


def load_eval_actor(
    checkpoint: str | Path, contract: RobotContract, execute_steps: int, noise_std: float
) -> ActActor | FlowActor | DiffusionActor:
    """Load a policy for evaluation, with the steps of its own sampler if it has one.

    Args:
        checkpoint: folder of a policy that can be refined.
        contract: the robot at hand.
        execute_steps: actions executed of every chunk.
        noise_std: ACT: standard deviation of its noise [rad]; 0 if no noise will be drawn.
    """
    return load_actor(
        RefineConfig(
            checkpoint=str(checkpoint),
            execute_steps=execute_steps,
            noise_std=noise_std or 1.0,
            flow_steps=0,
            diffusion_steps=0,
        ),
        contract,
    )
