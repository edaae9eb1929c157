# SPDX-License-Identifier: Apache-2.0
"""A LeRobot policy with its saved processors: one observation in, one chunk of joint targets out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lrm_ros.checkpoint import check_robot, require_checkpoint
from lrm_ros.config import RobotContract
from lrm_ros.errors import one_line
from lrm_ros.scales import check_scales, check_weights
from lrm_ros.types import ActionChunk, Frame, Observation
from lrm_ros.versions import load_policy_config


class Policy(Protocol):
    """What the policy node and the evaluation need of a policy.

    Attributes:
        observed_steps: control steps that it looks at: the present one, and so many less one in ``Observation.before``.
    """

    observed_steps: int

    def act(self, observation: Observation) -> ActionChunk:
        """Return the targets to execute after an observation, before the next one is looked at."""
        ...

    def predict(
        self, observation: Observation, delay_steps: int = 0, running: tuple[int, int] | None = None
    ) -> ActionChunk:
        """Return all targets predicted after an observation, while the arm goes on with the chunk before.

        Args:
            observation: what is seen.
            delay_steps: control steps that pass until the answer is there.
            running: of the chunk that is executed: the stamp of the observation which it answers, and how much later
                its actions are due [ns]; ``None``: the arm stands.
        """
        ...

    def reset(self, seed: int | None = None) -> None:
        """Start a new episode; with a seed everything that is drawn in it follows from that."""
        ...


class PolicyRunner:
    """Any LeRobot policy from a ``pretrained_model`` folder, of ``lrm finetune`` or of ``lerobot-train``.

    Attributes:
        note: what was taken for granted of its joints, in one line; empty if a contract says it all.
        execute_steps: actions that :meth:`act` returns.
        observed_steps: see :class:`Policy`.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        contract: RobotContract,
        execute_steps: int | None = None,
        device: str = "cpu",
        units: str = "",
    ) -> None:
        """Load policy and processors and check that they were made for this robot.

        Args:
            checkpoint: the folder.
            contract: the robot at hand.
            execute_steps: actions to return of every predicted chunk; ``None``: the policy's own ``n_action_steps``.
            device: torch device.
            units: of a policy without a robot contract, see ``checkpoint.check_robot``.

        Raises:
            FileNotFoundError: the folder or one of its files is missing.
            ValueError: the checkpoint was made for other cameras, joints or another rate, or in other units, or nothing
                says which; its chunks are too short, it is damaged or of another LeRobot, or it cannot act on an
                observation of this robot.
        """
        folder = require_checkpoint(checkpoint)
        self.note = check_robot(folder, contract, units)
        self._contract, self._checkpoint = contract, checkpoint
        self._raw: tuple[int, Any] | None = None  # of the newest chunk: stamp and (1, K, D) normalised actions
        self._load(folder, execute_steps, device)
        with self._told("cannot act on an observation of this robot"):
            self._try()

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Turn whatever a library raises into one line that names the checkpoint.

        Raises:
            ValueError: in place of it.
        """
        try:
            yield
        except KeyboardInterrupt:  # a signal's
            raise
        except BaseException as error:  # SystemExit, and the panics of what is written in Rust
            raise ValueError(
                f"policy checkpoint '{self._checkpoint}' {what}: {one_line(error)}; copy it again, or train it with "
                "this LeRobot"
            ) from error

    def _load(self, folder: Path, execute_steps: int | None, device: str) -> None:
        """Load configuration, weights and processors; raises ValueError if they do not fit or do not load."""
        from lerobot.policies.factory import get_policy_class, make_pre_post_processors

        import lerobot_policy_act_small  # noqa: F401  registers the policy type with LeRobot

        contract, name = self._contract, f"policy checkpoint '{self._checkpoint}'"
        config = load_policy_config(folder)
        config.device = device
        joints = (len(contract.joints),)
        if config.action_feature is None or tuple(config.action_feature.shape) != joints:
            raise ValueError(f"{name} has actions {config.action_feature}, not of shape {joints}")
        if differences := _input_differences(config.input_features or {}, contract):
            raise ValueError(
                f"{name} expects other inputs than this robot has: {'; '.join(differences)}. Use a checkpoint of this"
                " robot, or train it on data sets with these names"
            )
        self.observed_steps = config.n_obs_steps
        if self.observed_steps != 1 and config.type != "diffusion":
            raise ValueError(
                f"{name} is a {config.type} that looks at the last {self.observed_steps} control steps; only diffusion"
                " policies can: train it with n_obs_steps = 1"
            )
        self.execute_steps = execute_steps or config.n_action_steps
        chunk = getattr(config, "chunk_size", config.n_action_steps)
        if not 1 <= self.execute_steps <= chunk:
            raise ValueError(f"{name} predicts {chunk} steps, execute_steps is {self.execute_steps}; set 1 to {chunk}")
        override = {"device_processor": {"device": device}}
        with self._told("does not load"):
            self.policy = get_policy_class(config.type).from_pretrained(folder, config=config, strict=True)
            check_weights(self.policy, folder / "model.safetensors")
            self.policy.eval()
            self.preprocess, self.postprocess = make_pre_post_processors(
                config, pretrained_path=str(folder), preprocessor_overrides=override
            )
            check_scales(config, self.preprocess, self.postprocess)

    def _try(self) -> None:
        """Act once on a made-up observation: what does not fit is found before an arm moves, and the first is slow."""
        import torch

        contract = self._contract
        frames = {
            camera.name: Frame(0, camera.name, np.full((camera.height, camera.width, 3), 127, np.uint8))
            for camera in contract.cameras
        }
        ends = np.array(
            [contract.lower, contract.upper] if contract.has_limits else np.zeros((2, len(contract.joints)))
        )
        middle = ends.mean(axis=0).astype(np.float32)
        device = str(self.policy.config.device)
        # What is drawn later must not depend on this.
        with torch.random.fork_rng([device] if device.startswith("cuda") else []):
            self.act(Observation(0, frames, middle, "do nothing"))
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Start a new episode: clear the policy's queues and forget the chunk before; see :class:`Policy`."""
        if seed is not None:
            import torch

            torch.manual_seed(seed)
        self.policy.reset()
        self._raw = None

    def act(self, observation: Observation) -> ActionChunk:
        """Predict a chunk and return its first ``execute_steps`` targets.

        Raises:
            ValueError: an image is missing or has another size, the state has another length, or the policy's output
                is not finite.
        """
        whole = self._predict(observation, {})
        return ActionChunk(whole.stamp_ns, whole.actions[: self.execute_steps], whole.dt_s)

    def predict(
        self, observation: Observation, delay_steps: int = 0, running: tuple[int, int] | None = None
    ) -> ActionChunk:
        """Predict a chunk and return all of it, (chunk_size, D) targets.

        SmolVLA, pi0 and pi0.5 continue the chunk before by real-time chunking (Black et al. 2025, arXiv 2506.07339, as
        LeRobot builds it): the ``delay_steps`` actions that are executed meanwhile stay, later ones change smoothly.

        Raises:
            ValueError: as :meth:`act`.
        """
        if not self._continues():
            return self._predict(observation, {})
        before = None
        if self._raw is not None and running is not None and self._raw[0] == running[0]:
            begin = round((observation.stamp_ns - sum(running)) / 1e9 / self._contract.dt_s)
            left = self._raw[1][0, max(begin, 0) :]  # (T, D) not executed yet
            before = left if len(left) else None
        return self._predict(observation, {"inference_delay": delay_steps, "prev_chunk_left_over": before})

    def _continues(self) -> bool:
        """Return whether the policy can continue a chunk; turns that on at the first call."""
        config = self.policy.config
        if not hasattr(config, "rtc_config") or not hasattr(self.policy, "init_rtc_processor"):
            return False
        if config.rtc_config is None:
            from lerobot.policies.rtc.configuration_rtc import RTCConfig

            config.rtc_config = RTCConfig(enabled=True)
            self.policy.init_rtc_processor()
        return bool(config.rtc_config.enabled)

    def _predict(self, observation: Observation, guidance: dict[str, Any]) -> ActionChunk:
        """Return all predicted targets; ``guidance`` are options of real-time chunking."""
        import torch

        batches = [self.preprocess(policy_input(seen, self._contract)) for seen in (*observation.before, observation)]
        batch = batches[-1]
        # Real-time chunking takes gradients inside, which inference mode would forbid.
        with torch.no_grad() if guidance else torch.inference_mode():
            if self.policy.config.type == "diffusion":  # reads its own observation queues only
                self.policy.reset()
                for seen in batches:  # the first one fills the queues, as LeRobot begins an episode
                    batch = _queue_observation(self.policy, seen)
            chunk = self.policy.predict_action_chunk(batch, **guidance)  # (1, K, D)
            if guidance:
                self._raw = (observation.stamp_ns, chunk)
            actions = self.postprocess(chunk)[0].numpy()
        if not np.isfinite(actions).all():
            k, joint = np.argwhere(~np.isfinite(actions))[0]
            raise ValueError(
                f"policy '{self._checkpoint}' gave non-finite actions ({self._contract.joints[joint]} = "
                f"{actions[k, joint]} in step {k}); do not use this checkpoint"
            )
        return ActionChunk(observation.stamp_ns, actions, self._contract.dt_s)


def _input_differences(features: Mapping[str, Any], contract: RobotContract) -> list[str]:
    """Name what a policy expects to see and the robot does not show; unused cameras of the robot do no harm."""
    has: dict[str, tuple[int, ...]] = {"observation.state": (len(contract.joints),)}
    has |= {f"observation.images.{c.name}": (3, c.height, c.width) for c in contract.cameras}
    differences = []
    for name, feature in features.items():
        shape = tuple(feature.shape)
        if "empty_camera" in name:  # what LeRobot fills in by itself
            continue
        if name not in has:
            differences.append(f"'{name}' {shape}, which the robot contract lacks ({', '.join(has)})")
        elif shape != has[name]:
            differences.append(f"'{name}' of shape {shape} instead of {has[name]}")
    return differences


def _queue_observation(policy: Any, batch: dict[str, Any]) -> dict[str, Any]:
    """Put an observation into the memory of a LeRobot diffusion policy; returns it with its images together."""
    import torch
    from lerobot.policies.utils import populate_queues
    from lerobot.utils.constants import ACTION, OBS_IMAGES

    if cameras := policy.config.image_features:
        batch = batch | {OBS_IMAGES: torch.stack([batch[name] for name in cameras], dim=-4)}
    populate_queues(policy._queues, batch, exclude_keys=[ACTION])
    return {name: values for name, values in batch.items() if name != ACTION}


class FakePolicy:
    """Holds the arm where it is: chunks that repeat the observed joint state. For tests and for trying the graph."""

    def __init__(self, contract: RobotContract, execute_steps: int = 8) -> None:
        """Set the chunk length [control steps]."""
        self.execute_steps, self.observed_steps = execute_steps, 1
        self._dt_s = contract.dt_s

    def reset(self, seed: int | None = None) -> None:
        """Do nothing: it has no state."""

    def act(self, observation: Observation) -> ActionChunk:
        """Return the observed state ``execute_steps`` times."""
        return ActionChunk(observation.stamp_ns, np.tile(observation.state, (self.execute_steps, 1)), self._dt_s)

    def predict(
        self, observation: Observation, delay_steps: int = 0, running: tuple[int, int] | None = None
    ) -> ActionChunk:
        """Return the observed state for twice as long and what the delay needs."""
        chunk = self.act(observation)
        steps = 2 * (self.execute_steps + delay_steps)
        return ActionChunk(chunk.stamp_ns, np.tile(chunk.actions[-1], (steps, 1)), chunk.dt_s)


def policy_input(observation: Observation, contract: RobotContract) -> dict[str, Any]:
    """Return an observation as LeRobot's policy input, not yet normalised.

    Returns:
        ``observation.images.<camera>`` (1, 3, H, W) float32 in [0, 1], ``observation.state`` (1, D), ``task``.

    Raises:
        ValueError: a camera is missing, or an image or the state has another size than the contract says.
    """
    import torch

    batch: dict[str, Any] = {"task": [observation.task]}
    for camera in contract.cameras:
        frame = observation.frames.get(camera.name)
        if frame is None:
            raise ValueError(f"the observation has no image of camera '{camera.name}'; start that camera")
        if frame.image.shape != (camera.height, camera.width, 3):
            raise ValueError(
                f"camera '{camera.name}' delivers {frame.image.shape[1]}x{frame.image.shape[0]} pixels, the contract"
                f" says {camera.width}x{camera.height}; set the camera's width and height"
            )
        image = torch.from_numpy(frame.image.copy())[None]  # (1, H, W, 3)
        batch[f"observation.images.{camera.name}"] = image.permute(0, 3, 1, 2).float() / 255
    if observation.state.shape != (len(contract.joints),):
        raise ValueError(
            f"the joint state has {len(observation.state)} values, the contract {len(contract.joints)} joints"
        )
    batch["observation.state"] = torch.from_numpy(observation.state.copy())[None]  # (1, D)
    return batch
