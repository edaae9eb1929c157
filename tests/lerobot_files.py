# SPDX-License-Identifier: Apache-2.0
"""A data set, an interrupted training and its result as one LeRobot writes them, to be read by another.

``tests/lerobot_files/<version>`` were written by ``python tests/lerobot_files.py tests/lerobot_files`` in an
environment with that LeRobot.
"""

from __future__ import annotations

import json
import shutil
import sys
from importlib import metadata
from pathlib import Path

import numpy as np

from lrm_ros.config import CameraSpec, FinetuneConfig, RobotContract
from lrm_ros.policy import PolicyRunner
from lrm_ros.record.dataset import write_dataset
from lrm_ros.training.policy.finetune import finetune
from lrm_ros.types import Episode, Frame, Observation, Reward, Step

FOLDER = Path(__file__).with_suffix("")
CONTRACT = RobotContract(name="small", cameras=(CameraSpec("front", 32, 32),))
LENGTHS = (4, 6, 5)
STEPS, KILLED_AFTER = 8, 4
TRAINING = FinetuneConfig(
    steps=STEPS, batch_size=4, lr=3e-3, warmup=2, checkpoint_every=KILLED_AFTER, colour=0.5, options={
        "cnn_channels": [8, 8, 8], "dim_model": 8, "n_heads": 2, "dim_feedforward": 8, "n_encoder_layers": 1,
        "chunk_size": 4, "n_action_steps": 3, "use_vae": True, "n_vae_encoder_layers": 1, "latent_dim": 2,
        "dropout": 0.1,
    },
)  # fmt: skip


class Killed(Exception):
    """The training ends here."""


def episodes() -> list[Episode]:
    """Few episodes of few colours, judged and scored."""
    found = []
    for index, length in enumerate(LENGTHS):
        steps = []
        for k in range(length):
            stamp_ns = (k + 1) * 100_000_000
            image = np.full((32, 32, 3), (90, 100, 110), np.uint8)
            image[4 * k : 4 * k + 8, 8 * index : 8 * index + 8] = (200, 60, 40)
            state = np.array([0.1 * index, -1.0, 1.0, 0.1 * k, 0.0, 0.5], np.float32)
            frames = {"front": Frame(stamp_ns, "front", image)}
            observation = Observation(stamp_ns, frames, state, f"put it at {index % 2}")
            reward = {"completion": Reward(stamp_ns, "completion", k / 8)}
            steps.append(Step(observation, state + np.float32(0.1), state + np.float32(0.2), reward))
        found.append(Episode(f"small_{index}", f"put it at {index % 2}", steps, 10.0, index != 1, "expert"))
    return found


def interrupted(out: Path) -> None:
    """Train until the run is killed after its first checkpoint."""

    def kill(step: int, steps: int, loss: float) -> None:
        if step == KILLED_AFTER + 1:
            raise Killed

    try:
        finetune([episodes()], out, TRAINING, CONTRACT, kill)
    except Killed:
        return
    raise AssertionError("the training was not killed")


def actions(checkpoint: Path) -> np.ndarray:
    """Return what a policy does in every step (S, K, D) [rad]."""
    runner = PolicyRunner(checkpoint, CONTRACT)
    seen = [step.observation for episode in episodes() for step in episode.steps]
    return np.stack([runner.act(observation).actions for observation in seen])


def write(folder: Path) -> None:
    """Write everything into a folder."""
    write_dataset(episodes(), folder / "image", CONTRACT, reward_head="completion")
    write_dataset(episodes(), folder / "video", CONTRACT, storage="video")
    finetune([episodes()], folder / "policy", TRAINING, CONTRACT)
    interrupted(folder / "cut")
    np.save(folder / "actions.npy", actions(folder / "policy"))


if __name__ == "__main__":
    target = Path(sys.argv[1]) / metadata.version("lerobot")
    shutil.rmtree(target, ignore_errors=True)
    write(target)
    print(f"{target}: losses {json.loads((target / 'policy/finetune.json').read_text())['losses']}")
