# SPDX-License-Identifier: Apache-2.0
"""The server: listens, loads the model while it already answers /health, and ends in order."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from lrm_ros.config_serve import ServeConfig
from lrm_ros.programs import stopping_signals
from lrm_ros.reward.load import load_model
from lrm_ros.reward.models import RewardModel
from lrm_ros.reward.serve.app import create_app
from lrm_ros.reward.serve.guard import Guard
from lrm_ros.reward.serve.service import Service

BACKLOG = 2048  # connections that wait to be taken
STOP_S = 10  # what is being answered may take so long when the server is asked to stop [s]


class RewardServer:
    """One process that answers, with its model or in front of replicas of it.

    Attributes:
        service: the model behind its queue.
        failure: why the model could not be loaded, which ends the server.
        url: where it answers.
    """

    def __init__(
        self, config: ServeConfig, token: str = "", load: Callable[[str, str, str], RewardModel] = load_model
    ) -> None:
        """Listen, and answer nothing yet.

        Args:
            config: what is served, where, and how much of it.
            token: that requests must carry; empty: none.
            load: gives the model for (name, device, mode).

        Raises:
            OSError: the address cannot be listened on.
        """
        self.failure: Exception | None = None
        self.service = Service(config, load, self._failed)
        self._socket = _listen(config.host, config.port)
        host, port = self._socket.getsockname()[:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        guard = Guard(create_app(self.service), config, token, self.service.metrics)
        self._server = _Uvicorn(
            uvicorn.Config(
                guard,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=STOP_S,
                lifespan="off",
                loop="asyncio",  # not what else is installed: the same server everywhere
                http="h11",
                backlog=BACKLOG,
            )
        )

        self._server.keeps_signals = bool(config.replicas)

    def run(self) -> None:
        """Serve until :meth:`stop`, or, in the main thread, SIGINT or SIGTERM; what has been asked is answered."""
        self.service.start()
        try:
            self._server.run([self._socket])
        finally:
            self.service.close(STOP_S)
            self._socket.close()

    def stop(self) -> None:
        """Ask it to end; called by any thread."""
        self._server.should_exit = True

    def _failed(self, error: Exception) -> None:
        self.failure = error
        self.stop()


class _Uvicorn(uvicorn.Server):
    """A server that a signal asks to stop, and nothing more: uvicorn itself raises it again after the end.

    Attributes:
        keeps_signals: take them again and again: Ray, once it is started, aborts the process at SIGTERM.
    """

    keeps_signals = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals that ask to stop, in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._stop) for number in stopping_signals()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        if self.keeps_signals and threading.current_thread() is threading.main_thread():
            for number in stopping_signals():
                signal.signal(number, self._stop)
        return await super().on_tick(counter)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.should_exit = True


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens: who connects waits until there is an answer. Its errors name the address."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise OSError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port or --host"
        ) from error
    return listening
