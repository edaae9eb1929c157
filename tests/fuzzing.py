# SPDX-License-Identifier: Apache-2.0
"""Damage as hypothesis draws it: to the bytes of a file, the records of a journal, the values of a JSON file.

The suite draws a few examples of each kind; ``LRM_FUZZ=2000 pytest --hypothesis-seed=1 -k fuzz`` many, and others.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

LONG = "LRM_FUZZ" in os.environ
EXAMPLES = int(os.environ.get("LRM_FUZZ", "25"))
MEMORY_KB = 4 << 20
HANG_S = 120.0  # of CPU time, which other work on the machine does not add to

fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=not LONG,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)

_WORDS = (b"null", b"{}", b"[]", b'""', b"NaN", b"-1", b"1e999", b"true", b"\xff\xfe", b"\n", b"[" * 20_000, b"x" * 40)
_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 17000000\n"
_JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from([[], {}, [[]], {"a": 1}, [1, 2, 3], "../..", "\0", "9" * 400, -1, 0, 1, 10**12]),
)


@contextmanager
def bounded() -> Iterator[None]:
    """A block that neither hangs nor takes memory without end."""

    def late(*_: object) -> None:
        raise AssertionError(f"it hangs: not done after {HANG_S:.0f} s of work")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, HANG_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert peak_kb < MEMORY_KB, f"it took {peak_kb / 2**20:.1f} GiB"


def check_refusal(error: BaseException, name: Path | str) -> None:
    """An error for people: one line, which names the file."""
    line = str(error)
    assert "\n" not in line.strip() and str(name) in line, f"{type(error).__name__}: {line[:300]}"


@st.composite
def other_bytes(draw: Callable[..., Any], content: bytes) -> bytes:
    """Other content: one to three of a cut, flipped bits, zeros, a piece left out, doubled, moved or replaced."""
    found = content
    for _ in range(draw(st.integers(1, 3))):
        size = len(found)
        at = draw(st.integers(0, max(size - 1, 0)))
        length = draw(st.one_of(st.integers(1, 8), st.integers(1, 4096), st.integers(1, max(size, 1))))
        piece = found[at : at + length]
        kind = draw(st.sampled_from(["flip", "cut", "zeros", "gone", "twice", "moved", "word", "empty", "pointer"]))
        if kind == "flip" and size:
            changed = bytearray(found)
            for place in draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=8)):
                changed[place] ^= 1 << draw(st.integers(0, 7))
            found = bytes(changed)
        elif kind == "cut":
            found = found[:at]
        elif kind == "zeros":
            found = found[:at] + bytes(len(piece)) + found[at + length :]
        elif kind == "gone":
            found = found[:at] + found[at + length :]
        elif kind == "twice":
            found = found[:at] + piece + found[at:]
        elif kind == "moved":
            rest = found[:at] + found[at + length :]
            to = draw(st.integers(0, len(rest)))
            found = rest[:to] + piece + rest[to:]
        elif kind == "word":
            found = found[:at] + draw(st.sampled_from(_WORDS)) + found[at + length :]
        elif kind in ("empty", "pointer"):
            found = b"" if kind == "empty" else _POINTER
    return found


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [(value, key) for key in keys] + [place for key in keys for place in _places(value[key])]


@st.composite
def other_json(draw: Callable[..., Any], text: bytes) -> bytes:
    """A JSON file, or one line of a file of lines, of which values are others, gone, renamed or doubled."""
    try:
        rows = [json.loads(text)]
        lines = False
    except ValueError:
        rows, lines = [json.loads(line) for line in text.splitlines() if line.strip()], True
    for _ in range(draw(st.integers(1, 3))):
        places = _places(rows)
        container, key = places[draw(st.integers(0, len(places) - 1))]
        kind = draw(st.sampled_from(["value", "value", "value", "gone", "renamed", "swapped", "longer"]))
        if kind == "value":
            container[key] = draw(_JUNK)
        elif kind == "gone":
            del container[key]
        elif kind == "renamed" and isinstance(container, dict):
            container[draw(st.text(max_size=8))] = container.pop(key)
        elif kind == "swapped":
            other, there = places[draw(st.integers(0, len(places) - 1))]
            container[key], other[there] = json.loads(json.dumps([other[there], container[key]]))
        elif kind == "longer" and isinstance(container, list):
            container.append(json.loads(json.dumps(container[key])))
        if not rows:
            break
    if lines:
        return b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    return json.dumps(rows[0] if rows else None).encode()


def other_file(path: Path) -> st.SearchStrategy[bytes]:
    """Other content of a file: as bytes, and of a JSON file as values, too."""
    content = path.read_bytes()
    if path.suffix in (".json", ".jsonl"):
        return st.one_of(other_json(content), other_json(content), other_bytes(content))
    return other_bytes(content)


_MAGIC = b"\x89MCAP0\r\n"


@st.composite
def other_journal(draw: Callable[..., Any], content: bytes) -> bytes:
    """A journal of which bytes are others, or whole records are gone, doubled, moved, of another kind or length."""
    if draw(st.booleans()):
        return draw(other_bytes(content))
    records, at = [], len(_MAGIC)
    while at < len(content) - len(_MAGIC):
        (length,) = struct.unpack_from("<Q", content, at + 1)
        records.append(content[at : at + 9 + length])
        at += 9 + length
    for _ in range(draw(st.integers(1, 3))):
        one, other = (draw(st.integers(0, len(records) - 1)) for _ in range(2))
        kind = draw(st.sampled_from(["gone", "twice", "swapped", "opcode", "length", "payload", "text"]))
        record = records[one]
        if kind == "gone" and len(records) > 1:
            del records[one]
        elif kind == "twice":
            records.insert(other, record)
        elif kind == "swapped":
            records[one], records[other] = records[other], record
        elif kind == "opcode":
            records[one] = bytes([draw(st.integers(0, 255))]) + record[1:]
        elif kind == "length":
            length = draw(st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 2 * len(record))))
            records[one] = record[:1] + struct.pack("<Q", length) + record[9:]
        elif kind == "payload":
            payload = draw(other_bytes(record[9:]))
            records[one] = record[:1] + struct.pack("<Q", len(payload)) + payload
        elif kind == "text":  # of a schema, a topic, a name: of the same length, so that the rest is as it was
            words = [
                word for word in (b"float64", b"float32", b"joint_states", b"ros2", b"cdr", b"front") if word in record
            ]
            if words:
                word = draw(st.sampled_from(words))
                records[one] = record.replace(word, bytes(reversed(word)), draw(st.integers(1, 3)))
    return _MAGIC + b"".join(records) + _MAGIC
