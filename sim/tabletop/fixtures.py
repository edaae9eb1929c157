# SPDX-License-Identifier: Apache-2.0
"""Things with one joint that stand on the table: buttons, drawers, levers, handles; shapes, and where to take them.

All lengths are in the frame of the fixture: its origin is on the table, x is where a drawer comes out to and where the
arms of lever and handle point at the middle of their ways.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

GREY = (0.55, 0.55, 0.55)


@dataclass(frozen=True)
class Block:
    """A box or upright cylinder of a fixture: middle and half its size (3,) [m]; ``solid``: it can be touched."""

    middle: tuple[float, float, float]
    half: tuple[float, float, float]
    form: str = "box"
    solid: bool = True


@dataclass(frozen=True)
class Fixture:
    """A kind of fixture.

    Attributes:
        joint: ``"prismatic"`` or ``"revolute"``.
        low: lower end of the joint [m or rad].
        high: its upper end.
        axis: direction of the joint, (3,).
        pivot: where the moving part turns or slides, its origin, (3,) [m].
        base: what stands.
        moving: what moves, in a frame at ``pivot``.
        knob: where the moving part is taken, in that frame, (3,) [m].
        radius: of the space that it needs on the table [m].
    """

    joint: str
    low: float
    high: float
    axis: tuple[float, float, float]
    pivot: tuple[float, float, float]
    base: tuple[Block, ...]
    moving: tuple[Block, ...]
    knob: tuple[float, float, float]
    radius: float


_POST = 0.008  # half the width of what the fingers take [m]
KINDS = {
    "button": Fixture(
        "prismatic",
        0.0,
        0.014,
        (0.0, 0.0, -1.0),
        (0.0, 0.0, 0.03),
        (Block((0.0, 0.0, 0.014), (0.035, 0.035, 0.014)),),
        (Block((0.0, 0.0, 0.01), (0.022, 0.022, 0.012), "cylinder"),),
        (0.0, 0.0, 0.022),
        0.05,
    ),
    "drawer": Fixture(
        "prismatic",
        0.0,
        0.07,
        (1.0, 0.0, 0.0),
        (0.0, 0.0, 0.0),
        (Block((0.0, 0.0, 0.03), (0.05, 0.05, 0.03)),),
        (
            Block((0.057, 0.0, 0.028), (0.006, 0.05, 0.026)),
            Block((0.015, 0.0, 0.012), (0.04, 0.044, 0.004), solid=False),
            Block((0.015, 0.044, 0.026), (0.04, 0.003, 0.016), solid=False),
            Block((0.015, -0.044, 0.026), (0.04, 0.003, 0.016), solid=False),
            Block((0.057, 0.0, 0.078), (0.006, _POST, 0.026)),
        ),
        (0.057, 0.0, 0.082),
        0.11,
    ),
    "lever": Fixture(
        "revolute",
        -0.8,
        0.8,
        (0.0, 0.0, 1.0),
        (0.0, 0.0, 0.032),
        (Block((0.0, 0.0, 0.012), (0.035, 0.035, 0.012), "cylinder"),),
        (
            Block((0.035, 0.0, 0.0), (0.05, _POST, 0.006)),
            Block((0.077, 0.0, 0.026), (_POST, _POST, 0.026)),
        ),
        (0.077, 0.0, 0.032),
        0.10,
    ),
    "handle": Fixture(
        "revolute",
        -0.6,
        0.6,
        (0.0, -1.0, 0.0),
        (0.0, 0.0, 0.10),
        (
            Block((-0.012, 0.0, 0.065), (0.01, 0.035, 0.065)),
            Block((-0.012, 0.0, 0.006), (0.035, 0.05, 0.006)),
        ),
        (Block((0.045, 0.0, 0.0), (0.045, _POST, 0.009)),),
        (0.078, 0.0, 0.0),
        0.10,
    ),
}
SPRING = 60.0  # of a button, which comes out again [N/m]


def knob_at(kind: str, joint: float) -> NDArray[np.float64]:
    """Return where the moving part of a fixture is taken, (3,) [m], with its joint at a position [m or rad]."""
    fixture = KINDS[kind]
    axis, knob = np.array(fixture.axis), np.array(fixture.knob)
    if fixture.joint == "prismatic":
        return np.array(fixture.pivot) + knob + joint * axis
    cos, sin = math.cos(joint), math.sin(joint)
    turned = knob * cos + np.cross(axis, knob) * sin + axis * (axis @ knob) * (1 - cos)
    return np.array(fixture.pivot) + turned


def fraction(kind: str, joint: float) -> float:
    """Return how far a joint is from its lower (0) to its upper end (1)."""
    fixture = KINDS[kind]
    return float(np.clip((joint - fixture.low) / (fixture.high - fixture.low), 0.0, 1.0))


def build(scene: Any, name: str, kind: str, place: Any) -> Any:
    """Build a fixture in a ManiSkill scene; returns its articulation, whose second link moves.

    Args:
        scene: ManiSkill's scene.
        name: of the articulation.
        kind: one of ``KINDS``.
        place: a ``sapien.Pose``, where it is at first.
    """
    import sapien

    fixture, builder = KINDS[kind], scene.create_articulation_builder()
    builder.initial_pose = place
    root = builder.create_link_builder()
    root.set_name(f"{name}_base")
    _add(root, fixture.base)
    moving = builder.create_link_builder(root)
    moving.set_name(f"{name}_moving")
    _add(moving, fixture.moving)
    turn = _towards(np.array(fixture.axis))
    stiffness = SPRING if kind == "button" else 0.0
    moving.set_joint_name(f"{name}_joint")
    moving.set_joint_properties(
        fixture.joint,
        [[fixture.low, fixture.high]],
        sapien.Pose(fixture.pivot, turn),
        sapien.Pose(q=turn),
        friction=0.0,
        damping=4.0 if fixture.joint == "prismatic" else 0.15,
    )
    articulation = builder.build(name, fix_root_link=True)
    for link in articulation._objs[0].links:
        link.disable_gravity = True
    if stiffness:
        articulation._objs[0].active_joints[0].set_drive_properties(stiffness, 4.0)
        articulation._objs[0].active_joints[0].set_drive_target(0.0)
    return articulation


def _add(link: Any, blocks: tuple[Block, ...]) -> None:
    import sapien

    upright = [math.sqrt(0.5), 0.0, math.sqrt(0.5), 0.0]  # SAPIEN's cylinders lie along x
    for block in blocks:
        material = sapien.render.RenderMaterial(base_color=[*GREY, 1.0])
        if block.form == "cylinder":
            pose = sapien.Pose(block.middle, upright)
            link.add_cylinder_visual(pose, block.half[0], block.half[2], material)
            if block.solid:
                link.add_cylinder_collision(pose, block.half[0], block.half[2])
            continue
        link.add_box_visual(sapien.Pose(block.middle), block.half, material)
        if block.solid:
            link.add_box_collision(sapien.Pose(block.middle), block.half)


def _towards(axis: NDArray[np.float64]) -> list[float]:
    """Return the quaternion (w, x, y, z) that turns x, along which SAPIEN's joints move, to a direction."""
    way = np.array([1.0, 0.0, 0.0])
    if np.allclose(axis, way):
        return [1.0, 0.0, 0.0, 0.0]
    turned = np.cross(way, axis)
    found = np.append(1.0 + way @ axis, turned)
    return list((found / np.linalg.norm(found)).tolist())
