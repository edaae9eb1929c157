# SPDX-License-Identifier: Apache-2.0
"""One episode as rows of a LeRobotDataset: features, columns, and what must hold before a row is written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from lrm_ros.config import RobotContract
from lrm_ros.contract import check_episode, has_images, oldest_s
from lrm_ros.record.convention import Convention, names_of
from lrm_ros.record.lerobot_set import INTERVENTION
from lrm_ros.types import Episode, Unscored
from lrm_ros.versions import recorded_image_info


def features_of(
    contract: RobotContract,
    storage: str,
    rewarded: bool,
    judged: bool,
    convention: Convention | None = None,
    intervened: bool = False,
) -> dict[str, dict[str, Any]]:
    """Return LeRobot's feature description."""
    names = list(contract.joints) if convention is None else names_of(contract.joints)
    joints = {"dtype": "float32", "shape": (len(contract.joints),), "names": names}
    features: dict[str, dict[str, Any]] = {
        f"observation.images.{camera.name}": {
            "dtype": storage,
            "shape": (camera.height, camera.width, 3),
            "names": ["height", "width", "channels"],
            **({} if convention is None else recorded_image_info()),
        }
        for camera in contract.cameras
    }
    features |= {key: dict(joints) for key in ("observation.state", "action", *_more(convention))}
    if rewarded:
        features["next.reward"] = {"dtype": "float32", "shape": (1,), "names": None}
    if judged:
        features["next.success"] = {"dtype": "bool", "shape": (1,), "names": None}
    if intervened:
        features[INTERVENTION] = {"dtype": "bool", "shape": (1,), "names": None}
    return features


def _more(convention: Convention | None) -> tuple[str, ...]:
    """Return the columns of joints beside state and action."""
    if convention is None:
        return ("wish",)
    return ("wish", "sent") if convention.extra else ()


def rows_of(
    episode: Episode,
    contract: RobotContract,
    reward_head: str | None,
    judged: bool,
    convention: Convention | None = None,
    intervened: bool = False,
) -> Iterable[dict[str, Any]]:
    """Yield LeRobot's frames of one episode.

    Raises:
        ValueError: it does not fit the contract, has a blank task, or lacks an image or a reward; names step and cure.
    """
    check_episode(episode, contract)
    if not episode.task.strip():
        raise ValueError(f"episode '{episode.episode_id}' has a blank task text; a policy would learn that of no task")
    for index, step in enumerate(episode.steps):
        if not has_images(step, contract):
            raise ValueError(
                f"episode '{episode.episode_id}', step {index} has no image of every camera of the "
                f"{oldest_s(contract):g} s before; a LeRobotDataset needs one in each row: look at the camera's rate "
                "and its network; in the twin record with frame_every=1"
            )
        row: dict[str, Any] = {
            f"observation.images.{camera.name}": step.observation.frames[camera.name].image
            for camera in contract.cameras
        }
        angles = {"observation.state": step.observation.state, "action": step.action}
        angles |= {key: step.wish if key == "wish" else step.action for key in _more(convention)}
        for key, values in angles.items():
            row[key] = np.asarray(values, np.float32) if convention is None else convention.numbers(values)
        row["task"] = episode.task
        last = index == len(episode.steps) - 1
        if reward_head is not None:
            row["next.reward"] = np.array([_next_reward(episode, index, reward_head)], np.float32)
        if judged:
            row["next.success"] = np.array([last and episode.outcome is True])
        if intervened:
            row[INTERVENTION] = np.array([step.intervention])
        yield row


def _next_reward(episode: Episode, index: int, head: str) -> float:
    """Return the reward of what followed a step; NaN if that is Unscored.

    What followed the last step is the final frame: an answer about an earlier one is none.

    Raises:
        ValueError: nobody asked this head.
    """
    last = index == len(episode.steps) - 1
    if last and episode.final is not None:
        answer = episode.final_rewards.get(head)
    else:
        answer = episode.steps[index if last else index + 1].rewards.get(head)
    if answer is None:
        raise ValueError(
            f"episode '{episode.episode_id}', step {index} has no answer of head '{head}'; leave the episode out, "
            "score it again, or write the data set without rewards"
        )
    if isinstance(answer, Unscored) or (last and answer.stamp_ns not in _last_frames(episode)):
        return float("nan")
    return answer.value


def _last_frames(episode: Episode) -> set[int]:
    """Return the stamps of each camera's last frame [ns]."""
    observations = [step.observation for step in episode.steps] + ([episode.final] if episode.final else [])
    return set({name: frame.stamp_ns for seen in observations for name, frame in seen.frames.items()}.values())
