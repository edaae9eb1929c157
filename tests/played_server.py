# SPDX-License-Identifier: Apache-2.0
"""An HTTP server that a test plays: it says what it is asked and answers what the test wants."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Replies = Callable[..., tuple[int, Any, dict[str, str]]]


@contextmanager
def playing(replies: Replies, with_headers: bool = False) -> Iterator[str]:
    """Serve what ``replies(path, body)`` says, status, body and headers; gives the address.

    A body that is an iterator of bytes is sent piece by piece, as they come, until the client has gone; with status 0
    the pieces are all that is sent, status line and headers, too.
    With ``with_headers`` it is called with the request's headers, too.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say({})

        def do_POST(self) -> None:
            self._say(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _say(self, asked: dict[str, Any]) -> None:
            status, body, headers = replies(self.path, asked, *([self.headers] if with_headers else []))
            if isinstance(body, Iterator):
                if status:
                    self.send_response(status)
                    self.end_headers()
                with contextlib.suppress(OSError):
                    for piece in body:
                        self.wfile.write(piece)
                return
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
