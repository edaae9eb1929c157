# SPDX-License-Identifier: Apache-2.0
"""Film strips of a refinement: what some worlds showed in an iteration, with the reward of each decision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lrm_ros.sim.vector.worlds import ChunkResult
from lrm_ros.types import Observation

WORLDS = 4
_END = (60, 160, 60)  # colour of the bar between episodes


class Film:
    """Frames of the first worlds: a row a world, a frame a decision."""

    def __init__(self, observations: Sequence[Observation]) -> None:
        """Begin with the first observations."""
        self.rows: list[list[tuple[NDArray[np.uint8], str, bool]]] = [
            [(next(iter(observation.frames.values())).image, "start", False)] for observation in observations[:WORLDS]
        ]

    def add(self, results: Sequence[ChunkResult], rewards: Sequence[NDArray[np.float32]]) -> None:
        """Add what came of a decision; the end of an episode is shown, not the start of the next."""
        for row, result, reward in zip(self.rows, results, rewards, strict=False):
            seen = result.final_observation if result.final_observation is not None else result.observation
            row.append((next(iter(seen.frames.values())).image, f"{reward.sum():+.2f}", result.done))


def write_strip(film: Film, path: Path) -> None:
    """Draw a film as one JPEG."""
    import cv2

    strips = []
    for row in film.rows:
        pictures = []
        for image, text, ended in row:
            picture = image.copy()
            cv2.putText(picture, text, (3, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 2, cv2.LINE_AA)
            cv2.putText(picture, text, (3, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (255, 255, 255), 1, cv2.LINE_AA)
            edge = np.full((len(picture), 3, 3), _END if ended else (255, 255, 255), np.uint8)
            pictures += [picture, edge]
        strips.append(np.concatenate(pictures, axis=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(strips), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
