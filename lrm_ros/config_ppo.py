# SPDX-License-Identifier: Apache-2.0
"""The settings of proximal policy optimisation; ``config.py`` has all others and names these, too."""

from __future__ import annotations

from dataclasses import dataclass

from lrm_ros.config_files import option as _opt


@dataclass(frozen=True)
class PpoConfig:
    """Proximal policy optimisation; the defaults are upstream's (Large-Reward-Models:config/*.yaml, pi0.5)."""

    gamma: float = _opt(0.99, "discount factor per decision (one chunk of actions)")
    lam: float = _opt(0.95, "lambda of GAE")
    epochs: int = _opt(2, "epochs over the rollout buffer of an iteration")
    batch_size: int = _opt(24, "minibatch: decisions per optimizer step")
    micro_batch: int = _opt(24, "decisions per forward pass; gradients are accumulated over the minibatch")
    lr: float = _opt(2.5e-6, "learning rate of the policy")
    value_lr: float = _opt(5e-5, "learning rate of the critic")
    clip_low: float = _opt(0.1, "lower clip range of the ratio: 1 - this")
    clip_high: float = _opt(0.1, "upper clip range of the ratio: 1 + this")
    dual_clip: float = _opt(3.0, "dual-clip bound of the loss for negative advantages, in advantages")
    value_clip: float = _opt(0.2, "clip range of the value loss")
    value_weight: float = _opt(1.0, "coefficient of the value loss")
    huber_delta: float = _opt(10.0, "delta of the Huber loss of the critic")
    kl_beta: float = _opt(0.05, "coefficient of the KL penalty to the policy before refinement")
    entropy_bonus: float = _opt(5e-4, "coefficient of the entropy bonus")
    normalise: bool = _opt(True, "normalise the advantages of an iteration")
    max_gradient: float = _opt(0.3, "maximum gradient norm")
    target_kl: float = _opt(0.0, "stop updating the policy at this approximate KL; 0: never")
    critic_warmup: int = _opt(0, "iterations that train the critic only")

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "micro_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"ppo.{name} is {getattr(self, name)}; give at least 1")
        for name in ("gamma", "lam", "clip_low"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"ppo.{name} is {getattr(self, name)}; give a number from 0 to 1")
        for name in (
            "lr",
            "value_lr",
            "clip_high",
            "value_clip",
            "value_weight",
            "target_kl",
            "kl_beta",
            "entropy_bonus",
        ):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"ppo.{name} is {getattr(self, name)}; give a finite number, at least 0")
        for name in ("huber_delta", "max_gradient"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"ppo.{name} is {getattr(self, name)}; give a finite number above 0")
        if not self.dual_clip >= 1:
            raise ValueError(f"ppo.dual_clip is {self.dual_clip}; give a number, at least 1")
