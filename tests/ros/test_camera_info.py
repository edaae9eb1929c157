# SPDX-License-Identifier: Apache-2.0
"""A calibration file of ROS's camera_calibration becomes camera_info; what it is not is named with the cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrm_ros.ros.camera_info import load, path_of

# As cameracalibrator writes it.
CALIBRATION = """image_width: 64
image_height: 48
camera_name: narrow_stereo
camera_matrix:
  rows: 3
  cols: 3
  data: [50.5, 0., 31.5, 0., 51, 23.5, 0., 0., 1.]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [-0.1, 0.02, 0.001, -0.002, 0.]
rectification_matrix:
  rows: 3
  cols: 3
  data: [1., 0., 0., 0., 1., 0., 0., 0., 1.]
projection_matrix:
  rows: 3
  cols: 4
  data: [48., 0., 31., 0., 0., 49., 23., 0., 0., 0., 1., 0.]
"""


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "front camera.yaml"
    path.write_text(CALIBRATION)
    return path


@pytest.mark.parametrize("form", ["path", "file", "name"])
def test_a_calibration_is_read_from_a_path_or_url(file, form):
    url = {
        "path": str(file),
        "file": "file://" + str(file).replace(" ", "%20"),
        "name": f"file://{file.parent}/${{NAME}}%20camera.yaml",
    }[form]
    info, name = load(url, "front", 64, 48)
    assert name == "narrow_stereo" and info.header.frame_id == "front_optical_frame"
    assert (info.width, info.height, info.distortion_model) == (64, 48, "plumb_bob")
    assert info.k.tolist() == [50.5, 0, 31.5, 0, 51, 23.5, 0, 0, 1] and info.r.tolist() == [1, 0, 0, 0, 1, 0, 0, 0, 1]
    assert list(info.d) == [-0.1, 0.02, 0.001, -0.002, 0] and info.p.tolist()[:4] == [48, 0, 31, 0]


def test_a_packages_file_is_found_where_it_is_installed(tmp_path, monkeypatch):
    (tmp_path / "share/ament_index/resource_index/packages").mkdir(parents=True)
    (tmp_path / "share/ament_index/resource_index/packages/my_robot").touch()
    (tmp_path / "share/my_robot").mkdir()
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    assert path_of("package://my_robot/config/a.yaml", "front") == tmp_path / "share/my_robot/config/a.yaml"
    with pytest.raises(ValueError, match="no package 'other' is installed; source its workspace"):
        path_of("package://other/a.yaml", "front")


@pytest.mark.parametrize("url", ["http://host/a.yaml", "file://host/a.yaml", "package:///a.yaml"])
def test_another_url_is_refused(url):
    with pytest.raises(ValueError, match="cannot be read; give a path, file:///PATH or package://PACKAGE/PATH"):
        path_of(url, "front")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("image_width: 64", "image_width: 640", "is of 640x48 pixels, the images have 64x48; calibrate at that size"),
        ("image_width: 64", "", "is of Nonex48 pixels"),
        ("plumb_bob", "", "distortion_model must be a name"),
        ("plumb_bob", "rational_polynomial", "distortion_coefficients must have 8 finite numbers"),
        ("[50.5, ", "[.nan, ", "camera_matrix must have 9 finite numbers in 'data', got "),
        ("[50.5, ", "[0., ", "camera_matrix has focal lengths 0.0 and 51.0"),
        ("[48., ", "[", "projection_matrix must have 12 finite numbers"),
        (
            "rectification_matrix",
            "rectification",
            "rectification_matrix must have 9 finite numbers in 'data', got None",
        ),
        ("[50.5, ", f"[{10**400}, ", "camera_matrix must have 9 finite numbers in 'data', got "),
        ("[48., ", "[0100, ", r"projection_matrix.data\[0\]: 0100 is the number 64 to YAML .base 8.; write 64 or 100"),
        ("narrow_stereo", "2024-13-45", "is not YAML .month"),
        ("narrow_stereo", "[" * 3000 + "]" * 3000, "is not YAML .maximum recursion"),
        ("camera_matrix:", "camera_matrix: [", "is not YAML .*; write it with 'ros2 run camera_calibration"),
    ],
)
def test_what_is_wrong_with_a_calibration_is_named_with_the_cure(file, old, new, says):
    file.write_text(CALIBRATION.replace(old, new))
    with pytest.raises(ValueError, match=f"camera 'front': calibration '.*camera.yaml'.*{says}"):
        load(str(file), "front", 64, 48)


def test_a_file_that_is_not_there_or_holds_no_table_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"cannot be read \(No such file or directory\); correct camera_info_url"):
        load(str(tmp_path / "none.yaml"), "front", 64, 48)
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(ValueError, match="is no calibration; write it with"):
        load(str(tmp_path / "list.yaml"), "front", 64, 48)
