# SPDX-License-Identifier: Apache-2.0
"""Variables of ROS, its log, its security and Fast DDS whose values they refuse, or pass over in silence."""

from __future__ import annotations

import ctypes
import difflib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HIGHEST_DOMAIN = 232  # of a higher one the ports are above 65535
PROFILES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
TRANSPORTS = "FASTDDS_BUILTIN_TRANSPORTS"
# What else decides whom a node reaches.
REACH = ("ROS_STATIC_PEERS", "ROS_DISCOVERY_SERVER", "ROS_SECURITY_ENABLE", "CYCLONEDDS_URI", TRANSPORTS)
# Variable -> the values that mean something, and the cure of any other.
_WORDS = {
    "ROS_LOCALHOST_ONLY": (("0", "1"), "set it to 1 (this machine only) or unset it"),
    "ROS_AUTOMATIC_DISCOVERY_RANGE": (
        ("LOCALHOST", "SUBNET", "SYSTEM_DEFAULT", "OFF", "NOT_SET"),
        "set it to LOCALHOST (this machine only) or SUBNET, or unset it",
    ),
    # ROS takes any other word for false, and without a word sends everything open.
    "ROS_SECURITY_ENABLE": (("true", "false"), "set it to true, or unset it"),
    "ROS_SECURITY_STRATEGY": (("Enforce", "Permissive"), "set it to Enforce, or unset it"),
    # Any other, and nothing is logged but that.
    "RCUTILS_COLORIZED_OUTPUT": (("0", "1"), "set it to 0 or 1, or unset it"),
    "RCUTILS_LOGGING_USE_STDOUT": (("0", "1"), "set it to 0 or 1, or unset it"),
    "RCUTILS_LOGGING_BUFFERED_STREAM": (("0", "1"), "set it to 0 or 1, or unset it"),
}
# What Fast DDS 2.14 and 3.2 know; any other is DEFAULT to them.
_TRANSPORTS = ("DEFAULT", "DEFAULTv6", "SHM", "UDPv4", "UDPv6", "LARGE_DATA", "LARGE_DATAv6", "P2P")
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


def variable_faults() -> Iterator[Fault]:
    """Yield variables whose values ROS or its middleware refuse, or pass over."""
    given = os.environ.get("ROS_DOMAIN_ID", "")
    number = domain(given)
    if given and (number is None or not 0 <= number <= HIGHEST_DOMAIN):
        yield Fault(
            f"ROS_DOMAIN_ID={given} is not a number from 0 to {HIGHEST_DOMAIN}",
            "set it to a number from 0 to 101, the same on all machines, or unset it (0)",
        )
    for name, (words, cure) in _WORDS.items():
        value = os.environ.get(name, "")
        if value and value not in words:
            none = f"neither {words[0]} nor {words[1]}" if len(words) == 2 else f"none of {', '.join(words)}"
            yield Fault(f"{name}={value} is {none}", cure)
    middleware = os.environ.get("RMW_IMPLEMENTATION", "")
    if middleware and not _is_middleware(middleware):
        installed = _middlewares()
        near = difflib.get_close_matches(middleware, installed, 1, 0.85)
        yield Fault(
            f"RMW_IMPLEMENTATION={middleware} is not installed (installed: {', '.join(installed) or 'none found'})",
            f"set it to {near[0]}" if near else "unset it, or install that middleware beside the ROS 2 in use",
        )
    yield from _reach_faults()
    if not middleware or "fastrtps" in middleware:
        yield from _fast_dds_faults()
    if wrong := _log_fault():
        yield wrong


def domain(word: str) -> int | None:
    """Return a domain as ROS reads it (also octal and hexadecimal), ``None`` if it is no number."""
    word = word.strip()
    if re.fullmatch(r"[+-]?[1-9][0-9]*|[+-]?0[xX][0-9a-fA-F]+", word):
        return int(word, 0)
    return int(word, 8) if re.fullmatch(r"[+-]?0[0-7]*", word) else None


def _reach_faults() -> Iterator[Fault]:
    """Yield what is wrong with the hosts to look for, and with the keys of a secured ROS."""
    for peer in os.environ.get("ROS_STATIC_PEERS", "").split(";"):
        if peer and not re.fullmatch(r"[\w.:%-]+", peer, re.ASCII):
            yield Fault(
                f"ROS_STATIC_PEERS: {peer!r} is no host", "separate names or addresses with ';', e.g. 10.0.0.2;robot"
            )
    if os.environ.get("ROS_SECURITY_ENABLE", "") == "true":
        keys = os.environ.get("ROS_SECURITY_KEYSTORE", "")
        if not keys or not Path(keys, "enclaves").is_dir():
            yield Fault(
                f"ROS_SECURITY_ENABLE=true, but ROS_SECURITY_KEYSTORE={keys} is no keystore (a folder with 'enclaves')",
                "set it to the folder that 'ros2 security create_keystore' made, or unset ROS_SECURITY_ENABLE",
            )


def _fast_dds_faults() -> Iterator[Fault]:
    """Yield what Fast DDS would pass over: it goes on with its defaults, which do not carry images."""
    for name in PROFILES:
        if wrong := _no_profiles(os.environ.get(name, "")):
            yield Fault(
                f"{name}={os.environ[name]} {wrong}",
                "correct the path or the file, or unset it: nodes then use their own",
            )
    given = os.environ.get(TRANSPORTS, "")
    if given and given.partition("?")[0] not in _TRANSPORTS:
        near = difflib.get_close_matches(given, _TRANSPORTS, 1)
        yield Fault(
            f"{TRANSPORTS}={given} is none of {', '.join(_TRANSPORTS)}",
            f"set it to {near[0]}, or unset it" if near else "set it to one of them, or unset it",
        )


def _no_profiles(path: str) -> str:
    """Return why a file holds no profiles; empty: it does, or none is given."""
    if not path:
        return ""
    import xml.etree.ElementTree as ElementTree

    try:
        root = ElementTree.parse(path).getroot().tag.rpartition("}")[2]
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        return f"is no XML ({' '.join(str(error).split())})"
    return "" if root in ("dds", "profiles") else f"holds no profiles: its root is '{root}', not 'dds' or 'profiles'"


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
