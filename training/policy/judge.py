# SPDX-License-Identifier: Apache-2.0
"""Judge journals by the completion head: ``lrm judge``.

Prints one line an episode, and precision and recall over the episodes whose outcome a person has given.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lrm_ros.config import RewardConfig
from lrm_ros.options import number, whole
from lrm_ros.programs import exit_code
from lrm_ros.record.journal import JournalError, last_frames, read_info
from lrm_ros.reward.engine import RewardEngine
from lrm_ros.training.report.stats import precision_recall
from lrm_ros.types import Verdict

_BATCH = 32  # episodes judged at once


@dataclass(frozen=True)
class JudgedEpisode:
    """A journal and its verdict.

    Attributes:
        path: the journal.
        verdict: the judge's decision.
        outcome: label of success by a person, ``None`` without one.
    """

    path: Path
    verdict: Verdict
    outcome: bool | None


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
                frames = last_frames(path, engine.config.camera, engine.config.judge_frames)
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
    parser.add_argument("paths", nargs="+", type=Path, help="journals or folders of them")
    parser.add_argument("--model", default=default.model, help="'tiny', a folder or a Hugging Face name")
    parser.add_argument("--camera", default=default.camera, help="camera whose frames are judged")
    parser.add_argument("--frames", type=whole(1), default=default.judge_frames, help="how many last frames are judged")
    parser.add_argument(
        "--threshold", type=number(), default=default.judge_threshold, help="keep from this mean p(done)"
    )
    parser.add_argument("--readout", default=default.readout, choices=("forward", "generate"))
    parser.add_argument("--device", default=default.device)
    parser.add_argument("--json", type=Path, help="write the verdicts to this file")
    args = parser.parse_args(argv)
    try:
        paths = find_journals(args.paths)
        engine = RewardEngine(
            RewardConfig(
                model=args.model,
                mode="completion",
                camera=args.camera,
                readout=args.readout,
                judge_frames=args.frames,
                judge_threshold=args.threshold,
                device=args.device,
            )
        )
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code(error)
    judged = []
    for item in judge_journals(engine, paths):
        judged.append(item)
        verdict = item.verdict
        said = {None: "-", True: "success", False: "failure"}[item.outcome]
        print(
            f"{len(judged):4d}/{len(paths)}  {verdict.episode_id:32s} {verdict.score:6.3f}  "
            f"{'keep' if verdict.keep else 'drop'}  {said:8s} {verdict.reason}",
            flush=True,
        )
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
