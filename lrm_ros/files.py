# SPDX-License-Identifier: Apache-2.0
"""Files that a kill or a power cut at any moment leaves whole: replaced at once, JSON lines, settings of a folder."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

SETTINGS = "settings.json"


class DamagedFile(json.JSONDecodeError):
    """A JSON file, or a line of one, cannot be read; says which and the cure."""

    def __str__(self) -> str:
        return self.msg


# -- whole files -----------------------------------------------------------------------------------------------------


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a stream whose content becomes the file when the block ends; before that the old file stays.

    What is not finished lies beside it in ``.NAME.part``; an error in the block removes it, the next try replaces it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as stream:
            yield stream
        put_in_place(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def put_in_place(part: Path, path: Path) -> None:
    """Give a finished file its name, replacing what had it; content and name survive a power cut."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
    _keep_names(path.parent)


def rename_new(source: Path, target: Path) -> None:
    """Rename a file, never onto another, also not onto one that appears at this moment.

    Where system or disk has no such rename the name is first taken by an empty file: who is killed in between leaves
    that beside the whole ``source``.

    Raises:
        FileExistsError: the name is taken; ``source`` stays as it is.
    """
    if _rename_exclusive(source, target):
        return
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    os.replace(source, target)


def rename_free(source: Path, names: Iterable[Path]) -> Path:
    """Rename a file to the first of the names that is not taken, and return that.

    Raises:
        FileExistsError: all are.
    """
    for name in names:
        try:
            rename_new(source, name)
        except FileExistsError:
            continue
        return name
    raise FileExistsError(f"all names for '{source}' are taken; move older files away")


def numbered(path: Path, suffix: str) -> Iterator[Path]:
    """Yield ``NAME + suffix``, then with ``_2``, ``_3`` and so on behind the name, which ``suffix`` ends."""
    name = path.name.removesuffix(suffix)
    yield path.with_name(name + suffix)
    for number in range(2, 10**4):
        yield path.with_name(f"{name}_{number}{suffix}")


def _rename_exclusive(source: Path, target: Path) -> bool:
    """Rename by Linux's renameat2(2); returns False, with nothing done, where system or disk cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    here, no_replace = -100, 1  # AT_FDCWD, RENAME_NOREPLACE
    if rename(here, os.fsencode(source), here, os.fsencode(target), ctypes.c_uint(no_replace)) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(source), None, str(target))


def _keep_names(folder: Path) -> None:
    """Let a power cut lose none of the names in a folder."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_bytes(path: Path, content: bytes) -> None:
    """Write or replace a file and its folder; it is never seen unfinished."""
    with replacing(path) as stream:
        stream.write(content)


def write_text(path: Path, text: str) -> None:
    """Write or replace a UTF-8 file and its folder; it is never seen unfinished."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any, indent: int | None = 1, allow_nan: bool = True) -> None:
    """Write or replace a JSON file and its folder; it is never seen unfinished.

    Raises:
        ValueError: NaN or infinity without ``allow_nan``; the old file stays.
    """
    write_text(path, json.dumps(value, indent=indent, allow_nan=allow_nan) + "\n")


def read_json(path: Path, cure: str = "restore it, or delete it") -> Any:
    """Return the content of a JSON file.

    Raises:
        FileNotFoundError: there is none.
        DamagedFile: it is no JSON (a ValueError); names file and cure.
    """
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"'{path}' is no valid JSON ({error}); {cure}", "", 0) from error


# -- JSON lines ------------------------------------------------------------------------------------------------------


def read_lines(path: Path, when_cut: Callable[[], Any] | None = None) -> list[dict[str, Any]]:
    """Return the rows of a file with a JSON object a line, none if there is no file.

    A last line that a kill has cut off is left out.

    Args:
        path: the file.
        when_cut: called if a cut line is left out.

    Raises:
        DamagedFile: another line is no JSON object (a ValueError); names file, line and cure.
    """
    if not path.exists():
        return []
    *lines, last = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if (row := _row(line)) is None:
            raise DamagedFile(f"'{path}' line {number} is no valid JSON object; delete that line", "", 0)
        rows.append(row)
    if last.strip():
        row = _row(last)
        if row is not None:  # whole, but for the line break
            rows.append(row)
        elif when_cut is not None:
            when_cut()
    return rows


def repair_lines(path: Path) -> None:
    """Remove a last line that a kill has cut off, so that the next one is not joined with the piece."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        content = file.read()
        begin = content.rfind(b"\n") + 1
        if _row(content[begin:]) is None:
            file.truncate(begin)
        else:
            file.write(b"\n")


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Append a JSON object as a line, after mending the end of the file; no kill or power cut loses it afterwards."""
    line = json.dumps(row) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    repair_lines(path)
    new = not path.exists()
    with path.open("ab") as file:
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())
    if new:
        _keep_names(path.parent)


def _row(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object of a line, None if it is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


# -- settings of a folder --------------------------------------------------------------------------------------------


def differing(found: Mapping[str, Any], wanted: Mapping[str, Any], free: Collection[str] = ()) -> list[str]:
    """Return ``NAME BEFORE there, NOW now`` for each setting that is another one; a tuple is what JSON makes of it.

    Args:
        found: settings from a file.
        wanted: settings of now; only their names are compared.
        free: names that may differ.
    """
    now = json.loads(json.dumps(dict(wanted)))
    return [
        f"{name} {found.get(name)!r} there, {value!r} now"
        for name, value in now.items()
        if name not in free and found.get(name) != value
    ]


def claim_folder(folder: Path, settings: Mapping[str, Any], results: str, what: str) -> None:
    """Make a folder for results of these settings, or go on in one that was made with the same.

    Args:
        folder: the folder; its ``settings.json`` says whose it is.
        settings: what decides the results.
        results: pattern of the results' names.
        what: the results are called this.

    Raises:
        ValueError: it holds results of other settings, or nobody wrote of which; names what differs and the cure.
    """
    path = folder / SETTINGS
    if not path.exists() and not any(folder.glob(results)):
        write_json(path, dict(settings))
    found = read_json(path, "choose another --out, or delete the folder") if path.exists() else {}
    if differences := differing(found, settings):
        raise ValueError(
            f"'{folder}' holds {what} of other settings ({'; '.join(differences)}); choose another --out, delete the "
            "folder, or set the old values"
        )
