# SPDX-License-Identifier: Apache-2.0
"""Do a policy's saved processors scale all that it sees and says once, by what data can have, and its weights never?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_EPS = 1e-2  # added to a standard deviation; LeRobot writes 1e-8, and joints move by tenths of a rad
_FLOATS = ("F64", "F32", "F16", "BF16")


def check_weights(policy: Any, file: Path) -> None:
    """Raise ValueError where a file has numbers for a policy's weights that LeRobot would take without their scale.

    Quantised weights are integers or floats of 8 bits; torch copies them into its own as the numbers that they are.

    Args:
        policy: LeRobot's, loaded from the file.
        file: of safetensors.
    """
    from safetensors import safe_open

    weights = policy.state_dict()
    with safe_open(file, framework="numpy") as stored:
        for name in weights.keys() & set(stored.keys()):
            kind = stored.get_slice(name).get_dtype()
            if weights[name].is_floating_point() and kind not in _FLOATS:
                raise ValueError(f"'{file.name}' stores {name} as {kind}: quantised weights cannot be used")


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
        steps = [
            step
            for step in processor.steps
            if isinstance(step, kind)
            and step.norm_map.get(feature.type) == mode
            and name in (step.stats or {})
            and (name == "action" or _looks_at(step, name))
        ]
        if len(steps) > 1:
            raise ValueError(f"its processors scale '{name}' in {len(steps)} steps, one after the other; leave one")
        if steps and not 0 <= steps[0].eps <= _MOST_EPS:
            raise ValueError(f"its processors scale '{name}' with eps {steps[0].eps:g}, not from 0 to {_MOST_EPS:g}")
        found: Mapping[str, Any] = steps[0].stats[name] if steps else {}
        if not found:
            raise ValueError(f"its processors have no statistics that scale '{name}' ({mode.value})")
        sizes = {np.size(value) for statistic, value in found.items() if statistic != "count"}
        if feature.type.value != "VISUAL" and sizes != {feature.shape[0]}:
            raise ValueError(f"its statistics of '{name}' have {sorted(sizes)} values, there are {feature.shape[0]}")
        if wrong := _impossible({key: np.asarray(value, np.float64).ravel() for key, value in found.items()}):
            raise ValueError(f"its statistics of '{name}' are of no data: {wrong}")


def _looks_at(step: Any, name: str) -> bool:
    """Return whether LeRobot's step scales an observation: it may be told to leave some as they are."""
    keys = step.normalize_observation_keys
    return name in step.features and (keys is None or name in keys)


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
