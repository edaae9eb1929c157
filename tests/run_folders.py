# SPDX-License-Identifier: Apache-2.0
"""A finished run folder of the improver, small and made up, for the tests of its reports."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from lrm_ros.config import CameraSpec, ImproverConfig, RobotContract
from lrm_ros.config_files import to_dict
from lrm_ros.record.journal import JournalWriter
from lrm_ros.types import Frame

CONTRACT = RobotContract(cameras=(CameraSpec("front", 24, 16),))
TASK = "put the <toy> in the bowl"


def write_journal(path: Path, steps: int = 11) -> None:
    writer = JournalWriter(path, TASK, CONTRACT, "policy", "png")
    for step in range(1, steps + 1):
        ns = step * 100_000_000
        writer.state(ns, [0.0] * 6)
        writer.frame(Frame(ns, "front", np.full((16, 24, 3), 20 * step, np.uint8)))
        writer.sent(ns, np.zeros(6, np.float32))
    writer.finish()


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_collection(folder: Path, first_seed: int, keep: list[bool], success: list[bool]) -> None:
    """Judged episodes with journals; the third episode is the second try at the second start pose."""
    verdicts, outcomes = [], []
    for index, (kept, good) in enumerate(zip(keep, success, strict=True)):
        seed, attempt = (first_seed + 1, 1) if index == 2 else (first_seed + index, 0)
        name = f"{seed}_{attempt}"
        write_journal(folder / "episodes" / f"{name}.mcap")
        score = 0.9 if kept else 0.1
        verdicts.append(
            {"episode_id": name, "seed": seed, "attempt": attempt, "keep": kept, "score": score, "reason": "seen"}
        )
        outcomes.append({"episode_id": name, "seed": seed, "success": good, "steps": 11})
    write_lines(folder / "verdicts.jsonl", verdicts)
    write_lines(folder / "truth.jsonl", outcomes)


def write_policy(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "finetune.json").write_text(json.dumps({"losses": [1 / step for step in range(1, 201)]}))


def write_evaluation(run: Path, name: str, policy: str, wins: range, n: int = 40) -> None:
    (run / "eval").mkdir(exist_ok=True)
    values = {
        "policy": str(run / policy),
        "seeds": list(range(1000, 1000 + n)),
        "success": [int(index in wins) for index in range(n)],
        "steps": [30] * n,
        "seconds": 12.5,
    }
    (run / "eval" / f"{name}.json").write_text(json.dumps(values))


def write_run(run: Path) -> Path:
    """A finished run: 10, 12 and 24 of 40 start poses; eight episodes in one iteration."""
    run.mkdir(parents=True)
    config = to_dict(ImproverConfig(run=str(run), iterations=1, seed=7))
    about = {"improver": config, "contract": to_dict(CONTRACT), "versions": {"numpy": "2"}, "commit": "abc123"}
    (run / "config.json").write_text(json.dumps(about))
    write_collection(run / "demonstrations", 10, [True, True, True, False], [True, True, True, False])
    keep = [True, True, True, True, False, False, False, False]
    write_collection(run / "iter_001", 2000, keep, [True, True, True, False, True, False, False, False])
    for policy in ("iter_000/policy", "iter_001/policy", "iter_001/control"):
        write_policy(run / policy)
    write_evaluation(run, "baseline", "iter_000/policy", range(10))
    write_evaluation(run, "control", "iter_001/control", range(12))
    write_evaluation(run, "final", "iter_001/policy", range(5, 29))
    rows = [("demonstrations", None, 20.0), ("sft", 0, 80.0), ("rollout", 1, 50.0), ("rollout", 1, 10.5)]
    rows += [("dataset", 1, 2.0), ("finetune", 1, 150.0), ("evaluate", None, 12.5)]
    write_lines(run / "stages.jsonl", [{"stage": s, "iteration": i, "seconds": t} for s, i, t in rows])
    return run
