# SPDX-License-Identifier: Apache-2.0
"""Requests to a server that may be busy or away: tried again until a deadline; one that keeps failing is left alone.

A redirection is not followed: a request would arrive without its body, or with it at a server that nobody named.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin

from lrm_ros.errors import as_line, one_line
from lrm_ros.reward.models import public_name

FAILURES = 3  # calls in a row that failed, after which the server is left alone
LEFT_ALONE_S = 5.0  # for so long [s]
_MOVED = (301, 302, 303, 307, 308)  # statuses that name another address
_PASSING = (429, 503)  # statuses that may be gone at the next try
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
_LONGEST_GET_S = 10.0
_LARGEST = 16_000_000  # bytes of a reply; the largest of a sane server has some hundred thousand


class NoAnswer(Exception):
    """A request that got no answer; the message says why, in one line, whatever the server said."""

    def __init__(self, reason: str) -> None:
        """Say why."""
        super().__init__(as_line(reason))


class Moved(NoAnswer):
    """A request that was redirected; the message names the address to give."""


def bearer(variable: str) -> dict[str, str]:
    """Return the header with the token of an environment variable, none if it is empty.

    Raises:
        ValueError: it has characters that no header can carry.
    """
    token = os.environ.get(variable, "").strip()
    if not token.isascii() or not token.isprintable():
        raise ValueError(f"{variable} has characters that no token has; set it anew, to ASCII letters and digits")
    return {"Authorization": f"Bearer {token}"} if token else {}


class JsonServer:
    """Posts JSON and gets JSON; may be used by many threads, each with a connection of its own."""

    def __init__(self, url: str, timeout_s: float, headers: Mapping[str, str]) -> None:
        """Ask nothing yet.

        Args:
            url: base address.
            timeout_s: of a call in all, for the words of an error [s].
            headers: of each request.
        """
        self._url, self._timeout_s, self._headers = url, timeout_s, dict(headers)
        self._local = threading.local()
        self._lock = threading.Lock()
        self._failed, self._closed_until = 0, 0.0

    def session(self) -> Any:
        """Return this thread's connection."""
        if not hasattr(self._local, "session"):
            from lrm_ros.reward.deadline import DeadlineAdapter, StayingSession

            session, self._local.adapter = StayingSession(), DeadlineAdapter()
            session.headers.update(self._headers)
            for scheme in ("http://", "https://"):
                session.mount(scheme, self._local.adapter)
            self._local.session = session
        return self._local.session

    def _ask(self, method: str, route: str, end: float, limits: Any, body: Any = None) -> tuple[Any, bytes]:
        """Return a reply and its body.

        Args:
            method: GET or POST.
            route: below the base address.
            end: when to give up, on the monotonic clock [s].
            limits: of connecting and of waiting for a byte [s].
            body: JSON, of a POST.

        Raises:
            Moved: it names another address.
            NoAnswer: it is too large.
            requests.RequestException: there is none by ``end``.
        """
        session, address = self.session(), f"{self._url}{route}"
        self._local.adapter.end = end
        asked = {"json": body, "timeout": limits, "stream": True}
        with session.request(method, address, **asked) as reply:
            if reply.status_code in _MOVED:
                raise Moved(_moved(reply.status_code, address, route, reply.headers.get("Location", "")))
            return reply, _content(reply, end)

    def get(self, route: str) -> tuple[int, Any]:
        """Return status and JSON of a plain GET, None if it is none; raises what requests does, and NoAnswer."""
        limit = min(_LONGEST_GET_S, self._timeout_s)
        reply, content = self._ask("GET", route, time.monotonic() + limit, limit)
        return reply.status_code, _json(content)

    def post(self, route: str, body: Mapping[str, Any], end: float) -> dict[str, Any]:
        """Return the reply to a request, tried again with growing, random pauses while there is time and hope.

        Args:
            route: below the base address.
            body: JSON.
            end: when to give up, on the monotonic clock [s].

        Raises:
            NoAnswer: there is none, or the server is being left alone, or it is at another address.
        """
        left_alone = self._closed_until - time.monotonic()
        if left_alone > 0:
            raise NoAnswer(f"it failed {self._failed} times in a row and is left alone for {left_alone:.1f} s")
        import requests

        pause = _FIRST_PAUSE_S
        while True:
            left = end - time.monotonic()
            try:
                if left <= 0:
                    raise requests.Timeout
                reply, content = self._ask("POST", route, end, (min(5.0, left), left), body)
                found = _json(content)
                if reply.status_code == 200:
                    if isinstance(found, dict):
                        self._failed = 0
                        return found
                    raise NoAnswer("its reply is no JSON" if found is None else "its reply is no object")
                why = f"{reply.status_code}: {_reason(found, reply.reason)}"
                if reply.status_code not in _PASSING:
                    raise NoAnswer(why)
                told = reply.headers.get("Retry-After", "")
                pause = max(pause, float(told) if told.isascii() and told.isdigit() else 0.0)
            except requests.Timeout:
                raise self._break(f"no answer within {self._timeout_s:g} s") from None
            except requests.RequestException as error:
                why = one_line(error)
            wait = random.uniform(0.5, 1.0) * pause
            if time.monotonic() + wait >= end:
                raise self._break(why)
            time.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _break(self, reason: str) -> NoAnswer:
        """Count a call that failed; after several in a row the server is left alone."""
        with self._lock:
            self._failed += 1
            if self._failed >= FAILURES:
                self._closed_until = time.monotonic() + LEFT_ALONE_S
        return NoAnswer(reason)


def _content(reply: Any, end: float) -> bytes:
    """Return the body of a reply.

    Raises:
        NoAnswer: it is too large.
        requests.RequestException: it has not come by ``end``, also one that comes byte by byte (the adapter's reads end
            then), or it is cut off.
    """
    import requests
    import urllib3

    # What has come, at once; an old urllib3 waits for all of it.
    read = getattr(reply.raw, "read1", reply.raw.read)
    pieces: list[bytes] = []
    size = 0
    try:
        while True:
            if time.monotonic() >= end:
                raise requests.Timeout
            if not (piece := read(65_536, decode_content=True)):
                return b"".join(pieces)
            pieces.append(piece)
            size += len(piece)
            if size > _LARGEST:
                raise NoAnswer(f"its reply has more than {_LARGEST} bytes")
    except urllib3.exceptions.ReadTimeoutError as error:
        raise requests.Timeout from error
    except urllib3.exceptions.HTTPError as error:
        raise requests.ConnectionError(error) from error


def _moved(status: int, address: str, route: str, told: str) -> str:
    """Return what to do about a redirection to what the header Location told."""
    if not told:
        return f"it redirects ({status}) and does not say where; give the address of the server itself"
    with contextlib.suppress(ValueError):  # it is no address
        told = public_name(urljoin(address, told).removesuffix(route))
    return f"it redirects ({status}), which is not followed; give the address that it names: {told}"


def _json(content: bytes) -> Any:
    """Return what JSON says, None if it is none, nested too deep, or has numbers of thousands of digits."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _reason(said: Any, status: str) -> str:
    """Return what a server says of an error: ours and upstream's a text, OpenAI's an object with a message."""
    if not isinstance(said, dict):
        return str(status)
    said = said.get("error", said.get("message", said))
    return str(said.get("message", said) if isinstance(said, dict) else said)
