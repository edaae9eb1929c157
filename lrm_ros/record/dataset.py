# SPDX-License-Identifier: Apache-2.0
"""Episodes -> LeRobotDataset v3. Journals are the truth; a data set is derived and never extended.

A data set is written into ``<root>.writing`` and renamed when LeRobot has finalised it, so that a folder under its
final name is always complete. Beside LeRobot's files it has ``contract.json`` (the robot) and ``episodes.json``
(where each episode came from).

Columns: ``observation.images.<camera>``, ``observation.state``, ``action`` (what was sent to the arm after limits),
``wish`` (what was asked for; a name starting with "action" would make LeRobot's policies predict it), ``next.reward``
and ``next.success`` where known, ``intervention`` (a person led) where somebody could take over from a policy. Or those
of lerobot-record (``lrm_ros.record.convention``).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract
from lrm_ros.contract import save_contract
from lrm_ros.record.checksums import write_checksums
from lrm_ros.record.convention import CODEC, Convention, save_convention
from lrm_ros.record.lerobot_read import EPISODES_FILE, load_into_ram
from lrm_ros.record.lerobot_set import INTERVENTION
from lrm_ros.record.rows import features_of, rows_of
from lrm_ros.types import Episode
from lrm_ros.versions import create_dataset, make_scalars

__all__ = ["EPISODES_FILE", "Omissions", "is_complete", "leave_out", "load_into_ram", "write_dataset"]


@dataclass
class Omissions:
    """What a data set lacks of the episodes that it was made of.

    Attributes:
        left_out: (journal or episode, reason) of each that is not in it.
        held: episode -> how many of its steps have the frame of an earlier step, for theirs was lost or came late.
    """

    left_out: list[tuple[str, str]] = field(default_factory=list)
    held: dict[str, int] = field(default_factory=dict)


def is_complete(root: str | Path) -> bool:
    """Return whether a folder is a finished data set of this package."""
    return (Path(root) / "meta/info.json").is_file() and (Path(root) / EPISODES_FILE).is_file()


def leave_out(omissions: Omissions | None, what: str, error: ValueError) -> None:
    """Note what is left out; raise the error where nobody wants to know."""
    if omissions is None:
        raise error
    omissions.left_out.append((what, str(error)))
    omissions.held.pop(what, None)


def write_dataset(
    episodes: Iterable[Episode],
    root: str | Path,
    contract: RobotContract,
    storage: str = "image",
    reward_head: str | None = None,
    judged: bool | None = None,
    progress: Callable[[int], None] | None = None,
    omissions: Omissions | None = None,
    convention: Convention | None = None,
    intervened: bool | None = None,
) -> Path:
    """Write episodes as a LeRobotDataset v3.

    Args:
        episodes: at least one; every step needs an image of every camera.
        root: folder of the data set; must not exist.
        contract: robot contract of all episodes.
        storage: ``"image"`` (PNG in parquet: exact, 3 KB for a 96x96 frame of the twin, and faster to write) or
            ``"video"`` (h264: 0.8 KB, but only 33 dB, and a small red toy loses its colour first).
        reward_head: write this head's answers as ``next.reward``, NaN for Unscored; every step must have one. The last
            one is about the episode's final frame.
        judged: write ``next.success``; every episode must have an outcome. ``None``: if they all have one, for which
            all of them are held in memory.
        progress: called with the number of episodes written.
        omissions: filled with what is left out and why; without it, an episode that cannot be used is an error.
        convention: write LeRobot's names, units and columns; ``None``: ours, in rad.
        intervened: write ``intervention``. ``None``: if a person led in any step, for which all are held in memory.

    Returns:
        ``root``.

    Raises:
        FileExistsError: ``root`` exists.
        ValueError: no episode that can be used; without ``omissions`` one that does not fit the contract, has a blank
            task, or lacks an image or a reward; names episode and step.
    """
    root = Path(root)
    if root.exists():
        raise FileExistsError(
            f"data set folder '{root}' exists; remove it or choose another: data sets are never extended"
        )
    if storage not in ("image", "video"):
        raise ValueError(f"storage must be 'image' or 'video', got '{storage}'")
    if convention is not None and convention.joints != contract.joints:
        raise ValueError(
            f"the episodes for '{root}' are of another robot than the one whose LeRobot units are known: joints "
            f"{', '.join(contract.joints)} instead of {', '.join(convention.joints)}; give its contract's file"
        )
    writing = root.with_name(root.name + ".writing")
    shutil.rmtree(writing, ignore_errors=True)
    writing.parent.mkdir(parents=True, exist_ok=True)
    if judged is None or intervened is None:
        episodes = list(episodes)
    if intervened is None:
        intervened = any(step.intervention for episode in episodes for step in episode.steps)
    if judged is None:
        judged = bool(episodes) and all(episode.outcome is not None for episode in episodes)
    if convention is not None and not convention.extra:
        judged, reward_head, intervened = False, None, False
    dataset = create_dataset(
        repo_id=f"local/{root.name}",
        fps=round(contract.control_hz),
        features=features_of(contract, storage, reward_head is not None, judged, convention, intervened),
        root=writing,
        robot_type=contract.name if convention is None else convention.robot,
        use_videos=storage == "video",
        video_backend="pyav",
        **({} if convention is None else {"codec": CODEC}),
    )
    about = []
    moments: dict[str, list[NDArray[np.float64]]] = {}
    rewards: list[float] = []
    for episode in episodes:
        try:
            rows = list(rows_of(episode, contract, reward_head, judged, convention, intervened))
        except ValueError as error:
            leave_out(omissions, episode.episode_id, error)
            continue
        for row in rows:
            for key in (key for key in row if key.startswith("observation.images.")):
                pixels = row[key].reshape(-1, 3) / 255.0  # (H W, 3)
                moments.setdefault(key, []).append(np.stack([pixels.mean(axis=0), (pixels**2).mean(axis=0)]))
            rewards.extend(row.get("next.reward", ()))
            dataset.add_frame(row)
        make_scalars(dataset, ("next.reward", "next.success", INTERVENTION))
        with _quiet_bars():
            dataset.save_episode(parallel_encoding=False)  # else LeRobot forks, and with it the locks of our threads
        about.append({"id": episode.episode_id, "source": episode.source, "outcome": episode.outcome})
        if progress:
            progress(len(about))
    if not about:
        shutil.rmtree(writing, ignore_errors=True)
        why = f": {omissions.left_out[0][1]}" if omissions and omissions.left_out else ""
        raise ValueError(f"no episodes for data set '{root}'{why}")
    dataset.finalize()
    shutil.rmtree(writing / "images", ignore_errors=True)  # LeRobot's own temporary files
    _fix_statistics(writing / "meta/stats.json", moments, rewards)
    if convention is None:
        save_contract(contract, writing)
    else:
        save_convention(convention, contract, writing)
    (writing / EPISODES_FILE).write_text(json.dumps(about, indent=0))
    write_checksums(writing)
    os.rename(writing, root)
    return root


@contextlib.contextmanager
def _quiet_bars() -> Iterator[None]:
    """Disable the datasets library's progress bar of every episode, and LeRobot 0.4's warning of each bool column."""
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

    before = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Converting input from bool", RuntimeWarning)
            yield
    finally:
        if before:
            enable_progress_bar()


def _fix_statistics(path: Path, moments: dict[str, list[NDArray[np.float64]]], rewards: list[float]) -> None:
    """Write the exact mean and deviation of the images, the same whichever LeRobot wrote the data set.

    LeRobot 0.4.4 squares uint8 numbers, overflows and writes a deviation of nearly 0; 0.6.1 estimates it from samples.
    One NaN among the rewards would make all their figures NaN: these are of the others.
    """
    stats = json.loads(path.read_text(encoding="utf-8"))
    for key, pairs in moments.items():
        mean, square = np.mean(pairs, axis=0)  # (3,), (3,)
        stats[key]["mean"] = mean.reshape(3, 1, 1).tolist()
        stats[key]["std"] = np.sqrt(np.maximum(square - mean**2, 0)).reshape(3, 1, 1).tolist()
    scored = np.asarray(rewards)[np.isfinite(rewards)]
    if 0 < len(scored) < len(rewards):
        for name in stats["next.reward"]:
            if name == "count":
                stats["next.reward"][name] = [len(scored)]
            elif name in ("min", "max", "mean", "std"):
                stats["next.reward"][name] = [float(getattr(scored, name)())]
            else:  # q01 to q99
                stats["next.reward"][name] = [float(np.quantile(scored, int(name[1:]) / 100))]
    path.write_text(json.dumps(stats, indent=4))
