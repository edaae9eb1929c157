# SPDX-License-Identifier: Apache-2.0
"""Score recorded trajectories with a reward model, as upstream's ``vlm_scores.json``.

Format, file and which frames are asked about are those of Large-Reward-Models:eval/score_with_vlm.py (5845ab0): with an
interval K progress and completion take every K-th frame and the last, comparison pairs of frames K apart. Different, on
purpose:

- A query without an answer is written as null with the reason in ``response``; upstream writes 0.
- Every trajectory is asked about its own task; upstream asks about one task for all.
- ``completion`` asks the completion head; upstream's asks the progress head under that name.
- A mode may be a video head, which is asked with every frame that was taken up to its own; its model answers no other.
- ``answers`` says what becomes of an answer. ``mean``, the expectation over the head's answers from one forward pass,
  is what ``lrm ppo`` pays. ``nearest`` is the answer next to it. ``written`` lets the model write and reads its text,
  as upstream's server does. A comparison is +1 or -1 in all three. A video head has one answer, here called ``mean``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lrm_ros.config import RobotContract
from lrm_ros.reward.engine import RewardEngine
from lrm_ros.reward.heads import HEADS
from lrm_ros.reward.video_heads import VIDEO_HEADS
from lrm_ros.training.reward.eval.trajectories.read import COMPARISON, FIRST
from lrm_ros.training.reward.eval.trajectories.record import SIMULATOR, WORKER
from lrm_ros.types import Frame, Reward, RewardQuery, Unscored

MODES = {"progress": "progress", "completion": "completion", COMPARISON: "contrastive"}  # upstream's name -> head
ANSWERS = ("mean", "nearest", "written")
_BATCH = 32  # frames
_NS_PER_S = 10**9  # [ns]


@dataclass(frozen=True)
class Trajectory:
    """A recorded trajectory of T control steps.

    Attributes:
        folder: where it is.
        steps: lines of ``metadata.jsonl``.
        summary: content of ``summary.json``.
        progress: (T) the simulator's progress after each step; ``None`` if it was recorded elsewhere.
        control_hz: control steps a second.
    """

    folder: Path
    steps: list[dict[str, Any]]
    summary: dict[str, Any]
    progress: NDArray[np.float64] | None
    control_hz: float

    def frame(self, t: int) -> Frame:
        """Read a frame; its stamp is the time since the first one.

        Raises:
            ValueError: it is not there or cannot be read.
        """
        path = self.folder / f"frame_{t:03d}.png"
        try:
            image = np.asarray(Image.open(path).convert("RGB"))
        except OSError as error:
            raise ValueError(f"frame '{path}' cannot be read: {error}; remove its folder and record again") from None
        return Frame(round(t * _NS_PER_S / self.control_hz), "recorded", image)


def read_recording(folder: Path, control_hz: float = RobotContract.control_hz) -> list[Trajectory]:
    """Read the trajectories of a recording, in the order of their names.

    Args:
        folder: of the recording.
        control_hz: control steps a second; they give the times that a video head is shown.

    Raises:
        FileNotFoundError: no trajectory there.
        ValueError: one is damaged; says what is missing.
    """
    base = folder / WORKER / "trajectories"
    found = sorted(path for path in base.iterdir() if path.is_dir()) if base.is_dir() else []
    if not found:
        raise FileNotFoundError(f"no trajectories in '{base}'; record some with 'lrm reward openloop --policy FOLDER'")
    return [_trajectory(path, control_hz) for path in found]


def _trajectory(folder: Path, control_hz: float) -> Trajectory:
    cure = "remove the folder and record again"
    try:
        lines = [line for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines() if line.strip()]
        steps = [json.loads(line) for line in lines]
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        simulator = folder / SIMULATOR
        progress = (
            np.array(json.loads(simulator.read_text(encoding="utf-8"))["progress"][1:]) if simulator.is_file() else None
        )
    except FileNotFoundError as error:
        raise ValueError(f"trajectory '{folder}' has no {Path(error.filename).name}; {cure}") from None
    except (ValueError, KeyError) as error:
        raise ValueError(f"trajectory '{folder}' is damaged: {error!r}; {cure}") from None
    frames = len(list(folder.glob("frame_*.png")))
    if [step.get("t") for step in steps] != list(range(frames)) or (progress is not None and len(progress) != frames):
        raise ValueError(f"trajectory '{folder}' has {len(steps)} lines of metadata for {frames} frames; {cure}")
    if not steps:
        raise ValueError(f"trajectory '{folder}' is empty; {cure}")
    if not str(summary.get("task_description", "")).strip():
        raise ValueError(f"trajectory '{folder}' has no task_description in its summary.json; write it there")
    return Trajectory(folder, steps, summary, progress, control_hz)


def score(
    engine: RewardEngine,
    trajectories: Sequence[Trajectory],
    modes: Sequence[str] = tuple(MODES),
    interval: int = 1,
    answers: str = "mean",
    progress: Callable[[int], Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Return the content of a ``vlm_scores.json`` for each mode.

    Args:
        engine: asks the model; its read-out must be ``generate`` for ``written`` and ``forward`` else.
        trajectories: recorded.
        modes: of ``MODES``, or one of ``VIDEO_HEADS`` alone.
        interval: ask about every K-th frame.
        answers: one of ``ANSWERS``.
        progress: called with the number of scored frames.

    Raises:
        ValueError: unknown modes or such that no model answers together, an interval below 1, answers or a read-out
            that do not fit, or an unreadable frame.
    """
    unknown = set(modes) - set(MODES) - set(VIDEO_HEADS)
    if unknown or not modes or interval < 1:
        raise ValueError(
            f"modes are {', '.join((*MODES, *VIDEO_HEADS))} and the interval at least 1, got {list(modes)}, {interval}"
        )
    video = video_mode(modes)
    if video and answers != "mean":
        raise ValueError(f"mode '{video}' has one answer; leave out --answers {answers}")
    readout = "generate" if answers == "written" else "forward"
    if answers not in ANSWERS or engine.config.readout != readout:
        raise ValueError(f"answers '{answers}' (one of {', '.join(ANSWERS)}) need the read-out '{readout}'")
    tasks = {trajectory.summary["task_description"] for trajectory in trajectories}
    task = tasks.pop() if len(tasks) == 1 else "each trajectory's own"
    files: dict[str, dict[str, Any]] = {
        mode: {
            "vlm_url": f"lrm_ros, model {engine.model.name}",
            "mode": mode,
            "task_description": task,
            "num_trajectories": len(trajectories),
            "answers": answers,
            "interval": interval,
            "trajectories": [],
        }
        for mode in modes
    }
    for trajectory in trajectories:
        entries = _entries(engine, trajectory, modes, interval, answers)
        for mode in modes:
            files[mode]["trajectories"].append(
                {
                    "traj_dir": str(trajectory.folder),
                    "summary": trajectory.summary,
                    "oracle_steps": trajectory.steps,
                    f"{_kind(mode)}_scores": entries[mode],
                }
            )
        if progress:
            progress(len(trajectory.steps))
    return files


def video_mode(modes: Sequence[str]) -> str:
    """Return the video head that is asked, empty if it is the LRM's heads.

    Raises:
        ValueError: a video head together with another mode, for one model does not answer both.
    """
    video = [mode for mode in modes if mode in VIDEO_HEADS]
    if video and len(modes) > 1:
        raise ValueError(f"mode '{video[0]}' needs its own model; ask for it alone, got {', '.join(modes)}")
    return video[0] if video else ""


def _kind(mode: str) -> str:
    return COMPARISON if mode == COMPARISON else "completion"


def _entries(
    engine: RewardEngine, trajectory: Trajectory, modes: Sequence[str], interval: int, answers: str
) -> dict[str, list[dict[str, Any]]]:
    """Ask about one trajectory; heads share the frames of a batch."""
    task, last = trajectory.summary["task_description"], len(trajectory.steps) - 1
    entries: dict[str, list[dict[str, Any]]] = {mode: [] for mode in modes}
    if COMPARISON in entries:
        entries[COMPARISON].append({"t": 0, "vlm_comparison_score": 0.0, "result": FIRST})
    times = [t for t in range(last + 1) if t % interval == 0 or t == last]
    video = video_mode(modes)
    batch = max(1, _BATCH // VIDEO_HEADS[video].max_frames) if video else _BATCH
    before: dict[int, Frame] = {}
    so_far: list[Frame] = []
    for at in range(0, len(times), batch):
        now = times[at : at + batch]
        frames = before | {t: trajectory.frame(t) for t in now}
        asked: list[tuple[str, int, RewardQuery]] = []
        for t in now:
            for mode in modes:
                if video:
                    so_far.append(frames[t])
                    asked.append((mode, t, RewardQuery(task, video, tuple(so_far))))
                elif mode != COMPARISON:
                    asked.append((mode, t, RewardQuery(task, MODES[mode], (frames[t],))))
                elif t and t % interval == 0:
                    asked.append((mode, t, RewardQuery(task, MODES[mode], (frames[t - interval], frames[t]))))
        for (mode, t, _), answer in zip(asked, engine.score([query for *_, query in asked]), strict=True):
            entries[mode].append(_entry(mode, t, answer, answers))
        newest = max(t for t in frames if t % interval == 0)
        before = {newest: frames[newest]}
    return entries


def _entry(mode: str, t: int, answer: Reward | Unscored, answers: str) -> dict[str, Any]:
    """Return a line of scores."""
    reason = answer.reason if isinstance(answer, Unscored) else ""
    value = None if isinstance(answer, Unscored) else answer.value
    if mode == COMPARISON:
        sign = None if value is None else float(np.sign(value))
        result = None if not sign else "ImageB" if sign > 0 else "ImageA"
        return {"t": t, "vlm_comparison_score": sign, "result": result, "response": reason}
    if value is not None and answers == "nearest":
        known = np.array(HEADS[MODES[mode]].values)
        value = float(known[np.abs(known - value).argmin()])
    return {"t": t, "vlm_completion_score": value, "response": reason, "success": value is not None}


def progress_pairs(trajectories: Sequence[Trajectory], content: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """Return rows (simulator's progress, predicted progress, share of the episode's time) of every scored frame.

    Args:
        trajectories: recorded.
        content: of their ``vlm_scores.json``, mode ``progress``.

    Returns:
        (N, 3); ``None`` where the simulator's progress was not recorded or nothing was answered.
    """
    rows = []
    for trajectory, scored in zip(trajectories, content["trajectories"], strict=True):
        if trajectory.progress is None:
            return None
        for entry in scored["completion_scores"]:
            if entry["vlm_completion_score"] is not None:
                t = entry["t"]
                share = (t + 1) / len(trajectory.progress)
                rows.append((trajectory.progress[t], entry["vlm_completion_score"], share))
    return np.array(rows) if rows else None
