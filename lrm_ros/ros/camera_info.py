# SPDX-License-Identifier: Apache-2.0
"""A camera's calibration file, as ROS's camera_calibration writes it -> camera_info."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from sensor_msgs.msg import CameraInfo

from lrm_ros.config_files import OddNumber, given_path, yaml_value

# Coefficients of each distortion model; of others any number is taken.
_COEFFICIENTS = {"plumb_bob": 5, "rational_polynomial": 8, "equidistant": 4}


def path_of(url: str, camera: str) -> Path:
    """Return the file that a ``camera_info_url`` names.

    Args:
        url: a path, ``file:///PATH`` or ``package://PACKAGE/PATH``; ``${NAME}`` in it is the camera's name.
        camera: camera name.

    Raises:
        FileNotFoundError: it begins with the home of nobody.
        ValueError: another kind of URL, or no such package.
    """
    url = url.replace("${NAME}", camera)
    if "://" not in url:
        return given_path(url)
    parts = urlparse(url)
    path = unquote(parts.path)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(path)
    if parts.scheme != "package" or not parts.netloc:
        raise ValueError(f"camera_info_url '{url}' cannot be read; give a path, file:///PATH or package://PACKAGE/PATH")
    from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

    try:
        return Path(get_package_share_directory(parts.netloc)) / path.lstrip("/")
    except (PackageNotFoundError, ValueError) as error:
        raise ValueError(
            f"camera_info_url '{url}': no package '{parts.netloc}' is installed; source its workspace, or give a path"
        ) from error


def load(url: str, camera: str, width: int, height: int) -> tuple[CameraInfo, str]:
    """Read a calibration.

    Args:
        url: see :func:`path_of`.
        camera: camera name.
        width: of its images [pixels].
        height: of its images [pixels].

    Returns:
        The message without stamp, and the camera's name in the file, empty if it has none.

    Raises:
        FileNotFoundError: see :func:`path_of`.
        ValueError: no such file, not a calibration, damaged, or for images of another size; with the cure.
    """
    path = path_of(url, camera)
    where = f"camera '{camera}': calibration '{path}'"
    cure = "write it with 'ros2 run camera_calibration cameracalibrator', or leave camera_info_url empty"
    try:
        data = yaml_value(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{where} cannot be read ({error.strerror}); correct camera_info_url") from error
    except OddNumber as error:
        raise ValueError(f"{where}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{where} is not YAML ({error}); {cure}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{where} is no calibration; {cure}")

    def numbers(name: str, count: int | None) -> list[float]:
        matrix = data.get(name)
        values = matrix.get("data") if isinstance(matrix, dict) else None
        good = isinstance(values, list) and all(isinstance(v, int | float) and abs(v) < 1e300 for v in values)
        if not isinstance(values, list) or not good or count not in (None, len(values)):
            wanted = "finite numbers" if count is None else f"{count} finite numbers"
            raise ValueError(f"{where}: {name} must have {wanted} in 'data', got {values!r}; {cure}")
        return [float(value) for value in values]

    found = data.get("image_width"), data.get("image_height")
    if found != (width, height):
        raise ValueError(
            f"{where} is of {found[0]}x{found[1]} pixels, the images have {width}x{height}; calibrate at that size, or "
            "set width and height to the calibration's"
        )
    model = data.get("distortion_model")
    if not isinstance(model, str) or not model:
        raise ValueError(f"{where}: distortion_model must be a name such as 'plumb_bob', got {model!r}; {cure}")
    info = CameraInfo(width=width, height=height, distortion_model=model)
    info.header.frame_id = f"{camera}_optical_frame"
    info.d = numbers("distortion_coefficients", _COEFFICIENTS.get(model))
    info.k, info.r = numbers("camera_matrix", 9), numbers("rectification_matrix", 9)
    info.p = numbers("projection_matrix", 12)
    if info.k[0] <= 0 or info.k[4] <= 0:
        raise ValueError(f"{where}: camera_matrix has focal lengths {info.k[0]} and {info.k[4]}; {cure}")
    name: Any = data.get("camera_name") or ""
    return info, str(name)
