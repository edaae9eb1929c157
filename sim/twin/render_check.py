# SPDX-License-Identifier: Apache-2.0
"""Render one box and say on which device: exits non-zero with the reason when the twin could not render here."""

import sys

from lrm_ros.sim.twin.world import use_software_vulkan


def render() -> str:
    """Render a red box in front of nothing.

    Returns:
        The name of the device that rendered it.

    Raises:
        RuntimeError: no Vulkan device, or the picture is not that of a red box.
    """
    use_software_vulkan()
    import sapien
    import sapien.render

    sapien.render.set_camera_shader_dir("trivial")
    scene = sapien.Scene([sapien.physx.PhysxCpuSystem(), sapien.render.RenderSystem()])
    scene.set_ambient_light([1, 1, 1])
    box = scene.create_actor_builder()
    box.add_box_visual(half_size=[0.1, 0.1, 0.1], material=sapien.render.RenderMaterial(base_color=[1, 0, 0, 1]))
    box.build_kinematic()
    camera = scene.add_camera("camera", 16, 16, 1.0, 0.01, 10)
    camera.entity.set_pose(sapien.Pose([-0.5, 0, 0]))
    scene.update_render()
    camera.take_picture()
    centre = camera.get_picture("Color")[8, 8]
    if not (centre[0] > 0.5 and centre[1] < 0.2):
        raise RuntimeError(f"the middle of the picture should be red, got {centre.tolist()}")
    return scene.render_system.device.name


if __name__ == "__main__":
    sys.stdout.write(f"{render()}\n")
