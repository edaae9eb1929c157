# SPDX-License-Identifier: Apache-2.0
"""Judge recorded episodes by the completion head: ``lrm judge``.

Takes journals, folders of them, and LeRobotDatasets (v2.0 to v3.0). Prints one line an episode, and precision and
recall over the episodes whose outcome a person has given.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from lrm_ros.config import MIN_MASS_HELP, READOUT, READOUTS, RewardConfig
from lrm_ros.options import number, whole
from lrm_ros.programs import exit_code
from lrm_ros.record.journal import JournalError, last_frames, read_info
from lrm_ros.record.lerobot_files import is_dataset, read_description
from lrm_ros.reward.engine import RewardEngine
from lrm_ros.reward.views import side_by_side
from lrm_ros.training.report.stats import precision_recall
from lrm_ros.training.reward.data.sources.episode import BadEpisode
from lrm_ros.training.reward.data.sources.lerobot import read_lerobot
from lrm_ros.types import Frame, Verdict

_BATCH = 32  # episodes judged at once


@dataclass(frozen=True)
class JudgedEpisode:
    """An episode and its verdict.

    Attributes:
        path: its journal, or the data set that it is in.
        verdict: the judge's decision.
        outcome: label of success by a person, ``None`` without one.
    """

    path: Path
    verdict: Verdict
    outcome: bool | None


def judge_dataset(engine: RewardEngine, folder: Path, prefix: str = "") -> Iterator[JudgedEpisode]:
    """Judge the episodes of a LeRobotDataset by their last frames, many in a batch, in order.

    An episode that cannot be read is not kept; its verdict carries the reason.

    Args:
        engine: answers the completion head; its camera is one of the data set.
        folder: the data set.
        prefix: what its episodes' names begin with.

    Raises:
        ValueError: it cannot be read, or has no such camera.
    """
    config = engine.config
    try:
        found = [list(read_lerobot(folder, camera, prefix=prefix)) for camera in config.cameras]
    except ValueError as error:
        cure = "; give one of them by --camera" if "has no camera" in str(error) else ""
        raise ValueError(f"{error}{cure}") from error
    entries = list(zip(*found, strict=True))  # one a camera
    for start in range(0, len(entries), _BATCH):
        outcomes: dict[str, bool | None] = {}
        refused: dict[str, Verdict] = {}
        episodes = []
        batch = entries[start : start + _BATCH]
        for each in batch:
            name = each[0].episode_id
            frames: dict[str, list[Frame]] = {}
            try:
                for camera, entry in zip(config.cameras, each, strict=True):
                    episode = entry.open()
                    last = range(max(0, episode.length - config.judge_frames), episode.length)
                    stamps = [round(1e9 * (k + 1) / episode.fps) for k in last]
                    images = zip(stamps, episode.read(last), strict=True)
                    frames[camera] = [Frame(stamp, camera, image) for stamp, image in images]
            except BadEpisode as error:
                refused[name] = Verdict(name, False, float("nan"), f"not judged: {error}")
                continue
            outcomes[name] = episode.success
            episodes.append((name, episode.task, side_by_side(frames)))
        verdicts = iter(engine.judge_all(episodes))
        for each in batch:
            name = each[0].episode_id
            yield JudgedEpisode(folder, refused[name] if name in refused else next(verdicts), outcomes.get(name))


def find_journals(paths: Sequence[Path]) -> list[Path]:
    """Return the journals among files and (recursively) folders, sorted within each folder.

    Raises:
        FileNotFoundError: a path does not exist, or a folder holds no finished journal.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_file():
            found.append(path)
            continue
        if not path.is_dir():
            raise FileNotFoundError(f"'{path}' does not exist; give journals (*.mcap) or folders of them")
        inside = sorted(path.rglob("*.mcap"))
        if not inside:
            raise FileNotFoundError(f"'{path}' holds no finished journal (*.mcap)")
        found += inside
    return found


def last_views(path: Path, cameras: Sequence[str], count: int) -> list[Frame]:
    """Read the last frames of a journal's first camera and what the others showed at these times, view by view.

    Raises:
        JournalError: unreadable file, or a camera it does not have.
    """
    frames = {cameras[0]: last_frames(path, cameras[0], count)}
    begin = frames[cameras[0]][0].stamp_ns
    for camera in cameras[1:]:
        more = count
        while True:  # another camera may be quicker, or have gone on
            frames[camera] = last_frames(path, camera, more)
            if frames[camera][0].stamp_ns <= begin or len(frames[camera]) < more:
                break
            more *= 2
    return side_by_side(frames)


def judge_journals(engine: RewardEngine, paths: Sequence[Path]) -> Iterator[JudgedEpisode]:
    """Judge journals by their last frames, many in a batch, in order.

    A journal that cannot be read is not kept; its verdict carries the reason.
    """
    for start in range(0, len(paths), _BATCH):
        batch = paths[start : start + _BATCH]
        outcomes: dict[Path, bool | None] = {}
        refused: dict[Path, Verdict] = {}
        episodes = []
        for path in batch:
            try:
                info = read_info(path)
                frames = last_views(path, engine.config.cameras, engine.config.judge_frames)
            except JournalError as error:
                refused[path] = Verdict(path.stem, False, float("nan"), f"not judged: {error}")
                continue
            outcomes[path] = info.outcome
            episodes.append((info.episode_id, info.task, frames))
        verdicts = iter(engine.judge_all(episodes))
        for path in batch:
            yield JudgedEpisode(path, refused[path] if path in refused else next(verdicts), outcomes.get(path))


def main(argv: list[str] | None = None) -> int:
    """Run the judge; returns 1 if no episode could be judged, 2 for wrong arguments."""
    default = RewardConfig()
    parser = argparse.ArgumentParser(prog="lrm judge", description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path, help="journals, folders of them, LeRobotDatasets")
    parser.add_argument("--model", default=default.model, help="'tiny', a folder or a Hugging Face name")
    parser.add_argument(
        "--camera", default=default.camera, help="camera whose frames are judged; several (front,wrist): the mean"
    )
    parser.add_argument("--frames", type=whole(1), default=default.judge_frames, help="how many last frames are judged")
    parser.add_argument(
        "--threshold", type=number(), default=default.judge_threshold, help="keep from this mean p(done)"
    )
    parser.add_argument("--readout", default=default.readout, choices=READOUTS, help=READOUT)
    parser.add_argument("--min-mass", type=number(), default=default.min_mass, help=MIN_MASS_HELP)
    parser.add_argument("--device", default=default.device)
    parser.add_argument("--json", type=Path, help="write the verdicts to this file")
    args = parser.parse_args(argv)
    sets = [path for path in args.paths if is_dataset(path)]
    names = [path.resolve().name for path in sets]
    try:
        others = [path for path in args.paths if path not in sets]
        paths = find_journals(others)
        total = len(paths) + sum(int(read_description(path).get("total_episodes", 0)) for path in sets)
        if len(set(names)) < len(names):
            raise ValueError(f"two data sets have one name ({', '.join(names)}); judge them one after the other")
        engine = RewardEngine(
            RewardConfig(
                model=args.model,
                mode="completion",
                camera=args.camera,
                readout=args.readout,
                min_mass=args.min_mass,
                judge_frames=args.frames,
                judge_threshold=args.threshold,
                device=args.device,
            )
        )
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code(error)
    judged = []
    prefixes = names if len(sets) > 1 else [""] * len(sets)
    inside = (judge_dataset(engine, path, prefix) for path, prefix in zip(sets, prefixes, strict=True))
    try:
        for item in chain(judge_journals(engine, paths), chain.from_iterable(inside)):
            judged.append(item)
            verdict = item.verdict
            said = {None: "-", True: "success", False: "failure"}[item.outcome]
            print(
                f"{len(judged):4d}/{total}  {verdict.episode_id:32s} {verdict.score:6.3f}  "
                f"{'keep' if verdict.keep else 'drop'}  {said:8s} {verdict.reason}",
                flush=True,
            )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code(error)
    known = [item for item in judged if item.outcome is not None]
    found = precision_recall([item.verdict.keep for item in known], [bool(item.outcome) for item in known])
    figures = {name: found[name] for name in ("precision", "recall", "n")}
    kept = sum(item.verdict.keep for item in judged)
    unjudged = sum(item.verdict.score != item.verdict.score for item in judged)
    print(f"kept {kept} of {len(judged)}" + (f", {unjudged} of them could not be judged" if unjudged else ""))
    if figures["n"]:
        print(f"against {figures['n']} outcomes: precision {figures['precision']}, recall {figures['recall']}")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        episodes = [
            {
                "path": str(item.path),
                "episode_id": item.verdict.episode_id,
                "keep": item.verdict.keep,
                "score": item.verdict.score if item.verdict.score == item.verdict.score else None,
                "reason": item.verdict.reason,
                "outcome": item.outcome,
            }
            for item in judged
        ]
        args.json.write_text(json.dumps({"model": args.model, "kept": kept, **figures, "episodes": episodes}, indent=1))
    return 1 if all(item.verdict.score != item.verdict.score for item in judged) else 0


if __name__ == "__main__":
    raise SystemExit(main())
