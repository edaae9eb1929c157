# SPDX-License-Identifier: Apache-2.0
"""Write one episode as one crash-safe MCAP file; needs no ROS.

While it is written the file is ``NAME.mcap.part``, flushed and fsynced once a second; ``finish`` renames it to
``NAME.mcap``. A reader therefore never meets half a journal, and a kill loses at most the last second of the
unfinished episode (``lrm_ros.record.recover`` salvages the rest). Foxglove and rosbag2 read the files as they are.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract
from lrm_ros.config_files import to_dict
from lrm_ros.files import numbered, rename_free
from lrm_ros.image_files import encode
from lrm_ros.record import cdr
from lrm_ros.record.info import FAULTY, FORMAT, sealed
from lrm_ros.types import ActionChunk, Frame, Reward, Unscored

IMAGE_FORMATS = ("jpeg", "png", "raw")
SYNC_S = 1.0  # a kill loses no more than this
UNFINISHED = "_unfinished"  # follows the name of a journal that a kill cut off, when its name is used again


def make_folder(folder: str | Path, min_free_mb: int) -> Path:
    """Make the folder for journals and return it.

    Args:
        folder: as the recorder's parameter says.
        min_free_mb: refuse a disk with less space [MB].

    Raises:
        OSError: it cannot be made, or its disk is nearly full; names the parameter to set.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"folder '{folder}' cannot be made: {error.strerror}; set parameter 'folder'") from error
    if (free := free_mb(folder)) < min_free_mb:
        raise OSError(
            f"only {free} MB free at '{folder}', parameter min_free_mb is {min_free_mb}; "
            "delete old recordings or set parameter 'folder' to another disk"
        )
    return folder


def journal_path(folder: Path, episode_id: str) -> Path:
    """Return where the journal of an episode that begins now is written; without an id it is named by the time.

    Raises:
        ValueError: the id is no name of a file in that folder.
    """
    name = episode_id or time.strftime("%Y%m%d_%H%M%S") + f"_{time.time_ns() % 10**9:09d}"
    if "/" in name or "\0" in name or name.startswith(".") or len(os.fsencode(name)) > 200:
        raise ValueError(f"episode_id {name[:80]!r} is no name of a file in '{folder}'; give letters, digits, '_', '-'")
    return folder / f"{name}.mcap"


def free_mb(folder: str | Path) -> int:
    """Return how much space the disk of a folder has, there or not yet [MB]."""
    there = Path(folder).resolve()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free // 1_000_000


def _open_alone(path: Path) -> tuple[BinaryIO, Path | None]:
    """Open a new file that nobody else writes; one that a kill left there keeps what it holds under another name.

    Returns:
        The stream, and where that older file is now, if there was one.

    Raises:
        FileExistsError: somebody writes it, or has just finished it.
    """
    stream = _lock(path)
    if not os.fstat(stream.fileno()).st_size:
        return stream, None
    with stream:
        end = ".mcap.part"
        name = path.with_name(path.name.removesuffix(end) + UNFINISHED + end)
        kept = rename_free(path, numbered(name, end))
    return _lock(path), kept


def _lock(path: Path) -> BinaryIO:
    """Open a file, there or not, that nobody else writes; raises FileExistsError if somebody does."""
    stream = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "wb")  # "wb" of open() would empty another's
    try:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileExistsError(
                f"journal '{path}' is being written by another program; stop that one, or choose another episode_id "
                "or folder"
            ) from None
        except OSError:
            pass  # a disk without locks
        if not path.exists() or not os.path.samestat(path.stat(), os.fstat(stream.fileno())):
            raise FileExistsError(f"journal '{path}' was just finished by another program; choose another episode_id")
    except OSError:
        stream.close()
        raise
    return stream


class JournalWriter:
    """Write one episode. Not thread-safe: one thread writes.

    Stamps are integer nanoseconds of the node clock; positions and actions are in the contract's joint order [rad].
    ``received_ns`` is when the recorder got the message (the file's log time); default: the stamp.
    """

    def __init__(
        self,
        path: str | Path,
        task: str,
        contract: RobotContract,
        source: str,
        image_format: str = "jpeg",
        jpeg_quality: int = 95,
        topics: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        """Open ``path`` + ``.part``; an older ``.part`` becomes ``NAME_unfinished.mcap.part``, which is ``kept``.

        Args:
            path: the finished file, ``FOLDER/NAME.mcap``; NAME is the episode's id.
            task: language instruction.
            contract: robot contract, stored in the file.
            source: ``"policy"``, ``"teleop"`` or ``"expert"``.
            image_format: ``"jpeg"``, ``"png"`` (lossless) or ``"raw"``.
            jpeg_quality: 1 to 100.
            topics: this package's name of a topic -> (its name now, what its publishers offer as rosbag2 writes it).

        Raises:
            ValueError: wrong name or image format.
            FileExistsError: the finished file is there already, or another program writes the unfinished one.
        """
        from mcap.writer import CompressionType, Writer

        self.path = Path(path)
        if self.path.suffix != ".mcap":
            raise ValueError(f"a journal's name ends in .mcap, got '{self.path}'")
        if image_format not in IMAGE_FORMATS:
            raise ValueError(f"image_format must be one of {', '.join(IMAGE_FORMATS)}, got '{image_format}'")
        if self.path.exists():
            raise FileExistsError(f"journal '{self.path}' exists already; choose another episode_id or folder")
        self.episode_id = self.path.stem
        self.part = self.path.with_name(self.path.name + ".part")
        self.task, self.source, self.contract = task, source, contract
        self.counts: dict[str, int] = {}
        self._image_format, self._jpeg_quality = image_format, jpeg_quality
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._stream, self.kept = _open_alone(self.part)
        # JPEG and PNG do not compress further; the rest is small.
        compression = CompressionType.ZSTD if image_format == "raw" else CompressionType.NONE
        self._writer = Writer(self._stream, compression=compression)
        self._writer.start(profile="ros2", library="lrm_ros")
        self._channels: dict[str, int] = {}
        self._topics = topics or {}
        names = {name: live for name, (live, _) in self._topics.items() if live != name}
        about = {"format": str(FORMAT), "episode_id": self.episode_id, "task": task, "source": source}
        about["topics"] = json.dumps(names)
        self._writer.add_metadata("episode", sealed({**about, "contract": json.dumps(to_dict(contract))}))
        self._synced = time.monotonic()
        self._unwritten_task: str | None = task  # written with the first stamp, so that the timeline starts there

    def _write(self, topic: str, schema: str, stamp_ns: int, data: bytes, received_ns: int | None) -> None:
        """Append one encoded message and fsync when a second has passed."""
        if self._unwritten_task is not None:
            task, self._unwritten_task = self._unwritten_task, None
            self._write("/task", "std_msgs/msg/String", stamp_ns, cdr.string(task), received_ns)
        if topic not in self._channels:
            schema_id = self._writer.register_schema(schema, "ros2msg", cdr.SCHEMAS[schema].encode())
            live, offered = self._topics.get(topic, (topic, ""))
            metadata = {"offered_qos_profiles": offered} if offered else {}
            self._channels[topic] = self._writer.register_channel(live, "cdr", schema_id, metadata)
        log_ns = stamp_ns if received_ns is None else received_ns
        self._writer.add_message(self._channels[topic], log_ns, data, stamp_ns, self.counts.get(topic, 0))
        self.counts[topic] = self.counts.get(topic, 0) + 1
        if time.monotonic() - self._synced > SYNC_S:
            self.sync()

    def sync(self) -> None:
        """Flush and fsync everything written so far."""
        self._writer.flush()
        os.fsync(self._stream.fileno())
        self._synced = time.monotonic()

    def frame(self, frame: Frame, received_ns: int | None = None) -> None:
        """Append a camera image."""
        height, width, _ = frame.image.shape
        if self._image_format == "raw":
            frame_id = f"{frame.camera}_optical_frame"
            data = cdr.image(frame.stamp_ns, frame_id, height, width, np.ascontiguousarray(frame.image).tobytes())
            self._write(f"/{frame.camera}/image_raw", "sensor_msgs/msg/Image", frame.stamp_ns, data, received_ns)
            return
        self.file(frame, self._image_format, encode(frame.image, self._image_format, self._jpeg_quality), received_ns)

    def file(self, frame: Frame, description: str, data: bytes, received_ns: int | None = None) -> None:
        """Append a camera image as the JPEG or PNG that the camera itself has made.

        Args:
            frame: stamp and camera of it.
            description: format of its message, see :func:`lrm_ros.image_files.decode`.
            data: the file, which is not changed.
            received_ns: see the class.
        """
        data = cdr.compressed_image(frame.stamp_ns, f"{frame.camera}_optical_frame", description, data)
        topic = f"/{frame.camera}/image_raw/compressed"
        self._write(topic, "sensor_msgs/msg/CompressedImage", frame.stamp_ns, data, received_ns)

    def state(self, stamp_ns: int, positions: Iterable[float], received_ns: int | None = None) -> None:
        """Append joint positions (D,) [rad]."""
        self.joints(stamp_ns, self.contract.joints, positions, (), (), received_ns)

    def joints(
        self,
        stamp_ns: int,
        names: Sequence[str],
        positions: Iterable[float],
        velocities: Iterable[float],
        efforts: Iterable[float],
        received_ns: int | None = None,
    ) -> None:
        """Append a joint state with the contract's joints and others [rad, rad/s, Nm]; no velocity or effort: empty."""
        data = cdr.joint_state(stamp_ns, names, positions, velocities, efforts)
        self._write("/joint_states", "sensor_msgs/msg/JointState", stamp_ns, data, received_ns)

    def message(self, topic: str, schema: str, stamp_ns: int, data: bytes, received_ns: int | None = None) -> None:
        """Append a message that is encoded already, e.g. ``sensor_msgs/msg/CameraInfo``, one of ``cdr.SCHEMAS``."""
        self._write(topic, schema, stamp_ns, data, received_ns)

    def _trajectory(self, topic: str, stamp_ns: int, actions: list[list[float]], received_ns: int | None) -> None:
        data = cdr.joint_trajectory(stamp_ns, self.contract.joints, actions, self.contract.dt_s)
        self._write(topic, "trajectory_msgs/msg/JointTrajectory", stamp_ns, data, received_ns)

    def sent(self, stamp_ns: int, action: NDArray[np.float32], received_ns: int | None = None) -> None:
        """Append the target sent to the arm at ``stamp_ns``, (D,) [rad]: this makes a step of the episode."""
        self._trajectory("/joint_command_sent", stamp_ns, [np.asarray(action).tolist()], received_ns)

    def command(self, chunk: ActionChunk, received_ns: int | None = None) -> None:
        """Append a commanded chunk."""
        self._trajectory("/joint_command", chunk.stamp_ns, chunk.actions.tolist(), received_ns)

    def wish(self, chunk: ActionChunk, received_ns: int | None = None) -> None:
        """Append the policy's own chunk, before exploration."""
        self._trajectory("/policy/wish", chunk.stamp_ns, chunk.actions.tolist(), received_ns)

    def rewards(self, rewards: Sequence[Reward | Unscored], camera: str, received_ns: int | None = None) -> None:
        """Append the answers for one judged frame (one a head, same stamp); a failure stays a failure."""
        rows: list[tuple[int, str, str, Mapping[str, str]]] = []
        for reward in rewards:
            if isinstance(reward, Unscored):
                rows.append((2, reward.head, reward.reason, {}))
            else:
                values = {"value": repr(float(reward.value)), "model": reward.model}
                values["latency_s"] = f"{reward.latency_s:.6f}"
                if reward.mass is not None:
                    values["mass"] = f"{reward.mass:.6g}"
                rows.append((0, reward.head, "", values))
        stamp_ns = rewards[0].stamp_ns
        data = cdr.diagnostic_array(stamp_ns, f"{camera}_optical_frame", rows)
        self._write("/reward", "diagnostic_msgs/msg/DiagnosticArray", stamp_ns, data, received_ns)

    def finish(self, outcome: bool | None = None, notes: Mapping[str, str] | None = None, faulty: bool = False) -> Path:
        """Finalise, fsync and rename to the finished name, which it returns; with a number if that is taken meanwhile.

        Args:
            outcome: success as a person judged it.
            notes: further text values for the file's metadata.
            faulty: something was wrong with what was recorded: the name is ``NAME.mcap.faulty``, which nobody takes
                for an episode by accident; with a number if there is one already.
        """
        text = "" if outcome is None else str(outcome).lower()
        self._writer.add_metadata("end", sealed({"outcome": text, **(notes or {})}))
        self._writer.finish()
        self._stream.flush()
        os.fsync(self._stream.fileno())
        end = ".mcap" + (FAULTY if faulty else "")
        path = rename_free(self.part, numbered(self.path.with_name(self.episode_id + end), end))
        self._stream.close()  # only now another one may take the name
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name, too, survives a power cut
        finally:
            os.close(folder)
        return path

    def abandon(self) -> Path:
        """Close without finishing, e.g. on a full disk; returns the ``.part`` file with what it holds."""
        # The disk that made us give up cannot take the rest either, and closing flushes once more; the descriptor is
        # closed all the same.
        with contextlib.suppress(OSError):
            self.sync()
        with contextlib.suppress(OSError):
            self._stream.close()
        return self.part

    def discard(self) -> None:
        """Close and delete the unfinished file."""
        self.part.unlink()
        self._stream.close()
