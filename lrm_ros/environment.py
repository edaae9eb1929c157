# SPDX-License-Identifier: Apache-2.0
"""What in the environment keeps ROS from working: a variable, its value and the cure, told before rclpy is imported."""

from __future__ import annotations

import ctypes
import difflib
import importlib
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import escape, glob
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

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
DISCOVERY = ("LOCALHOST", "SUBNET", "SYSTEM_DEFAULT", "OFF", "NOT_SET")
HIGHEST_DOMAIN = 232  # of a higher one the ports are above 65535
# Linux gives ports of its own choice from 32768 to 60999: those of the domains between these two.
SHARED_DOMAINS = range(102, 215)
_CLEAN = "open a shell without 'source .../setup.bash', or 'unset PYTHONPATH AMENT_PREFIX_PATH LD_LIBRARY_PATH'"
_INSTALL = "run 'make setup' (or: pip install '.[ros]'), or source a ROS 2 installation"
# In the same folder as the middlewares, and none.
_NO_MIDDLEWARE = ("rmw_implementation", "rmw_dds_common", "rmw_security_common", "rmw_fastrtps_shared_cpp")


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        what: variable, value, and what is wrong with it.
        cure: what to do about it.
    """

    what: str
    cure: str

    def __str__(self) -> str:
        """Return one line."""
        return f"{self.what}; {self.cure}"


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
    domain = _domain(os.environ.get("ROS_DOMAIN_ID", ""))
    if domain not in SHARED_DOMAINS:
        return ""
    return (
        f"ROS_DOMAIN_ID={domain}: Linux may give the ports of domains {SHARED_DOMAINS[0]} to {SHARED_DOMAINS[-1]} to "
        "other programs; use 0 to 101"
    )


def _faults() -> Iterator[Fault]:
    yield from _python_faults()
    yield from _variable_faults()


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


# -- variables ---------------------------------------------------------------------------------------------------------


def _variable_faults() -> Iterator[Fault]:
    """Yield variables whose values ROS refuses, or ignores."""
    domain = os.environ.get("ROS_DOMAIN_ID", "")
    number = _domain(domain)
    if domain and (number is None or not 0 <= number <= HIGHEST_DOMAIN):
        yield Fault(
            f"ROS_DOMAIN_ID={domain} is not a number from 0 to {HIGHEST_DOMAIN}",
            "set it to a number from 0 to 101, the same on all machines, or unset it (0)",
        )
    local = os.environ.get("ROS_LOCALHOST_ONLY", "")
    if local not in ("", "0", "1"):
        yield Fault(f"ROS_LOCALHOST_ONLY={local} is neither 0 nor 1", "set it to 1 (this machine only) or unset it")
    reach = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "")
    if reach and reach not in DISCOVERY:
        yield Fault(
            f"ROS_AUTOMATIC_DISCOVERY_RANGE={reach} is none of {', '.join(DISCOVERY)}",
            "set it to LOCALHOST (this machine only) or SUBNET, or unset it",
        )
    middleware = os.environ.get("RMW_IMPLEMENTATION", "")
    if middleware and not _is_middleware(middleware):
        installed = _middlewares()
        near = difflib.get_close_matches(middleware, installed, 1, 0.85)
        yield Fault(
            f"RMW_IMPLEMENTATION={middleware} is not installed (installed: {', '.join(installed) or 'none found'})",
            f"set it to {near[0]}" if near else "unset it, or install that middleware beside the ROS 2 in use",
        )
    if wrong := _log_fault():
        yield wrong


def _log_fault() -> Fault | None:
    """Return what keeps ROS from writing its log, without which no node starts; by rcl_logging_interface's rules."""
    if "--disable-external-lib-logs" in sys.argv:
        return None
    name = next((name for name in ("ROS_LOG_DIR", "ROS_HOME") if os.environ.get(name)), "HOME")
    given = os.environ.get(name, "")
    folder = {"ROS_LOG_DIR": given, "ROS_HOME": f"{given}/log", "HOME": "~/.ros/log"}[name]
    if folder.startswith("~"):
        if not (home := os.environ.get("HOME", "")):
            return Fault("HOME is not set, so ROS has no folder for its log", "set HOME, or ROS_LOG_DIR to a folder")
        folder = home + folder[1:]
    there = Path(folder).absolute()
    while not os.path.lexists(there):
        there = there.parent
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return None
    why = "cannot be written" if there.is_dir() else "is no folder"
    return Fault(
        f"{name}={given}: ROS cannot write its log, for '{there}' {why}", "set ROS_LOG_DIR to a folder of yours"
    )


def _domain(word: str) -> int | None:
    """Return a domain as ROS reads it (also octal and hexadecimal), ``None`` if it is no number."""
    word = word.strip()
    if re.fullmatch(r"[+-]?[1-9][0-9]*|[+-]?0[xX][0-9a-fA-F]+", word):
        return int(word, 0)
    return int(word, 8) if re.fullmatch(r"[+-]?0[0-7]*", word) else None


def _libraries() -> Sequence[Path]:
    """Return the folders in which ROS looks for libraries."""
    words = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    words += [f"{word}/lib" for word in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if word]
    return [Path(word) for word in dict.fromkeys([*filter(None, words), f"{sys.prefix}/lib"])]


def _is_middleware(name: str) -> bool:
    if name in _NO_MIDDLEWARE or "/" in name:
        return False
    if any((folder / f"lib{name}.so").exists() for folder in _libraries()):
        return True
    try:
        ctypes.CDLL(f"lib{name}.so")  # from a place that only the system's loader knows
    except OSError:
        return False
    return True


def _middlewares() -> list[str]:
    """Return the names of the middlewares that are installed."""
    files = (path for folder in _libraries() for path in folder.glob("librmw_*_cpp.so"))
    return sorted({path.name[3:-3] for path in files if "__" not in path.name} - set(_NO_MIDDLEWARE))
