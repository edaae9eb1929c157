# SPDX-License-Identifier: Apache-2.0
"""The record of a blind comparison: its plan, the person's answers and the judge's verdicts, each kept at once.

A folder holds ``settings.json`` and ``plan.json`` (made at its beginning), ``trials.jsonl`` (a line an answer; the last
one about a trial counts), ``verdicts.jsonl`` (a line a judged trial), ``episodes/trial_NNN.mcap`` and
``starts/NNN.png``. Whoever takes part must not look into the plan.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrm_ros.files import append_line, claim_folder, read_json, read_lines, write_json

NOT_COUNTED = ".not_counted"  # follows the name of a journal whose trial did not count and is due again
ANSWERS, VERDICTS, PLAN = "trials.jsonl", "verdicts.jsonl", "plan.json"


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        number: 1, 2, ... in the order of the plan.
        start: which start, 0, 1, ...; the trials of one start follow one another.
        policy: which policy, 0, 1, ... in the settings' order.
    """

    number: int
    start: int
    policy: int

    @property
    def name(self) -> str:
        """Name of its episode; it does not tell the policy."""
        return f"trial_{self.number:03d}"


def shuffled(policies: int, starts: int, rng: random.Random) -> list[Trial]:
    """Return a plan in which every policy meets every start once: blocks of one start, each in an order of its own."""
    trials: list[Trial] = []
    for start in range(starts):
        order = rng.sample(range(policies), policies)
        trials += [Trial(len(trials) + 1 + place, start, policy) for place, policy in enumerate(order)]
    return trials


class Trials:
    """The record in a folder.

    Attributes:
        settings: what it began with.
        plan: all trials in order.
        answers: trial's number -> the answer that counts.
        voids: trials that did not count, and why.
        verdicts: trial's number -> the judge's verdict.
    """

    def __init__(self, folder: Path) -> None:
        """Read a record.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is damaged; names file and cure.
        """
        self.folder = folder
        if not (folder / PLAN).is_file():
            raise FileNotFoundError(f"'{folder}' holds no comparison ({PLAN}); start one with lrm trial POLICY POLICY")
        cure = "restore it, or begin in another folder"
        self.settings: dict[str, Any] = read_json(folder / "settings.json", cure)
        try:
            self.plan = [Trial(*(int(row[key]) for key in ("number", "start", "policy"))) for row in
                         read_json(folder / PLAN, cure)]  # fmt: skip
        except (KeyError, TypeError) as error:
            raise ValueError(f"'{folder / PLAN}' is no plan ({error!r}); {cure}") from error
        rows = read_lines(folder / ANSWERS)
        self.answers = {int(row["trial"]): row for row in rows if "success" in row}
        self.voids = [row for row in rows if "void" in row]
        self._last = next((int(row["trial"]) for row in reversed(rows) if "success" in row), 0)
        self.verdicts = {int(row["trial"]): row for row in read_lines(folder / VERDICTS)}

    @classmethod
    def begin(cls, folder: Path, settings: Mapping[str, Any], policies: Sequence[str], starts: int) -> Trials:
        """Begin a comparison in a folder with a plan that nobody has chosen, or go on with the one that is there.

        Args:
            folder: of the record.
            settings: what decides the results; must be those that it began with.
            policies: two or more.
            starts: trials of each policy.

        Raises:
            ValueError: too few policies, one is there twice, or the folder has other settings; names them.
        """
        if len(policies) < 2 or len(set(policies)) < len(policies):
            raise ValueError(f"a comparison needs two or more different policies, got {', '.join(policies) or 'none'}")
        claim_folder(folder, settings, ANSWERS, "a comparison")
        if not (folder / PLAN).is_file():
            if read_lines(folder / ANSWERS):
                raise ValueError(f"'{folder}' has answers, but no {PLAN} that says of what; restore it")
            plan = shuffled(len(policies), starts, random.SystemRandom())
            write_json(folder / PLAN, [vars(trial) for trial in plan], indent=None)
        return cls(folder)

    @property
    def due(self) -> Trial | None:
        """The first trial without an answer; ``None``: all have one."""
        return next((trial for trial in self.plan if trial.number not in self.answers), None)

    @property
    def unjudged(self) -> list[Trial]:
        """Trials with an answer that the judge has not looked at and whose journal is there."""
        waiting = [one for one in self.plan if one.number in self.answers and one.number not in self.verdicts]
        return [one for one in waiting if self.journal(one).is_file()]

    def journal(self, trial: Trial) -> Path:
        """Return the journal of a trial."""
        return self.folder / "episodes" / f"{trial.name}.mcap"

    def start_picture(self, trial: Trial) -> Path:
        """Return the picture of a trial's start."""
        return self.folder / "starts" / f"{trial.start:03d}.png"

    def answer(self, trial: Trial, success: bool, **more: Any) -> None:
        """Keep the person's answer; it outlives a kill at any moment afterwards."""
        row = {"trial": trial.number, "success": success, "at": round(time.time(), 1), **more}
        append_line(self.folder / ANSWERS, row)
        self.answers[trial.number], self._last = row, trial.number

    def correct(self) -> dict[str, Any]:
        """Turn the last answer round; returns what counts now.

        Raises:
            ValueError: there is none.
        """
        if not self._last:
            raise ValueError("there is no answer yet that could be corrected")
        trial = next(one for one in self.plan if one.number == self._last)
        self.answer(trial, not self.answers[trial.number]["success"], corrected=True)
        return self.answers[trial.number]

    def void(self, trial: Trial, reason: str) -> None:
        """Note that a trial did not count and why; it is due again."""
        row = {"trial": trial.number, "void": reason, "at": round(time.time(), 1)}
        append_line(self.folder / ANSWERS, row)
        self.voids.append(row)

    def judged(self, trial: Trial, keep: bool, score: float | None, reason: str) -> None:
        """Keep the judge's verdict; ``score`` ``None``: it could not judge."""
        row = {"trial": trial.number, "keep": keep, "score": score, "reason": reason}
        append_line(self.folder / VERDICTS, row)
        self.verdicts[trial.number] = row
