# SPDX-License-Identifier: Apache-2.0
"""Kinematics from a URDF against SAPIEN's Pinocchio and the SO-100's formula; what is wrong with a file is named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from lrm_ros.config import RobotContract
from lrm_ros.robot.so100.kinematics import forward
from lrm_ros.robot.urdf import LinkPoints, Urdf

SO101 = Path(__file__).resolve().parents[2] / "config/so101.urdf"
JOINTS = RobotContract().joints


def so100() -> Urdf:
    import mani_skill

    return Urdf(Path(mani_skill.__file__).parent / "assets/robots/so100/so100.urdf")


def random_positions(urdf: Urdf, joints, count: int = 200) -> np.ndarray:
    limits = np.array([(urdf.joints[name].lower, urdf.joints[name].upper) for name in joints])
    return np.random.default_rng(0).uniform(limits[:, 0], limits[:, 1], (count, len(joints)))


def pinocchio(urdf: Urdf, folder: Path):
    """The arm in SAPIEN, which has its own reader, and Pinocchio's model of it."""
    import sapien

    bare = folder / "bare.urdf"  # what is to be drawn would need a renderer
    bare.write_text(re.sub(r"<(visual|collision)\b.*?</\1>", "", urdf.text, flags=re.DOTALL))
    scene = sapien.Scene([sapien.physx.PhysxCpuSystem()])
    loader = scene.create_urdf_loader()
    loader.fix_root_link = True
    robot = loader.load(str(bare))
    return scene, robot, robot.create_pinocchio_model()


@pytest.mark.parametrize("which", ["so101", "so100"])
def test_every_link_is_where_pinocchio_says(which: str, tmp_path: Path) -> None:
    urdf = Urdf(SO101) if which == "so101" else so100()
    _scene, robot, model = pinocchio(urdf, tmp_path)
    names = [joint.name for joint in robot.active_joints]
    assert set(names) == {name for name, joint in urdf.joints.items() if joint.kind != "fixed"}
    compared = 0
    for positions in random_positions(urdf, names, 30):
        model.compute_forward_kinematics(positions)
        known = dict(zip(names, positions, strict=True))
        for link in robot.links:
            theirs = model.get_link_pose(link.index)
            ours = urdf.pose(link.name, known)
            np.testing.assert_allclose(ours[:3, 3], theirs.p, atol=2e-6)  # theirs is in float32
            np.testing.assert_allclose(ours[:3, :3], theirs.to_transformation_matrix()[:3, :3], atol=2e-6)
            compared += 1
    assert compared >= 30 * 7


def test_the_so100s_own_urdf_is_the_formula_that_the_package_has(tmp_path: Path) -> None:
    exact = tmp_path / "so100.urdf"  # the file rounds a quarter turn to 1.5708 (3.7e-6 rad), the formula does not
    exact.write_text(re.sub(r"\b1\.570\d*", "1.5707963267948966", so100().text))
    urdf = Urdf(exact)
    moving = [joint.name for joint in urdf.chain("Fixed_Jaw")]
    assert moving == list(JOINTS[:5])
    base_link = np.eye(4)
    base_link[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]  # x forward, where the URDF's arm faces -y
    tool = np.array([-0.012, -0.090, 0.0, 1.0])
    for positions in random_positions(urdf, moving):
        pose = base_link @ urdf.pose("Fixed_Jaw", dict(zip(moving, positions, strict=True)))
        position, turned = forward(positions)
        np.testing.assert_allclose((pose @ tool)[:3], position, atol=1e-9)
        np.testing.assert_allclose(pose[:3, :3], turned, atol=1e-9)


def test_points_of_many_positions_are_those_of_the_poses_and_move_no_further_than_said() -> None:
    urdf = Urdf(SO101)
    links = ("gripperframe", "wrist", "lower_arm", "moving_jaw_so101_v1", "base")
    points = LinkPoints(urdf, JOINTS, links)
    positions = random_positions(urdf, JOINTS)
    found = points(positions)
    assert found.shape == (200, 5, 3)
    for row, q in zip(found, positions, strict=True):
        for link, point in zip(links, row, strict=True):
            np.testing.assert_allclose(urdf.pose(link, dict(zip(JOINTS, q, strict=True)))[:3, 3], point, atol=1e-12)
    for joint in range(len(JOINTS)):
        moved = positions.copy()
        moved[:, joint] += 0.01
        way = np.linalg.norm(points(moved) - found, axis=-1)
        assert (way <= 0.01 * points.reach[:, joint] + 1e-12).all(), JOINTS[joint]
    assert points.reach[0, 4] > 0 and not points.reach[0, 5] and not points.reach[4].any()


def test_the_so101_has_the_published_limits_and_stands_on_the_table() -> None:
    urdf = Urdf(SO101)
    assert [name for name, joint in urdf.joints.items() if joint.turns] == list(JOINTS)
    assert (urdf.joints["shoulder_pan"].lower, urdf.joints["gripper"].upper) == (-1.91986, 1.74533)
    tool = LinkPoints(urdf, JOINTS, ["gripperframe"])(np.zeros(6))[0]
    assert np.linalg.norm(tool - [0.0208, -0.0231, 0.0949]) == pytest.approx(0.41, abs=0.05)  # stretched out
    assert "<mesh" not in urdf.text


GOOD = '<robot name="r"><link name="a"/><link name="b"/>{}</robot>'
JOINT = '<joint name="j" type="{kind}"><parent link="{parent}"/><child link="b"/>{more}</joint>'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<robot", "is not XML"),
        ("<sdf/>", "<sdf>: the outermost element is <robot>"),
        (GOOD.format(""), "one link is carried by no joint"),
        (GOOD.format(JOINT.format(kind="floating", parent="a", more="")), "its type is 'floating'"),
        (GOOD.format(JOINT.format(kind="fixed", parent="c", more="")), "its parent link is 'c', which is no <link>"),
        (GOOD.format(JOINT.format(kind="revolute", parent="a", more="")), "joint needs <limit lower= upper=>"),
        (
            GOOD.format(JOINT.format(kind="revolute", parent="a", more='<limit lower="x" upper="1"/>')),
            "<joint name=\"j\"> <limit>: lower='x' is not a number",
        ),
        (
            GOOD.format(JOINT.format(kind="fixed", parent="a", more='<origin xyz="0 nan 0"/>')),
            "<origin>: xyz='0 nan 0' must be three finite numbers",
        ),
        (
            GOOD.format(JOINT.format(kind="continuous", parent="a", more='<axis xyz="0 0 0"/>')),
            "<axis>: a moving joint needs an axis",
        ),
        (GOOD.format(2 * JOINT.format(kind="fixed", parent="a", more="")), "two joints have the same name"),
        (
            '<robot name="r"><link name="z"/><link name="a"/><link name="b"/><joint name="j" type="fixed">'
            '<parent link="b"/><child link="a"/></joint><joint name="k" type="fixed"><parent link="a"/>'
            '<child link="b"/></joint></robot>',
            "the joints make a circle",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line_with_its_name(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "arm.urdf"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        Urdf(path)
    assert said in str(caught.value) and f"'{path}'" in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_not_there_and_names_that_are_none_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist; give the file of your arm"):
        Urdf(tmp_path / "none.urdf")
    urdf = Urdf(SO101)
    with pytest.raises(ValueError, match="has no link 'hand'; it has base, baseframe"):
        urdf.pose("hand", {})
    with pytest.raises(ValueError, match="joint 'shoulder_lift' has no position"):
        urdf.pose("wrist", {"shoulder_pan": 0.0})
    mimic = tmp_path / "mimic.urdf"
    joint = JOINT.format(kind="continuous", parent="a", more='<axis xyz="0 0 1"/><mimic joint="k"/>')
    mimic.write_text(GOOD.format(joint))
    with pytest.raises(ValueError, match="it follows another"):
        LinkPoints(Urdf(mimic), ["j"], ["b"])


def test_a_sliding_joint_moves_its_link_along_its_axis(tmp_path: Path) -> None:
    path = tmp_path / "slide.urdf"
    more = '<origin xyz="1 0 0" rpy="0 0 1.5707963267948966"/><axis xyz="2 0 0"/><limit lower="0" upper="0.5"/>'
    path.write_text(GOOD.format(JOINT.format(kind="prismatic", parent="a", more=more)))
    urdf = Urdf(path)
    np.testing.assert_allclose(urdf.pose("b", {"j": 0.25})[:3, 3], [1, 0.25, 0], atol=1e-12)
    points = LinkPoints(urdf, ["j"], ["b"])
    np.testing.assert_allclose(points(np.array([0.25])), [[1, 0.25, 0]], atol=1e-12)
    assert points.reach.tolist() == [[1.0]]
