# SPDX-License-Identifier: Apache-2.0
"""Metadata that the data sets of Open X-Embodiment lack: control rate, camera keys, channel order.

Camera keys: robometer/robometer:dataset_upload/dataset_helpers/oxe_helper.py (after openvla). Control rates [Hz]:
huggingface/lerobot 66a3862:lerobot/common/datasets/push_dataset_to_hub/openx/configs.yaml; for LIBERO
Lifelong-Robot-Learning/LIBERO:libero/libero/envs/env_wrapper.py; BridgeData as ``bridge_openx``.
"""

from __future__ import annotations

from typing import NamedTuple

# Each is looked for in the observation first, then in the step, as in robometer/robometer:dataset_upload/
# dataset_loaders/oxe_loader.py; the last two are DROID's, whose first text is often empty.
LANGUAGE_KEYS = (
    "natural_language_instruction",
    "language_instruction",
    "instruction",
    "language_instruction1",
    "language_instruction2",
    "language_instruction3",
    "language_instruction_2",
    "language_instruction_3",
)


class Layout(NamedTuple):
    """One data set: control rate [Hz] (``None``: not known) and the keys of its colour cameras, best view first."""

    fps: float | None
    cameras: tuple[str, ...]


RLDS = "_converted_externally_to_rlds"
BGR = frozenset({f"nyu_rot_dataset{RLDS}"})  # its images are stored in the order blue, green, red

LAYOUTS: dict[str, Layout] = {
    "aloha_mobile": Layout(None, ("cam_high",)),
    f"asu_table_top{RLDS}": Layout(12.5, ("image",)),
    f"austin_buds_dataset{RLDS}": Layout(20, ("image", "wrist_image")),
    f"austin_sailor_dataset{RLDS}": Layout(20, ("image", "wrist_image")),
    f"austin_sirius_dataset{RLDS}": Layout(20, ("image", "wrist_image")),
    "bc_z": Layout(10, ("image",)),
    "berkeley_autolab_ur5": Layout(5, ("image", "hand_image")),
    "berkeley_cable_routing": Layout(10, ("image", "wrist45_image")),
    "berkeley_fanuc_manipulation": Layout(10, ("image", "wrist_image")),
    "berkeley_gnm_cory_hall": Layout(5, ("image",)),
    "berkeley_gnm_recon": Layout(3, ("image",)),
    "berkeley_gnm_sac_son": Layout(10, ("image",)),
    f"berkeley_mvp{RLDS}": Layout(5, ("hand_image",)),
    f"berkeley_rpt{RLDS}": Layout(30, ("hand_image",)),
    "bridge": Layout(5, ("image",)),
    "bridge_dataset": Layout(5, ("image_0", "image_1")),
    "bridge_orig": Layout(5, ("image_0", "image_1")),
    "bridge_oxe": Layout(5, ("image", "image_1")),
    "bridge_v2": Layout(5, ("image_0", "image_1", "image_2")),
    f"cmu_franka_exploration_dataset{RLDS}": Layout(10, ("highres_image",)),
    "cmu_play_fusion": Layout(5, ("image",)),
    "cmu_playing_with_food": Layout(10, ("image", "finger_vision_1")),
    "cmu_stretch": Layout(10, ("image",)),
    "columbia_cairlab_pusht_real": Layout(10, ("image", "wrist_image")),
    f"dlr_edan_shared_control{RLDS}": Layout(5, ("image",)),
    f"dlr_sara_grid_clamp{RLDS}": Layout(10, ("image",)),
    f"dlr_sara_pour{RLDS}": Layout(10, ("image",)),
    "dobbe": Layout(3.75, ("wrist_image",)),
    "droid": Layout(15, ("exterior_image_1_left", "exterior_image_2_left", "wrist_image_left")),
    "droid_100": Layout(15, ("exterior_image_1_left", "exterior_image_2_left", "wrist_image_left")),
    "droid_wipe": Layout(15, ("exterior_image_2_left", "wrist_image_left")),
    "fmb": Layout(10, ("image_side_1", "image_side_2", "image_wrist_1")),
    "fractal20220817_data": Layout(3, ("image",)),
    f"furniture_bench_dataset{RLDS}": Layout(10, ("image", "wrist_image")),
    f"iamlab_cmu_pickup_insert{RLDS}": Layout(20, ("image", "wrist_image")),
    "imperialcollege_sawyer_wrist_cam": Layout(10, ("image", "wrist_image")),
    "jaco_play": Layout(10, ("image", "image_wrist")),
    f"kaist_nonprehensile{RLDS}": Layout(10, ("image",)),
    "kuka": Layout(10, ("image",)),
    "language_table": Layout(10, ("rgb",)),
    "libero_10_no_noops": Layout(20, ("image", "wrist_image")),
    "libero_goal_no_noops": Layout(20, ("image", "wrist_image")),
    "libero_object_no_noops": Layout(20, ("image", "wrist_image")),
    "libero_spatial_no_noops": Layout(20, ("image", "wrist_image")),
    f"maniskill_dataset{RLDS}": Layout(20, ("image", "wrist_image")),
    "nyu_door_opening_surprising_effectiveness": Layout(3, ("image",)),
    f"nyu_franka_play_dataset{RLDS}": Layout(3, ("image", "image_additional_view")),
    f"nyu_rot_dataset{RLDS}": Layout(3, ("image",)),
    "rh20t": Layout(None, ("image_front", "image_side_right", "image_wrist")),
    "rl_bench_v1": Layout(None, ("image", "image_1")),
    "robo_net": Layout(1, ("image", "image1")),
    "robo_set": Layout(5, ("image_right", "image_left")),
    "roboset": Layout(None, ("image_left", "image_right", "image_wrist")),
    "roboturk": Layout(10, ("front_rgb",)),
    f"stanford_hydra_dataset{RLDS}": Layout(10, ("image", "wrist_image")),
    f"stanford_kuka_multimodal_dataset{RLDS}": Layout(20, ("image",)),
    f"stanford_mask_vit{RLDS}": Layout(None, ("image",)),
    f"stanford_robocook{RLDS}": Layout(5, ("image_1", "image_2")),
    "taco_play": Layout(15, ("rgb_static", "rgb_gripper")),
    "tidybot": Layout(None, ("image",)),
    f"tokyo_u_lsmo{RLDS}": Layout(10, ("image",)),
    "toto": Layout(30, ("image",)),
    f"ucsd_kitchen_dataset{RLDS}": Layout(2, ("image",)),
    f"ucsd_pick_and_place_dataset{RLDS}": Layout(3, ("image",)),
    "uiuc_d3field": Layout(1, ("image_1", "image_2")),
    "utaustin_mutex": Layout(20, ("image", "wrist_image")),
    f"utokyo_pr2_opening_fridge{RLDS}": Layout(10, ("image",)),
    f"utokyo_pr2_tabletop_manipulation{RLDS}": Layout(10, ("image",)),
    f"utokyo_xarm_bimanual{RLDS}": Layout(10, ("image",)),
    f"utokyo_xarm_pick_and_place{RLDS}": Layout(10, ("image", "image2", "hand_image")),
    "viola": Layout(20, ("agentview_rgb", "eye_in_hand_rgb")),
}
