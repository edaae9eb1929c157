# SPDX-License-Identifier: Apache-2.0
"""Service calls of other nodes inside coroutines of a node's own executor: no thread, no deadlock, never for ever."""

from __future__ import annotations

import time
from typing import Any

from rcl_interfaces.srv import SetParametersAtomically
from rclpy.client import Client
from rclpy.parameter import Parameter
from rclpy.task import Future

PATIENCE_S = 30.0  # a service that has not answered by then never will


class Refused(RuntimeError):
    """A service is not there, does not answer or refuses; the message says which and why."""


class Calls:
    """One call at a time; :meth:`watch` must be called now and then."""

    def __init__(self) -> None:
        self._waiting: tuple[float, Client, Future] | None = None  # since when, whom, for what

    async def ask(self, client: Client, request: Any) -> str:
        """Call a Trigger or SetBool service and return its message.

        Raises:
            Refused: see there.
        """
        answer = await self._call(client, request)
        if not answer.success:
            raise Refused(answer.message)
        return answer.message

    async def set(self, client: Client, name: str, value: Any) -> None:
        """Set a parameter by a ``SetParametersAtomically`` client.

        Raises:
            Refused: see there.
        """
        request = SetParametersAtomically.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        result = (await self._call(client, request)).result
        if not result.successful:
            raise Refused(result.reason)

    def watch(self) -> None:
        """End the wait for a service whose node must have died."""
        if self._waiting is not None and time.monotonic() - self._waiting[0] > PATIENCE_S:
            _, client, future = self._waiting
            client.remove_pending_request(future)
            future.set_exception(Refused(f"service '{client.service_name}' did not answer; has its node died?"))

    async def _call(self, client: Client, request: Any) -> Any:
        name = client.service_name
        if not client.service_is_ready():
            raise Refused(f"service '{name}' is not there; is node '{name.split('/')[-2]}' running?")
        self._waiting = (time.monotonic(), client, client.call_async(request))
        try:
            return await self._waiting[2]
        finally:
            self._waiting = None
