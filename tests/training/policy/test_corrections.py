# SPDX-License-Identifier: Apache-2.0
"""Training on a person's corrections of a policy (HG-DAgger): her steps only, weighted, and no chunk beyond them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from episodes import square_episode, square_episodes  # type: ignore[import-not-found]

from lrm_ros.config import FinetuneConfig, RobotContract
from lrm_ros.record.dataset import load_into_ram, write_dataset
from lrm_ros.record.lerobot_set import open_set
from lrm_ros.training.policy.batches import TrainingData
from lrm_ros.training.policy.datasets import training_data
from lrm_ros.training.policy.stream import StreamedData
from lrm_ros.types import Episode

CONTRACT = RobotContract()
LED = [3, 4, 5, 8, 9]  # steps of a rollout of 12 in which a person led


def rollout(index: int) -> Episode:
    episode = square_episode(index)
    steps = [dataclasses.replace(step, intervention=k in LED) for k, step in enumerate(episode.steps)]
    return dataclasses.replace(episode, steps=steps, source="policy")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    out = tmp_path_factory.mktemp("sets")
    write_dataset(square_episodes(2), out / "demonstrations", CONTRACT)
    write_dataset([rollout(7), rollout(8)], out / "rollouts", CONTRACT)
    return [out / "demonstrations", out / "rollouts"]


def test_the_column_goes_into_the_data_set_only_where_a_person_could_take_over_and_comes_back(folders):
    plain, rollouts = map(open_set, folders)
    assert not plain.has_intervention and rollouts.has_intervention
    for episode in load_into_ram(folders[1]):
        assert [k for k, step in enumerate(episode.steps) if step.intervention] == LED


@pytest.mark.parametrize("share", [0.25, 0.0], ids=["in memory", "streamed"])
def test_only_the_persons_steps_of_a_rollout_are_learnt_and_as_often_as_the_weight_says(folders, share):
    data = training_data(folders, "action", memory_share=share, corrections=4.0, workers=0)
    assert isinstance(data, StreamedData) == (share == 0.0)
    plain = sum(len(episode.steps) for episode in square_episodes(2))
    assert len(data.inputs) == plain + 2 * len(LED)
    assert [step - plain for step in data.inputs[plain:]] == [*LED, *(12 + k for k in LED)]
    drawn = data.sample_indices(0, 0, 20_000)
    share_of_person = (drawn >= plain).mean()
    assert share_of_person == pytest.approx(4 * 10 / (4 * 10 + plain), abs=0.02)
    assert (data.source[data.sample_indices(0, 0, 1000, (0.0, 1.0))] == 1).all()


def test_a_chunk_ends_where_the_person_gives_back(folders):
    data = training_data(folders, "action", corrections=1.0)
    plain = len(data.inputs) - 2 * len(LED)
    batch = data.batch(np.array([plain, plain + 2, plain + 3, 0]), range(5))
    assert batch["action_is_pad"].sum(dim=1).tolist() == [2, 4, 3, 0]
    actions = batch["action"].numpy()
    assert (actions[0, 3:] == actions[0, 2]).all(), "what the policy did afterwards is not in it"


def test_without_the_setting_all_steps_are_learnt_and_the_labels_are_part_of_the_data(folders):
    data = training_data(folders[1:], "action")
    assert len(data.inputs) == 24 and data.weight is None
    others = TrainingData([load_into_ram(folders[1])], CONTRACT)
    assert data.fingerprint() == others.fingerprint()
    unlabelled = [
        dataclasses.replace(one, steps=[dataclasses.replace(step, intervention=False) for step in one.steps])
        for one in load_into_ram(folders[1])
    ]
    assert TrainingData([unlabelled], CONTRACT).fingerprint() != data.fingerprint()


def test_a_rollout_in_which_nobody_led_is_refused_and_so_is_a_weight_of_nothing(tmp_path):
    root = write_dataset(square_episodes(1), tmp_path / "untouched", CONTRACT, intervened=True)
    with pytest.raises(ValueError, match="no step with an image in which a person led"):
        training_data([root], "action", corrections=1.0)
    with pytest.raises(ValueError, match="corrections is 0"):
        FinetuneConfig(steps=1, corrections=0.0)
    with pytest.raises(ValueError, match="counts nothing beside the share of each data set"):
        FinetuneConfig(steps=1, corrections=3.0, weights=(0.5, 0.5))
