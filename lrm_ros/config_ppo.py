# SPDX-License-Identifier: Apache-2.0
"""The settings of proximal policy optimisation; ``config.py`` has all others and names these, too."""

from __future__ import annotations

from dataclasses import dataclass

from lrm_ros.config_files import option as _opt


@dataclass(frozen=True)
class PpoConfig:
    """Proximal policy optimisation; the defaults are upstream's (Large-Reward-Models:config/*.yaml, pi0.5)."""

    gamma: float = _opt(0.99, "discount a decision (one chunk of actions)")
    lam: float = _opt(0.95, "GAE: weight of longer sums")
    epochs: int = _opt(2, "times the experience of an iteration is gone through")
    batch_size: int = _opt(24, "decisions an optimiser step")
    micro_batch: int = _opt(24, "of which so many at once in memory")
    lr: float = _opt(2.5e-6, "learning rate of the policy")
    value_lr: float = _opt(5e-5, "learning rate of the critic")
    clip_low: float = _opt(0.1, "the ratio counts down to 1 - this")
    clip_high: float = _opt(0.1, "the ratio counts up to 1 + this")
    dual_clip: float = _opt(3.0, "bound on the loss of a bad decision, in advantages")
    value_clip: float = _opt(0.2, "the critic gains nothing by moving further than this")
    value_weight: float = _opt(1.0, "weight of the critic's loss")
    huber_delta: float = _opt(10.0, "errors of the critic beyond this count linearly")
    kl_beta: float = _opt(0.05, "weight of the divergence from the policy before refinement")
    entropy_bonus: float = _opt(5e-4, "weight of the entropy")
    normalise: bool = _opt(True, "advantages of an iteration get mean 0 and deviation 1")
    max_gradient: float = _opt(0.3, "gradients are clipped to this norm")
    target_kl: float = _opt(0.0, "leave the policy once it has moved by more in an update; 0: never")
    critic_warmup: int = _opt(0, "iterations in which only the critic learns")

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
