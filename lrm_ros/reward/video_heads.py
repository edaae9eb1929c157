# SPDX-License-Identifier: Apache-2.0
"""The heads of the reward models the paper compares with: RoboReward, Robometer and TOPReward watch the episode so far.

Prompts are those the weights were trained on, or that their authors ask a stock model; the file of each model
(``roboreward.py``, ``robometer.py``, ``topreward.py``) says where implementations differ and which one it follows.
"""

from __future__ import annotations

import re
from typing import Any

from lrm_ros.reward.heads import Head, as_text, spread
from lrm_ros.types import RewardQuery

# ---- RoboReward: the prompt of the model cards of teetone/RoboReward-4B and -8B --------------------------------------

ROBOREWARD_PROMPT = (
    "Given the task, assign a discrete progress score reward (1,2,3,4,5) for the robot in the video in the format: "
    "ANSWER: <score>\n"
    "Rubric for end-of-episode progress (judge only the final state without time limits):\n"
    "1 - No Success: Final state shows no goal-relevant change for the command.\n"
    "2 - Minimal Progress: Final state shows a small but insufficient change toward the goal.\n"
    "3 - Partial Completion: The final state shows good progress toward the goal but violates more than one "
    "requirement or a major requirement.\n"
    "4 - Near Completion: Final state is correct in region and intent but misses a single minor requirement.\n"
    "5 - Perfect Completion: Final state satisfies all requirements.\n\n"
    "Task: {task}"
)
_ANSWER = re.compile(r"ANSWER:\s*([1-5])(?!\.?\d)", re.IGNORECASE)
_DIGIT = re.compile(r"(?<![\w.-])[1-5](?!\w|\.\d)")


def parse_roboreward(text: str) -> float | None:
    """Return (score - 1) / 4 of a reply that says a score from 1 to 5, ``None`` if it cannot be read.

    Without "ANSWER: n", Large-Reward-Models' server counts the first digit from 1 to 5 and Robometer's baseline the
    last. Here it counts if both are the same (they give the lowest reward where there is none).
    """
    match = _ANSWER.search(text)
    digits = [match.group(1)] if match else _DIGIT.findall(text)
    return (int(digits[0]) - 1) / 4 if digits and digits[0] == digits[-1] else None


def _roboreward_content(query: RewardQuery) -> list[dict[str, Any]]:
    return [{"type": "video"}, {"type": "text", "text": ROBOREWARD_PROMPT.format(task=as_text(query.task))}]


# ---- Robometer: the prompt of robometer/robometer --------------------------------------------------------------------

ROBOMETER_PROMPT = (
    "The task for the robot is '{task}'. Given the trajectory video, predict the task progress at each frame, how far "
    "along the robot is towards completing the task, a float between 0 and 1, where 0 is the starting state and 1 is "
    "when the task is completed. If the robot is not performing the same task, predict 0 progress."
)
PROGRESS_TOKEN = "<|prog_token|>"
_ROBOMETER_FRAMES = 8  # README: "max frames should always be set to 8"


def _robometer_content(query: RewardQuery) -> list[dict[str, Any]]:
    """Every image is followed by the token at which progress is read."""
    content: list[dict[str, Any]] = [{"type": "text", "text": ROBOMETER_PROMPT.format(task=as_text(query.task))}]
    for frame in spread(query.frames, _ROBOMETER_FRAMES):
        content += [{"type": "image", "image": frame.image}, {"type": "text", "text": PROGRESS_TOKEN}]
    return content


# ---- TOPReward: the statement whose truth a stock model is asked about -----------------------------------------------

_LOW, _HIGH = -25.0, -5.0


def topreward_value(log_prob: float) -> float:
    """Return clip((log P + 25) / 20, 0, 1) of the answer's log-probability.

    So does Large-Reward-Models' server (vlm_reward/vlm_reward_server.py, TOPREWARD_LOGP_LO/HI; its client still speaks
    of exp). The authors scale by the minimum and maximum over an episode, which are not known before it ends.
    """
    return min(1.0, max(0.0, (log_prob - _LOW) / (_HIGH - _LOW)))


def topreward_log_prob(value: float) -> float | None:
    """Return the log-probability whose :func:`topreward_value` this is; ``None`` at the ends, where it was clipped."""
    return _LOW + value * (_HIGH - _LOW) if 0 < value < 1 else None


def _topreward_content(query: RewardQuery) -> list[dict[str, Any]]:
    statement = (
        "The above video shows a robot manipulation trajectory that completes the following task: "
        f"{as_text(query.task)} Decide whether the above statement is True or not. The answer is:"
    )
    return [{"type": "video"}, {"type": "text", "text": statement}]


VIDEO_HEADS: dict[str, Head] = {
    "roboreward": Head(
        name="roboreward",
        min_frames=1,
        max_frames=16,  # Large-Reward-Models:config/roboreward.yaml
        content=_roboreward_content,
        low=0.0,
        high=1.0,
        prefix="ANSWER: ",
        candidates=("1", "2", "3", "4", "5"),
        values=(0.0, 0.25, 0.5, 0.75, 1.0),
        max_new_tokens=128,
        parse=parse_roboreward,
        video=True,
    ),
    # The expectation of ten values at the last frame's progress token, read by a small head of its own.
    "robometer": Head(
        name="robometer",
        min_frames=1,
        max_frames=_ROBOMETER_FRAMES,
        content=_robometer_content,
        low=0.0,
        high=1.0,
        video=True,
    ),
    # The log-probability of its only candidate, scaled by ``topreward_value``.
    "topreward": Head(
        name="topreward",
        min_frames=1,
        max_frames=15,  # Large-Reward-Models:config/topreward.yaml
        content=_topreward_content,
        low=0.0,
        high=1.0,
        candidates=(" True",),
        video=True,
    ),
}
