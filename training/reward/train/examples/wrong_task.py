# SPDX-License-Identifier: Apache-2.0
"""Texts of other tasks, for negatives: what an image shows is no progress on them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lrm_ros.training.reward.data.table import Keyframes

SAME_SOURCE_SHARE = 0.5  # share of the texts that come from the row's own source, where it has other tasks


class WrongTask:
    """Draws for rows a task with another text than their own; case, spaces and full stops make no other text.

    Half of them come from the same source: the same scene, another task. Not so where progress comes from a simulator's
    state: such a source is one task, in several wordings.

    Attributes:
        possible: (N,) whether there is another text for the row.
    """

    def __init__(self, keyframes: Keyframes) -> None:
        self._keyframes = keyframes
        texts = [" ".join(task.lower().split()).rstrip(" .!") for task in keyframes.tasks]
        self._text = np.unique(texts, return_inverse=True)[1] if texts else np.zeros(0, np.int64)
        used = np.unique(np.stack([keyframes.source, keyframes.task], axis=1), axis=0)
        # (source, one task a text of it)
        self._tasks = [
            mine[np.unique(self._text[mine], return_index=True)[1]]
            for mine in (used[used[:, 0] == source, 1] for source in range(len(keyframes.sources)))
        ]
        one_task = set(keyframes.source[keyframes.by_state].tolist())
        self._own = [len(tasks) > 1 and source not in one_task for source, tasks in enumerate(self._tasks)]
        self._only_other = [self._single_text_of_others(source) for source in range(len(self._tasks))]
        if len(keyframes) == 0:
            self.possible = np.zeros(0, bool)
            return
        only = np.array(self._only_other)[keyframes.source]  # -2: none, -1: several
        own = np.array(self._own)[keyframes.source]
        self.possible = own | ((only != -2) & (only != self._text[keyframes.task]))

    def _single_text_of_others(self, source: int) -> int:
        """Return the only text of all other sources; -1 for several, -2 for none."""
        found: set[int] = set()
        for other, tasks in enumerate(self._tasks):
            if other != source:
                found.update(self._text[tasks[:2]].tolist())
            if len(found) > 1:
                return -1
        return found.pop() if found else -2

    def draw(self, rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Return a task for each row, one of ``possible``."""
        places = zip(self._keyframes.source[rows].tolist(), self._keyframes.task[rows].tolist(), strict=True)
        return np.array([self._one(source, int(self._text[task]), rng) for source, task in places], np.int64)

    def _one(self, source: int, text: int, rng: np.random.Generator) -> int:
        others = self._only_other[source] not in (-2, text)
        own = self._own[source] and (not others or rng.random() < SAME_SOURCE_SHARE)
        while True:
            place = source if own else int(rng.integers(len(self._tasks)))
            tasks = self._tasks[place]
            task = int(tasks[rng.integers(len(tasks))])
            if self._text[task] != text and (own or place != source):
                return task
