# SPDX-License-Identifier: Apache-2.0
"""What in the environment keeps ROS from working: a variable, its value and the cure, told before rclpy is imported."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from glob import escape, glob
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from lrm_ros.environment_variables import Fault, domain, variable_faults

MESSAGES = (
    "builtin_interfaces",
    "diagnostic_msgs",
    "lifecycle_msgs",
    "rcl_interfaces",
    "rosgraph_msgs",
    "sensor_msgs",
    "std_msgs",
    "std_srvs",
    "trajectory_msgs",
)
# Linux gives ports of its own choice from 32768 to 60999: those of the domains between these two.
SHARED_DOMAINS = range(102, 215)
_CLEAN = "open a shell without 'source .../setup.bash', or 'unset PYTHONPATH AMENT_PREFIX_PATH LD_LIBRARY_PATH'"
_INSTALL = "run 'make setup' (or: pip install '.[ros]'), or source a ROS 2 installation"


def fault() -> Fault | None:
    """Return the first thing that is wrong with ROS in this environment; imports nothing of ROS."""
    return next(_faults(), None)


def import_fault() -> Fault | None:
    """As :func:`fault`, and import rclpy into this process: what fails then is a fault, too."""
    found = fault()
    if found is None:
        try:
            importlib.import_module("rclpy")  # by name: this file serves programs that need no ROS
        except ImportError as error:
            return _broken(str(error))
    return found


def deep_fault() -> Fault | None:
    """As :func:`fault`, and import rclpy and the messages in a process of its own, for they may end it."""
    if found := fault():
        return found
    script = f"import rclpy, rclpy.lifecycle, {', '.join(f'{name}.msg' for name in MESSAGES if name != 'std_srvs')}"
    done = subprocess.run(
        [sys.executable, "-c", f"{script}, std_srvs.srv"], capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return None
    return _broken(next(reversed(done.stderr.strip().splitlines()), f"exit code {done.returncode}"))


def warning() -> str:
    """Return what may go wrong with a ROS_DOMAIN_ID that ROS accepts; empty: nothing."""
    number = domain(os.environ.get("ROS_DOMAIN_ID", ""))
    if number not in SHARED_DOMAINS:
        return ""
    return (
        f"ROS_DOMAIN_ID={number}: Linux may give the ports of domains {SHARED_DOMAINS[0]} to {SHARED_DOMAINS[-1]} to "
        "other programs; use 0 to 101"
    )


def _faults() -> Iterator[Fault]:
    yield from _python_faults()
    yield from variable_faults()


# -- Python ------------------------------------------------------------------------------------------------------------


def _python_faults() -> Iterator[Fault]:
    """Yield packages of ROS that are not there or are another Python's."""
    version = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    for package in ("rclpy", *MESSAGES):
        module = "_rclpy_pybind11" if package == "rclpy" else f"{package}_s__rosidl_typesupport_c"
        spec = importlib.util.find_spec(package)
        folders = [Path(folder) for folder in spec.submodule_search_locations or ()] if spec is not None else []
        if not folders:
            yield Fault(f"ROS package '{package}' is not installed for {version} ({sys.executable})", _INSTALL)
            continue
        if any((folder / f"{module}{suffix}").is_file() for folder in folders for suffix in EXTENSION_SUFFIXES):
            continue
        others = [Path(path) for folder in folders for path in sorted(glob(f"{escape(str(folder))}/{module}*.so"))]
        built = f", only {others[0].name}" if others else ""
        entry = folders[0].parent
        variable = _variable_of(entry)
        where = f"{variable}={entry}" if variable else f"{entry}"
        cure = _CLEAN if variable else _INSTALL
        yield Fault(f"{where}: its {package} is not for {version}: it has no {module} for it{built}", cure)


def _variable_of(entry: Path) -> str:
    """Return which variable brought an entry of ``sys.path``; empty: none, it is this Python's own."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return "PYTHONPATH" if any(word and Path(word).resolve() == entry.resolve() for word in given) else ""


def _broken(reason: str) -> Fault:
    """Return the fault of an rclpy that is for this Python and does not import."""
    spec = importlib.util.find_spec("rclpy")
    origin = Path(spec.origin).parents[1] if spec is not None and spec.origin else Path(sys.prefix)
    names = [name for name in ("PYTHONPATH", "LD_LIBRARY_PATH", "ROS_DISTRO") if os.environ.get(name)]
    given = f" ({', '.join(f'{name}={_short(os.environ[name])}' for name in names)})" if names else ""
    first = reason.strip().splitlines()[0] if reason.strip() else "no reason given"
    return Fault(f"rclpy of {origin} does not import{given}: {first}", f"{_CLEAN}, then {_INSTALL}")


def _short(value: str) -> str:
    return value if len(value) <= 80 else value[:77] + "..."
