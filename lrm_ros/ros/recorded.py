# SPDX-License-Identifier: Apache-2.0
"""What a journal keeps so that players replay it: live topic names, what publishers offer, whole joint states."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from numpy.typing import NDArray
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.node import Node
from sensor_msgs.msg import JointState

from lrm_ros import messages, topics
from lrm_ros.config import RecorderConfig, RobotContract
from lrm_ros.record.writer import JournalWriter, free_mb
from lrm_ros.ros.diagnostics import Diagnostics

CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
LEADER = "diagnostic_msgs/msg/DiagnosticArray"  # of topic ``intervention``
_TOGETHER_NS = 500_000_000  # another joint's value is part of a state that is not further away [ns]
_FOREVER = "{sec: 9223372036, nsec: 854775807}"


class JointValues:
    """The newest values of every joint that is published, the contract's and others."""

    def __init__(self, joints: Sequence[str]) -> None:
        """Know nothing yet; ``joints``: the contract's."""
        self._joints = tuple(joints)
        self._newest: dict[str, tuple[int, float, float | None, float | None]] = {}

    def add(self, message: JointState) -> None:
        """Take a message: positions, and velocities and efforts where it has them."""
        stamp_ns, count = messages.to_ns(message.header.stamp), len(message.name)
        nothing: list[None] = [None] * count
        velocities = list(message.velocity) if len(message.velocity) == count else nothing
        efforts = list(message.effort) if len(message.effort) == count else nothing
        if len(message.position) == count:
            for name, *values in zip(message.name, message.position, velocities, efforts, strict=True):
                self._newest[name] = (stamp_ns, *values)

    def row(self, stamp_ns: int, positions: NDArray[Any]) -> tuple[list[str], list[float], list[float], list[float]]:
        """Return names, positions, velocities and efforts of a state: the contract's joints first, then the others.

        Args:
            stamp_ns: of the state [ns].
            positions: (D,) of the contract's joints [rad].

        Returns:
            Of velocities and efforts none if no joint has one, NaN for a joint without.
        """
        others = [
            name
            for name, (ns, *_) in self._newest.items()
            if name not in self._joints and abs(ns - stamp_ns) < _TOGETHER_NS
        ]
        names = [*self._joints, *others]
        known = [self._newest.get(name, (0, 0.0, None, None)) for name in names]
        extra = []
        for column in (2, 3):
            values = [row[column] for row in known]
            found = any(value is not None for value in values)
            extra.append([float("nan") if value is None else float(value) for value in values] if found else [])
        return names, [*positions.tolist(), *(self._newest[name][1] for name in others)], extra[0], extra[1]


def live_topics(node: Node, contract: RobotContract) -> dict[str, tuple[str, str]]:
    """Return of each recorded topic its name in this graph and what its publishers offer, as rosbag2 writes it."""
    table = [topics.JOINT_STATES, topics.JOINT_COMMAND_SENT, topics.JOINT_COMMAND, topics.WISH, topics.TASK]
    table += [topics.REWARD, topics.INTERVENTION]
    for camera in contract.cameras:
        table += [topics.IMAGE_RAW.of(camera.name), topics.CAMERA_INFO.of(camera.name)]
    found = {}
    for topic in table:
        live = node.resolve_topic_name(topic.name)
        offered = _offered(node, topic)
        found[f"/{topic.name}"] = (live, offered)
        if topic.name.endswith("/image_raw"):
            found[f"/{topic.name}/compressed"] = (f"{live}/compressed", offered)
    for compressed in (topics.IMAGE_COMPRESSED.of(camera.name) for camera in contract.cameras):
        if node.get_publishers_info_by_topic(compressed.name):
            found[f"/{compressed.name}"] = (node.resolve_topic_name(compressed.name), _offered(node, compressed))
    return found


def _offered(node: Node, topic: topics.Topic) -> str:
    """Return the QoS of a topic's publishers, of the topic itself if there is none, as YAML of rosbag2 (version 9)."""
    profiles = [about.qos_profile for about in node.get_publishers_info_by_topic(topic.name)] or [topic.qos]
    return "\n".join(
        f"- history: {'keep_last' if profile.depth else 'unknown'}\n"
        f"  depth: {profile.depth}\n"
        f"  reliability: {profile.reliability.name.lower()}\n"
        f"  durability: {profile.durability.name.lower()}\n"
        f"  deadline: {_FOREVER}\n"
        f"  lifespan: {_FOREVER}\n"
        "  liveliness: automatic\n"
        f"  liveliness_lease_duration: {_FOREVER}\n"
        "  avoid_ros_namespace_conventions: false"
        for profile in profiles
    )


def episode_message(
    writer: JournalWriter, event: str, path: Path, level: bytes, values: Mapping[str, Any]
) -> DiagnosticStatus:
    """Return the message on topic ``episode``: what happened, where it is, whose, how many messages of each topic."""
    about = {"path": path, "source": writer.source, "task": writer.task}
    counts = {topic.strip("/").replace("/", "_"): count for topic, count in dict(writer.counts).items()}
    return messages.status(level, writer.episode_id, event, {**about, **counts, **values})


def open_journal(
    logger: RcutilsLogger,
    path: Path,
    task: str,
    contract: RobotContract,
    source: str,
    config: RecorderConfig,
    live: Mapping[str, tuple[str, str]],
) -> JournalWriter:
    """Return a new journal's writer, see there; an unfinished one of that name is kept, which the log says."""
    writer = JournalWriter(path, task, contract, source, config.image_format, config.jpeg_quality, live)
    if writer.kept is not None:
        logger.warning(
            f"an unfinished journal of episode '{writer.episode_id}' was there, of a recorder that was killed; it is "
            f"'{writer.kept}' now: python -m lrm_ros.record.recover '{writer.kept}'"
        )
    return writer


def finish_journal(
    logger: RcutilsLogger, writer: JournalWriter, outcome: bool | None, notes: Mapping[str, str], faulty: bool
) -> Path:
    """Return the finished journal's path; a file that another program gave its name is kept, which the log says.

    Args:
        logger: the node's.
        writer: of the journal.
        outcome: success as a person judged it.
        notes: further text values; of the empty ones only ``gaps`` is written.
        faulty: see :meth:`JournalWriter.finish`.
    """
    path = writer.finish(outcome, {key: text for key, text in notes.items() if text or key == "gaps"}, faulty)
    if not faulty and path != writer.path:
        logger.warning(
            f"another program made '{writer.path}' while episode '{writer.episode_id}' was recorded; both are kept, "
            f"this one as '{path}': give each program an episode_id or folder of its own"
        )
    return path


def show_free(diagnostics: Diagnostics, folder: str) -> None:
    """Show how much space the disk of a folder has [MB], or why that is not known."""
    try:
        diagnostics.value("free_mb", free_mb(folder))
    except OSError as error:
        diagnostics.value("free_mb", f"unknown: {error}")


def write_queued(
    waiting: queue.Queue[tuple[str, tuple[Any, ...]]], write: Callable[[str, tuple[Any, ...]], Any]
) -> None:
    """Hand over what is queued, kind and values, until the kind is "stop"; a second without any is ("sync", ())."""
    kind = ""
    while kind != "stop":
        try:
            kind, values = waiting.get(timeout=1.0)
        except queue.Empty:
            write("sync", ())
            continue
        if kind != "stop":
            write(kind, values)
        waiting.task_done()
