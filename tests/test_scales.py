# SPDX-License-Identifier: Apache-2.0
"""Statistics that no data can have scale nothing a policy sees or says: it is refused before anything moves."""

from __future__ import annotations

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
