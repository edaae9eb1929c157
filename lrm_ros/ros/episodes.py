# SPDX-License-Identifier: Apache-2.0
"""Drives episodes from a worker thread: resets, starts, ends, by the services of the other nodes.

Used by the improver (collection) and the evaluator. The node that owns an :class:`EpisodeDriver` spins in another
thread; every wait has a deadline and its error names the service and the cure.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.client import Client
from rclpy.parameter import Parameter, parameter_value_to_python
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import topics
from lrm_ros.ros.base import LrmNode


class EpisodeError(RuntimeError):
    """A node did not do its part of an episode; the message names it and the cure."""


class Stopped(Exception):
    """The driver was asked to stop while it waited."""


class EpisodeDriver:
    """Calls twin, policy, reward and recorder for one episode after the other."""

    _TRIGGERS = (
        "twin/reset",
        "twin/demonstrate",
        "reward/reset",
        "policy/reset",
        "policy/reload",
        "recorder/start_episode",
        "recorder/stop_episode",
        "recorder/discard_episode",
    )
    _NODES = ("twin", "policy", "recorder")

    def __init__(self, node: LrmNode, timeout_s: float = 60.0, load_s: float = 600.0) -> None:
        """Create the clients.

        Args:
            node: who asks; must be spinning in another thread when the driver is used.
            timeout_s: how long a service may take, and the arm may stand still in an episode [s].
            load_s: how long a policy may take to load: the first one imports LeRobot, half a minute on a busy machine,
                and a large one comes from a slow disk [s].
        """
        self._node, self._timeout_s, self._load_s = node, timeout_s, load_s
        self._clients: dict[str, Client] = {name: node.create_client(Trigger, name) for name in self._TRIGGERS}
        self._parameters: dict[str, Client] = {
            name: node.create_client(SetParametersAtomically, f"{name}/set_parameters_atomically")
            for name in self._NODES
        }
        self._policy_parameters = node.create_client(GetParameters, "policy/get_parameters")
        self._changed = threading.Condition()
        self._stopping = False
        self._steps = 0
        topics.JOINT_COMMAND_SENT.subscribe(node, self._on_sent)

    def add_node(self, name: str, trigger: str) -> None:
        """Also call the Trigger service of another node and set its parameters."""
        self._clients[trigger] = self._node.create_client(Trigger, trigger)
        self._parameters[name] = self._node.create_client(SetParametersAtomically, f"{name}/set_parameters_atomically")

    def _on_sent(self, _: JointTrajectory) -> None:
        with self._changed:
            self._steps += 1
            self._changed.notify_all()

    def notify(self) -> None:
        """Wake a waiting :meth:`wait_until`: something its condition depends on has changed."""
        with self._changed:
            self._changed.notify_all()

    def stop(self) -> None:
        """Make every wait raise :class:`Stopped`, now and until :meth:`resume`."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def resume(self) -> None:
        """Let waits be again after :meth:`stop`."""
        with self._changed:
            self._stopping = False

    @property
    def steps(self) -> int:
        """Control steps the arm has executed since :meth:`count_steps`."""
        return self._steps

    def count_steps(self) -> None:
        """Begin to count control steps anew."""
        with self._changed:
            self._steps = 0

    def wait_ready(self, names: tuple[str, ...], timeout_s: float = 120.0) -> None:
        """Wait until services are there: nodes load their models first.

        Raises:
            EpisodeError: one is missing after ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        for name in names:
            client = self._clients[name]
            while not client.service_is_ready():
                if time.monotonic() > deadline:
                    raise EpisodeError(
                        f"service '{name}' is not there after {timeout_s:.0f} s; look for the error of node "
                        f"'{name.split('/')[0]}' in the output"
                    )
                self._pause(0.05)

    def trigger(self, name: str) -> str:
        """Call a Trigger service and return its message.

        Raises:
            EpisodeError: it refused (with its reason) or did not answer.
        """
        response = self._call(self._clients[name], Trigger.Request(), name)
        if not response.success:
            raise EpisodeError(f"{name}: {response.message}")
        return response.message

    def set(self, node: str, values: Mapping[str, Any]) -> None:
        """Set parameters of another node.

        Raises:
            EpisodeError: it refused (with its reason) or did not answer.
        """
        messages: list[ParameterMessage] = [
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
        ]
        request = SetParametersAtomically.Request(parameters=messages)
        response = self._call(self._parameters[node], request, f"parameters of '{node}'")
        if not response.result.successful:
            raise EpisodeError(f"node '{node}' refuses {dict(values)}: {response.result.reason}")

    def policy_parameter(self, name: str) -> Any:
        """Return a parameter of the policy node.

        Raises:
            EpisodeError: it did not answer.
        """
        request = GetParameters.Request(names=[name])
        values = self._call(self._policy_parameters, request, f"parameter '{name}' of 'policy'").values
        return parameter_value_to_python(values[0])

    def wait_until(self, condition: Any, what: str) -> None:
        """Wait until ``condition()`` holds; the time-out starts anew whenever the arm moves on.

        Raises:
            EpisodeError: nothing moved for the driver's time-out.
            Stopped: :meth:`stop` was called.
        """
        with self._changed:
            while not condition():
                if self._stopping:
                    raise Stopped
                before = self._steps
                if not self._changed.wait(self._timeout_s) and before == self._steps and not condition():
                    raise EpisodeError(
                        f"nothing moved for {self._timeout_s:.0f} s while waiting for {what}; "
                        "look at the output of nodes 'policy' and 'twin'"
                    )

    def _call(self, client: Client, request: Any, name: str) -> Any:
        if self._stopping:
            raise Stopped
        timeout_s = self._load_s if name == "policy/reload" else self._timeout_s
        future = client.call_async(request)
        future.add_done_callback(lambda _: self.notify())
        with self._changed:
            self._changed.wait_for(lambda: future.done() or self._stopping, timeout_s)
        if future.done():
            return future.result()
        client.remove_pending_request(future)
        if self._stopping:  # who stops may be the thread that would take the answer
            raise Stopped
        raise EpisodeError(f"'{name}' did not answer within {timeout_s:.0f} s; is its node still running?")

    def _pause(self, seconds: float) -> None:
        with self._changed:
            if self._stopping:
                raise Stopped
            self._changed.wait(seconds)
