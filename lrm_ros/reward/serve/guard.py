# SPDX-License-Identifier: Apache-2.0
"""What stands before every route: the token, and limits of bodies (size, time to arrive); counts the answers."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from lrm_ros.config_serve import ServeConfig
from lrm_ros.reward.serve.metrics import Metrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
OPEN = ("/health", "/ready")  # no token: whoever balances load or watches has none


class Guard:
    """An ASGI application before another: it reads each body whole, within its limits, and hands it on."""

    def __init__(self, app: App, config: ServeConfig, token: str, metrics: Metrics) -> None:
        """Guard ``app``; an empty ``token`` lets everybody in."""
        self._app, self._config, self._token, self._metrics = app, config, token, metrics
        self._held = 0  # bytes of all bodies that are being read or judged

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer 401, 408, 413 or 429, or let the application answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        async def counted(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                # A path of no route is one name: anybody may invent some.
                route = getattr(scope.get("route"), "path", "none")
                self._metrics.requests.labels(route, str(message["status"])).inc()
                self._metrics.request_seconds.labels(route).observe(time.perf_counter() - started)

        await self._guard(scope, receive, counted)

    async def _guard(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        if self._token and scope["path"] not in OPEN and not self._may(headers.get(b"authorization", b"")):
            reason = "a token is needed: header 'Authorization: Bearer TOKEN', or http://any:TOKEN@HOST:PORT"
            await _refuse(send, 401, reason, {"WWW-Authenticate": "Bearer"})
            return
        told = headers.get(b"content-length", b"0")
        if told.isdigit() and int(told) > self._most:
            await _refuse(send, 413, f"the body has {int(told)} bytes, {self._most} is the most (--max-body-mb)")
            return
        pieces: list[bytes] = []
        try:
            try:
                async with asyncio.timeout(self._config.body_s):
                    refused = await self._read(receive, pieces)
            except TimeoutError:
                refused = 408, f"the body did not arrive within {self._config.body_s:g} s"
            if refused is None:
                await self._app(scope, _whole(b"".join(pieces), receive), send)
            elif not refused[0]:
                self._metrics.gone.inc()
            else:
                await _refuse(send, *refused, {"Retry-After": "1"} if refused[0] == 429 else None)
        finally:
            self._held -= sum(map(len, pieces))

    @property
    def _most(self) -> int:
        return int(self._config.max_body_mb * 1e6)

    async def _read(self, receive: Receive, pieces: list[bytes]) -> tuple[int, str] | None:
        """Read a body into ``pieces``; returns status and reason of a refusal, status 0 if the client has gone."""
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return 0, "gone"
            piece = message.get("body", b"")
            more = message.get("more_body", False)
            size += len(piece)
            if size > self._most:
                return 413, f"the body has more than {self._most} bytes, the most (--max-body-mb)"
            if self._held + len(piece) > self._config.max_bodies_mb * 1e6:
                return 429, "too many large requests at once (--max-bodies-mb)"
            self._held += len(piece)
            pieces.append(piece)
        return None

    def _may(self, authorization: bytes) -> bool:
        """Return whether a header has the token: as bearer, or as the password of an address."""
        kind, _, value = authorization.decode("latin-1").partition(" ")
        if kind.lower() == "basic":
            try:
                value = base64.b64decode(value, validate=True).decode().partition(":")[2]
            except (binascii.Error, ValueError):
                return False
        elif kind.lower() != "bearer":
            return False
        return hmac.compare_digest(value.strip().encode(), self._token.encode())


def _whole(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that gives a body that has arrived, and after it what the client does."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return waiting.pop() if waiting else await receive()

    return next_message


async def _refuse(send: Send, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
    """Answer with a reason; the connection is closed, for the rest of its body was not read."""
    body = json.dumps({"success": False, "error": reason}).encode()
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
    fields |= headers or {}
    pairs = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
