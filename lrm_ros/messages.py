# SPDX-License-Identifier: Apache-2.0
"""ROS messages <-> the types of this package, both ways; the only place that knows which message a topic carries."""

from __future__ import annotations

import array
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from std_msgs.msg import Header
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from lrm_ros import image_files, images
from lrm_ros.types import ActionChunk, Frame, Reward, Unscored


def to_ns(stamp: Time | Duration) -> int:
    """Return a stamp or duration in nanoseconds."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def to_time(ns: int) -> Time:
    """Return nanoseconds as a stamp."""
    return Time(sec=ns // 1_000_000_000, nanosec=ns % 1_000_000_000)


def to_duration(seconds: float) -> Duration:
    """Return seconds as a duration."""
    ns = round(seconds * 1e9)
    return Duration(sec=ns // 1_000_000_000, nanosec=ns % 1_000_000_000)


def to_frame(message: Image | CompressedImage, camera: str) -> Frame:
    """Convert an image; rgb8 without row padding is not copied.

    Args:
        message: of an encoding that ``lrm_ros.images`` knows, ``step`` may include padding; or a JPEG or PNG.
        camera: camera name.

    Raises:
        ValueError: no pixels, depth, another encoding, or data that cannot be it; names the camera and the cure.
    """
    try:
        if isinstance(message, CompressedImage):
            image = image_files.decode(message.data, message.format)
        else:
            size = (message.width, message.height)
            image = images.to_rgb(message.data, message.encoding, size, message.step, bool(message.is_bigendian))
    except ValueError as error:
        raise ValueError(f"camera '{camera}': {error}") from error
    return Frame(to_ns(message.header.stamp), camera, image)


def from_frame(frame: Frame, used: Image | None = None) -> Image:
    """Convert a frame to rgb8 in the camera's optical frame (REP-103).

    Args:
        frame: what to convert.
        used: a message that this made and that is published: of the same size it is filled and returned again. New
            memory for 640x480 can cost a millisecond, page by page.
    """
    height, width, _ = frame.image.shape
    pixels = np.ascontiguousarray(frame.image).data.cast("B")
    if used is not None and (used.height, used.width) == (height, width):
        memoryview(used.data)[:] = pixels
        used.header = Header(stamp=to_time(frame.stamp_ns), frame_id=f"{frame.camera}_optical_frame")
        return used
    data = array.array("B")
    # array.frombytes is 0.1 ms for 640x480; assigning bytes makes a second, checked copy.
    data.frombytes(pixels)
    return Image(
        header=Header(stamp=to_time(frame.stamp_ns), frame_id=f"{frame.camera}_optical_frame"),
        height=height,
        width=width,
        encoding="rgb8",
        is_bigendian=0,
        step=width * 3,
        data=data,
    )


def from_file(frame: Frame, data: bytes, kind: str) -> CompressedImage:
    """Return the JPEG or PNG of a frame (``kind`` ``"jpeg"`` or ``"png"``), described as image_transport does."""
    stored = array.array("B")
    stored.frombytes(data)
    header = Header(stamp=to_time(frame.stamp_ns), frame_id=f"{frame.camera}_optical_frame")
    return CompressedImage(header=header, format=f"rgb8; {kind} compressed bgr8", data=stored)


def camera_info(camera: str, stamp_ns: int, width: int, height: int, fov_rad: float | None = None) -> CameraInfo:
    """Return camera_info for an image without distortion.

    Args:
        camera: camera name.
        stamp_ns: stamp of the image it belongs to [ns].
        width: image width [pixels].
        height: image height [pixels].
        fov_rad: vertical field of view [rad]; ``None``: uncalibrated (K is zero, as the message defines it).
    """
    info = CameraInfo(
        header=Header(stamp=to_time(stamp_ns), frame_id=f"{camera}_optical_frame"), width=width, height=height
    )
    if fov_rad is not None:
        f, cx, cy = height / 2 / math.tan(fov_rad / 2), width / 2, height / 2
        info.distortion_model = "plumb_bob"
        info.d = [0.0] * 5
        info.k = [f, 0.0, cx, 0.0, f, cy, 0.0, 0.0, 1.0]
        info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        info.p = [f, 0.0, cx, 0.0, 0.0, f, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def _columns(names: Sequence[str], joints: Sequence[str], what: str) -> list[int]:
    """Return where each of ``joints`` is in ``names``."""
    missing = [joint for joint in joints if joint not in names]
    if missing:
        raise ValueError(
            f"{what} lacks joint {', '.join(missing)}; it has {', '.join(names) or 'no names'}: "
            "make the robot contract's joint names match"
        )
    if twice := [joint for joint in joints if list(names).count(joint) > 1]:
        raise ValueError(f"{what} has joint {', '.join(twice)} more than once; name each joint once")
    return [list(names).index(joint) for joint in joints]


def to_state(message: JointState, joints: Sequence[str]) -> NDArray[np.float32]:
    """Return the positions of ``joints`` in their order, (D,) float32 [rad].

    Raises:
        ValueError: a joint is missing or there twice, or its position is not finite, naming it.
    """
    columns = _columns(message.name, joints, "joint_states")
    if len(message.position) != len(message.name):
        raise ValueError(f"joint_states has {len(message.position)} positions for {len(message.name)} names")
    state = np.asarray(message.position, np.float32)[columns]
    bad = [f"{joint} = {value}" for joint, value in zip(joints, state, strict=True) if not np.isfinite(value)]
    if bad:
        raise ValueError(f"joint_states has {', '.join(bad)}; check the arm's encoders or driver")
    return state


def from_state(stamp_ns: int, joints: Sequence[str], positions: Iterable[float]) -> JointState:
    """Return joint positions [rad] as a message."""
    return JointState(
        header=Header(stamp=to_time(stamp_ns)), name=list(joints), position=[float(value) for value in positions]
    )


def to_chunk(message: JointTrajectory, joints: Sequence[str], dt_s: float) -> ActionChunk:
    """Return the points of a trajectory as an action chunk, columns in the order of ``joints``.

    Args:
        message: header.stamp is the stamp of the observation it answers (or of execution).
        joints: joint names of the contract.
        dt_s: control period of the contract [s]; the points' mean spacing must be it within 1 %, each within half.

    Raises:
        ValueError: no points, a joint that is missing or there twice, a value that is not finite, or another spacing.
    """
    columns = _columns(message.joint_names, joints, "joint_command")
    if not message.points:
        raise ValueError("joint_command has no points; send at least one")
    names = len(message.joint_names)
    for k, point in enumerate(message.points):
        if len(point.positions) != names:
            raise ValueError(f"joint_command point {k} has {len(point.positions)} positions for {names} joint names")
    wanted = np.array([point.positions for point in message.points], np.float32)[:, columns]
    actions = np.ascontiguousarray(wanted)  # (K, D)
    times = [to_ns(point.time_from_start) / 1e9 for point in message.points]
    apart = [after - before for before, after in pairwise(times)]
    if apart and (abs(sum(apart) / len(apart) - dt_s) > 0.01 * dt_s or max(abs(s - dt_s) for s in apart) > dt_s / 2):
        raise ValueError(f"joint_command has points at {times} s; the robot contract's control period is {dt_s:.4g} s")
    if not np.isfinite(actions).all():
        raise ValueError(f"joint_command has a target that is not finite: {actions.tolist()}")
    return ActionChunk(to_ns(message.header.stamp), actions, dt_s)


def from_chunk(chunk: ActionChunk, joints: Sequence[str]) -> JointTrajectory:
    """Return an action chunk as a trajectory; point k is due (k + 1) control periods after the header's stamp.

    Raises:
        ValueError: its actions are not for these joints.
    """
    if chunk.actions.shape[1] != len(joints):
        raise ValueError(
            f"actions of {chunk.actions.shape[1]} joints for the {len(joints)} of the robot contract: "
            f"{', '.join(joints)}; use a policy of this robot"
        )
    return JointTrajectory(
        header=Header(stamp=to_time(chunk.stamp_ns)),
        joint_names=list(joints),
        points=[
            JointTrajectoryPoint(
                positions=[float(value) for value in action], time_from_start=to_duration((k + 1) * chunk.dt_s)
            )
            for k, action in enumerate(chunk.actions)
        ],
    )


def status(level: bytes, name: str, message: str, values: Mapping[str, Any] | None = None) -> DiagnosticStatus:
    """Return a DiagnosticStatus; values are written with ``str``."""
    return DiagnosticStatus(
        level=level,
        name=name,
        message=message,
        values=[KeyValue(key=key, value=str(value)) for key, value in (values or {}).items()],
    )


def status_values(message: DiagnosticStatus) -> dict[str, str]:
    """Return the key-value pairs of a status."""
    return {pair.key: pair.value for pair in message.values}


def stream_name(world: int) -> str:
    """Return the name of a simulated world: prefix of its topics, stream of its frames."""
    return f"world_{world:02d}"


def from_rewards(rewards: Sequence[Reward | Unscored], camera: str, held: bool = False) -> DiagnosticArray:
    """Return the answers for one judged frame as a message.

    Args:
        rewards: one a head, all with the judged frame's stamp.
        camera: camera of the judged frame.
        held: the values are held from an earlier frame (paper eq. 8): level STALE.

    Raises:
        ValueError: no rewards, or stamps that differ.
    """
    stamps = {reward.stamp_ns for reward in rewards}
    if len(stamps) != 1:
        raise ValueError(f"a reward message is about one frame, got stamps {sorted(stamps)}")
    statuses = []
    for reward in rewards:
        if isinstance(reward, Unscored):
            statuses.append(status(DiagnosticStatus.ERROR, reward.head, reward.reason))
            continue
        values = {"value": repr(reward.value), "model": reward.model, "latency_s": f"{reward.latency_s:.6f}"}
        if reward.mass is not None:
            values["mass"] = f"{reward.mass:.6g}"
        level = DiagnosticStatus.STALE if held else DiagnosticStatus.OK
        statuses.append(status(level, reward.head, "held" if held else "", values))
    header = Header(stamp=to_time(stamps.pop()), frame_id=f"{camera}_optical_frame")
    return DiagnosticArray(header=header, status=statuses)


def to_rewards(message: DiagnosticArray) -> list[Reward | Unscored]:
    """Return the answers in a reward message; held (STALE) values keep their number, errors become Unscored."""
    stamp_ns = to_ns(message.header.stamp)
    rewards: list[Reward | Unscored] = []
    for item in message.status:
        values = status_values(item)
        if "value" in values and item.level != DiagnosticStatus.ERROR:
            rewards.append(
                Reward(
                    stamp_ns,
                    item.name,
                    float(values["value"]),
                    values.get("model", ""),
                    float(values.get("latency_s", 0)),
                    float(values["mass"]) if "mass" in values else None,
                )
            )
        else:
            rewards.append(Unscored(stamp_ns, item.name, item.message))
    return rewards
