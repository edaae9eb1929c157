# SPDX-License-Identifier: Apache-2.0
"""Collects the rollouts of the loop on an arm: a person or a policy puts the scene back, the completion head judges.

What the person says of a rollout (while it runs, or when asked) is kept in ``person.jsonl`` of the iteration's folder.
The judge decides; a rollout that the person called a failure is not kept either. A scene that looks done before the
rollout has begun was not put back: the person is asked again, and the second time the rollout is never kept
(``untouched.jsonl``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lrm_ros.config_person import RobotImproverConfig
from lrm_ros.files import append_line, read_lines, write_text
from lrm_ros.record.journal import read_info
from lrm_ros.ros.collector import Collector, read_verdicts
from lrm_ros.ros.control import Control, EpisodeControl, EpisodeError, SentSteps
from lrm_ros.ros.judge import Judge
from lrm_ros.ros.person import SAFE, Person
from lrm_ros.ros.policy_runs import ArmMover, PolicyRuns, start_recording
from lrm_ros.ros.robot_demonstrations import Starts
from lrm_ros.types import Reward

ANSWERS, UNTOUCHED = "person.jsonl", "untouched.jsonl"
_DONE = "it looked done before it began: the scene was not put back"


class RobotCollector(Collector):
    """Rolls out on an arm, each attempt until it ends well: one that fails is asked for again."""

    HOLD_FRAMES = True

    starts: Starts
    """How the demonstrations begin; to be set before :meth:`roll_out`."""

    def __init__(
        self,
        control: Control,
        episodes: EpisodeControl,
        sent: SentSteps,
        judge: Judge,
        cameras: Sequence[str],
        config: RobotImproverConfig,
        person: Person,
        runs: PolicyRuns,
        mover: ArmMover,
        control_hz: float,
    ) -> None:
        """Take what else there is on an arm; see :class:`Collector`.

        Args:
            control: asks the other nodes.
            episodes: begins and ends episodes.
            sent: counts the control steps of the episode.
            judge: asks the reward node.
            cameras: whose frames are judged; of several the mean.
            config: the loop's settings.
            person: who is asked.
            runs: lets the policy act.
            mover: brings the arm to where the demonstrations begin.
            control_hz: control rate [Hz].
        """
        super().__init__(control, episodes, sent, judge, cameras, config)
        self._robot, self._person, self._runs, self._mover = config, person, runs, mover
        self._hz = control_hz
        self._folder = Path()
        self._iteration, self._first = 1, 0
        self._checkpoint: Path | None = None
        self._failed = ""
        self._stood = True  # the arm was not moved since the last training
        self._asked_again = 0  # scenes that looked done and were asked for again

    def use(self, checkpoint: Path) -> None:
        """Roll out this policy from now on."""
        self._checkpoint = checkpoint
        self._runs.use(checkpoint)

    # -- rollouts ----------------------------------------------------------------------------------------------------

    def roll_out(self, folder: Path, iteration: int) -> dict[str, Any]:
        """Roll out as :meth:`Collector.roll_out`; the figures also tell how person and judge agree."""
        self._folder, self._iteration, self._asked_again, self._stood = folder, iteration, 0, True
        self._control.set("recorder", {"source": "policy", "image_format": "png"})
        self._first = self._starts(iteration)[0]
        verdicts = read_verdicts(folder)
        attempts = kept = 0
        for seed in self._starts(iteration):
            for attempt in range(self._config.tries):
                row = self._attempt(folder, verdicts, seed, attempt)
                attempts += 1
                kept_or_not = "kept" if row["keep"] else "not kept"
                print(f"rollout {row['episode_id']}: {kept_or_not}, {row['reason']}", flush=True)
                if row["keep"]:
                    kept += 1
                    break
        found = agreement(folder)
        print(sentence(found, self._asked_again), flush=True)
        return {"episodes": attempts, "kept": kept, "asked_again": self._asked_again, **found}

    def _attempt(
        self, folder: Path, verdicts: dict[str, dict[str, Any]], seed: int, attempt: int, demonstrate: bool = False
    ) -> dict[str, Any]:
        """Return the verdict on an attempt; one that fails (e-stop, a lost camera) is made again."""
        while True:
            try:
                row = super()._attempt(folder, verdicts, seed, attempt)
            except EpisodeError as error:
                self._person.nothing()
                self._runs.stand()
                self.abandon()
                if (folder / "episodes" / f"{seed}_{attempt}.mcap").is_file():
                    raise  # it is recorded, and cannot be judged
                self._failed = str(error)
                print(f"rollout {seed}_{attempt} does not count: {error}", flush=True)
            else:
                self._failed = ""
                return row

    def _begin(self, folder: Path, episode_id: str, seed: int) -> None:
        """Bring arm and scene to where the rollout begins, and start to record."""
        number = seed - self._first
        forget(folder / UNTOUCHED, episode_id)
        self._place(episode_id, number, "")
        if self._looks_done(episode_id):
            self._asked_again += 1
            self._place(episode_id, number, "it looks done already, was the scene put back? ")
            if self._looks_done(episode_id):  # kept at once: it may be judged by a loop that was started again
                append_line(folder / UNTOUCHED, {"episode_id": episode_id})
        self._control.trigger("reward/reset")
        start_recording(self._control, self._episodes, folder=str(folder / "episodes"), episode_id=episode_id)

    def _place(self, episode_id: str, number: int, why: str) -> None:
        """Have the scene put in place, by the reset policy or the person, the arm at the beginning's pose."""
        head = f"rollout {episode_id} of iteration {self._iteration}"
        if self._failed:
            self._person.scene(f"{head}: the last try did not count ({self._failed}). {SAFE}")
        elif self._stood and (self._robot.start_speed > 0 or self._robot.reset_policy):
            self._person.scene(f"{head}: {SAFE}")  # it stood while hours of training went by
        self._stood = False
        by_policy = self._robot.reset_policy and not why and not self._failed
        if by_policy:
            self._runs.use(self._robot.reset_policy)
            steps = round(self._robot.reset_s * self._hz)
            self._runs.act(steps, lambda: False, number, 0.0, f"the reset before rollout {episode_id}")
            assert self._checkpoint is not None
            self._runs.use(self._checkpoint)
        if self._robot.start_speed > 0:
            self._mover.go(self.starts.pose, self._robot.start_speed)
        if not by_policy:
            text = f"{head}: {why}put the scene as in the picture, step back, then say ready"
            self._person.scene(text, self.starts.picture(number))

    def _looks_done(self, episode_id: str) -> bool:
        """Ask the judge whether the task is done before the rollout has begun."""
        (answer,) = self._judges.completion(self._person.live(self._cameras), self.starts.task, episode_id)
        return isinstance(answer, Reward) and answer.value >= self._config.judge_threshold

    def _act(self, episode_id: str, seed: int, attempt: int) -> Path:
        """Let the policy act until the time is over or the person has said how it ended; returns the journal."""

        def keep(success: bool) -> None:
            append_line(self._folder / ANSWERS, {"episode_id": episode_id, "success": success})

        forget(self._folder / ANSWERS, episode_id)
        what = f"rollout {episode_id} of iteration {self._iteration}"
        self._person.begin(f"{what} runs: success or failure ends it, else it ends by itself", keep)
        steps = round(self._robot.rollout_s * self._hz)
        std = self._config.explore_std
        self._runs.act(steps, lambda: self._person.outcome is not None, seed * 10 + attempt, std, what)
        said = self._person.outcome
        journal = self._episodes.stop(said)
        if self._robot.ask_outcome and said is None:
            self._person.wait_outcome(f"{what} has ended: was it a success or a failure?")
        self._person.nothing()
        return journal

    def _judge(self, journal: Path) -> dict[str, Any]:
        """Judge a journal; what the person says against it counts, too."""
        row = super()._judge(journal)
        said = answers(self._folder).get(journal.stem, read_info(journal).outcome)
        row |= {"person": said, "judge": row["keep"]}
        if any(line["episode_id"] == journal.stem for line in read_lines(self._folder / UNTOUCHED)):
            row |= {"keep": False, "reason": _DONE}
        elif row["keep"] and said is False:
            row |= {"keep": False, "reason": f"the person called it a failure, the judge: {row['reason']}"}
        return row


def answers(folder: Path) -> dict[str, bool]:
    """Return what the person said of rollouts, by their names."""
    return {str(row["episode_id"]): bool(row["success"]) for row in read_lines(folder / ANSWERS)}


def forget(path: Path, episode_id: str) -> None:
    """Take back the lines about an attempt that did not count: it has the name of the one that is made now."""
    said = read_lines(path)
    if any(row["episode_id"] == episode_id for row in said):
        kept = [json.dumps(row) + "\n" for row in said if row["episode_id"] != episode_id]
        write_text(path, "".join(kept))


def agreement(folder: Path) -> dict[str, Any]:
    """Count how judge and person agree on the rollouts of a folder.

    Returns:
        ``{labelled, agree, judge_only, person_only, untouched}``: rollouts that the person has said something of, those
        on which both agree, the names of those that one alone calls a success, and of those that looked done before
        they had begun.
    """
    rows = {name: row for name, row in read_verdicts(folder).items() if "judge" in row}
    said = {name: row for name, row in rows.items() if row["person"] is not None}
    return {
        "labelled": len(said),
        "agree": sum(row["judge"] == row["person"] for row in said.values()),
        "judge_only": sorted(name for name, row in said.items() if row["judge"] and not row["person"]),
        "person_only": sorted(name for name, row in said.items() if row["person"] and not row["judge"]),
        "untouched": sorted(name for name, row in rows.items() if row["reason"] == _DONE),
    }


def sentence(found: dict[str, Any], asked_again: int) -> str:
    """Return what the loop says of judge and person after an iteration."""
    parts = []
    if found["labelled"]:
        parts.append(f"judge and person agree on {found['agree']} of {found['labelled']} rollouts")
        for key, words in (("judge_only", "the judge alone"), ("person_only", "the person alone")):
            if found[key]:
                parts.append(f"{words} calls a success: {', '.join(found[key])}")
    if asked_again or found["untouched"]:
        parts.append(
            f"{asked_again} scenes looked done before the rollout and were asked for again, {len(found['untouched'])} "
            f"of them still did ({', '.join(found['untouched']) or 'none'}) and are not kept"
        )
    if found["agree"] < found["labelled"]:
        parts.append("look at these recordings: one of the two is wrong")
    return "; ".join(parts) or "nobody said anything of these rollouts: the judge decided alone"
