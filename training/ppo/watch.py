# SPDX-License-Identifier: Apache-2.0
"""Watch a refinement for reward hacking: the reward rises, and the judge, the arm or the simulator does not agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

WINDOW = 5  # iterations compared: the first ones of the run and the latest
_RISE = 2.0  # standard errors by which a mean must differ to count as changed
_EFFORT = 1.5  # growth of the effort that is worth a word


def warnings_of(history: Sequence[dict[str, Any]]) -> list[str]:
    """Return what looks wrong in a history's last iterations, in sentences; empty if nothing does.

    Args:
        history: lines with ``reward_per_step``, ``judged`` (p(done) at the end of episodes, or ``None``), ``effort``
            and ``success`` (share of episodes by the simulator, or ``None`` if none ended).
    """
    if len(history) < 2 * WINDOW:
        return []
    first, last = history[:WINDOW], history[-WINDOW:]
    reward = _change(first, last, "reward_per_step")
    if reward is None or reward < -_RISE:
        return []
    found = []
    success = _change(first, last, "success")
    if success is not None and success < -_RISE:
        before, after = _mean(first, "success"), _mean(last, "success")
        found.append(
            f"since the first {WINDOW} iterations success in the simulator fell from {before:.0%} to {after:.0%} and "
            "the reward did not fall: it does not measure this task"
        )
    if reward < _RISE:
        return found
    span = f"since the first {WINDOW} iterations the reward has risen"
    judged = _change(first, last, "judged")
    if judged is not None and judged < -_RISE:
        before, after = _mean(first, "judged"), _mean(last, "judged")
        found.append(f"{span}, but p(done) at the end of episodes fell from {before:.2f} to {after:.2f}")
    before, after = _mean(first, "effort"), _mean(last, "effort")
    if before > 0 and after > _EFFORT * before:
        found.append(f"{span}, and the arm moves {after / before:.1f} times as much: look at its film")
    return found


def _mean(lines: Sequence[dict[str, Any]], name: str) -> float:
    return float(np.mean([line[name] for line in lines]))


def _change(first: Sequence[dict[str, Any]], last: Sequence[dict[str, Any]], name: str) -> float | None:
    """Return the change of a mean in standard errors; ``None`` if it is not known in all iterations."""
    pair = [np.array([line[name] for line in lines], dtype=object) for lines in (first, last)]
    if any(value is None for values in pair for value in values):
        return None
    a, b = (values.astype(float) for values in pair)
    error = np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    return float((b.mean() - a.mean()) / max(error, 1e-12))
