# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import re

import numpy as np
import pytest
from episodes import square_episode  # type: ignore[import-not-found]

from lrm_ros.config import CameraSpec, RobotContract
from lrm_ros.config_files import load_yaml, to_dict
from lrm_ros.contract import (
    check_episode,
    contract_differences,
    has_images,
    load_contract,
    oldest_s,
    require_radians,
    save_contract,
)
from lrm_ros.record.convention import load_convention

CONTRACT = RobotContract()
NAN, INF = float("nan"), float("inf")


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


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("left/front", "'left_front'"),
        ("front.rgb", "'front_rgb'"),
        ("front cam", "'front_cam'"),
        ("cam-high", "'cam_high'"),
        ("0", "'_0'"),
        ("kamera_ü", "'kamera__'"),
        ("front\n", "'front_'"),
        ("", "'front'"),
    ],
)
def test_a_camera_that_has_no_topic_or_that_lerobot_does_not_store_is_refused_when_the_contract_is_read(
    tmp_path, name, cure
):
    said = re.escape(repr(name)) + ".*letters, digits.*e.g. " + cure
    with pytest.raises(ValueError, match=said):
        CameraSpec(name)
    CameraSpec(cure.strip("'"))
    save_contract(CONTRACT, tmp_path)
    path = tmp_path / "contract.json"
    path.write_text(path.read_text().replace('"front"', json.dumps(name)))
    with pytest.raises(ValueError, match=r"contract\.json\.cameras\[0\]: camera name " + said):
        load_contract(tmp_path)


def test_lerobot_refuses_the_names_that_the_contract_refuses_for_it():
    pytest.importorskip("lerobot")
    try:
        from lerobot.utils.feature_utils import _validate_feature_names
    except ImportError:  # LeRobot 0.4
        from lerobot.datasets.utils import _validate_feature_names
    with pytest.raises(ValueError, match="should not contain '/'"):
        _validate_feature_names({"observation.images.left/front": {}})
    _validate_feature_names({"observation.images.left_front": {}})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cameras": (CameraSpec(), CameraSpec("wrist"), CameraSpec())}, "camera name 'front' is there twice"),
        ({"joints": ("a", "b", "c", "a", "e", "f")}, "joint name 'a' is there twice"),
        ({"joints": ("a", "b", " ", "d", "e", "f")}, "joint 2 has the name ' '"),
    ],
)
def test_names_that_tell_nothing_apart_are_refused(change, says):
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(CONTRACT, **change)


@pytest.mark.parametrize(("width", "height"), [(0, 96), (96, -1), (64_000, 48_000), (96, 8193)])
def test_a_camera_without_pixels_or_with_more_than_any_has_is_refused(tmp_path, width, height):
    says = f"camera 'front' has {width}x{height} pixels; give what it delivers, from 1 to 8192 a side"
    with pytest.raises(ValueError, match=says):
        CameraSpec("front", width, height)
    save_contract(CONTRACT, tmp_path)
    path = tmp_path / "contract.json"
    path.write_text(json.dumps(to_dict(CONTRACT) | {"cameras": [{"name": "front", "width": width, "height": height}]}))
    with pytest.raises(ValueError, match=rf"contract\.json\.cameras\[0\]: {says}"):
        load_contract(tmp_path)
    CameraSpec("front", 8192, 8192)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"control_hz": 1e6}, "control_hz must be positive, from 0.001 to 1000, got 1000000.0"),
        ({"joints": [f"j{k}" for k in range(257)]}, "it has 257 joints; give 1 to 256"),
        ({"joints": []}, "it has 0 joints; give 1 to 256"),
        ({"cameras": [{"name": f"c{k}", "width": 9, "height": 9} for k in range(65)]}, "it has 65 cameras; give 0 to"),
    ],
)
def test_a_rate_or_a_number_of_things_that_no_robot_has_names_file_value_and_bound(tmp_path, change, says):
    unknown = {"lower": [], "upper": [], "max_step": []}
    path = tmp_path / "contract.json"
    path.write_text(json.dumps(to_dict(CONTRACT) | unknown | change))
    with pytest.raises(ValueError, match=re.escape(f"{path}: contract 'so100': {says}")):
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


@pytest.mark.parametrize(("hz", "limit_s"), [(10.0, 0.5), (30.0, 0.5), (2.0, 1.5)])
def test_a_held_image_counts_as_long_as_the_recorder_takes_it(hz, limit_s):
    contract, step = dataclasses.replace(CONTRACT, control_hz=hz), square_episode(0).steps[3]
    assert oldest_s(contract) == pytest.approx(limit_s)
    for late_s in (0.0, 1 / hz, limit_s, limit_s + 0.001):
        seen = dataclasses.replace(step.observation, stamp_ns=step.observation.stamp_ns + round(late_s * 1e9))
        assert has_images(dataclasses.replace(step, observation=seen), contract) == (late_s <= limit_s)


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


def test_limits_are_all_there_or_none_and_tell_rad_from_unknown_units():
    bare = dataclasses.replace(RobotContract(), lower=(), upper=(), max_step=())
    assert not bare.has_limits and RobotContract().has_limits
    with pytest.raises(ValueError, match="upper has 0 values"):
        dataclasses.replace(RobotContract(), upper=())
    (of_policy,) = contract_differences(bare, RobotContract())
    assert "lrm finetune --contract FILE" in of_policy
    assert contract_differences(RobotContract(), bare) == ["limits and rad instead of unknown units"]


@pytest.mark.parametrize("limits", [(-110.0, 110.0), (0.0, 100.0), (-100.0, 0.0)])
def test_limits_in_degrees_or_percent_are_refused_before_anything_moves_by_them(limits):
    require_radians(RobotContract(), "robot contract")
    contract = dataclasses.replace(
        RobotContract(), lower=(-6.3,) * 5 + (limits[0],), upper=(6.3,) * 5 + (limits[1],), max_step=(5.0,) * 6
    )
    says = f"my.yaml: joint gripper has limits {limits[0]:g} to {limits[1]:g} rad, which is more than 4 turns: are they"
    with pytest.raises(ValueError, match=re.escape(says)):
        require_radians(contract, "my.yaml")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"max_step": (NAN,)}, "joint 'a' has max_step nan; give a finite number above 0"),
        ({"max_step": (INF,)}, "max_step inf"),
        ({"max_step": (0.0,)}, r"max_step 0\.0"),
        ({"max_step": (-0.3,)}, r"max_step -0\.3"),
        ({"lower": (-INF,)}, "joint 'a' has limits -inf to 1.0; give finite numbers"),
        ({"upper": (INF,)}, "limits -1.0 to inf"),
        ({"upper": (NAN,)}, "limits -1.0 to nan"),
        ({"control_hz": INF}, "control_hz must be positive, from 0.001 to 1000, got inf"),
        ({"control_hz": 1e-300}, "control_hz must be positive"),
        ({"joints": ("a\n",)}, "joint 0 has the name"),
        ({"joints": ("\ud800",)}, "joint 0 has the name"),
    ],
)
def test_limits_that_limit_nothing_and_names_that_no_message_can_carry_are_refused(change, says):
    contract = RobotContract(joints=("a",), lower=(-1.0,), upper=(1.0,), max_step=(0.3,))
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(contract, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_step": [NAN] * 6}, r"contract\.json\.max_step\[0\]: expected a finite number, got nan"),
        ({"cameras": [None]}, r"contract\.json\.cameras\[0\]: expected a mapping, got None"),
        ({"control_hz": 10**400}, r"contract\.json\.control_hz: expected a number, got one of 401 digits"),
    ],
)
def test_a_contract_with_a_value_that_is_none_names_file_and_key(tmp_path, change, message):
    save_contract(CONTRACT, tmp_path)
    path = tmp_path / "contract.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        load_contract(tmp_path)


LACKING = [
    ((), "lacks name, joints, lower, upper, max_step, cameras, control_hz; give every one, as config/so101.yaml does"),
    (("name",), "lacks joints, lower, upper, max_step, cameras, control_hz; give"),
    (("name", "joints", "cameras", "control_hz"), "lacks lower, upper, max_step; give"),
    (("name", "joints", "lower", "upper", "max_step", "cameras"), "lacks control_hz; give"),
]


@pytest.mark.parametrize(("keys", "says"), LACKING)
def test_a_file_that_lacks_keys_of_a_contract_is_not_taken_for_the_so100(tmp_path, keys, says):
    values = {key: to_dict(CONTRACT)[key] for key in keys}
    path, plain = tmp_path / "contract.json", tmp_path / "robot.yaml"
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=re.escape(f"{path} {says}")):
        load_contract(tmp_path)
    plain.write_text(json.dumps(values | {"arm": {}}))  # JSON is YAML
    with pytest.raises(ValueError, match=re.escape(f"{plain} {says}")):
        load_yaml(plain, RobotContract, ("arm",))
    (tmp_path / "lerobot_convention.json").write_text(json.dumps({"contract": values, "units": [[1.0, 0.0]] * 6}))
    with pytest.raises(ValueError, match=re.escape(f"lerobot_convention.json' cannot be used (contract {says}")):
        load_convention(tmp_path)


def test_a_camera_of_a_contract_that_lacks_its_size_is_not_taken_for_one_of_96_pixels(tmp_path):
    save_contract(CONTRACT, tmp_path)
    path = tmp_path / "contract.json"
    path.write_text(json.dumps(to_dict(CONTRACT) | {"cameras": [{"name": "top"}]}))
    with pytest.raises(ValueError, match=r"contract\.json\.cameras\[0\] lacks width, height; give"):
        load_contract(tmp_path)


def test_a_contract_that_is_nested_too_deep_names_the_file(tmp_path):
    (tmp_path / "contract.json").write_text("[" * 20_000)
    with pytest.raises(ValueError, match=r"contract\.json.*restore"):
        load_contract(tmp_path)
