# SPDX-License-Identifier: Apache-2.0
"""Plain values -> ROS 2 CDR bytes for the few message types of a journal, with their schema texts; needs no ROS.

``mcap_ros2`` can encode too, but byte by byte: 10 ms for one JPEG image. Decoding uses ``mcap_ros2``.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Mapping, Sequence

_SEPARATOR = "\n" + "=" * 80 + "\n"
_HEADER = "MSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id"
_TIME = "MSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec"
_STATUS = "byte OK=0\nbyte WARN=1\nbyte ERROR=2\nbyte STALE=3\nbyte level\nstring name\nstring message\n" + (
    "string hardware_id\nKeyValue[] values"
)
_KEY_VALUE = "MSG: diagnostic_msgs/KeyValue\nstring key\nstring value"

# Message type -> ros2msg text with its dependencies, as rosbag2 and Foxglove read it.
SCHEMAS = {
    "std_msgs/msg/String": "string data",
    "sensor_msgs/msg/Image": _SEPARATOR.join(
        (
            "std_msgs/Header header\nuint32 height\nuint32 width\nstring encoding\nuint8 is_bigendian\n"
            "uint32 step\nuint8[] data",
            _HEADER,
            _TIME,
        )
    ),
    "sensor_msgs/msg/CompressedImage": _SEPARATOR.join(
        ("std_msgs/Header header\nstring format\nuint8[] data", _HEADER, _TIME)
    ),
    "sensor_msgs/msg/CameraInfo": _SEPARATOR.join(
        (
            "std_msgs/Header header\nuint32 height\nuint32 width\nstring distortion_model\nfloat64[] d\nfloat64[9] k\n"
            "float64[9] r\nfloat64[12] p\nuint32 binning_x\nuint32 binning_y\nRegionOfInterest roi",
            _HEADER,
            _TIME,
            "MSG: sensor_msgs/RegionOfInterest\nuint32 x_offset\nuint32 y_offset\nuint32 height\nuint32 width\n"
            "bool do_rectify",
        )
    ),
    "sensor_msgs/msg/JointState": _SEPARATOR.join(
        (
            "std_msgs/Header header\nstring[] name\nfloat64[] position\nfloat64[] velocity\nfloat64[] effort",
            _HEADER,
            _TIME,
        )
    ),
    "trajectory_msgs/msg/JointTrajectory": _SEPARATOR.join(
        (
            "std_msgs/Header header\nstring[] joint_names\nJointTrajectoryPoint[] points",
            _HEADER,
            _TIME,
            "MSG: trajectory_msgs/JointTrajectoryPoint\nfloat64[] positions\nfloat64[] velocities\n"
            "float64[] accelerations\nfloat64[] effort\nbuiltin_interfaces/Duration time_from_start",
            "MSG: builtin_interfaces/Duration\nint32 sec\nuint32 nanosec",
        )
    ),
    "diagnostic_msgs/msg/DiagnosticArray": _SEPARATOR.join(
        (
            "std_msgs/Header header\nDiagnosticStatus[] status",
            _HEADER,
            _TIME,
            "MSG: diagnostic_msgs/DiagnosticStatus\n" + _STATUS,
            _KEY_VALUE,
        )
    ),
}


class _Cdr:
    """A little-endian CDR (XCDR1) buffer; primitives are aligned to their size from the end of the 4-byte header."""

    def __init__(self) -> None:
        self.data = bytearray(b"\x00\x01\x00\x00")

    def _align(self, size: int) -> None:
        self.data.extend(b"\x00" * (-(len(self.data) - 4) % size))

    def u8(self, value: int) -> None:
        self.data.append(value)

    def u32(self, value: int) -> None:
        self._align(4)
        self.data += struct.pack("<I", value)

    def time(self, ns: int) -> None:
        self._align(4)
        self.data += struct.pack("<iI", ns // 1_000_000_000, ns % 1_000_000_000)

    def string(self, value: str) -> None:
        encoded = value.encode()
        self.u32(len(encoded) + 1)
        self.data += encoded + b"\x00"

    def strings(self, values: Sequence[str]) -> None:
        self.u32(len(values))
        for value in values:
            self.string(value)

    def f64s(self, values: Iterable[float] = ()) -> None:
        values = list(values)
        self.u32(len(values))
        if values:
            self._align(8)
            self.data += struct.pack(f"<{len(values)}d", *values)

    def octets(self, value: bytes | memoryview) -> None:
        self.u32(len(value))
        self.data += value

    def header(self, stamp_ns: int, frame_id: str) -> None:
        self.time(stamp_ns)
        self.string(frame_id)

    def status(self, level: int, name: str, message: str, values: Mapping[str, str]) -> None:
        self.u8(level)
        self.string(name)
        self.string(message)
        self.string("")
        self.u32(len(values))
        for key, value in values.items():
            self.string(key)
            self.string(value)


def string(value: str) -> bytes:
    """Encode std_msgs/String."""
    cdr = _Cdr()
    cdr.string(value)
    return bytes(cdr.data)


def compressed_image(stamp_ns: int, frame_id: str, format: str, data: bytes) -> bytes:
    """Encode sensor_msgs/CompressedImage; ``format`` is ``"jpeg"`` or ``"png"``."""
    cdr = _Cdr()
    cdr.header(stamp_ns, frame_id)
    cdr.string(format)
    cdr.octets(data)
    return bytes(cdr.data)


def image(stamp_ns: int, frame_id: str, height: int, width: int, rgb: bytes | memoryview) -> bytes:
    """Encode sensor_msgs/Image, rgb8 without padding."""
    cdr = _Cdr()
    cdr.header(stamp_ns, frame_id)
    cdr.u32(height)
    cdr.u32(width)
    cdr.string("rgb8")
    cdr.u8(0)
    cdr.u32(width * 3)
    cdr.octets(rgb)
    return bytes(cdr.data)


def joint_state(
    stamp_ns: int,
    names: Sequence[str],
    positions: Iterable[float],
    velocities: Iterable[float] = (),
    efforts: Iterable[float] = (),
) -> bytes:
    """Encode sensor_msgs/JointState; [rad], [rad/s], [Nm]."""
    cdr = _Cdr()
    cdr.header(stamp_ns, "")
    cdr.strings(names)
    for values in (positions, velocities, efforts):
        cdr.f64s(values)
    return bytes(cdr.data)


def joint_trajectory(stamp_ns: int, names: Sequence[str], points: Collection[Iterable[float]], dt_s: float) -> bytes:
    """Encode trajectory_msgs/JointTrajectory; point k is due (k + 1) * dt_s after the stamp."""
    cdr = _Cdr()
    cdr.header(stamp_ns, "")
    cdr.strings(names)
    cdr.u32(len(points))
    for k, positions in enumerate(points):
        cdr.f64s(positions)
        for _ in ("velocities", "accelerations", "effort"):
            cdr.f64s()
        cdr.time(round((k + 1) * dt_s * 1e9))
    return bytes(cdr.data)


def diagnostic_array(
    stamp_ns: int, frame_id: str, statuses: Sequence[tuple[int, str, str, Mapping[str, str]]]
) -> bytes:
    """Encode diagnostic_msgs/DiagnosticArray from (level, name, message, values) rows; level 0 OK, 2 ERROR, 3 STALE."""
    cdr = _Cdr()
    cdr.header(stamp_ns, frame_id)
    cdr.u32(len(statuses))
    for level, name, message, values in statuses:
        cdr.status(level, name, message, values)
    return bytes(cdr.data)
