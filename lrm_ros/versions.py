# SPDX-License-Identifier: Apache-2.0
"""Where the versions of the libraries differ that this package runs with, and nowhere else.

Each function says which version does what. Tested are LeRobot 0.4.4 with transformers 4.57 on Python 3.11, and
LeRobot 0.6.1 with transformers 5.5 on Python 3.12; and rclpy of ROS 2 Kilted and Jazzy. Heavy libraries are imported by
the functions that need them.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import os
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from lrm_ros.errors import one_line


def at_least(package: str, *numbers: int) -> bool:
    """Return whether an installed package has this version or a later one, e.g. ``at_least("lerobot", 0, 6)``."""
    found = metadata.version(package).split(".")[: len(numbers)]
    return tuple(int(number) for number in found) >= numbers


# ---- LeRobot -------------------------------------------------------------------------------------------------------

# Fields of policy configurations that LeRobot 0.6 has and 0.4 has not, with the value at which 0.6 does what 0.4 does.
# None: the field does not change what the policy computes, whatever it is.
ADDED_FIELDS: dict[str, tuple[Any, ...] | None] = {
    "pretrained_revision": None,  # which revision of a hub's repository the weights came from
    "gradient_checkpointing": None,  # diffusion: memory of training
    "use_relative_actions": (False,),  # pi0, pi0.5
    "relative_exclude_joints": None,  # pi0, pi0.5: of relative actions only
    "action_feature_names": None,  # pi0, pi0.5: of relative actions only
}


def load_policy_config(folder: str | Path) -> Any:
    """Return the configuration in a policy checkpoint, written by this or another version of LeRobot.

    LeRobot's own ``PreTrainedConfig.from_pretrained`` refuses fields that it does not know. A checkpoint of 0.6 has
    such fields for 0.4 (``ADDED_FIELDS``); they are left out where they change nothing. 0.6 knows all fields of 0.4.
    Either would fetch the backbone's first weights from the network before it loads those of the checkpoint, so
    ``pretrained_backbone_weights`` is ``None``.

    Raises:
        ValueError: no valid file, or the installed LeRobot does not know the policy's type or a field that matters.
    """
    import draccus
    from lerobot.configs.policies import PreTrainedConfig

    path = Path(folder) / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' is not JSON ({error}); copy or train the policy again") from error
    if not isinstance(values, dict):
        raise ValueError(f"'{path}' is no JSON object; copy or train the policy again")
    known, kind = PreTrainedConfig.get_known_choices(), values.pop("type", None)
    cure = f"install the LeRobot that wrote it (this is {metadata.version('lerobot')}), or train the policy again"
    if not isinstance(kind, str) or kind not in known:
        raise ValueError(f"'{path}' holds a policy of type {kind!r}, which this LeRobot does not have; {cure}")
    for name in values.keys() - known[kind].__dataclass_fields__.keys():
        harmless, value = ADDED_FIELDS.get(name, ()), values.pop(name)
        if harmless is not None and value not in harmless:
            raise ValueError(f"'{path}' sets {name} = {value!r}, which this LeRobot does not know; {cure}")
    try:
        config = draccus.decode(known[kind], values)
    except Exception as error:  # draccus raises any
        # What the policy's own class refuses, draccus says without its reason.
        why = error.__cause__ if type(error) is draccus.ParsingError and error.__cause__ else error
        raise ValueError(f"'{path}' has a setting that this LeRobot does not take ({one_line(why)}); {cure}") from error
    if hasattr(config, "pretrained_backbone_weights"):
        config.pretrained_backbone_weights = None
    return config


def smolvla_reading_options() -> dict[str, Any]:
    """Return what SmolVLA's network wants to hear when it reads image and task, to keep their keys and values.

    0.4: ``fill_kv_cache``; 0.6 does it whenever it is given no cache.
    """
    return {} if at_least("lerobot", 0, 6) else {"fill_kv_cache": True}


def training_states() -> Any:
    """Return LeRobot's module that saves and loads checkpoints (``save_checkpoint``, ``load_training_state``).

    0.4: ``lerobot.utils.train_utils``; 0.6: ``lerobot.common.train_utils``. The files are the same.
    """
    if at_least("lerobot", 0, 6):
        from lerobot.common import train_utils
    else:
        from lerobot.utils import train_utils
    return train_utils


def create_dataset(*arguments: Any, codec: str = "h264", **options: Any) -> Any:
    """Create a LeRobotDataset to write to, with LeRobot's own settings of the video encoder but the codec.

    0.4 has ``vcodec``; 0.6 one object for all settings of the encoder. The other settings (GOP 2, crf 30, yuv420p) are
    the same.
    """
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    if at_least("lerobot", 0, 6):
        from lerobot.configs import RGBEncoderConfig

        return LeRobotDataset.create(*arguments, rgb_encoder=RGBEncoderConfig(vcodec=codec), **options)
    return LeRobotDataset.create(*arguments, vcodec=codec, **options)


def recorded_image_info() -> dict[str, Any]:
    """Return what lerobot-record adds to the description of an image feature: 0.6 says that it is no depth."""
    return {"info": {"is_depth_map": False}} if at_least("lerobot", 0, 6) else {}


def make_scalars(dataset: Any, keys: Iterable[str]) -> None:
    """Make the values of features of shape (1,) scalars; to be called before ``save_episode``.

    0.4 hands arrays of shape (1,) to where scalars are wanted, which numpy from 2.4 on refuses; 0.6 does it itself.
    """
    if at_least("lerobot", 0, 6):
        return
    for key in keys:
        if key in dataset.episode_buffer:
            dataset.episode_buffer[key] = [value[0] for value in dataset.episode_buffer[key]]


def dataset_to_policy_features(features: dict[str, Any]) -> dict[str, Any]:
    """Return what a policy made for a data set sees and predicts.

    0.4: in ``lerobot.datasets.utils``; 0.6: in ``lerobot.utils.feature_utils``.
    """
    if at_least("lerobot", 0, 6):
        from lerobot.utils import feature_utils
    else:
        from lerobot.datasets import utils as feature_utils
    return feature_utils.dataset_to_policy_features(features)


def convert_v21_to_v30(folder: Path) -> None:
    """Convert a data set with LeRobot's script, which keeps the old one beside it as ``<folder>_old``.

    0.4: in ``lerobot.datasets.v30``, told the folder's parent; 0.6: in ``lerobot.scripts``, told the folder itself.
    """
    if at_least("lerobot", 0, 6):
        from lerobot.scripts.convert_dataset_v21_to_v30 import convert_dataset

        convert_dataset(f"local/{folder.name}", root=folder, push_to_hub=False)
    else:
        from lerobot.datasets.v30.convert_dataset_v21_to_v30 import convert_dataset

        convert_dataset(folder.name, root=folder.parent, push_to_hub=False)


def video_backend() -> str:
    """Return the decoder to give LeRobotDataset: its default torchcodec where that loads, else "pyav".

    0.4 takes torchcodec wherever it is installed, and fails at the first frame where FFmpeg's libraries are not; 0.6
    does as this.
    """
    try:
        importlib.import_module("torchcodec.decoders")
    except (ImportError, OSError, RuntimeError):
        return "pyav"
    return "torchcodec"


# ---- ROS 2 -----------------------------------------------------------------------------------------------------------


def rclpy_version() -> str:
    """Return the version of the rclpy that is imported here, "" if none is or it does not say.

    The wheels call their package ``ros-rclpy``, a ROS installation ``rclpy``; both can be there, one hides the other.
    """
    spec = importlib.util.find_spec("rclpy")
    if spec is None or spec.origin is None:
        return ""
    folder = Path(spec.origin).parent.resolve()
    for name in ("ros-rclpy", "rclpy"):
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        if Path(str(found.locate_file("rclpy"))).resolve() == folder:
            return found.version
    return ""


def fast_dds_profiles_variable() -> str:
    """Return the environment variable that names Fast DDS's file of profiles.

    Fast DDS 2 (to ROS 2 Jazzy, rclpy 7) reads only the old name; Fast DDS 3 (ROS 2 Kilted, rclpy 9) warns about it.
    """
    version = rclpy_version()
    old = int(version.split(".")[0]) < 8 if version else os.environ.get("ROS_DISTRO") in ("iron", "jazzy")
    return "FASTRTPS_DEFAULT_PROFILES_FILE" if old else "FASTDDS_DEFAULT_PROFILES_FILE"


# ---- transformers 4.57 and 5: Qwen3-VL's folders ---------------------------------------------------------------


def transformers_major() -> int:
    """Return the first number of the installed transformers' version."""
    import transformers

    return int(transformers.__version__.split(".")[0])


def rope_settings(rope: dict[str, Any]) -> dict[str, Any]:
    """Return rotary settings as the installed transformers takes them in a ``text_config``."""
    if transformers_major() >= 5:
        return {"rope_parameters": dict(rope)}
    return {"rope_scaling": {k: v for k, v in rope.items() if k != "rope_theta"}, "rope_theta": rope["rope_theta"]}


def processor_parts() -> tuple[Any, Any]:
    """Return the classes of Qwen's tokenizer and image processor.

    Both versions have one of each that is not slow; 5 names them without 4.57's ending "Fast".
    """
    import transformers

    end = "" if transformers_major() >= 5 else "Fast"
    return getattr(transformers, f"Qwen2Tokenizer{end}"), getattr(transformers, f"Qwen2VLImageProcessor{end}")


def processor_options(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """Return what ``AutoProcessor.from_pretrained`` is to be told so that both versions read the same processor.

    A tokenizer's further special tokens are a list ``extra_special_tokens`` in the files of 5; 4.57 calls that list
    ``additional_special_tokens`` and fails over the other.

    Args:
        tokenizer: what is in its tokenizer_config.json.
    """
    if transformers_major() >= 5:
        return {}
    more = tokenizer.get("extra_special_tokens")
    renamed = {"extra_special_tokens": {}, "additional_special_tokens": more} if isinstance(more, list) else {}
    return {"use_fast": True, **renamed}


# ---- transformers 4.57 and 5: Qwen3-VL's forward ---------------------------------------------------------------------


def token_types(config: Any, ids: Any) -> dict[str, Any]:
    """Return what a forward pass with images or videos wants beside token ids (B, L).

    5: ``mm_token_type_ids`` (B, L), 1 at tokens of images and 2 of videos (its processor returns them too); 4.57:
    nothing.
    """
    if transformers_major() < 5:
        return {}
    return {"mm_token_type_ids": (ids == config.image_token_id).int() + 2 * (ids == config.video_token_id).int()}


def rope_index(model: Any, ids: Any, image_grid: Any) -> Any:
    """Return the positions (3, B, L) of time, height and width of prompts without padding.

    Args:
        model: a Qwen3VLModel; its ``get_rope_index`` takes the token types since 5.
        ids: (B, L) token ids.
        image_grid: (images, 3) patches of each image.
    """
    return model.get_rope_index(input_ids=ids, image_grid_thw=image_grid, **token_types(model.config, ids))[0]


def tower_tokens(visual: Any, pixels: Any, grid: Any) -> Any:
    """Return the visual tokens (N, D) of a stock Qwen3VLVisionModel; 5 returns them as ``pooler_output``, 4.57 first.

    Args:
        visual: the tower.
        pixels: (patches, values) of all images.
        grid: (images, 3) patches of each image.
    """
    found = visual(pixels, grid_thw=grid)
    return found[0] if transformers_major() < 5 else found.pooler_output


def tower_positions(visual: Any, grid: Any) -> tuple[Any, Any, Any]:
    """Return the position embedding (P, H), and cosine and sine (P, head size) of its rotary one, of a vision tower.

    Up to 5.5 the tower works them out by methods of its own; 5.17 (or an earlier one) by functions that all towers
    share.

    Args:
        visual: a Qwen3VLVisionModel.
        grid: (images, 3) patches of each image.
    """
    import torch

    if hasattr(visual, "rot_pos_emb"):
        angles = visual.rot_pos_emb(grid)
        angles = torch.cat((angles, angles), dim=-1)
        return visual.fast_pos_embed_interpolate(grid), angles.cos(), angles.sin()
    from transformers import vision_utils

    indices, weights = vision_utils.get_vision_interpolation_indices_and_weights(
        grid,
        num_grid_per_side=visual.num_grid_per_side,
        mode=visual.interpolation_mode,
        align_corners=visual.interpolation_align_corners,
        spatial_merge_size=visual.spatial_merge_size,
    )
    embedding = (visual.pos_embed(indices) * weights[:, :, None]).sum(1).to(visual.dtype)
    places = vision_utils.get_vision_position_ids(grid, visual.spatial_merge_size)
    return embedding, *visual.rotary_pos_emb(embedding, places)


# ---- transformers 4.57 and 5: training -------------------------------------------------------------------------------


def warmup_of(share: float) -> dict[str, float]:
    """Return the training argument for a share of the steps, 0 to 1, with a rising learning rate.

    5 takes a share as ``warmup_steps`` where it is below 1, and warns of 4.57's ``warmup_ratio``.
    """
    if transformers_major() < 5:
        return {"warmup_ratio": share}
    return {"warmup_steps": min(share, math.nextafter(1.0, 0.0))}
