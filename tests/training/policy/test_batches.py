# SPDX-License-Identifier: Apache-2.0
"""Normalisation of joints that do not move, in each of LeRobot's modes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from episodes import square_episodes  # type: ignore[import-not-found]

from lrm_ros.config import RobotContract
from lrm_ros.training.policy.batches import TrainingData

CONTRACT = RobotContract()
STILL, MOVING = 4, 0  # a joint that stands still, and one that moves


def data() -> TrainingData:
    """Episodes in which one joint stands still and one moves a lot."""
    found = []
    for episode in square_episodes(3):
        steps = []
        for k, step in enumerate(episode.steps):
            state, action = step.observation.state.copy(), step.action.copy()
            state[STILL] = action[STILL] = 0.3
            state[MOVING] = action[MOVING] = -1 + k / 10
            steps.append(dataclasses.replace(
                step, observation=dataclasses.replace(step.observation, state=state), action=action))  # fmt: skip
        found.append(dataclasses.replace(episode, steps=steps))
    return TrainingData([found], CONTRACT)


@pytest.mark.parametrize("mode", ["MEAN_STD", "MIN_MAX", "QUANTILES", "QUANTILE10"])
def test_a_joint_that_stands_still_stays_small_when_it_trembles_and_comes_back(mode):
    import torch
    from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature
    from lerobot.processor.converters import create_transition
    from lerobot.processor.normalize_processor import NormalizerProcessorStep, UnnormalizerProcessorStep

    stats = data().statistics()
    features = {"observation.state": PolicyFeature(FeatureType.STATE, (6,))}
    norm = {FeatureType.STATE: NormalizationMode[mode]}
    state = torch.zeros(1, 6)
    state[0, STILL] = 0.3 + 0.001  # what an encoder's noise is
    asked = create_transition(observation={"observation.state": state})
    step = NormalizerProcessorStep(features=features, norm_map=norm, stats=stats)
    seen = step(asked)
    value = seen["observation"]["observation.state"]
    assert abs(float(value[0, STILL])) < 0.2
    back = UnnormalizerProcessorStep(features=features, norm_map=norm, stats=stats)(seen)
    torch.testing.assert_close(back["observation"]["observation.state"], state, atol=1e-5, rtol=1e-5)


def test_a_joint_that_moves_keeps_its_statistics():
    from lerobot.datasets.compute_stats import get_feature_stats

    made = data()
    theirs = get_feature_stats(made.states, axis=0, keepdims=False)
    for name, values in made.statistics()["observation.state"].items():
        np.testing.assert_array_equal(np.asarray(values)[..., MOVING], np.asarray(theirs[name])[..., MOVING] if
                                      np.ndim(theirs[name]) and len(theirs[name]) == 6 else values)  # fmt: skip
