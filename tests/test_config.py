# SPDX-License-Identifier: Apache-2.0
"""Configuration files: numbers as YAML writes them."""

import pytest

from lrm_ros.config import PpoConfig
from lrm_ros.config_files import load_yaml

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
