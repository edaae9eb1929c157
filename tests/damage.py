# SPDX-License-Identifier: Apache-2.0
"""Damaged files for tests: what disks, cables and editors make of good ones, drawn from a seed."""

from __future__ import annotations

import os
import random

# The suite draws a quick portion; LRM_FUZZ=3000 a long one.
EXAMPLES = int(os.environ.get("LRM_FUZZ", "60"))
_WORDS = (b"null", b"{}", b"[]", b'""', b"NaN", b"-1", b"1e999", b"true", b"\xff\xfe", b"x" * 40)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Other content than that given: cut off, bits flipped, a range of zeros, a piece left out, doubled or replaced."""
    size = len(content)
    kind = rng.choice(["cut", "flip", "flip", "flip", "zeros", "gone", "twice", "text", "text", "empty"])
    at = rng.randrange(max(size, 1))
    length = rng.choice([1, rng.randint(1, 8), rng.randint(1, 64), rng.randint(1, max(size, 1))])
    piece = content[at : at + length]
    if kind == "cut":
        found = content[:at]
    elif kind == "flip":
        changed = bytearray(content)
        for _ in range(rng.choice([1, 1, 2, 8]) if size else 0):
            changed[rng.randrange(size)] ^= 1 << rng.randrange(8)
        found = bytes(changed)
    elif kind == "zeros":
        found = content[:at] + bytes(len(piece)) + content[at + length :]
    elif kind == "gone":
        found = content[:at] + content[at + length :]
    elif kind == "twice":
        found = content[:at] + piece + content[at:]
    elif kind == "text":
        found = content[:at] + rng.choice(_WORDS) + content[at + length :]
    else:
        found = b""
    return found if found != content else content[: size // 2]
