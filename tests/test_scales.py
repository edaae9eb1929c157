# SPDX-License-Identifier: Apache-2.0
"""A policy whose numbers are scaled by what no data can have, twice or not at all is refused before anything moves."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

from lrm_ros.config import RobotContract
from lrm_ros.policy import PolicyRunner

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("statistic", "value", "says"),
    [
        ("observation.state.mean", NAN, "'observation.state' are of no data: mean[0] is nan"),
        ("observation.state.mean", INF, "'observation.state' are of no data: mean[0] is inf"),
        ("observation.state.std", INF, "'observation.state' are of no data: std[0] is inf"),
        ("observation.state.std", NAN, "'observation.state' are of no data: std[0] is nan"),
        ("observation.state.std", -0.1, "'observation.state' are of no data: std[0] is -0.1"),
        ("observation.state.min", 9.0, "'observation.state' are of no data: min[0] is 9, above its max"),
        ("observation.state.max", -INF, "'observation.state' are of no data: max[0] is -inf"),
        ("action.std", -0.1, "'action' are of no data: std[0] is -0.1"),
        ("action.min", 9.0, "'action' are of no data: min[0] is 9, above its max"),
        ("observation.images.front.std", INF, "'observation.images.front' are of no data: std[0] is inf"),
    ],
)
def test_a_statistic_that_no_data_has_is_named(statistic, value, says, small_policy, tmp_path):
    from safetensors.numpy import load_file, save_file

    folder, changed = tmp_path / "policy", 0
    shutil.copytree(small_policy, folder)
    for path in folder.glob("policy_*processor_step_*.safetensors"):
        found = load_file(path)
        if statistic in found:
            found[statistic] = np.array(found[statistic])
            found[statistic].flat[0] = value
            save_file(found, path)
            changed += 1
    assert changed
    with pytest.raises(ValueError, match=re.escape(says)) as refused:
        PolicyRunner(folder, RobotContract())
    assert str(folder) in str(refused.value) and "\n" not in str(refused.value)


def _twice(steps: list, step: dict) -> None:
    steps.append(step)


def _front_alone(steps: list, step: dict) -> None:
    step["config"]["normalize_observation_keys"] = ["observation.images.front"]


def _unknown(steps: list, step: dict) -> None:
    del step["config"]["features"]["observation.state"]


def _to_nothing(steps: list, step: dict) -> None:
    step["config"]["eps"] = 1e9


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_twice, "scale 'observation.state' in 2 steps, one after the other; leave one"),
        (_front_alone, "no statistics that scale 'observation.state'"),
        (_unknown, "no statistics that scale 'observation.state'"),
        (_to_nothing, "with eps 1e+09, not from 0 to 0.01"),
    ],
)
def test_a_step_that_does_not_scale_once_what_the_policy_sees_is_named(change, says, small_policy, tmp_path):
    folder = tmp_path / "policy"
    shutil.copytree(small_policy, folder)
    path = folder / "policy_preprocessor.json"
    found = json.loads(path.read_text())
    step = next(step for step in found["steps"] if step["registry_name"] == "normalizer_processor")
    change(found["steps"], step)
    path.write_text(json.dumps(found))
    with pytest.raises(ValueError, match=re.escape(says)) as refused:
        PolicyRunner(folder, RobotContract())
    assert str(folder) in str(refused.value) and "\n" not in str(refused.value)


def test_weights_without_their_scale_are_refused_and_shorter_floats_are_not(small_policy, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "policy"
    shutil.copytree(small_policy, folder)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = max(tensors, key=lambda name: tensors[name].numel())
    save_file({**tensors, name: tensors[name].bfloat16()}, path)
    PolicyRunner(folder, RobotContract())
    save_file({**tensors, name: (tensors[name] * 100).to(torch.int8)}, path)
    with pytest.raises(ValueError, match=f"stores {name} as I8: quantised weights cannot be used") as refused:
        PolicyRunner(folder, RobotContract())
    assert str(folder) in str(refused.value) and "\n" not in str(refused.value)
