# SPDX-License-Identifier: Apache-2.0
"""The settings of a refinement in simulation: ``lrm ppo`` and the refiner node."""

from __future__ import annotations

from dataclasses import dataclass, field

from lrm_ros.config import MIN_MASS, MIN_MASS_HELP, READOUT, READOUTS, RewardConfig
from lrm_ros.config_files import option as _opt
from lrm_ros.config_ppo import PpoConfig


@dataclass(frozen=True)
class RefineConfig:
    """Refinement of a policy in simulated worlds by PPO (paper IV-B)."""

    checkpoint: str = _opt("", "folder of the policy to refine")
    run: str = _opt("runs/refine", "run folder; an interrupted run is resumed")
    reward: str = _opt("tri", "env, contrastive, progress, completion, tri, roboreward, robometer or topreward")
    model: str = _opt(RewardConfig.model, "reward model: 'tiny', a folder, or a Hugging Face name")
    baseline: str = _opt(
        "", "folder or Hugging Face name of the baseline's weights; needed by rewards roboreward, robometer, topreward"
    )
    iterations: int = _opt(30, "PPO iterations")
    worlds: int = _opt(12, "simulated worlds")
    group: int = _opt(
        1, "so many worlds start from the same poses; the others' mean is a baseline. 1: the critic alone"
    )
    steps: int = _opt(80, "control steps of each world in an iteration")
    max_steps: int = _opt(40, "control steps after which an episode is truncated")
    execute_steps: int = _opt(8, "actions executed of every chunk; one decision")
    interval: int = _opt(10, "the reward model judges every K-th control step; the value is held in between")
    scale: float = _opt(1.0, "factor on the reward model's rewards")
    weights: tuple[float, ...] = _opt(RewardConfig.weights, "tri: weights of contrastive, progress, completion")
    readout: str = _opt("forward", READOUT, choices=READOUTS)
    min_mass: float = _opt(MIN_MASS, MIN_MASS_HELP, 0.0, 1.0)
    contrastive: str = _opt("expectation", "p(B) - p(A), or its 'sign' (paper eq. 2)", choices=("expectation", "sign"))
    completion: str = _opt(
        "expectation", "p(done), or 'binary': 1 from 0.5 on (paper eq. 4)", choices=("expectation", "binary")
    )
    shaped: bool = _opt(False, "progress only: reward the change since the last judged frame, instead of holding it")
    initial_image: bool = _opt(False, "progress queries show the first frame of the episode, too (paper eq. 3)")
    both_orders: bool = _opt(False, "contrastive queries are asked in both orders; half the difference of the answers")
    noise_std: float = _opt(0.04, "ACT: std of the exploration noise on joint targets [rad]")
    noise_rank: int = _opt(1, "ACT: cosines of the noise over a chunk; 1: an offset, execute_steps: white noise")
    hold_noise: bool = _opt(True, "sample the noise once an episode; false: for every decision")
    learn_std: bool = _opt(False, "ACT: train the std, too")
    flow_steps: int = _opt(4, "SmolVLA, pi0, pi0.5: steps of the sampler, in the result as well; 0: the policy's own")
    flow_noise: float = _opt(0.5, "SmolVLA, pi0, pi0.5: noise level of Flow-SDE")
    flow_single: bool = _opt(True, "SmolVLA, pi0, pi0.5: noise in one step of a chain, drawn for each; false: in all")
    diffusion_steps: int = _opt(5, "diffusion policy: DDIM steps, in the result as well; 0: the policy's own number")
    diffusion_eta: float = _opt(1.0, "diffusion policy: share of DDPM's noise in a DDIM step")
    diffusion_std: float = _opt(0.1, "diffusion policy: smallest std of a step, for actions scaled to [-1, 1]")
    train: str = _opt("all", "trained part: all of the policy, its decoder with the head, or the head alone")
    save_every: int = _opt(10, "iterations between two checkpoints and film strips")
    seed: int = _opt(0, "seed of everything, 0 to 99")
    processes: int = _opt(0, "worker processes or Ray actors of the worlds; 0: one per core, here or of the cluster")
    ray: str = _opt("", "simulate on a Ray cluster: 'auto', 'local' or ray://HOST:PORT; empty: on this machine")
    device: str = _opt("auto", "torch device of the reward model")
    tensorboard: bool = _opt(False, "write TensorBoard events, too")
    ppo: PpoConfig = field(default_factory=PpoConfig, metadata={"help": "the update"})
