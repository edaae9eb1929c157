# SPDX-License-Identifier: Apache-2.0
"""What an exception says, for people: one line of a message, a log or the answer of a service."""

from __future__ import annotations

_LONGEST = 600  # characters; libraries put whole tensors into their messages


def one_line(error: BaseException) -> str:
    """Return what an exception says, in one line; with its type, unless that is one which is written for people."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # of a library's exception that cannot even be shown
        text = ""
    if not text or not isinstance(error, ValueError | OSError):
        text = f"{type(error).__name__}: {text}"
    return as_line(text)


def as_line(text: str) -> str:
    """Return what another program says as one line that every message and terminal can carry, shortened if long."""
    text = " ".join(text.split())
    text = text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
    text = text.encode("utf-8", "backslashreplace").decode()  # JSON may hold half of a surrogate pair
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
