# SPDX-License-Identifier: Apache-2.0
"""A file of parameters whose node is misspelt, or in another namespace, is told of; one for other nodes is not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lrm_ros.ros.parameter_files import passed_over


def _lines(tmp_path, text: str, node: str) -> list[str]:
    path = tmp_path / "parameters.yaml"
    path.write_text(text)
    return passed_over(["recorder", "--ros-args", "--params-file", str(path), "-p", "folder:=/tmp/y"], node)


@pytest.mark.parametrize(
    ("name", "node", "other"),
    [
        ("recoder:", "/recorder", "/recoder"),
        ("/Recorder:", "/recorder", "/Recorder"),
        ("recorder:", "/arm1/recorder", "/recorder"),
        ("/arm1/recorder:", "/recorder", "/arm1/recorder"),
        ("arm2: {recorder: {ros__parameters: {folder: x}}}\nnone:", "/arm1/recorder", "/arm2/recorder"),
        ("/*/recorder:", "/recorder", "/*/recorder"),
    ],
)
def test_a_file_of_a_node_that_is_nearly_this_one(tmp_path, name, node, other):
    (line,) = _lines(tmp_path, f"{name}\n  ros__parameters:\n    folder: /tmp/x\n", node)
    assert f"parameters.yaml' has parameters of '{other}', which '{node}' does not take" in line


@pytest.mark.parametrize(
    ("name", "node"),
    [
        ("recorder:", "/recorder"),
        ("/recorder:", "/recorder"),
        ("/**:", "/arm1/recorder"),
        ("/**/recorder:", "/recorder"),
        ("/**/recorder:", "/a/b/recorder"),
        ("/*/recorder:", "/arm1/recorder"),
        ("/arm1/*:", "/arm1/recorder"),
        ("camera:", "/recorder"),
        ("recoder: {ros__parameters: {}}\nrecorder:", "/recorder"),
    ],
)
def test_a_file_of_this_node_or_of_others(tmp_path, name, node):
    assert _lines(tmp_path, f"{name}\n  ros__parameters:\n    folder: /tmp/x\n", node) == []


@pytest.mark.parametrize(
    "text", ["", "[1]", "a: 1", "recoder: {folder: 1}", "recoder: [", "1: {2: {ros__parameters: }}"]
)
def test_a_file_without_a_nodes_parameters_is_left_to_ros(tmp_path, text):
    assert _lines(tmp_path, text, "/recorder") == []


def test_no_file_and_a_flag_without_one():
    assert passed_over(["recorder"], "/recorder") == []
    assert passed_over(["recorder", "--ros-args", "--params-file"], "/recorder") == []
    assert passed_over(["recorder", "--params-file", "/nowhere.yaml"], "/recorder") == []


def test_a_node_says_so(tmp_path):
    path = tmp_path / "parameters.yaml"
    path.write_text("recoder:\n  ros__parameters:\n    folder: /tmp/x\n")
    words = [sys.executable, "-m", "lrm_ros.nodes.recorder", "--help", "--ros-args", "--params-file", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=True)
    assert f"'{path}' has parameters of '/recoder', which '/recorder' does not take" in done.stdout + done.stderr
