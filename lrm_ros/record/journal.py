# SPDX-License-Identifier: Apache-2.0
"""Read journals: one MCAP file an episode -> :class:`lrm_ros.types.Episode`; needs no ROS. Writer: ``writer.py``."""

from __future__ import annotations

import os
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lrm_ros.image_files import decode
from lrm_ros.record.info import JournalError, JournalInfo, info_of
from lrm_ros.record.recover import recover
from lrm_ros.record.timeline import Answers, Points, led_by_person, reorder, stamp
from lrm_ros.record.writer import JournalWriter
from lrm_ros.types import Episode, Frame, Observation, Reward, Step, Unscored

if TYPE_CHECKING:
    from mcap.reader import McapReader
    from mcap_ros2.decoder import DecoderFactory

_FOOTER = struct.Struct("<BQQQI8s")  # opcode, length, start of the index, of its offsets, checksum, magic
INTERVENTION = "/intervention"  # who leads the arm, of a rollout in which a person may take over
_READ = ("/joint_states", "/joint_command_sent", "/joint_command", "/policy/wish", "/reward", INTERVENTION)

__all__ = [
    "JournalError", "JournalInfo", "JournalWriter", "iter_frames", "last_frames", "read_info", "read_journal", "recover"
]  # fmt: skip


@dataclass(frozen=True)
class Topics:
    """The decoded messages of one journal by topic, each in the order of its stamps."""

    info: JournalInfo
    messages: Mapping[str, list[Any]]


def read_info(path: str | Path) -> JournalInfo:
    """Read the metadata: task, source, outcome, whether it says who led, without the messages.

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
    with _usable(path):
        return [to_frame(message, camera) for message in messages]


def iter_frames(path: str | Path, camera: str) -> Iterator[tuple[Frame, int]]:
    """Yield every frame of a camera and when the recorder got it [ns], one at a time, oldest first.

    Raises:
        JournalError: unreadable file.
    """
    path = Path(path)
    topics = [f"/{camera}/image_raw/compressed", f"/{camera}/image_raw"]
    with _opened(path) as (reader, decoders):
        info = info_of(path, reader.iter_metadata())
        live = [info.topics.get(topic, topic) for topic in topics]
        missing = _count(reader, live)
        for schema, channel, message in reader.iter_messages(live):
            missing -= 1
            with _usable(path):
                frame = to_frame(_decode(decoders, schema, channel, message), camera)
            yield frame, message.log_time
        if missing > 0:
            raise ValueError(f"{missing} messages of its index are not there")


def _count(reader: McapReader, topics: Sequence[str]) -> int:
    """Return how many messages a file's index counts on some topics, 0 if it does not say."""
    if (summary := reader.get_summary()) is None or summary.statistics is None:
        return 0
    counts = summary.statistics.channel_message_counts
    return sum(counts.get(number, 0) for number, channel in summary.channels.items() if channel.topic in topics)


def to_frame(message: Any, camera: str) -> Frame:
    """Return a decoded image message of a journal as a frame."""
    stamp_ns = stamp(message)
    if hasattr(message, "format"):
        try:
            return Frame(stamp_ns, camera, decode(message.data, message.format))
        except ValueError as error:
            what = f"camera '{camera}': the {message.format} image at {stamp_ns} ns"
            raise JournalError(f"{what} cannot be decoded: {error}") from error
    image = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)  # (H, W, C)
    return Frame(stamp_ns, camera, image)


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
    with _usable(path):
        return _episode(path, found, hold_frames)


def _episode(path: Path, found: Topics, hold_frames: bool) -> Episode:
    """Join the messages of a journal; see :func:`read_journal`."""
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

    wishes = Points(messages.get("/policy/wish", []), joints, info.contract.dt_s)
    commands = Points(messages.get("/joint_command", []), joints, info.contract.dt_s)
    answers, leaders = Answers(messages.get("/reward", [])), messages.get(INTERVENTION, [])
    steps: list[Step] = []
    before: int | None = None
    for message in sent:
        ns = stamp(message)
        state_index = bisect_right(state_stamps, ns) - 1
        if state_index < 0:
            continue  # sent before the first joint state arrived: nothing was observed
        action = reorder(message.points[0].positions, message.joint_names, joints)
        wish = wishes.at(ns)
        if wish is None:
            wish = commands.at(ns)
        observation = observe(ns, None if hold_frames else before, state_index)
        by_person = led_by_person(leaders, ns)
        steps.append(Step(observation, action, action if wish is None else wish, answers.at(ns), by_person))
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


def _is_read(topic: str) -> bool:
    """Return whether an episode is made of what is on a topic; the rest is for players and people."""
    return topic in _READ or topic.endswith(("/image_raw", "/image_raw/compressed"))


def _frames(messages: Mapping[str, list[Any]], camera: str) -> list[Frame]:
    """Return every frame of a camera, oldest first."""
    found = messages.get(f"/{camera}/image_raw/compressed") or messages.get(f"/{camera}/image_raw") or []
    return [to_frame(message, camera) for message in found]


def _positions(message: Any, joints: Sequence[str]) -> NDArray[np.float32]:
    """Return the joint positions of a message, (D,) float32 [rad]."""
    return reorder(message.position, message.name, joints)


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    """Make a JournalError of what is wrong with the content of messages; the file itself is whole."""
    try:
        yield
    except JournalError as error:
        if str(path) in str(error):
            raise
        raise JournalError(f"journal '{path}': {error}; leave it out, or record the episode again") from error
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        what = f"{type(error).__name__}: {error}"
        raise JournalError(
            f"journal '{path}': a message does not hold what it should ({what}); leave it out, or record the episode "
            "again"
        ) from error


def _decode(decoders: DecoderFactory, schema: Any, channel: Any, message: Any) -> Any:
    """Return a decoded message.

    Raises:
        JournalError: it is not what its schema says; names the topic.
    """
    try:
        decoder = decoders.decoder_for(channel.message_encoding, schema)
        if decoder is None:
            raise ValueError(f"encoding '{channel.message_encoding}'")
        return decoder(message.data)
    except Exception as error:  # what mcap_ros2 raises of odd bytes is anything
        what = f"{type(error).__name__}: {error}"
        raise JournalError(f"a message on '{channel.topic}' cannot be decoded ({what})") from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[McapReader, DecoderFactory]]:
    """Open a journal; damage of the file becomes a JournalError that names the file and the cure."""
    from mcap.reader import make_reader
    from mcap_ros2.decoder import DecoderFactory

    if not path.is_file():
        unfinished = path.with_name(path.name + ".part")
        cure = f"only the unfinished '{unfinished}' is there: python -m lrm_ros.record.recover '{unfinished}'"
        raise JournalError(f"journal '{path}' does not exist" + (f"; {cure}" if unfinished.is_file() else ""))
    try:
        with path.open("rb") as stream:
            _check_summary(stream)
            yield make_reader(stream, validate_crcs=True), DecoderFactory()
    except JournalError:
        raise
    except PermissionError as error:
        raise JournalError(f"journal '{path}' may not be read ({error.strerror}); change its permissions") from error
    except Exception as error:  # mcap meets damaged bytes with any
        cure = f"salvage it with: python -m lrm_ros.record.recover '{path}'"
        raise JournalError(
            f"journal '{path}' is corrupt or cut off ({type(error).__name__}: {error}); {cure}"
        ) from error


def _check_summary(stream: BinaryIO) -> None:
    """Raise ValueError if the file's index is not what was written: the reader of mcap trusts it unseen."""
    size = stream.seek(0, os.SEEK_END)
    if size >= _FOOTER.size:
        stream.seek(size - _FOOTER.size)
        opcode, _, start, _, checksum, _ = _FOOTER.unpack(stream.read())
        if opcode == 2 and checksum and start < size:  # of a file that is cut off this is something else
            stream.seek(start)
            if zlib.crc32(stream.read(size - start - 12)) != checksum:  # up to itself, before the magic
                raise ValueError("its index does not have the checksum that was written")
    stream.seek(0)


def _read(path: Path, topics: list[str] | None, newest: int | None = None) -> Topics:
    """Read info and messages; ``newest`` takes only the last n of the topics."""
    messages: dict[str, list[Any]] = {}
    with _opened(path) as (reader, decoders):
        info = info_of(path, reader.iter_metadata())
        leader, summary = info.topics.get(INTERVENTION, INTERVENTION), reader.get_summary()
        if summary is not None and any(channel.topic == leader for channel in summary.channels.values()):
            info = replace(info, may_intervene=True)
        live = None if topics is None else [info.topics.get(topic, topic) for topic in topics]
        name_of = {name: topic for topic, name in info.topics.items()}
        taken = reader.iter_messages(live, reverse=newest is not None) if live != [] else ()
        for schema, channel, message in taken:
            topic = name_of.get(channel.topic, channel.topic)
            if topics is None and not _is_read(topic):
                continue
            with _usable(path):
                messages.setdefault(topic, []).append(_decode(decoders, schema, channel, message))
            if newest is not None and len(messages[topic]) == newest:
                break
    for found in messages.values():
        with _usable(path):
            found.sort(key=stamp)  # they lie in the order of receipt
    return Topics(info, messages)
