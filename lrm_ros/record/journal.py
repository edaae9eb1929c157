# SPDX-License-Identifier: Apache-2.0
"""Read journals: one MCAP file an episode -> :class:`lrm_ros.types.Episode`; needs no ROS. Writer: ``writer.py``."""

from __future__ import annotations

import dataclasses
import json
import struct
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract
from lrm_ros.config_files import from_dict
from lrm_ros.record.recover import recover
from lrm_ros.record.writer import FAULTY, JournalWriter
from lrm_ros.types import Episode, Frame, Observation, Reward, Step, Unscored

if TYPE_CHECKING:
    from mcap.reader import McapReader

__all__ = [
    "JournalError", "JournalInfo", "JournalWriter", "iter_frames", "last_frames", "read_info", "read_journal", "recover"
]  # fmt: skip


class JournalError(ValueError):
    """A journal that cannot be read; the message names the file and the cure."""


@dataclass(frozen=True)
class JournalInfo:
    """Metadata of a journal, readable without its messages.

    Attributes:
        episode_id: unique name, the stem of the file.
        task: language instruction.
        source: who acted: ``"policy"``, ``"teleop"``, ``"expert"``.
        contract: joints, limits, cameras and control rate of the robot.
        outcome: success as judged by a person, ``None`` if nobody said.
        recovered: salvaged from an unfinished file.
        notes: further text values given to ``finish``.
    """

    episode_id: str
    task: str
    source: str
    contract: RobotContract
    outcome: bool | None = None
    recovered: bool = False
    notes: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _info(path: Path, records: Iterator[Any]) -> JournalInfo:
    """Build the info from the file's metadata records."""
    metadata: dict[str, dict[str, str]] = {}
    for record in records:
        metadata.setdefault(record.name, {}).update(record.metadata)
    try:
        about, end = metadata["episode"], dict(metadata.get("end", {}))
    except KeyError:
        raise JournalError(
            f"'{path}' is an MCAP file but no journal of lrm_ros: it has no 'episode' metadata"
        ) from None
    outcome = end.pop("outcome", "")
    recovered = end.pop("recovered", "") == "true"
    contract = from_dict(RobotContract, json.loads(about["contract"]), f"{path}: contract")
    judged = None if not outcome else outcome == "true"
    name = path.name.removesuffix(FAULTY).removesuffix(".mcap")
    return JournalInfo(name, about["task"], about["source"], contract, judged, recovered, end)


@dataclass(frozen=True)
class Topics:
    """The decoded messages of one journal by topic, each in the order of its stamps."""

    info: JournalInfo
    messages: Mapping[str, list[Any]]


def read_info(path: str | Path) -> JournalInfo:
    """Read the metadata: task, source, outcome, without the messages.

    Raises:
        JournalError: missing, corrupt or unfinished file; names it and the cure.
    """
    return _read(Path(path), topics=[]).info


def last_frames(path: str | Path, camera: str, n: int) -> list[Frame]:
    """Read the last ``n`` frames of a camera, oldest first, without reading the rest of the file.

    Raises:
        JournalError: unreadable file, or a camera it does not have.
    """
    path = Path(path)
    topics = [f"/{camera}/image_raw/compressed", f"/{camera}/image_raw"]
    found = _read(path, topics, newest=n)
    messages = [message for topic in topics for message in found.messages.get(topic, [])]
    if not messages:
        cameras = ", ".join(spec.name for spec in found.info.contract.cameras)
        raise JournalError(f"journal '{path}' has no frames of camera '{camera}'; its contract names: {cameras}")
    return [to_frame(message, camera) for message in messages]


def iter_frames(path: str | Path, camera: str) -> Iterator[tuple[Frame, int]]:
    """Yield every frame of a camera and when the recorder got it [ns], one at a time, oldest first.

    Raises:
        JournalError: unreadable file.
    """
    path = Path(path)
    topics = [f"/{camera}/image_raw/compressed", f"/{camera}/image_raw"]
    with _opened(path) as reader:
        for _, _, message, decoded in reader.iter_decoded_messages(topics):
            yield to_frame(decoded, camera), message.log_time


def to_frame(message: Any, camera: str) -> Frame:
    """Return a decoded image message of a journal as a frame."""
    stamp_ns = stamp(message)
    if hasattr(message, "format"):
        import cv2

        image = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise JournalError(f"camera '{camera}': the {message.format} image at {stamp_ns} ns cannot be decoded")
        return Frame(stamp_ns, camera, np.ascontiguousarray(image[:, :, ::-1]))
    image = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)  # (H, W, C)
    return Frame(stamp_ns, camera, image)


def stamp(message: Any) -> int:
    """Return the stamp of a decoded message [ns]."""
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


def read_journal(path: str | Path, hold_frames: bool = False) -> Episode:
    """Read an episode and join its messages by stamp.

    A step is one ``joint_command_sent``. Its observation has the newest joint state at or before it and, of each
    camera, the newest frame since the step before (so each frame belongs to the first step that could see it). A step
    whose frame was not rendered has an observation without frames; its action still follows the last one that has
    some, which is what action chunks are cut from. The wish is the point of ``policy/wish`` that covers the step's
    stamp, else that of ``joint_command``, else the sent action. Rewards are the newest answers about frames up to it.

    Args:
        path: a finished journal.
        hold_frames: give every step the newest frame at or before it, however old.

    Raises:
        JournalError: missing, corrupt or unfinished file, or one without a step; names it and the cure.
    """
    path = Path(path)
    found = _read(path, topics=None)
    info, messages = found.info, found.messages
    joints = info.contract.joints
    sent = messages.get("/joint_command_sent", [])
    states = messages.get("/joint_states", [])
    if not sent or not states:
        raise JournalError(
            f"journal '{path}' has {len(states)} joint states and {len(sent)} sent commands, so no step; "
            "was the arm or the twin running? Delete the file or record the episode again"
        )
    frames = {spec.name: _frames(messages, spec.name) for spec in info.contract.cameras}
    frame_stamps = {camera: [frame.stamp_ns for frame in found] for camera, found in frames.items()}
    state_stamps = [stamp(message) for message in states]

    def observe(ns: int, since_ns: int | None, state_index: int) -> Observation:
        seen = {}
        for camera, stamps in frame_stamps.items():
            index = bisect_right(stamps, ns) - 1
            if index >= 0 and (since_ns is None or stamps[index] > since_ns):
                seen[camera] = frames[camera][index]
        return Observation(ns, seen, _positions(states[state_index], joints), info.task)

    wishes = _Points(messages.get("/policy/wish", []), joints, info.contract.dt_s)
    commands = _Points(messages.get("/joint_command", []), joints, info.contract.dt_s)
    answers = _Answers(messages.get("/reward", []))
    steps: list[Step] = []
    before: int | None = None
    for message in sent:
        ns = stamp(message)
        state_index = bisect_right(state_stamps, ns) - 1
        if state_index < 0:
            continue  # sent before the first joint state arrived: nothing was observed
        action = _reorder(message.points[0].positions, message.joint_names, joints)
        wish = wishes.at(ns)
        if wish is None:
            wish = commands.at(ns)
        observation = observe(ns, None if hold_frames else before, state_index)
        steps.append(Step(observation, action, action if wish is None else wish, answers.at(ns)))
        before = ns
    last_state = state_stamps[-1]
    final = None
    final_rewards: dict[str, Reward | Unscored] = {}
    if before is not None and last_state > before:
        newest = max([last_state, *(stamps[-1] for stamps in frame_stamps.values() if stamps)])
        final = observe(newest, None if hold_frames else before, len(states) - 1)
        final_rewards = answers.at(newest)
    hz, outcome = info.contract.control_hz, info.outcome
    return Episode(info.episode_id, info.task, steps, hz, outcome, info.source, final, final_rewards)


def _frames(messages: Mapping[str, list[Any]], camera: str) -> list[Frame]:
    """Return every frame of a camera, oldest first."""
    found = messages.get(f"/{camera}/image_raw/compressed") or messages.get(f"/{camera}/image_raw") or []
    return [to_frame(message, camera) for message in found]


def _reorder(values: Sequence[float], names: Sequence[str], joints: Sequence[str]) -> NDArray[np.float32]:
    """Return joint values (D,) float32 in the contract's order."""
    if tuple(names) != tuple(joints):
        values = [values[list(names).index(joint)] for joint in joints]
    return np.asarray(values, np.float32)


def _positions(message: Any, joints: Sequence[str]) -> NDArray[np.float32]:
    """Return the joint positions of a message, (D,) float32 [rad]."""
    return _reorder(message.position, message.name, joints)


class _Points:
    """Trajectories as a function of time: which point is due at a stamp."""

    def __init__(self, messages: list[Any], joints: Sequence[str], dt_s: float) -> None:
        self._messages, self._joints, self._dt_ns = messages, joints, dt_s * 1e9
        self._stamps = [stamp(message) for message in messages]

    def at(self, ns: int) -> NDArray[np.float32] | None:
        """Return the point of the newest trajectory that covers ``ns``, (D,) [rad]; None if none does."""
        index = bisect_right(self._stamps, ns) - 1
        if index < 0:
            return None
        message = self._messages[index]
        k = round((ns - self._stamps[index]) / self._dt_ns)
        if k >= len(message.points):
            return None
        return _reorder(message.points[k].positions, message.joint_names, self._joints)


class _Answers:
    """Rewards as a function of time: the newest answer of each head about a frame up to a stamp."""

    def __init__(self, messages: list[Any]) -> None:
        self._by_head: dict[str, list[Reward | Unscored]] = {}
        for message in messages:
            ns = stamp(message)
            for status in message.status:
                values = {pair.key: pair.value for pair in status.values}
                answer: Reward | Unscored = Unscored(ns, status.name, status.message)
                if "value" in values:
                    latency = float(values.get("latency_s", 0.0))
                    answer = Reward(ns, status.name, float(values["value"]), values.get("model", ""), latency)
                self._by_head.setdefault(status.name, []).append(answer)
        for answers in self._by_head.values():
            answers.sort(key=lambda answer: answer.stamp_ns)  # they arrive as they are ready, not as they were asked

    def at(self, ns: int) -> dict[str, Reward | Unscored]:
        """Return the newest answer of each head."""
        found = {}
        for head, answers in self._by_head.items():
            index = bisect_right(answers, ns, key=lambda answer: answer.stamp_ns) - 1
            if index >= 0:
                found[head] = answers[index]
        return found


@contextmanager
def _opened(path: Path) -> Iterator[McapReader]:
    """Open a journal; every error becomes a JournalError that names the file and the cure."""
    from mcap.exceptions import McapError
    from mcap.reader import make_reader
    from mcap.stream_reader import CRCValidationError
    from mcap_ros2.decoder import DecoderFactory

    if not path.is_file():
        unfinished = path.with_name(path.name + ".part")
        cure = f"only the unfinished '{unfinished}' is there: python -m lrm_ros.record.recover '{unfinished}'"
        raise JournalError(f"journal '{path}' does not exist" + (f"; {cure}" if unfinished.is_file() else ""))
    wrong = (McapError, CRCValidationError, struct.error, ValueError, KeyError, IndexError, OSError, AssertionError)
    try:
        with path.open("rb") as stream:
            yield make_reader(stream, validate_crcs=True, decoder_factories=[DecoderFactory()])
    except JournalError:
        raise
    except wrong as error:
        cure = f"salvage it with: python -m lrm_ros.record.recover '{path}'"
        raise JournalError(
            f"journal '{path}' is corrupt or cut off ({type(error).__name__}: {error}); {cure}"
        ) from error


def _read(path: Path, topics: list[str] | None, newest: int | None = None) -> Topics:
    """Read info and messages; ``newest`` takes only the last n of the topics."""
    messages: dict[str, list[Any]] = {}
    with _opened(path) as reader:
        info = _info(path, reader.iter_metadata())
        if topics != []:
            for _, channel, _, decoded in reader.iter_decoded_messages(topics, reverse=newest is not None):
                messages.setdefault(channel.topic, []).append(decoded)
                if newest is not None and len(messages[channel.topic]) == newest:
                    break
    for topic, found in messages.items():
        if topic != "/task":
            found.sort(key=stamp)  # they lie in the order of receipt
    return Topics(info, messages)
