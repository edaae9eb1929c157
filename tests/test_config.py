# SPDX-License-Identifier: Apache-2.0
"""Configuration files: numbers as YAML writes them."""

import pytest

from lrm_ros.config import PpoConfig, load_yaml


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
