# SPDX-License-Identifier: Apache-2.0
"""Collects episodes for the improver and has the completion head judge each; resumes where it was interrupted.

A folder holds ``episodes/*.mcap`` (the truth) and ``verdicts.jsonl`` (one line an attempt, written after the journal).
An attempt with a verdict is never repeated; a journal without one is judged, not recorded again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lrm_ros import seeds
from lrm_ros.config import ImproverConfig
from lrm_ros.files import append_line, read_lines, repair_lines
from lrm_ros.progress import progress_bar
from lrm_ros.record.dataset import Omissions, leave_out
from lrm_ros.record.journal import JournalError, read_journal
from lrm_ros.reward.engine import scene_frames
from lrm_ros.reward.views import every, newest
from lrm_ros.ros.control import Control, EpisodeControl, EpisodeError, SentSteps
from lrm_ros.ros.judge import Judge
from lrm_ros.types import Episode, Reward

DONE_CHECK_EVERY = 3  # control steps between two frames that are checked for the end of the task
MARGIN = 4  # control steps kept after that moment: the policy also learns to stay


class Collector:
    """Rolls out, judges and reads back; does not use the simulator's labels."""

    HOLD_FRAMES = False
    """Whether a step whose frame was lost has the one before; in lock-step none is lost."""

    def __init__(
        self,
        control: Control,
        episodes: EpisodeControl,
        sent: SentSteps,
        judge: Judge,
        cameras: Sequence[str],
        config: ImproverConfig,
    ) -> None:
        """Look whether there are start poses enough.

        Args:
            control: asks the other nodes.
            episodes: begins and ends episodes.
            sent: counts the control steps of the episode.
            judge: asks the reward node about recorded frames.
            cameras: whose frames are judged; of several the mean.
            config: the loop's settings.

        Raises:
            ValueError: there are no start poses for this seed, or not as many as the loop may need.
        """
        self._demonstration_seeds = seeds.demonstrations(config.seed, 2 * config.demonstrations + 10)
        for iteration in range(1, config.iterations + 1):
            seeds.rollouts(config.seed, iteration, config.episodes)
        self._control, self._episodes, self._sent = control, episodes, sent
        self._config, self._cameras, self._judges = config, tuple(cameras), judge

    # -- collecting --------------------------------------------------------------------------------------------------

    def abandon(self) -> None:
        """Discard the episode that is being recorded, if there is one: of a loop that was stopped in the middle."""
        with contextlib.suppress(EpisodeError):
            self._episodes.discard()

    def demonstrate(self, folder: Path) -> int:
        """Record demonstrations of the twin's scripted expert until the judge has kept enough; returns how many.

        Raises:
            EpisodeError: the judge keeps less than half of them: judge and task do not fit.
        """
        config = self._config
        self._control.set("twin", {"frame_every": 1, "max_steps": 0, "disturbance_std": config.disturbance})
        self._control.set("recorder", {"source": "expert", "image_format": "png"})
        verdicts = read_verdicts(folder)
        seed = self._demonstration_seeds.start
        wanted = config.demonstrations
        kept = sum(row["keep"] for row in verdicts.values())
        with progress_bar(wanted, "demonstrations", "ep", kept) as bar:
            while kept < wanted:
                if seed - self._demonstration_seeds.start >= 2 * wanted + 10:
                    raise EpisodeError(
                        f"the judge kept {kept} of {2 * wanted + 10} demonstrations; is model '{config.model}' made "
                        "for this task and camera?"
                    )
                row = self._attempt(folder, verdicts, seed, 0, demonstrate=True)
                if row["new"] and row["keep"]:
                    kept += 1
                    bar.update(1)
                seed += 1
        self._control.set("twin", {"disturbance_std": 0.0})
        return kept

    def roll_out(self, folder: Path, iteration: int) -> dict[str, int]:
        """Try every start pose of an iteration until the judge keeps an attempt or the attempts are used up.

        Every try has an exploration offset of its own (see ``lrm_ros.robot.so100.explore``).

        Returns:
            {"episodes": attempts, "kept": kept ones}.
        """
        config = self._config
        self._control.set("twin", {"frame_every": 1, "max_steps": config.rollout_steps, "disturbance_std": 0.0})
        self._control.set("recorder", {"source": "policy", "image_format": "png"})
        verdicts = read_verdicts(folder)
        attempts = kept = 0
        with progress_bar(config.episodes, "roll out", "start") as bar:
            for seed in self._starts(iteration):
                for attempt in range(config.tries):
                    row = self._attempt(folder, verdicts, seed, attempt)
                    attempts += 1
                    if row["keep"]:
                        kept += 1
                        break
                bar.update(1)
                bar.set_postfix(attempts=attempts, kept=kept, refresh=False)
        return {"episodes": attempts, "kept": kept}

    def _starts(self, iteration: int) -> range:
        """Return the numbers of an iteration's starts; in the twin they are its seeds."""
        return seeds.rollouts(self._config.seed, iteration, self._config.episodes)[: self._config.episodes]

    def _attempt(
        self, folder: Path, verdicts: dict[str, dict[str, Any]], seed: int, attempt: int, demonstrate: bool = False
    ) -> dict[str, Any]:
        """Return the verdict on one attempt, recording and judging what is missing."""
        episode_id = f"{seed}_{attempt}"
        if episode_id in verdicts:
            return {**verdicts[episode_id], "new": False}
        journal = folder / "episodes" / f"{episode_id}.mcap"
        if not journal.exists():
            self._begin(folder, episode_id, seed)
            try:
                journal = self._demonstrate(episode_id) if demonstrate else self._act(episode_id, seed, attempt)
            except EpisodeError:
                self.abandon()
                raise
        row = {**self._judge(journal), "seed": seed, "attempt": attempt}
        verdicts[episode_id] = row
        append_line(folder / "verdicts.jsonl", row)
        return {**row, "new": True}

    def _begin(self, folder: Path, episode_id: str, seed: int) -> None:
        """Reset the world and start to record; in this order, so that the journal begins with the first frame."""
        self._control.trigger("reward/reset")  # judges the last frame of the episode before
        self._episodes.reset(seed)
        self._episodes.start(folder=str(folder / "episodes"), episode_id=episode_id)
        self._sent.restart()

    def _demonstrate(self, episode_id: str) -> Path:
        """Run the twin's expert once and return the journal."""
        return self._finish(episode_id, int(self._control.trigger("twin/demonstrate")))

    def _act(self, episode_id: str, seed: int, attempt: int) -> Path:
        """Run the policy until the episode's last step and return the journal."""
        self._control.set("policy", {"explore_std": self._config.explore_std, "seed": seed * 10 + attempt})
        self._control.trigger("policy/reset")
        return self._finish(episode_id, self._config.rollout_steps)

    def _finish(self, episode_id: str, steps: int) -> Path:
        """Wait for a number of control steps, close the journal and return its path."""
        self._control.wait_until(lambda: self._sent.count >= steps, f"the end of episode '{episode_id}'")
        return self._episodes.stop()

    # -- judging -----------------------------------------------------------------------------------------------------

    def _judge(self, journal: Path) -> dict[str, Any]:
        """Judge the last frames of a journal and, if it is kept, find where it was done."""
        episode = read_journal(journal)
        frames = scene_frames(episode, self._cameras)
        verdict = self._judges.judge(frames, episode.task, episode.episode_id)
        row = {
            "episode_id": verdict.episode_id,
            "keep": verdict.keep,
            "score": round(verdict.score, 4) if np.isfinite(verdict.score) else None,
            "reason": verdict.reason,
        }
        if verdict.keep:
            row["done_ns"] = self._done_ns(episode)
        return row

    def _done_ns(self, episode: Episode) -> int:
        """Return the stamp of the first of two checked frames in a row that show the task done."""
        frames = scene_frames(episode, self._cameras)
        checked = every(frames, self._cameras, DONE_CHECK_EVERY)
        answers = self._judges.completion(checked, episode.task, episode.episode_id)
        threshold = self._config.judge_threshold
        done = [isinstance(answer, Reward) and answer.value >= threshold for answer in answers]
        for index in range(len(done) - 1):
            if done[index] and done[index + 1]:
                return answers[index + 1].stamp_ns
        return newest(frames, self._cameras, 1)[0].stamp_ns

    def kept_episodes(self, folder: Path, omissions: Omissions | None = None) -> list[Episode]:
        """Read the kept episodes of a folder, cut shortly after they were done, in a fixed order.

        Args:
            folder: of the iteration or the demonstrations.
            omissions: filled with journals that cannot be read any more; without it one is an error.
        """
        episodes = []
        for episode_id, row in sorted(read_verdicts(folder).items()):
            if row["keep"]:
                path = folder / "episodes" / f"{episode_id}.mcap"
                try:
                    episode = read_journal(path, hold_frames=self.HOLD_FRAMES)
                except JournalError as error:
                    leave_out(omissions, str(path), error)
                    continue
                episodes.append(replace(cut(episode, row["done_ns"]), outcome=True))
        return episodes


def cut(episode: Episode, done_ns: int) -> Episode:
    """Return an episode up to ``MARGIN`` control steps after a stamp [ns]."""
    stamps = [step.observation.stamp_ns for step in episode.steps]
    last = int(np.searchsorted(stamps, done_ns, side="right")) + MARGIN
    kept: Sequence[Any] = episode.steps[:last]
    if last >= len(stamps):
        return replace(episode, steps=kept)
    return replace(episode, steps=kept, final=None, final_rewards={})


def read_verdicts(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the verdicts of a folder by episode; a line cut off by a kill is dropped, its journal judged again."""
    path = folder / "verdicts.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    repair_lines(path)
    verdicts = {}
    for row in read_lines(path):
        kinds = (type(row.get("episode_id")), type(row.get("keep")), type(row.get("done_ns", 0)))
        if kinds != (str, bool, int):
            raise ValueError(f"'{path}' has a line that is no verdict: {row}; delete it, its journal is judged again")
        verdicts[row["episode_id"]] = row
    return verdicts


def kept_any(folder: Path) -> bool:
    """Return whether the judge has kept an episode of a folder."""
    return any(row["keep"] for row in read_verdicts(folder).values())
