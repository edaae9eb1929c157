# SPDX-License-Identifier: Apache-2.0
"""Read a run folder of the improver for its report: what is there, and what is missing of it.

    config.json                 {improver, contract, versions, commit}
    stages.jsonl                one line a finished stage: {stage, iteration, seconds, ...}
    demonstrations/, iter_NNN/  episodes/*.mcap, verdicts.jsonl (the judge), truth.jsonl (the simulator)
                                or person.jsonl (a person, on an arm), policy/finetune.json, control/finetune.json
    eval/NAME.json              {policy, seeds, success, steps, seconds}

A run may have been stopped anywhere: every part may be absent and is then named in ``missing``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lrm_ros.files import read_json, read_lines
from lrm_ros.record.journal import JournalError, read_info

EVALUATIONS = ("baseline", "control", "final")
"""The evaluations that make up the result: the policy before, the control, the policy after."""


@dataclass(frozen=True)
class Attempt:
    """One recorded episode with the judge's verdict and the simulator's label.

    Attributes:
        episode_id: name, also the stem of its journal.
        seed: start pose.
        keep: the judge's decision.
        score: the judge's mean p(done), None if it gave none.
        reason: the judge's sentence.
        success: the simulator's verdict, None if it was not written.
        journal: path of the recording.
    """

    episode_id: str
    seed: int
    keep: bool
    score: float | None
    reason: str
    success: bool | None
    journal: Path

    @property
    def wrong(self) -> bool:
        """The judge and the simulator disagree."""
        return self.success is not None and self.keep != self.success


@dataclass(frozen=True)
class Collection:
    """The attempts of one folder.

    Attributes:
        index: number of the iteration; None: the demonstrations.
        folder: where it lies.
        attempts: in the order they were judged.
    """

    index: int | None
    folder: Path
    attempts: tuple[Attempt, ...]

    @property
    def title(self) -> str:
        """Name for people."""
        return "demonstrations" if self.index is None else f"iteration {self.index}"


@dataclass(frozen=True)
class Evaluation:
    """Success of one policy on the held-out seeds."""

    policy: str
    outcomes: dict[int, bool]
    seconds: float | None


@dataclass(frozen=True)
class Run:
    """Data of a run's report.

    Attributes:
        path: run folder.
        config: ``config.json``; empty if absent.
        task: language instruction, None if no recording says it.
        stages: rows of ``stages.jsonl``.
        demonstrations: attempts of the expert.
        iterations: attempts of the policy, one collection an iteration.
        evaluations: by name (``EVALUATIONS`` and further ones).
        losses: label -> loss of every training step.
        missing: sentences on what a complete run would have.
    """

    path: Path
    config: dict[str, Any]
    task: str | None
    stages: tuple[dict[str, Any], ...]
    demonstrations: Collection | None
    iterations: tuple[Collection, ...]
    evaluations: dict[str, Evaluation]
    losses: dict[str, list[float]]
    missing: list[str] = field(default_factory=list)

    @property
    def settings(self) -> dict[str, Any]:
        """The improver's settings."""
        return self.config.get("improver", {})

    @property
    def said_by(self) -> str:
        """Who says whether an episode really succeeded: on an arm a person, if anybody."""
        return "person" if "rollout_s" in self.settings else "simulator"


def read_run(path: Path) -> Run:
    """Read what there is of a run.

    Raises:
        FileNotFoundError: no such folder, or nothing of a run in it.
        ValueError: a damaged file; names it and the cure.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"run folder '{path}' does not exist; give the folder that 'lrm up self_improve' wrote")
    missing: list[str] = []
    config = _config(path / "config.json")
    if config is None:
        missing.append("config.json: settings, versions and commit are not known")
    stages = _stages(path / "stages.jsonl", missing)
    demonstrations = _collection(path / "demonstrations", None, missing)
    folders = sorted(folder for folder in path.glob("iter_[0-9][0-9][0-9]") if folder.is_dir())
    found = [_collection(folder, int(folder.name[-3:]), missing) for folder in folders]
    iterations = tuple(one for one in found if one is not None)
    evaluations = {file.stem: _evaluation(file) for file in sorted((path / "eval").glob("*.json"))}
    if not (config or stages or demonstrations or folders or evaluations):
        raise FileNotFoundError(f"'{path}' is no run folder: it holds neither config.json nor iterations nor eval/")
    if demonstrations is None:
        missing.append("demonstrations: none judged")
    wanted = (config or {}).get("improver", {}).get("iterations")
    if wanted is None and not iterations:
        missing.append("iterations: none")
    elif wanted is not None:
        there = {one.index for one in iterations}
        missing += [f"iteration {index}: no episode judged" for index in range(1, wanted + 1) if index not in there]
        trained = [int(folder.name[-3:]) for folder in folders if (folder / "policy" / "finetune.json").is_file()]
        if there and max(there, key=lambda index: index or 0) not in trained:
            missing.append(f"iteration {max(there, key=lambda index: index or 0)}: its policy is not trained")
    missing += [
        f"eval/{evaluation}.json: the {evaluation} was not evaluated"
        for evaluation in EVALUATIONS
        if evaluation not in evaluations
    ]
    task = _task(demonstrations, iterations, missing)
    losses = _losses(folders)
    return Run(path, config or {}, task, tuple(stages), demonstrations, iterations, evaluations, losses, missing)


@contextmanager
def _shape_of(path: Path) -> Iterator[None]:
    """Say which file does not hold what the improver writes, and the cure."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        if str(path) in str(error):
            raise
        what = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"'{path}' does not hold what the improver wrote ({what}); restore it, or delete it to report without"
        ) from error


def _of(value: Any, *kinds: type) -> Any:
    """Return a value of one of these types and finite; raise TypeError for another."""
    if type(value) not in kinds or (isinstance(value, float) and not math.isfinite(value)):
        raise TypeError(f"{value!r} is no {' or '.join(kind.__name__ for kind in kinds)}")
    return value


def _config(path: Path) -> dict[str, Any] | None:
    """Return the settings of a run, None if they are absent; what the report reads of them is checked."""
    values = _json(path)
    if values is None:
        return None
    with _shape_of(path):
        settings = _of(_of(values, dict).get("improver", {}), dict)
        if not 0 <= _of(settings.get("iterations", 0), int) <= 1000:
            raise ValueError(f"iterations is {settings['iterations']}")
        _of(settings.get("judge_threshold", 0.0), int, float)
        for camera in _of(_of(values.get("contract", {}), dict).get("cameras", []), list):
            _of(camera["name"], str)
        json.dumps(values, allow_nan=False)
    return values


def _stages(path: Path, missing: list[str]) -> list[dict[str, Any]]:
    """Return the finished stages."""
    rows = _lines(path, missing)
    with _shape_of(path):
        for row in rows:
            _of(row["stage"], str), _of(row["iteration"], int, type(None)), _of(row["seconds"], int, float)
    return rows


def _json(path: Path) -> Any:
    """Return the content of a JSON file, None if it is absent."""
    if not path.is_file():
        return None
    return read_json(path, "restore it, or delete it to report without")


def _lines(path: Path, missing: list[str]) -> list[dict[str, Any]]:
    """Return the rows of a JSON-lines file; a last line that a kill has cut off is named and left out."""
    cut = f"{path.parent.name}/{path.name}: its last line was cut off and is left out"
    return read_lines(path, lambda: missing.append(cut))


def _collection(folder: Path, index: int | None, missing: list[str]) -> Collection | None:
    """Return the judged attempts of a folder, None if there are none."""
    # A resumed run may judge an episode again; the last word counts, as it does in the loop.
    file = folder / "verdicts.jsonl"
    with _shape_of(file):
        verdicts = {_of(row["episode_id"], str): row for row in _lines(file, missing)}
    if not verdicts:
        return None
    truth = folder / "truth.jsonl"
    if not truth.is_file():  # of an arm: what a person said
        truth = folder / "person.jsonl"
    with _shape_of(truth):
        outcomes = {_of(row["episode_id"], str): _of(row["success"], bool) for row in _lines(truth, missing)}
    with _shape_of(file):
        attempts = tuple(
            Attempt(
                episode_id,
                _of(row["seed"], int),
                _of(row.get("judge", row["keep"]), bool),  # on an arm a person may keep one out
                None if row["score"] is None or row["score"] != row["score"] else float(_of(row["score"], int, float)),
                _of(row["reason"], str),
                outcomes.get(episode_id),
                folder / "episodes" / f"{episode_id}.mcap",
            )
            for episode_id, row in verdicts.items()
        )
    unknown = sum(attempt.success is None for attempt in attempts)
    if unknown:
        missing.append(
            f"{folder.name}/truth.jsonl: {unknown} of {len(attempts)} judged episodes have no word of the simulator or "
            "a person; they are left out of precision and recall"
        )
    return Collection(index, folder, attempts)


def _evaluation(path: Path) -> Evaluation:
    """Return an evaluation, checked."""
    values = _json(path)
    with _shape_of(path):
        seeds, success = (
            [_of(item, int, bool) for item in _of(values.get(name, []), list)] for name in ("seeds", "success")
        )
        if wrong := set(success) - {0, 1}:
            raise ValueError(f"{wrong.pop()} is neither success nor failure")
        policy, seconds = _of(values["policy"], str), _of(values.get("seconds"), int, float, type(None))
    if not seeds or len(seeds) != len(success) or len(set(seeds)) != len(seeds):
        raise ValueError(
            f"'{path}' has {len(set(seeds))} different seeds and {len(success)} outcomes; each seed needs exactly one: "
            "delete the file and evaluate again"
        )
    outcomes = {int(seed): bool(one) for seed, one in zip(seeds, success, strict=True)}
    return Evaluation(policy, outcomes, seconds)


def _task(demonstrations: Collection | None, iterations: tuple[Collection, ...], missing: list[str]) -> str | None:
    """Return the language instruction of the first recording that can be read."""
    for collection in (*iterations, *([demonstrations] if demonstrations else [])):
        for attempt in collection.attempts:
            try:
                return read_info(attempt.journal).task
            except JournalError as error:
                missing.append(str(error))
                break  # one is enough to know that this collection's recordings have a problem
    return None


def _losses(folders: list[Path]) -> dict[str, list[float]]:
    """Return the training losses by name of the training."""
    losses = {}
    for folder in folders:
        index = int(folder.name[-3:])
        trained = "demonstrations (SFT)" if index == 0 else f"iteration {index}"
        for name, label in (("policy", trained), ("control", f"control {index}")):
            file = folder / name / "finetune.json"
            figures = _json(file)
            with _shape_of(file):
                if figures and _of(figures, dict).get("losses"):
                    # A training that diverged has NaN among its losses.
                    numbers = _of(figures["losses"], list)
                    losses[label] = [float(loss if loss != loss else _of(loss, int, float)) for loss in numbers]
    return losses
