# SPDX-License-Identifier: Apache-2.0
"""Every default of the stack, once. YAML files, ROS parameters and the command line all read these dataclasses.

Field metadata: ``help`` is the parameter description in ROS and the option help on the command line, ``range`` the
smallest and the largest value, ``choices`` are the values that the command line takes, ``option`` is the name there if
it is not the field's. A node's field is ``fixed`` if it takes effect only when the node is configured; the node refuses
to change it before it is cleaned up. Unknown keys are errors that name the key and the nearest valid one.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from typing import Any

from lrm_ros import seeds
from lrm_ros.config_camera import PIXELS, transport_option
from lrm_ros.config_camera import CameraConfig as CameraConfig
from lrm_ros.config_camera import camera_names as camera_names
from lrm_ros.config_files import option as _opt
from lrm_ros.config_ppo import PpoConfig as PpoConfig
from lrm_ros.config_teleop import TeleopConfig as TeleopConfig

SEED = (0, seeds.LIMIT - 1)
COUNT = (1, 1_000_000)
COUNT_OR_NONE = (0, 1_000_000)
SECONDS = (0.01, 3600.0)
CONTROL_HZ = (0.001, 1000.0)
MOST_JOINTS, MOST_CAMERAS = 256, 64
READOUTS = ("forward", "reason", "generate")  # ways to read an answer from a reward model
READOUT = "'forward' (one pass: probabilities of the answers), 'reason' (write first, then read them) or 'generate'"
MIN_MASS = 0.05  # docs/reward_models.md says what was measured
MIN_MASS_HELP = "an answer is unscored when all that the head can answer has less probability together"


def _fix(*default_help_range: Any) -> Any:
    """Return a field that takes effect when the node is configured; it is refused at run time."""
    return _opt(*default_help_range, fixed=True)


def _stated(default: Any, help: str, low: float | None = None, high: float | None = None) -> Any:
    """Return a field of the robot contract: its files say it, for a default there would be another robot's."""
    return _opt(default, help, low, high, stated="config/so101.yaml")


@dataclass(frozen=True)
class CameraSpec:
    """What a camera must deliver; part of the robot contract."""

    name: str = _stated("front", "camera name; its topics are NAME/image_raw and NAME/camera_info")
    width: int = _stated(96, "image width [pixels]")
    height: int = _stated(96, "image height [pixels]")

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z_]\w*", self.name, re.ASCII):
            cure = re.sub(r"\W", "_", self.name, flags=re.ASCII) or "front"
            raise ValueError(
                f"camera name {self.name!r} cannot be a topic of ROS and a feature of LeRobot: it must have letters, "
                f"digits and '_' alone and begin with no digit, e.g. {'_' * cure[0].isdigit() + cure!r}"
            )
        least, most = PIXELS
        if min(self.width, self.height) < least or max(self.width, self.height) > most:
            raise ValueError(
                f"camera '{self.name}' has {self.width}x{self.height} pixels; give what it delivers, from {least} to "
                f"{most} a side"
            )


@dataclass(frozen=True)
class RobotContract:
    """What policy, recorder and arm must agree on. Copied into every data set and checkpoint.

    The default is the SO-100 arm and its twin (ManiSkill's so100.urdf: joint order and limits [rad]). With ``lower``,
    ``upper`` and ``max_step`` all empty limits and units are unknown, as in what LeRobot records: no arm moves by it.
    A file says every key; what it lacks is not taken from the default.
    """

    name: str = _stated("so100", "robot type")
    joints: tuple[str, ...] = _stated(
        ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"),
        "joint names in the order of states and actions",
    )
    lower: tuple[float, ...] = _stated((-2.0, -1.5708, -1.5708, -1.8, -3.1416, -1.1), "lower joint limits [rad]")
    upper: tuple[float, ...] = _stated((2.0, 1.5708, 1.5708, 1.8, 3.1416, 1.1), "upper joint limits [rad]")
    max_step: tuple[float, ...] = _stated((0.3, 0.3, 0.3, 0.3, 0.4, 1.0), "largest change of a target in a step [rad]")
    cameras: tuple[CameraSpec, ...] = _stated((CameraSpec(),), "cameras, in the order of the policy's inputs")
    control_hz: float = _stated(10.0, "control rate [Hz]")

    def __post_init__(self) -> None:
        for what, count, least, most in (
            ("joints", len(self.joints), 1, MOST_JOINTS),
            ("cameras", len(self.cameras), 0, MOST_CAMERAS),
        ):
            if not least <= count <= most:
                raise ValueError(f"contract '{self.name}': it has {count} {what}; give {least} to {most}")
        for what, names in (("joint", self.joints), ("camera", [camera.name for camera in self.cameras])):
            if twice := sorted({name for name in names if list(names).count(name) > 1}):
                raise ValueError(f"contract '{self.name}': {what} name {twice[0]!r} is there twice; give each its own")
        if unnamed := [k for k, joint in enumerate(self.joints) if not (joint.strip() and joint.isprintable())]:
            name = self.joints[unnamed[0]]
            raise ValueError(f"contract '{self.name}': joint {unnamed[0]} has the name {name!r}; see joint_states")
        for name in ("lower", "upper", "max_step"):
            if self.lower + self.upper + self.max_step and (count := len(getattr(self, name))) != len(self.joints):
                raise ValueError(f"contract '{self.name}': {name} has {count} values for {len(self.joints)} joints")
        for joint, low, high in zip(self.joints, self.lower, self.upper, strict=self.has_limits):
            if not -math.inf < low < high < math.inf:
                wrong = (
                    f"lower {low} >= upper {high}" if low >= high else f"limits {low} to {high}; give finite numbers"
                )
                raise ValueError(f"contract '{self.name}': joint '{joint}' has {wrong}")
        for joint, step in zip(self.joints, self.max_step, strict=self.has_limits):
            if not 0 < step < math.inf:
                cure = "give a finite number above 0, the largest change of its target in a control step"
                raise ValueError(f"contract '{self.name}': joint '{joint}' has max_step {step}; {cure}")
        low, high = CONTROL_HZ
        if not low <= self.control_hz <= high:
            raise ValueError(
                f"contract '{self.name}': control_hz must be positive, from {low:g} to {high:g}, got {self.control_hz}"
            )

    @property
    def dt_s(self) -> float:
        """Time between two control steps [s]."""
        return 1.0 / self.control_hz

    @property
    def has_limits(self) -> bool:
        """Whether limits and units (rad) are known."""
        return bool(self.lower)


@dataclass(frozen=True)
class RewardConfig:
    """The reward node, the judge and the engine behind them."""

    model: str = _fix("tiny", "'tiny', a folder, a Hugging Face name, or 'fake'")
    mode: str = _opt(
        "completion", "contrastive, progress, completion, tri, or roboreward, robometer, topreward (their own model)"
    )
    camera: str = _fix(
        "front", "camera whose frames are judged; several, separated by commas: the mean of their answers"
    )
    image_transport: str = transport_option()
    readout: str = _opt("forward", READOUT, choices=READOUTS)
    min_mass: float = _fix(MIN_MASS, MIN_MASS_HELP, 0.0, 1.0)
    interval: int = _opt(10, "judge every K-th frame and hold the value in between (paper eq. 8)", *COUNT)
    scale: float = _opt(1.0, "factor on the published reward (paper eq. 8)", -1e6, 1e6)
    weights: tuple[float, ...] = _opt((1 / 3, 1 / 3, 1 / 3), "tri: weights of contrastive, progress, completion")
    initial_image: bool = _opt(False, "progress: show the first frame of the episode as an anchor")
    contrastive: str = _opt("expectation", "p(B) - p(A), or its 'sign' (paper eq. 2)", choices=("expectation", "sign"))
    both_orders: bool = _opt(False, "contrastive: ask in both orders, half the difference counts: equal frames get 0")
    completion: str = _opt(
        "expectation", "p(done), or 'binary': 1 from 0.5 on (paper eq. 4)", choices=("expectation", "binary")
    )
    judge_frames: int = _opt(4, "judge an episode by the mean p(done) of its last frames", *COUNT)
    judge_threshold: float = _opt(0.5, "keep an episode when that mean is at least this", 0.0, 1.0)
    device: str = _fix("auto", "torch device; 'auto' takes the GPU when there is one")
    worlds: int = _fix(
        0,
        "answer queries about the frames of so many simulated worlds; 0: judge one camera as it comes",
        *COUNT_OR_NONE,
    )
    realtime: bool = _fix(
        True, "judge the newest frame while others come; false: judge all that are due, for a twin in lock-step"
    )

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras whose frames are judged; the first one's stamps are those of the answers."""
        return camera_names(self.camera)


@dataclass(frozen=True)
class PolicyConfig:
    """The policy node."""

    checkpoint: str = _opt("", "folder of a LeRobot policy with its processors (empty: wait for one)")
    execute_steps: int = _opt(8, "actions executed of every predicted chunk", *COUNT)
    explore_std: float = _opt(0.0, "std of the gripper's sideways offset, drawn once an episode [m]; 0: off", 0.0, 1.0)
    explore_hold_s: float = _opt(2.2, "full offset from the episode's start for this long [s]", 0.0, 3600.0)
    explore_fade_s: float = _opt(0.5, "time in which the offset then fades to zero [s]", 0.0, 3600.0)
    seed: int = _opt(0, "seed of the exploration offsets", *SEED)
    timeout_s: float = _fix(0.5, "hold when camera or joint state is older than this (real time only) [s]", *SECONDS)
    realtime: bool = _fix(True, "act at the control rate; false: in lock-step with the twin, like its own 'realtime'")
    device: str = _opt("cpu", "torch device")
    image_transport: str = transport_option()
    units: str = _opt("", "'rad': so a checkpoint without contract has its joints, in our order", choices=("", "rad"))


@dataclass(frozen=True)
class FinetuneConfig:
    """A training of a policy on episodes: ``lrm finetune``."""

    steps: int = field(metadata={"help": "optimiser steps"})
    init: str | None = _opt(None, "checkpoint to start from; its normalisation statistics are kept")
    seed: int = _opt(0, "seed of initial weights and batches")
    lr: float | None = _opt(None, "(peak) learning rate; none: the policy's preset")
    batch_size: int = _opt(32, "batch size")
    schedule: str = _opt(
        "cosine", "'cosine' (to a hundredth of lr) or 'constant', after the warm-up", choices=("cosine", "constant")
    )
    warmup: int = _opt(100, "steps of the linear warmup, at most a tenth of all steps")
    weights: tuple[float, ...] | None = _opt(
        None, "share of each data set in a batch, in their order; none: every step is equally likely", option="weight"
    )
    label: str = _opt(
        "action", "'action' (sent to the arm) or 'wish' (before exploration and limits)", choices=("action", "wish")
    )
    colour: float = _opt(0.0, "strength of the random hue jitter of the images; 0: off")
    state_noise: float = _opt(0.0, "std of the noise on the joint states in training [rad]; 0: off")
    policy: str = _opt("act_small", "LeRobot policy type of a new policy")
    options: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "fields of the policy's configuration that differ from its defaults"}
    )
    checkpoint_every: int = _opt(500, "steps between two checkpoints; 0: none")
    corrections: float | None = _opt(
        None,
        "of data sets with column 'intervention' only the steps in which a person led, each so many times as likely as "
        "a step of the others (HG-DAgger); none: all steps alike",
    )

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size) < 1:
            raise ValueError(f"steps and batch_size must be at least 1, got {self.steps} and {self.batch_size}")
        if self.corrections is not None and not 0 < self.corrections < float("inf"):
            raise ValueError(f"corrections is {self.corrections}; give a finite weight above 0")
        if self.weights is not None and self.corrections not in (None, 1.0):
            raise ValueError(
                f"corrections {self.corrections:g} counts nothing beside the share of each data set; give corrections "
                "1 and a larger share (--weight), or no shares"
            )
        for option in fields(self):
            choices, value = option.metadata.get("choices"), getattr(self, option.name)
            if choices and value not in choices:
                raise ValueError(f"{option.name} must be {' or '.join(map(repr, choices))}, got {value!r}")


@dataclass(frozen=True)
class RecorderConfig:
    """The recorder node."""

    folder: str = _opt("runs/recordings/episodes", "where journals are written")
    image_format: str = _opt("jpeg", "'jpeg', 'png' (lossless) or 'raw'", choices=("jpeg", "png", "raw"))
    image_transport: str = transport_option()
    jpeg_quality: int = _opt(95, "JPEG quality, 1 to 100", 1, 100)
    min_free_mb: int = _opt(200, "refuse to start an episode with less free disk than this [MB]", 0, 10**12)
    realtime: bool = _fix(True, "inputs must keep coming; false: in lock-step with the twin, like its own 'realtime'")
    reward_s: float = _opt(
        5.0, "how long the end waits for a reward node's answer about the last frame [s]", 0.0, 600.0
    )


@dataclass(frozen=True)
class TwinConfig:
    """The twin node: a ManiSkill world that speaks the robot's topics."""

    task: str = _fix("PlaceToyInBowl-v1", "ManiSkill task")
    seed: int = _opt(0, "seed of the next reset", *SEED)
    realtime: bool = _opt(True, "step at the control rate; false: lock-step with the commands, as fast as possible")
    frame_every: int = _opt(
        1, "publish a frame every N control steps; 0: in lock-step one a command, else one a step", *COUNT_OR_NONE
    )
    max_steps: int = _opt(
        0, "lock-step: execute no more than this many steps between resets; 0: no limit", *COUNT_OR_NONE
    )
    disturbance_std: float = _opt(
        0.0, "std of noise on the executed arm targets, not on 'joint_command_sent' [rad]", 0.0, 10.0
    )


@dataclass(frozen=True)
class WorldsConfig:
    """The worlds node: many twins in lock-step with a learner. The refiner node sets all of it."""

    task: str = _fix(TwinConfig.task, "ManiSkill task")
    worlds: int = _fix(12, "simulated worlds", *COUNT)
    processes: int = _fix(
        0, "worker processes or Ray actors of the worlds; 0: one per core, here or of the cluster", *COUNT_OR_NONE
    )
    ray: str = _fix("", "simulate on a Ray cluster: 'auto', 'local' or ray://HOST:PORT; empty: on this machine")
    execute_steps: int = _fix(8, "maximum number of actions in a command", *COUNT)
    max_steps: int = _fix(40, "control steps after which an episode is truncated", *COUNT)
    stop_at_success: bool = _fix(False, "end an episode when the simulator says the task is done")
    judge_every: int = _fix(
        10, "publish every K-th frame of an episode for the reward model; 0: only its last one", *COUNT_OR_NONE
    )


@dataclass(frozen=True)
class RefinerConfig:
    """The refiner node: what ``lrm ppo`` does, through the nodes."""

    checkpoint: str = _fix("", "folder of the policy to refine")
    run: str = _fix("runs/refine", "run folder; an interrupted run is resumed")
    config: str = _fix("", "YAML file of all settings (RefineConfig), e.g. config/ppo_twin.yaml")
    reward: str = _fix("", "reward, as for lrm ppo; empty: that of the settings")
    settings: str = _fix("", "more settings: NAME=VALUE, separated by spaces, e.g. worlds=24 ppo.lr=1e-5")


@dataclass(frozen=True)
class ImproverConfig:
    """The improver node: the self-improvement loop (paper IV-C)."""

    run: str = _fix("runs/demo", "run folder; an interrupted run is resumed")
    iterations: int = _fix(2, "self-improvement iterations, at most 9", 0, seeds.ITERATIONS - 1)
    demonstrations: int = _fix(20, "demonstrations the policy starts from", *COUNT)
    disturbance: float = _fix(0.02, "std of the actuation noise of the twin during demonstrations [rad]", 0.0, 10.0)
    episodes: int = _fix(80, "start poses to roll out in each iteration", *COUNT)
    tries: int = _fix(4, "attempts at a start pose until the judge keeps one", *COUNT)
    explore_std: float = _fix(0.02, "std of the gripper's sideways offset, drawn for each rollout [m]", 0.0, 1.0)
    rollout_steps: int = _fix(40, "control steps after which a rollout ends (a success takes about 30)", *COUNT)
    max_steps: int = _fix(60, "control steps after which an evaluated episode ends", *COUNT)
    sft_steps: int = _fix(1500, "training steps on the demonstrations", *COUNT)
    finetune_steps: int = _fix(2000, "training steps an iteration", *COUNT)
    learning_rate: float = _fix(5e-4, "peak learning rate of every training", 0.0, 1.0)
    batch_size: int = _fix(16, "batch size of every training", *COUNT)
    colour: float = _fix(1.0, "strength of the random hue jitter of training images", 0.0, 10.0)
    state_noise: float = _fix(0.1, "std of the noise on the joint states in training [rad]", 0.0, 10.0)
    eval_episodes: int = _fix(200, "held-out seeds of the evaluation", *COUNT)
    eval_seed: int = _fix(seeds.HELD_OUT.first + 1000, "first held-out seed; used by the final evaluation only", *SEED)
    seed: int = _fix(FinetuneConfig.seed, "seed of everything, 0 to 99", 0, 99)
    model: str = _fix(RewardConfig.model, "reward model of the judge; the reward node's is asked if it is the same")
    judge_camera: str = _fix(
        "", "camera whose frames are judged; several, separated by commas: the mean of their answers; empty: the first"
    )
    judge_frames: int = _fix(
        RewardConfig.judge_frames, "judge an episode by the mean p(done) of its last frames", *COUNT
    )
    judge_threshold: float = _fix(
        RewardConfig.judge_threshold, "keep an episode when that mean is at least this", 0.0, 1.0
    )


@dataclass(frozen=True)
class EvaluatorConfig:
    """The evaluator node: success on fixed seeds, by the simulator's truth."""

    checkpoint: str = _opt("", "folder of the policy to evaluate")
    file: str = _opt("", "JSON file of the result")
    once: bool = _fix(False, "evaluate at the start, then exit")
    first_seed: int = _opt(seeds.HELD_OUT.first, "first seed", *SEED)
    episodes: int = _opt(200, "number of seeds, one episode each", *COUNT)
    max_steps: int = _opt(60, "control steps after which an episode ends", *COUNT)
