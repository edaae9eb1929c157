# SPDX-License-Identifier: Apache-2.0
"""Small episodes with real images for the tests of data sets, training and policies."""

from __future__ import annotations

import numpy as np

from lrm_ros.types import Episode, Frame, Observation, Reward, Step

DT_NS = 100_000_000


def square_episode(index: int, length: int = 12, frame_every: int = 1, rewards: bool = False) -> Episode:
    """The arm moves in a straight line to joint angles that say where the red square in the image is."""
    rng = np.random.default_rng(index)
    x, y = rng.uniform(0.2, 0.8, 2)
    image = rng.integers(90, 110, (96, 96, 3), dtype=np.uint8)
    a, b = int(96 * x), int(96 * y)
    image[b - 5 : b + 5, a - 5 : a + 5] = (200, 60, 40)
    start, goal = rng.normal(0, 0.1, 6), np.array([2 * x - 1, 2 * y - 1, x, y, 0, 0])
    steps, state = [], start
    for k in range(length):
        stamp_ns = (k + 1) * DT_NS
        seen = image.copy()
        seen[:4, :4] = k  # every frame differs
        frames = {"front": Frame(stamp_ns, "front", seen)} if k % frame_every == 0 else {}
        action = start + (goal - start) * (k + 1) / length
        scores = {"completion": Reward(stamp_ns, "completion", k / length)} if rewards else {}
        observation = Observation(stamp_ns, frames, state.astype(np.float32), "put the square")
        steps.append(Step(observation, action.astype(np.float32), (action + 0.01).astype(np.float32), scores))
        state = action
    return Episode(f"square_{index}", "put the square", steps, 10.0, None, "expert")


def square_episodes(count: int, **arguments) -> list[Episode]:
    return [square_episode(index, length=10 + index % 3, **arguments) for index in range(count)]
