# SPDX-License-Identifier: Apache-2.0
"""A LeRobot policy with its saved processors: one observation in, one chunk of joint targets out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lrm_ros.config import RobotContract
from lrm_ros.contract import contract_differences, load_contract
from lrm_ros.types import ActionChunk, Observation
from lrm_ros.versions import load_policy_config


class Policy(Protocol):
    """What the policy node and the evaluation need of a policy."""

    def act(self, observation: Observation) -> ActionChunk:
        """Return the targets to execute after an observation."""
        ...

    def reset(self) -> None:
        """Start a new episode."""
        ...


class PolicyRunner:
    """Any LeRobot policy from a ``pretrained_model`` folder that also holds a ``contract.json``."""

    def __init__(
        self,
        checkpoint: str | Path,
        contract: RobotContract,
        execute_steps: int | None = None,
        device: str = "cpu",
    ) -> None:
        """Load policy and processors and check that they were made for this robot.

        Args:
            checkpoint: folder written by ``lrm finetune`` (LeRobot's format plus the contract).
            contract: the robot at hand.
            execute_steps: actions to return of every predicted chunk; ``None``: the policy's own ``n_action_steps``.
            device: torch device.

        Raises:
            FileNotFoundError: the folder or one of its files is missing.
            ValueError: the checkpoint was made for other cameras, joints or another rate, or its chunks are too short.
        """
        folder = Path(checkpoint)
        if not folder.is_dir():
            raise FileNotFoundError(f"policy checkpoint '{checkpoint}' is no folder; train one with 'lrm finetune'")
        for name in ("config.json", "model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json"):
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f"policy checkpoint '{checkpoint}' has no {name}; give LeRobot's pretrained_model folder itself,"
                    " with its processors"
                )
        if differences := contract_differences(load_contract(folder), contract):
            raise ValueError(
                f"policy checkpoint '{checkpoint}' was made for another robot: {'; '.join(differences)}. Use a"
                " checkpoint of this robot, or set the robot contract to the one in the checkpoint's contract.json"
            )
        from lerobot.policies.factory import get_policy_class, make_pre_post_processors

        from lrm_ros import act_small  # noqa: F401  registers the policy type with LeRobot

        config = load_policy_config(folder)
        config.device = device
        joints = (len(contract.joints),)
        if config.action_feature is None or tuple(config.action_feature.shape) != joints:
            raise ValueError(
                f"policy checkpoint '{checkpoint}' has actions {config.action_feature}, not of shape {joints}"
            )
        self.execute_steps = execute_steps or config.n_action_steps
        chunk = getattr(config, "chunk_size", config.n_action_steps)
        if not 1 <= self.execute_steps <= chunk:
            raise ValueError(
                f"execute_steps is {self.execute_steps}, the policy predicts {chunk} steps; set 1 to {chunk}"
            )
        if config.type == "diffusion" and config.n_obs_steps != 1:
            raise ValueError(
                f"policy checkpoint '{checkpoint}' looks at the last {config.n_obs_steps} control steps; it is asked"
                " once a chunk and sees one: train it with n_obs_steps = 1"
            )
        self.policy = get_policy_class(config.type).from_pretrained(folder, config=config, strict=True)
        self.policy.eval()
        override = {"device_processor": {"device": device}}
        self.preprocess, self.postprocess = make_pre_post_processors(
            config, pretrained_path=str(folder), preprocessor_overrides=override
        )
        self._contract, self._checkpoint = contract, checkpoint

    def reset(self) -> None:
        """Start a new episode: clear the policy's queues."""
        self.policy.reset()

    def act(self, observation: Observation) -> ActionChunk:
        """Predict a chunk and return its first ``execute_steps`` targets.

        Raises:
            ValueError: an image is missing or has another size, the state has another length, or the policy's output
                is not finite.
        """
        import torch

        batch = self.preprocess(policy_input(observation, self._contract))
        with torch.inference_mode():
            if self.policy.config.type == "diffusion":  # reads its own observation queues only
                batch = _queue_observation(self.policy, batch)
            chunk = self.policy.predict_action_chunk(batch)  # (1, K, D)
            actions = self.postprocess(chunk)[0, : self.execute_steps].numpy()
        if not np.isfinite(actions).all():
            raise ValueError(
                f"policy '{self._checkpoint}' gave non-finite actions {actions}; do not use this checkpoint"
            )
        return ActionChunk(observation.stamp_ns, actions, self._contract.dt_s)


def _queue_observation(policy: Any, batch: dict[str, Any]) -> dict[str, Any]:
    """Append an observation to the queues of a LeRobot diffusion policy; returns it with its images stacked."""
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
        self.execute_steps = execute_steps
        self._dt_s = contract.dt_s

    def reset(self) -> None:
        """Do nothing: it has no state."""

    def act(self, observation: Observation) -> ActionChunk:
        """Return the observed state ``execute_steps`` times."""
        return ActionChunk(observation.stamp_ns, np.tile(observation.state, (self.execute_steps, 1)), self._dt_s)


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
