# SPDX-License-Identifier: Apache-2.0
"""Configuration files and command lines: numbers as YAML writes them, options made from a dataclass."""

import argparse
import dataclasses
import re
import shlex

import pytest

from lrm_ros.config import CameraConfig, FinetuneConfig, PpoConfig, RobotContract
from lrm_ros.config_files import add_options, from_dict, from_options, load_yaml, option_words, to_dict
from lrm_ros.config_refine import RefineConfig
from lrm_ros.graph.graphs import KINDS

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_gradient", 0.0),
        ("max_gradient", NAN),
        ("huber_delta", 0.0),
        ("huber_delta", INF),
        ("dual_clip", 0.0),
        ("dual_clip", 0.99),
        ("dual_clip", NAN),
        ("value_weight", NAN),
        ("value_weight", INF),
        ("entropy_bonus", NAN),
        ("entropy_bonus", -0.01),
    ],
)
def test_settings_with_which_nothing_would_be_learned_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"ppo\.{name} is {value}; give a"):
        PpoConfig(**{name: value})


def test_yamls_numbers_without_a_point_are_numbers(tmp_path):
    path = tmp_path / "ppo.yaml"
    path.write_text("lr: 1e-5\nvalue_lr: 2E+1\n")
    config = load_yaml(path, PpoConfig)
    assert (config.lr, config.value_lr) == (1e-5, 20.0)
    path.write_text("lr: fast\n")
    with pytest.raises(ValueError, match=r"lr: expected float, got 'fast'"):
        load_yaml(path, PpoConfig)
    path.write_text("lr: [1\nother: {")
    with pytest.raises(ValueError, match=rf"'{path}' is no YAML: while parsing"):
        load_yaml(path, PpoConfig)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"camera: caf\xe9\n", "is no YAML: 'utf-8' codec"),
        (b"camera: 2024-13-45\n", "is no YAML: month"),
        (b"width: " + b"9" * 5000 + b"\n", "is no YAML: Exceeds the limit"),
        (b"camera: " + b"[" * 3000 + b"]" * 3000 + b"\n", "is no YAML: maximum recursion"),
        (b"width: 640\nheight: 480\nwidth: 320\n", "is no YAML: key 'width' is in line 3 again"),
        (b"1: front\n", "unknown key '1'; valid keys"),
        (b"~: front\n", "unknown key 'None'; valid keys"),
        (b"", "expected 'key: value' lines, got nothing"),
        (b"# all of it is a comment\n", "expected 'key: value' lines, got nothing"),
        (b"[]\n", "expected 'key: value' lines, got list"),
        (b"false\n", "expected 'key: value' lines, got bool"),
        (b"rate_hz: .nan\n", "rate_hz: expected a finite number, got nan"),
        (b"rate_hz: 1e400\n", "rate_hz: expected a finite number, got inf"),
    ],
)
def test_a_file_that_says_nothing_or_not_what_it_seems_to_is_refused_with_its_name(tmp_path, content, says):
    path = tmp_path / "camera.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(says)) as refused:
        load_yaml(path, CameraConfig)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("width: 10:30\n", "width: 10:30 is the number 630 to YAML (base 60); write 630, or quote it"),
        ("rate_hz: 1:30.5\n", "rate_hz: 1:30.5 is the number 90.5 to YAML (base 60); write 90.5, or quote it"),
        ("width: 0640\n", "width: 0640 is the number 416 to YAML (base 8); write 416 or 640, or quote it"),
        ("height: -012\n", "height: -012 is the number -10 to YAML (base 8); write -10 or -12, or quote it"),
        ("a: {b: [1, 2:30]}\n", "a.b[1]: 2:30 is the number 150 to YAML"),
    ],
)
def test_a_number_that_is_not_what_it_seems_is_refused_with_file_key_value_and_cure(tmp_path, content, says):
    path = tmp_path / "camera.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=re.escape(f"{path}: {says}")) as refused:
        load_yaml(path, CameraConfig)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "value", ["{a: 1, b: 2}", "!!set {a, b}", "!!set {}", "{}", "!!binary YWI=", "ab", "12"], ids=lambda value: value
)
def test_what_is_no_list_is_not_taken_for_one(tmp_path, value):
    path = tmp_path / "robot.yaml"
    path.write_text(
        f"joints: {value}\nname: two\nlower: [-1, -1]\nupper: [1, 1]\nmax_step: [1, 1]\ncameras: []\ncontrol_hz: 10\n"
    )
    with pytest.raises(ValueError, match=r"joints: expected a list, got"):
        load_yaml(path, RobotContract)


def test_numbers_that_are_what_they_seem_and_texts_in_quotes_are_read(tmp_path):
    path = tmp_path / "camera.yaml"
    path.write_text('camera: "10:30"\nwidth: 1_000\nheight: 0x10\nrate_hz: 0.5\nstall_s: 012.5\nsource: "012"\n')
    assert load_yaml(path, CameraConfig) == CameraConfig("10:30", "012", 1000, 16, 0.5, stall_s=12.5)


@pytest.mark.parametrize(("word", "value"), [("no", "False"), ("on", "True"), ("12", "12"), ("1.5", "1.5")])
def test_a_word_that_yaml_takes_for_something_else_is_to_be_quoted(tmp_path, word, value):
    path = tmp_path / "camera.yaml"
    path.write_text(f"camera: {word}\n")
    with pytest.raises(ValueError, match=re.escape(f"camera: expected str, got {value}; quote it")):
        load_yaml(path, CameraConfig)


def test_a_key_twice_is_found_in_every_mapping_but_what_is_only_used_twice_is_none(tmp_path):
    path = tmp_path / "robot.yaml"
    path.write_text("cameras: [{name: front, width: 96, name: wrist}]\n")
    with pytest.raises(ValueError, match="key 'name' is in line 1 again"):
        load_yaml(path, RobotContract)
    path.write_text(
        "name: two\nlower: &pose [-1, -1]\nupper: [1, 1]\nmax_step: [1, 1]\njoints: [a, b]\ncameras: []\n"
        "control_hz: 10\narm: {rest: *pose, box: *pose}\n"
    )
    assert load_yaml(path, RobotContract, ["arm"]).lower == (-1.0, -1.0)
    with pytest.raises(FileNotFoundError, match="is a folder"):
        load_yaml(tmp_path, RobotContract)


# -- parameters of nodes ---------------------------------------------------------------------------------------------

# What has an effect while a node runs: read where it is used, at the next frame, episode, reload or evaluation.
AT_RUN_TIME = {
    "answer": set(),
    "arm": {"approach_speed", "estop_torque_off", "rest_speed", "state_timeout_s"},
    "camera": {"compressed", "jpeg_quality", "stall_s"},
    "evaluator": {"checkpoint", "file", "first_seed", "episodes", "max_steps"},
    "improver": set(),
    "robot_improver": set(),
    "trial": set(),
    "policy": {
        "checkpoint",
        "execute_steps",
        "explore_std",
        "explore_hold_s",
        "explore_fade_s",
        "seed",
        "device",
        "units",
    },
    "recorder": {"folder", "image_format", "jpeg_quality", "min_free_mb", "reward_s"},
    "refiner": set(),
    "replay": set(),
    "reward": {
        *("mode", "readout", "interval", "scale", "weights"),
        *("initial_image", "judge_frames", "judge_threshold", "contrastive", "both_orders", "completion"),
    },
    "ros2_control": {"approach_speed"},
    "teleop": {
        *("joint_step", "cartesian_step", "gripper_step", "cartesian_speed", "gripper_speed", "align"),
        *("seed", "timeout_s", "reset_s", "episodes"),
    },
    "twin": {"seed", "realtime", "frame_every", "max_steps", "disturbance_std"},
    "worlds": set(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_no_effect_while_a_node_runs_is_fixed(kind):
    fields = dataclasses.fields(KINDS[kind].config)
    assert {field.name for field in fields if not field.metadata.get("fixed")} == AT_RUN_TIME[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_of_a_node_has_a_range_around_its_default(kind):
    config = KINDS[kind].config
    for field in dataclasses.fields(config):
        if type(field.default) not in (int, float):
            assert "range" not in field.metadata
            continue
        low, high = field.metadata["range"]
        assert -INF < low <= field.default <= high < INF and type(low) is type(field.default)
        assert from_dict(config, {field.name: low}) is not None and from_dict(config, {field.name: high}) is not None
        for value in (low - 1, high * 2 + 1):
            allowed = f"from {low} to {high}, got {value}"
            with pytest.raises(ValueError, match=f"{field.name}: must be {re.escape(allowed)}"):
                from_dict(config, {field.name: value})
            with pytest.raises(ValueError, match=f"node 'it': parameter '{field.name}' must be .*{re.escape(allowed)}"):
                KINDS[kind].read("it", field.name, str(value))


def test_a_number_out_of_its_range_in_a_file_names_file_key_value_and_range(tmp_path):
    path = tmp_path / "camera.yaml"
    path.write_text("rate_hz: 0\n")
    with pytest.raises(ValueError, match=rf"{path}\.rate_hz: must be from 0\.1 to 1000\.0, got 0"):
        load_yaml(path, CameraConfig)


# -- command lines ---------------------------------------------------------------------------------------------------


def read(words, cls=FinetuneConfig):
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_options(parser, cls)
    return from_options(cls, parser.parse_args(shlex.split(words) if isinstance(words, str) else words))


def test_the_command_line_of_a_training_has_these_options_and_defaults():
    assert read("--steps 7") == FinetuneConfig(
        steps=7, init=None, seed=0, lr=None, batch_size=32, schedule="cosine", warmup=100, weights=None, label="action",
        colour=0.0, state_noise=0.0, policy="act_small", options={}, checkpoint_every=500,
    )  # fmt: skip
    words = (
        "--steps 7 --init a/b --seed 3 --lr 1e-4 --batch-size 4 --schedule constant --warmup 0 --weight 1 --weight 0.5"
        " --label wish --colour 1 --state-noise 0.1 --policy act --options '{\"chunk_size\": 8}' --checkpoint-every 0"
    )
    assert read(words) == FinetuneConfig(
        7, "a/b", 3, 1e-4, 4, "constant", 0, (1.0, 0.5), "wish", 1.0, 0.1, "act", {"chunk_size": 8}, 0
    )


@pytest.mark.parametrize(
    "config",
    [
        FinetuneConfig(steps=1),
        FinetuneConfig(
            1, "a b/--c", -3, -1e-05, 4, "constant", 0, (1 / 3, 2e-7), "wish", 0.1, 1e-3, "act", {"a": [None]}
        ),
    ],
)
def test_a_configuration_written_as_words_is_read_as_the_same(config):
    assert read(option_words(config)) == config
    assert from_dict(FinetuneConfig, to_dict(config)) == config


def test_what_a_command_line_cannot_say_is_refused():
    with pytest.raises(ValueError, match=r"--weight cannot say \(\); its default is None"):
        option_words(FinetuneConfig(steps=1, weights=()))
    with pytest.raises(TypeError, match=r"RefineConfig\.shaped is <class 'bool'>; there is no option for that"):
        read("", RefineConfig)
    for words in ("", "--steps x", "--steps 1 --schedule steep", "--steps 1 --options [1]"):
        with pytest.raises((argparse.ArgumentError, SystemExit)):
            read(words)
    with pytest.raises(ValueError, match="schedule must be 'cosine' or 'constant', got 'steep'"):
        dataclasses.replace(FinetuneConfig(steps=1), schedule="steep")
    with pytest.raises(ValueError, match="steps and batch_size must be at least 1, got 0 and 32"):
        read("--steps 0")
    with pytest.raises(ValueError, match=r"FinetuneConfig\.options: expected a mapping, got \[\]"):
        from_dict(FinetuneConfig, {"steps": 1, "options": []})
