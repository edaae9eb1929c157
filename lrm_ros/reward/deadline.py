# SPDX-License-Identifier: Apache-2.0
"""HTTP with a deadline for a whole reply: status line, headers and body, however slowly their bytes come.

The timeout of requests is of each read of the socket alone: a server that sends a byte now and then is within it for
ever. Here each read of a reply has what is left until the deadline, also of a TLS connection and of one by a proxy.
"""

from __future__ import annotations

import http.client
import io
import time
from typing import Any

from requests import Response, Session
from requests.adapters import HTTPAdapter


class StayingSession(Session):
    """Follows no redirection, nor reads the body of one, which may have no end."""

    def get_redirect_target(self, resp: Response) -> None:
        """Return no address, wherever a reply sends to."""
        return


class DeadlineAdapter(HTTPAdapter):
    """Carries the requests of one session, which one thread uses.

    Attributes:
        end: when the reply to the next request must be there, on the monotonic clock [s].
    """

    end = 0.0

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the connections of direct requests."""
        super().init_poolmanager(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._watch(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Make the connections of requests by a proxy."""
        known = proxy in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not known:
            self._watch(manager)
        return manager

    def _watch(self, manager: Any) -> None:
        """Give the connections of a pool manager of urllib3 replies that hold to the deadline."""

        def reply(connection: Any, socket: Any, *args: Any, **kwargs: Any) -> http.client.HTTPResponse:
            response = http.client.HTTPResponse(socket, *args, **kwargs)
            response.fp = io.BufferedReader(_Until(response.fp.detach(), socket, self.end))
            return response

        def watched(pool: Any) -> Any:
            connection = type("Connection", (pool.ConnectionCls,), {"response_class": reply})
            return type("Pool", (pool,), {"ConnectionCls": connection})

        manager.pool_classes_by_scheme = {
            scheme: watched(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
        }


class _Until(io.RawIOBase):
    """What a socket has to read, until a deadline."""

    def __init__(self, raw: Any, socket: Any, end: float) -> None:
        self._raw, self._socket, self._end = raw, socket, end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read what is there.

        Raises:
            TimeoutError: the deadline has passed.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the reply is not there at its deadline")
        self._socket.settimeout(left)
        return self._raw.readinto(buffer)  # type: ignore[no-any-return]

    def fileno(self) -> int:
        return self._raw.fileno()  # type: ignore[no-any-return]

    def close(self) -> None:
        self._raw.close()
        super().close()
