# SPDX-License-Identifier: Apache-2.0
"""What lies on the twin's table: toys and bowl of primitives, their colour, and where they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import sapien
from transforms3d.euler import euler2quat

from lrm_ros.sim.twin.toys import ANIMALS

BOWL_CENTRE = (0.205, -0.145)
BOWL_RADIUS = 0.058
BOWL_HEIGHT = 0.034


def build_bowl(scene: Any) -> Any:
    """Build a kinematic bowl: a disc and a ring of tilted boards."""
    builder = scene.create_actor_builder()
    material = paint((0.88, 0.90, 0.93))
    flat = sapien.Pose(p=[0, 0, 0.003], q=euler2quat(0, np.pi / 2, 0))
    builder.add_cylinder_collision(flat, radius=BOWL_RADIUS * 0.8, half_length=0.003)
    builder.add_cylinder_visual(flat, radius=BOWL_RADIUS * 0.8, half_length=0.003, material=material)
    for angle in np.arange(12) * 2 * np.pi / 12:
        radius = BOWL_RADIUS * 0.9
        pose = sapien.Pose(
            p=[radius * np.cos(angle), radius * np.sin(angle), BOWL_HEIGHT / 2],
            q=euler2quat(0, 0.35, angle, "sxyz"),
        )
        half = [0.0025, radius * np.tan(np.pi / 12) * 1.1, BOWL_HEIGHT / 2]
        builder.add_box_collision(pose, half_size=half)
        builder.add_box_visual(pose, half_size=half, material=material)
    builder.initial_pose = sapien.Pose(p=[BOWL_CENTRE[0], BOWL_CENTRE[1], 0])
    return builder.build_kinematic("bowl")


def build_toy(scene: Any, name: str, index: int, called: str = "", marked: bool = False) -> Any:
    """Build a dynamic toy animal: body, head, ears, legs; origin at the body's centre, nose along x.

    Args:
        scene: ManiSkill's.
        name: the animal, of ``lrm_ros.sim.twin.toys.ANIMALS``.
        index: number of the toy; each has a place of its own while it is not needed.
        called: the actor's name; empty: that of the animal.
        marked: with what tells it from the other animals, to be seen but not touched (:func:`_add_marks`).
    """
    body, neck, head = ANIMALS[name]
    builder = scene.create_actor_builder()
    soft = sapien.pysapien.physx.PhysxMaterial(2.0, 2.0, 0.0)
    material, dark = paint((1, 1, 1)), paint((0.08, 0.06, 0.05))
    feet = 0.006
    # One box down to the feet: four legs of their own would cost four times the contacts and behave the same.
    trunk = [body[0], body[1], body[2] + feet / 2]
    builder.add_box_collision(
        sapien.Pose([0, 0, -feet / 2]), trunk, soft, density=300, patch_radius=0.05, min_patch_radius=0.05
    )
    builder.add_box_visual(half_size=body, material=material)
    head_at = [body[0] * 0.75, 0, body[2] + head * 0.6 + neck]
    builder.add_sphere_collision(sapien.Pose(head_at), radius=head, material=soft, density=100)
    builder.add_sphere_visual(sapien.Pose(head_at), radius=head, material=material)
    if neck > 0.005:
        builder.add_box_visual(
            sapien.Pose([body[0] * 0.75, 0, body[2] + neck / 2]), half_size=[0.006, 0.006, neck / 2], material=material
        )
    for side in (-1, 1):
        ear = sapien.Pose([head_at[0] - 0.002, side * head * 0.8, head_at[2] + head * 0.7])
        builder.add_sphere_visual(ear, radius=head * 0.45, material=material)
        eye = sapien.Pose([head_at[0] + head * 0.8, side * head * 0.4, head_at[2] + head * 0.3])
        builder.add_sphere_visual(eye, radius=0.0025, material=dark)
        for end in (-1, 1):
            leg = sapien.Pose([end * body[0] * 0.7, side * body[1] * 0.65, -body[2] - feet / 2])
            builder.add_box_visual(leg, half_size=[0.004, 0.004, feet / 2], material=material)
    if marked:
        _add_marks(builder, name, head_at, material, dark)
    builder.initial_pose = parked(index)
    return builder.build_dynamic(called or f"toy_{name}")


def _add_marks(builder: Any, name: str, head_at: list[float], material: Any, dark: Any) -> None:
    """Give an elephant its trunk and large ears, a giraffe its spots and horns, a pig its snout."""
    (length, width, height), _, head = ANIMALS[name]
    x, _, z = head_at

    def box(at: tuple[float, float, float], half: tuple[float, float, float], colour: Any) -> None:
        builder.add_box_visual(sapien.Pose(at), half_size=half, material=colour)

    if name == "elephant":
        box((x + head + 0.006, 0.0, z - 0.003), (0.009, 0.004, 0.004), material)
        box((x + head + 0.012, 0.0, z - 0.013), (0.004, 0.004, 0.013), material)
        for side in (-1, 1):
            box((x - 0.004, side * (head + 0.008), z + 0.002), (0.003, 0.011, 0.013), material)
    elif name == "giraffe":
        for side in (-1, 1):
            box((x - 0.002, side * 0.005, z + head + 0.005), (0.0018, 0.0018, 0.006), dark)
            for at in (-0.6, 0.0, 0.6):
                box((at * length, side * width, 0.1 * at * height), (0.0035, 0.0008, 0.005), dark)
        for at in (-0.65, 0.0, 0.5):
            box((at * length, 0.4 * width * (-1 if at else 1), height), (0.004, 0.0045, 0.0008), dark)
    else:
        snout = sapien.Pose([x + head + 0.002, 0.0, z - 0.002])  # a cylinder lies along x
        builder.add_cylinder_visual(snout, radius=0.0065, half_length=0.004, material=material)
        for side in (-1, 1):
            box((x + head + 0.006, side * 0.0028, z - 0.002), (0.0006, 0.0014, 0.0022), dark)


def paint(rgb: tuple[float, float, float]) -> sapien.render.RenderMaterial:
    """Return a matt material."""
    return sapien.render.RenderMaterial(base_color=[*rgb, 1.0], roughness=0.9, specular=0.1)


def repaint(actor: Any, rgb: tuple[float, float, float]) -> None:
    """Colour every part of a toy but its dark eyes."""
    for shape in picture(actor).render_shapes:
        if shape.material.base_color[0] > 0.09:
            shape.material.set_base_color([*rgb, 1.0])


def picture(actor: Any) -> sapien.render.RenderBodyComponent:
    """Return the render component of an actor."""
    return actor._objs[0].find_component_by_type(sapien.render.RenderBodyComponent)


def speed(actor: Any) -> float:
    """Return an actor's speed [m/s]."""
    return float(np.linalg.norm(actor._bodies[0].linear_velocity))


def position(actor: Any) -> np.ndarray:
    """Return an actor's position (3,) [m], without ManiSkill's tensors, which cost more than the physics."""
    return actor._objs[0].pose.p


def parked(index: int) -> sapien.Pose:
    """Pose of a toy that is not in this episode: out of sight, without gravity and contacts."""
    return sapien.Pose(p=[-1.0 - 0.2 * index, 1.2, 0.5])
