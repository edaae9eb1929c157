# SPDX-License-Identifier: Apache-2.0
"""Turn recorded episodes into a LeRobotDataset to train on: ``lrm dataset``.

Episodes that a person called a failure are left out, and with --verdicts those that the judge did not keep; without
verdicts also those whose recording was cut off. One that cannot be used is left out with its reason; a step whose frame
was lost has the one before, up to half a second. The journals stay as they are: a data set is derived and never
extended, so after more episodes write a new one. LeRobot's own tools read it, too. With --push it goes to the hub by
LeRobot; for one that is there already give its folder and --push alone.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lrm_ros.config import RobotContract
from lrm_ros.config_arm import SECTIONS, load_arm
from lrm_ros.config_files import load_yaml
from lrm_ros.errors import one_line
from lrm_ros.programs import exit_code
from lrm_ros.progress import progress_bar
from lrm_ros.record.convention import Convention
from lrm_ros.record.convert import journals_to_dataset
from lrm_ros.record.dataset import Omissions
from lrm_ros.record.journal import JournalError, read_info
from lrm_ros.record.lerobot_files import is_dataset
from lrm_ros.training.policy.judge import find_journals
from lrm_ros.versions import video_backend


def kept_by_judge(verdicts: Path) -> dict[str, bool]:
    """Read which episodes the judge kept, by their names, from a file of ``lrm judge --json``.

    Raises:
        ValueError: it is no such file, or has two episodes of one name; says which.
    """
    try:
        pairs = [
            (str(item["episode_id"]), bool(item["keep"]))
            for item in json.loads(verdicts.read_text(encoding="utf-8"))["episodes"]
        ]
    except FileNotFoundError as error:
        raise ValueError(f"'{verdicts}' does not exist; write it with 'lrm judge ... --json {verdicts}'") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"'{verdicts}' is no file of 'lrm judge --json': {error!r}") from error
    for name, times in Counter(name for name, _ in pairs).items():
        if times > 1:
            raise ValueError(f"'{verdicts}' has {times} episodes named '{name}'; judge and convert their folders apart")
    return dict(pairs)


def select_journals(
    paths: Sequence[Path], verdicts: dict[str, bool] | None = None, failures: bool = False
) -> tuple[list[Path], dict[str, int], dict[str, str]]:
    """Choose the journals for a data set.

    Args:
        paths: journals.
        verdicts: whether the judge keeps an episode, by name; ``None``: nobody asked it.
        failures: keep those that a person called a failure.

    Returns:
        The journals, how many others were left out for which reason, and why each unreadable one is.
    """
    selected: list[Path] = []
    left_out: Counter[str] = Counter()
    unreadable: dict[str, str] = {}
    for path in paths:
        try:
            info = read_info(path)
        except JournalError as error:
            print(f"left out: {error}", file=sys.stderr)
            left_out["cannot be read"] += 1
            unreadable[str(path)] = str(error)
            continue
        if info.outcome is False and not failures:
            left_out["a person called it a failure"] += 1
        elif verdicts is not None and info.episode_id not in verdicts:
            left_out["the judge was not asked"] += 1
        elif verdicts is not None and not verdicts[info.episode_id]:
            left_out["the judge did not keep it"] += 1
        elif verdicts is None and info.recovered and info.outcome is None:
            left_out["its recording was cut off and nobody said how it ended"] += 1
        else:
            selected.append(path)
    return selected, dict(left_out), unreadable


def make_dataset(
    paths: Sequence[Path],
    out: Path,
    verdicts: Path | None = None,
    failures: bool = False,
    storage: str = "image",
    convention: Convention | None = None,
    reward_head: str | None = None,
) -> dict[str, Any]:
    """Write the data set; see ``select_journals`` for what is in it.

    Args:
        paths: journals and folders of them.
        out: folder of the data set; must not exist.
        verdicts: file of ``lrm judge --json``.
        failures: keep those that a person called a failure.
        storage: ``"image"`` (exact) or ``"video"`` (smaller).
        convention: LeRobot's names, units and columns; ``None``: ours.
        reward_head: write this head's recorded answers as ``next.reward``.

    Returns:
        Figures: episodes written, left out with the reasons, steps that hold an earlier frame by episode, frames.

    Raises:
        FileExistsError: ``out`` exists.
        FileNotFoundError: no journals.
        ValueError: nothing is left to write.
    """
    found = find_journals(paths)
    selected, left_out, unreadable = select_journals(
        found, None if verdicts is None else kept_by_judge(verdicts), failures
    )
    if not selected:
        why = ", ".join(f"{reason}: {n}" for reason, n in left_out.items())
        raise ValueError(f"none of {len(found)} episodes is left for '{out}' ({why})")
    omissions = Omissions()
    with progress_bar(len(selected), f"write {out.name}", "episode") as bar:
        journals_to_dataset(selected, out, storage, lambda n: bar.update(n - bar.n), omissions, convention, reward_head)
    for name, reason in omissions.left_out:
        print(f"left out: '{name}': {reason}", file=sys.stderr)
    if omissions.left_out:
        left_out["it cannot be used"] = len(omissions.left_out)
    info = json.loads((out / "meta/info.json").read_text(encoding="utf-8"))
    return {
        "episodes": info["total_episodes"],
        "left_out": left_out,
        "reasons": unreadable | dict(omissions.left_out),
        "held": omissions.held,
        "frames": info["total_frames"],
        "folder": str(out),
    }


def read_convention(contract_file: Path | None, extra: bool, robot_type: str | None = None) -> Convention:
    """Return LeRobot's convention of the robot that a contract's file describes.

    Args:
        contract_file: with section ``arm``.
        extra: see :class:`Convention`.
        robot_type: LeRobot's name of the robot; ``None``: the section's.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: none was given, or it does not say what LeRobot's numbers are.
    """
    if contract_file is None:
        raise ValueError(
            "--convention lerobot needs --contract FILE, the robot's with its section 'arm', which says LeRobot's "
            "units of each joint, e.g. config/so101.yaml"
        )
    arm = load_arm(contract_file, load_yaml(contract_file, RobotContract, SECTIONS))
    names = tuple(joint.name for joint in arm.joints)
    return Convention(robot_type or arm.type, names, tuple(joint.affine for joint in arm.joints), extra)


def check_push(name: str) -> None:
    """Look for what a push to the hub needs, before anything is written.

    Raises:
        ValueError: it is no name on the hub, or nobody is logged in there.
    """
    from huggingface_hub import get_token

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ValueError(f"--push {name}: give USER/NAME, the name that the data set gets on the hub")
    if not get_token():
        raise ValueError(f"--push {name}: nobody is logged in at the hub; run 'hf auth login', or set HF_TOKEN")


def push(root: Path, name: str, private: bool = False) -> None:
    """Upload a data set by LeRobot's own ``push_to_hub``, which writes its card and tags its version.

    Raises:
        ValueError: LeRobot does not read it, or the hub does not take it; in one line.
    """
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    try:
        LeRobotDataset(name, root=root, video_backend=video_backend()).push_to_hub(private=private)
    except Exception as error:  # the hub's client and its network raise any
        raise ValueError(
            f"'{root}' is written, but not pushed to '{name}': {one_line(error)}; look at the network and at what the "
            f"token may write, then run: lrm dataset {root} --push {name}"
        ) from error


def main(argv: list[str] | None = None) -> int:
    """Run ``lrm dataset``; returns 2 for wrong arguments."""
    parser = argparse.ArgumentParser(
        prog="lrm dataset", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", type=Path, help="journals or folders of them")
    parser.add_argument("--out", type=Path, help="folder of the new data set")
    parser.add_argument(
        "--push",
        metavar="USER/NAME",
        help="also upload it to the Hugging Face hub; with a data set as path: only that",
    )
    parser.add_argument("--private", action="store_true", help="on the hub only its owner sees it")
    parser.add_argument(
        "--verdicts", type=Path, metavar="FILE", help="only episodes kept in a file of 'lrm judge --json'"
    )
    parser.add_argument("--failures", action="store_true", help="also episodes that a person labelled a failure")
    parser.add_argument(
        "--storage",
        choices=("image", "video"),
        help="PNG (exact; ours) or video (smaller, not exact; with --convention lerobot)",
    )
    parser.add_argument(
        "--convention",
        choices=("ours", "lerobot"),
        default="ours",
        help="lerobot: names, units, columns and robot type of lerobot-record, to be merged with such sets",
    )
    parser.add_argument("--contract", type=Path, metavar="FILE", help="with it: the robot's, with section 'arm'")
    parser.add_argument(
        "--robot-type", metavar="NAME", help="with it: as the sets to merge with (LeRobot 0.6 writes so_follower)"
    )
    parser.add_argument("--extra", action="store_true", help="with it: columns wish, sent, next.success, too")
    parser.add_argument("--reward", metavar="HEAD", help="column next.reward: the recorded answers of this head")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the metrics to this file")
    args = parser.parse_args(argv)
    try:
        if args.push:
            check_push(args.push)
            if args.out is None and len(args.paths) == 1 and is_dataset(args.paths[0]):
                push(args.paths[0], args.push, args.private)
                print(f"{args.paths[0]}: pushed to https://huggingface.co/datasets/{args.push}")
                return 0
        if args.out is None:
            raise ValueError("give --out FOLDER, the new data set's")
        convention = None
        if args.convention == "lerobot":
            convention = read_convention(args.contract, args.extra, args.robot_type)
        elif args.contract or args.extra or args.robot_type:
            raise ValueError("--contract, --extra and --robot-type are for --convention lerobot")
        if convention is not None and args.reward and not args.extra:
            raise ValueError("--reward is a column that lerobot-record does not write; give --extra, too")
        storage = args.storage or ("image" if convention is None else "video")
        figures = make_dataset(args.paths, args.out, args.verdicts, args.failures, storage, convention, args.reward)
        if args.push:
            push(args.out, args.push, args.private)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code(error)
    for reason, number in figures["left_out"].items():
        print(f"left out {number}: {reason}")
    if held := figures["held"]:
        print(f"{sum(held.values())} steps of {len(held)} episodes have the frame before: theirs was lost or late")
    print(f"{args.out}: {figures['episodes']} episodes, {figures['frames']} frames")
    if args.push:
        print(f"pushed to https://huggingface.co/datasets/{args.push}")
    print(f"next: lrm finetune --dataset {args.out} --out POLICY --steps 1500")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
