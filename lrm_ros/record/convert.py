# SPDX-License-Identifier: Apache-2.0
"""Journals -> LeRobotDataset: which of them fit together, and the frame of each step, held where one was lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lrm_ros.config import RobotContract
from lrm_ros.contract import contract_differences
from lrm_ros.record.convention import Convention
from lrm_ros.record.dataset import Omissions, leave_out, write_dataset
from lrm_ros.record.journal import JournalInfo, read_info, read_journal
from lrm_ros.types import Episode

# So many of an episode's steps have a frame of their own; the recorder wants as much of a camera's rate.
OWN_SHARE = 0.45


def journals_to_dataset(
    journals: Sequence[str | Path],
    root: str | Path,
    storage: str = "image",
    progress: Callable[[int], None] | None = None,
    omissions: Omissions | None = None,
    convention: Convention | None = None,
    reward_head: str | None = None,
) -> Path:
    """Convert journals of one robot into a LeRobotDataset; see :func:`write_dataset`.

    A step has the newest frame of each camera, up to ``lrm_ros.contract.oldest_s``.

    Args:
        journals: at least one; the robot is that of most of them.
        root: folder of the data set; must not exist.
        storage: see :func:`write_dataset`.
        progress: called with the number of episodes written.
        omissions: filled with what is left out and why; without it, what cannot be used is an error.
        convention: see :func:`write_dataset`; its units must be those of the journals' joints.
        reward_head: see :func:`write_dataset`.

    Raises:
        ValueError: no journals, or none that can be used; without ``omissions`` a corrupt one, or journals of different
            robots; names the file.
    """
    if not journals:
        raise ValueError(f"no journals for data set '{root}'; record episodes first")
    about: list[tuple[str | Path, JournalInfo]] = []
    for path in journals:
        try:
            about.append((path, read_info(path)))
        except ValueError as error:
            leave_out(omissions, str(path), error)
    if not about:
        why = omissions.left_out[-1][1] if omissions else ""
        raise ValueError(f"none of {len(journals)} journals for data set '{root}' can be read: {why}")
    first, usual = _most_of_one_robot(about)
    contract = usual.contract
    fitting = []
    for path, info in about:
        if not (differences := contract_differences(info.contract, contract)):
            fitting.append((path, info))
            continue
        other = ValueError(f"journal '{path}' is of another robot than '{first}': {'; '.join(differences)}")
        leave_out(omissions, str(path), other)
    judged = all(info.outcome is not None for _, info in fitting)

    def episodes() -> Iterator[Episode]:  # one in memory at a time
        for path, _ in fitting:
            try:
                episode = read_journal(path, hold_frames=True)
                held = _held(episode, contract)
            except ValueError as error:
                leave_out(omissions, str(path), error)
                continue
            if held and omissions is not None:
                omissions.held[episode.episode_id] = held
            yield episode

    return write_dataset(
        episodes(),
        root,
        contract,
        storage,
        reward_head,
        judged,
        progress,
        omissions,
        convention,
        any(info.may_intervene for _, info in fitting),
    )


def _most_of_one_robot(about: Sequence[tuple[str | Path, JournalInfo]]) -> tuple[str | Path, JournalInfo]:
    """Return the first journal of the robot that most are of."""

    def like(one: tuple[str | Path, JournalInfo]) -> int:
        return sum(not contract_differences(info.contract, one[1].contract) for _, info in about)

    return max(about, key=like)  # the first of the best


def _held(episode: Episode, contract: RobotContract) -> int:
    """Return how many steps have a frame of an earlier step in place of their own.

    Raises:
        ValueError: so many that the camera is too slow for the control rate.
    """
    held = 0
    before: dict[str, int] = {}
    for step in episode.steps:
        now = {name: frame.stamp_ns for name, frame in step.observation.frames.items()}
        held += any(before.get(name) == ns for name, ns in now.items())
        before = now
    if held > (1 - OWN_SHARE) * len(episode.steps):
        raise ValueError(
            f"episode '{episode.episode_id}': {held} of {len(episode.steps)} steps have no frame of their own; a "
            f"camera must come at {contract.control_hz:g} Hz, the control rate, or half of it: set its driver's rate, "
            "in the twin frame_every to 1"
        )
    return held
