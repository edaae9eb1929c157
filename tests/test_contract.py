# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest
from episodes import square_episode  # type: ignore[import-not-found]

from lrm_ros.config import CameraSpec, RobotContract
from lrm_ros.contract import check_episode, contract_differences, has_images, load_contract, save_contract

CONTRACT = RobotContract()


def test_a_contract_survives_the_way_to_disk_and_back(tmp_path):
    save_contract(CONTRACT, tmp_path)
    assert load_contract(tmp_path) == CONTRACT


def test_a_missing_contract_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"contract\.json.*save_contract"):
        load_contract(tmp_path)


def test_a_damaged_contract_names_the_file(tmp_path):
    (tmp_path / "contract.json").write_text("{")
    with pytest.raises(ValueError, match=r"contract\.json.*restore"):
        load_contract(tmp_path)


def test_equal_contracts_with_other_limits_do_not_differ():
    assert contract_differences(dataclasses.replace(CONTRACT, max_step=(1.0,) * 6), CONTRACT) == []


def test_each_difference_is_named():
    other = dataclasses.replace(
        CONTRACT,
        joints=("a", "b", "c", "d", "e", "f"),
        control_hz=30.0,
        cameras=(CameraSpec("front", 128, 96), CameraSpec("wrist")),
    )
    text = "; ".join(contract_differences(other, CONTRACT))
    for part in (
        "joints ['a'",
        "30 Hz instead of 10 Hz",
        "camera 'front' of 128x96 instead of 96x96",
        "camera 'wrist'",
    ):
        assert part in text
    assert "no camera 'wrist'" in "; ".join(contract_differences(CONTRACT, other))


def test_an_image_older_than_a_control_period_does_not_count():
    step = square_episode(0).steps[3]
    assert has_images(step, CONTRACT)
    late = dataclasses.replace(step.observation, stamp_ns=step.observation.stamp_ns + 100_000_000)
    assert not has_images(dataclasses.replace(step, observation=late), CONTRACT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": 30.0}, "30 Hz"),
        ({"steps": []}, "no steps"),
    ],
)
def test_an_episode_that_does_not_fit_is_named(change, message):
    with pytest.raises(ValueError, match=f"square_0.*{message}"):
        check_episode(dataclasses.replace(square_episode(0), **change), CONTRACT)


def test_an_action_that_is_not_a_number_names_its_step():
    episode = square_episode(0)
    steps = list(episode.steps)
    steps[2] = dataclasses.replace(steps[2], action=np.full(6, np.nan, np.float32))
    with pytest.raises(ValueError, match=r"square_0.*step 2: action"):
        check_episode(dataclasses.replace(episode, steps=steps), CONTRACT)


@pytest.mark.parametrize("name", ["action", "wish", "state"])
def test_degrees_are_named_with_step_joint_and_limits(name):
    episode = square_episode(0)
    steps = list(episode.steps)
    far = np.array([0, 60, 0, 0, 0, 0], np.float32)
    change = {name: far} if name != "state" else {"observation": dataclasses.replace(steps[2].observation, state=far)}
    steps[2] = dataclasses.replace(steps[2], **change)
    says = rf"square_0.*step 2, {name}: joint shoulder_lift is 60.0, its limits are -1.5708 to 1.5708 rad: .*degrees"
    with pytest.raises(ValueError, match=says):
        check_episode(dataclasses.replace(episode, steps=steps), CONTRACT)


def test_an_image_of_another_size_names_camera_and_sizes():
    contract = dataclasses.replace(CONTRACT, cameras=(CameraSpec("front", 64, 64),))
    with pytest.raises(ValueError, match=r"camera 'front'.*96.*64"):
        check_episode(square_episode(0), contract)
