# SPDX-License-Identifier: Apache-2.0
"""Checksums of a data set's files, which Parquet and PNG do not have for all they hold; optional beside LeRobot's."""

from __future__ import annotations

import zlib
from pathlib import Path

from lrm_ros.files import read_json, write_json

CHECKSUMS_FILE = "checksums.json"


def write_checksums(root: Path) -> None:
    """Write the checksums of every file in a data set."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name != CHECKSUMS_FILE)
    write_json(root / CHECKSUMS_FILE, {path.relative_to(root).as_posix(): _checksum(path) for path in files})


def check_files(root: Path) -> None:
    """Compare the files of a data set with their checksums, if it has any.

    Raises:
        ValueError: a file is missing or is not what was written; names it and the cure.
    """
    path = root / CHECKSUMS_FILE
    if not path.is_file():
        return
    found = read_json(path, "delete it, if the data set is good all the same")
    if not isinstance(found, dict):
        raise ValueError(f"'{path}' names no files; delete it, if the data set is good all the same")
    for name, checksum in found.items():
        file = root / name
        if not file.is_file() or _checksum(file) != checksum:
            raise ValueError(
                f"'{file}' is {'not what was written' if file.is_file() else 'missing'}; write the data set again from "
                f"its journals, or delete '{path}' if it was changed on purpose"
            )


def _checksum(path: Path) -> str:
    value = 0
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            value = zlib.crc32(block, value)
    return f"{value:08x}"
