# SPDX-License-Identifier: Apache-2.0
"""Do a policy's saved processors scale all that it sees and says, by statistics that data can have?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def check_scales(config: Any, preprocess: Any, postprocess: Any) -> None:
    """Raise ValueError where the processors would leave as it is, or scale by what is no scale, what the policy knows.

    A standard deviation that is infinite, for one, makes every state 0: the policy would act, and see nothing.

    Args:
        config: the policy's, of LeRobot.
        preprocess: LeRobot's pipeline for what it sees.
        postprocess: LeRobot's pipeline for what it says.
    """
    from lerobot.configs.types import NormalizationMode
    from lerobot.processor import NormalizerProcessorStep, UnnormalizerProcessorStep

    used = [(preprocess, NormalizerProcessorStep, *item) for item in (config.input_features or {}).items()]
    used.append((postprocess, UnnormalizerProcessorStep, "action", config.action_feature))
    for processor, kind, name, feature in used:
        mode = config.normalization_mapping.get(feature.type.value, NormalizationMode.IDENTITY)
        if mode == NormalizationMode.IDENTITY or "empty_camera" in name:
            continue
        steps = [step for step in processor.steps if isinstance(step, kind) and step.norm_map.get(feature.type) == mode]
        found: Mapping[str, Any] = next((step.stats[name] for step in steps if name in (step.stats or {})), {})
        if not found:
            raise ValueError(f"its processors have no statistics that scale '{name}' ({mode.value})")
        sizes = {np.size(value) for statistic, value in found.items() if statistic != "count"}
        if feature.type.value != "VISUAL" and sizes != {feature.shape[0]}:
            raise ValueError(f"its statistics of '{name}' have {sorted(sizes)} values, there are {feature.shape[0]}")
        if wrong := _impossible({key: np.asarray(value, np.float64).ravel() for key, value in found.items()}):
            raise ValueError(f"its statistics of '{name}' are of no data: {wrong}")


def _impossible(statistics: Mapping[str, NDArray[Any]]) -> str:
    """Say which statistic of a feature no data can have, with place and value; empty if all can be."""
    for key, values in statistics.items():
        lowest = 0.0 if key == "std" else -np.inf  # 0: of a joint that never moved
        if (wrong := ~(np.isfinite(values) & (values >= lowest))).any():
            place = int(wrong.argmax())
            return f"{key}[{place}] is {values[place]:g}"
    for low, high in (("min", "max"), ("q01", "q99"), ("q10", "q90")):
        if low in statistics and high in statistics and (wrong := statistics[low] > statistics[high]).any():
            place = int(wrong.argmax())
            return f"{low}[{place}] is {statistics[low][place]:g}, above its {high} {statistics[high][place]:g}"
    return ""
