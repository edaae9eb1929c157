# SPDX-License-Identifier: Apache-2.0
"""The one client of other nodes: their services, parameters and lifecycle, and from these the control of episodes.

Calls wait, so they belong in a worker thread; the node that owns a :class:`Control` spins in another one. Every wait
has a deadline, ends at :meth:`Control.stop`, and its error names the service and the cure.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.client import Client
from rclpy.node import Node
from rclpy.parameter import Parameter, parameter_value_to_python
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import topics
from lrm_ros.ros.estop import RELEASE

# From each state one transition nearer to a node that takes new parameters.
_DOWN = {State.PRIMARY_STATE_ACTIVE: Transition.TRANSITION_DEACTIVATE,
         State.PRIMARY_STATE_INACTIVE: Transition.TRANSITION_CLEANUP}  # fmt: skip


class EpisodeError(RuntimeError):
    """A node is not there, does not answer or refuses; the message names it and the cure."""


class Stopped(Exception):
    """The control was asked to stop while it waited."""


class Control:
    """Calls services and sets parameters of other nodes; names are relative, as those of topics."""

    def __init__(
        self,
        node: Node,
        triggers: Sequence[str] = (),
        nodes: Sequence[str] = (),
        lifecycles: Sequence[str] = (),
        set_bools: Sequence[str] = (),
        timeout_s: float = 60.0,
        load_s: float = 600.0,
        find_s: float = 10.0,
    ) -> None:
        """Create the clients.

        Args:
            node: who asks; must be spinning in another thread when the control is used.
            triggers: ``std_srvs/Trigger`` services, each as ``node/service``.
            nodes: those whose parameters are set or read.
            lifecycles: those that are restarted.
            set_bools: ``std_srvs/SetBool`` services.
            timeout_s: how long a service may take, and nothing may move in :meth:`wait_until` [s].
            load_s: how long ``policy/reload`` and a restart may take: the first load of a policy imports LeRobot, half
                a minute on a busy machine, and a large model comes from a slow disk [s].
            find_s: how long a call looks for a service that is not there [s].
        """
        self._timeout_s, self.load_s, self._find_s = timeout_s, load_s, find_s
        kinds: dict[str, type] = dict.fromkeys(triggers, Trigger) | dict.fromkeys(set_bools, SetBool)
        for name in nodes:
            kinds[f"{name}/set_parameters_atomically"] = SetParametersAtomically
            kinds[f"{name}/get_parameters"] = GetParameters
        for name in lifecycles:
            kinds |= {f"{name}/get_state": GetState, f"{name}/change_state": ChangeState}
        self._clients: dict[str, Client] = {name: node.create_client(kind, name) for name, kind in kinds.items()}
        self._changed = threading.Condition()
        self._stopping = False
        self._moves = 0
        self._fault = ""  # why nothing will move

    # -- services ----------------------------------------------------------------------------------------------------

    def ready(self, service: str) -> bool:
        """Return whether a service is there."""
        return self._clients[service].service_is_ready()

    def wait_ready(self, services: Sequence[str], timeout_s: float = 120.0, check: Callable[[], object] = bool) -> None:
        """Wait until services are there, each for ``timeout_s``: nodes load their models first.

        ``check`` is called meanwhile; it raises where waiting is in vain, as when a node has died.

        Raises:
            EpisodeError: one is missing after ``timeout_s``.
            Stopped: see :meth:`stop`.
        """
        for name in services:
            self._find(name, timeout_s, check)

    def _find(self, service: str, timeout_s: float, check: Callable[[], object] = bool) -> Client:
        client, deadline = self._clients[service], time.monotonic() + timeout_s
        while not client.service_is_ready():
            check()
            with self._changed:
                if self._stopping:
                    raise Stopped
                if time.monotonic() > deadline:
                    raise EpisodeError(
                        f"service '{client.service_name}' is not there after {timeout_s:.0f} s; is node "
                        f"'{service.split('/')[0]}' running? If it is, its own output says what it lacks"
                    )
                self._changed.wait(0.02)  # discovery tells nobody
        return client

    def trigger(self, service: str) -> str:
        """Call a Trigger service and return its message.

        Raises:
            EpisodeError: it is not there, refuses (with its reason) or does not answer.
            Stopped: see :meth:`stop`.
        """
        return self._agreed(service, self._call(service, Trigger.Request()))

    def set_bool(self, service: str, value: bool) -> str:
        """Call a SetBool service and return its message; raises as :meth:`trigger`."""
        return self._agreed(service, self._call(service, SetBool.Request(data=value)))

    def set(self, node: str, values: Mapping[str, Any]) -> None:
        """Set parameters of another node, all or none; raises as :meth:`trigger`."""
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        request = SetParametersAtomically.Request(parameters=parameters)
        result = self._call(f"{node}/set_parameters_atomically", request).result
        if not result.successful:
            raise EpisodeError(f"node '{node}' refuses {dict(values)}: {result.reason}")

    def get(self, node: str, name: str) -> Any:
        """Return a parameter of another node; raises as :meth:`trigger`."""
        values = self._call(f"{node}/get_parameters", GetParameters.Request(names=[name])).values
        return parameter_value_to_python(values[0])

    def restart(self, node: str, values: Mapping[str, Any]) -> None:
        """Give a lifecycle node its parameters and make it active, whatever state it is in; raises as ``trigger``."""
        while (state := self.state(node)) in _DOWN:
            self.change(node, _DOWN[state])
        self.set(node, values)
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            self.change(node, transition)

    def state(self, node: str) -> int:
        """Return the state of a lifecycle node, as ``lifecycle_msgs/State`` numbers it; raises as :meth:`trigger`."""
        return int(self._call(f"{node}/get_state", GetState.Request()).current_state.id)

    def change(self, node: str, transition: int) -> None:
        """Make a lifecycle node's transition; raises as :meth:`trigger`."""
        request = ChangeState.Request(transition=Transition(id=transition))
        if not self._call(f"{node}/change_state", request).success:
            raise EpisodeError(f"node '{node}' could not be started; its own output says why")

    def wait_state(self, node: str, state: int, timeout_s: float = 120.0) -> None:
        """Wait until a lifecycle node is in a state; raises as :meth:`trigger`."""
        deadline = time.monotonic() + timeout_s
        while (now := self._call(f"{node}/get_state", GetState.Request()).current_state).id != state:
            if time.monotonic() > deadline:
                raise EpisodeError(f"node '{node}' is {now.label} after {timeout_s:.0f} s; its own output says why")
            time.sleep(0.1)

    @staticmethod
    def _agreed(service: str, response: Any) -> str:
        if not response.success:
            raise EpisodeError(f"{service}: {response.message}")
        return response.message

    def _call(self, service: str, request: Any) -> Any:
        if self._stopping:
            raise Stopped
        client = self._find(service, self._find_s)
        timeout_s = self.load_s if service.endswith(("/reload", "/change_state")) else self._timeout_s
        future = client.call_async(request)
        future.add_done_callback(lambda _: self.notify())
        with self._changed:
            self._changed.wait_for(lambda: future.done() or self._stopping, timeout_s)
        if future.done():
            return future.result()
        client.remove_pending_request(future)
        if self._stopping:  # who stops may be the thread that would take the answer
            raise Stopped
        raise EpisodeError(
            f"service '{client.service_name}' did not answer within {timeout_s:.0f} s; has node "
            f"'{service.split('/')[0]}' died?"
        )

    # -- waiting -----------------------------------------------------------------------------------------------------

    def notify(self, moved: bool = False) -> None:
        """Wake a waiting :meth:`wait_until`: something its condition depends on has changed.

        Args:
            moved: the arm moved on, so its time-out starts anew.
        """
        with self._changed:
            self._moves += moved
            self._changed.notify_all()

    def fault(self, reason: str) -> None:
        """Make every :meth:`wait_until` fail for a reason, now and until it is called with an empty one."""
        self._fault = reason
        self.notify()

    def wait_until(self, condition: Callable[[], bool], what: str, timeout_s: float | None = None) -> None:
        """Wait until ``condition()`` holds; the time-out restarts whenever the arm moves on.

        Args:
            condition: asked after every :meth:`notify`.
            what: for people, in the error.
            timeout_s: how long nothing may move [s]; default: the control's.

        Raises:
            EpisodeError: nothing moved for that long, or will (:meth:`fault`).
            Stopped: see :meth:`stop`.
        """
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        with self._changed:
            deadline, moves = time.monotonic() + timeout_s, self._moves
            while not condition():
                if self._stopping:
                    raise Stopped
                if self._fault:
                    raise EpisodeError(f"{self._fault}; nothing is waited for: {what}")
                if moves != self._moves:
                    deadline, moves = time.monotonic() + timeout_s, self._moves
                if time.monotonic() >= deadline:
                    raise EpisodeError(
                        f"nothing moved for {timeout_s:.0f} s while waiting for {what}; "
                        "look at the output of the policy's and the arm's node"
                    )
                self._changed.wait(deadline - time.monotonic())

    def holds(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until ``condition()`` holds, asked after every :meth:`notify`; returns whether it does after that long.

        Args:
            condition: of something that is no arm's, so an e-stop does not end the wait.
            timeout_s: how long to wait at most [s].

        Raises:
            Stopped: see :meth:`stop`.
        """
        with self._changed:
            held = self._changed.wait_for(lambda: self._stopping or condition(), timeout_s)
            if self._stopping:
                raise Stopped
            return held

    def stop(self) -> None:
        """Make every wait raise :class:`Stopped`, now and until :meth:`resume`."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def resume(self) -> None:
        """Allow waits again after :meth:`stop`."""
        with self._changed:
            self._stopping = False


class EpisodeControl(Protocol):
    """Starts and ends episodes, real or simulated."""

    def reset(self, seed: int) -> str:
        """Put the scene of an episode in place; returns what it is."""
        ...

    def start(self, **parameters: Any) -> Path:
        """Begin to record with parameters of the recorder; returns the journal's path."""
        ...

    def stop(self, outcome: bool | None = None) -> Path:
        """End the recording; ``outcome``: a person's label of success. Returns the journal's path."""
        ...

    def discard(self) -> str:
        """Discard the recording; returns the recorder's message."""
        ...


class RecordedEpisodes:
    """Episodes before a real scene: the recorder's, and a person puts the scene in place."""

    TRIGGERS: tuple[str, ...] = tuple(f"recorder/{what}_episode" for what in ("start", "stop", "discard"))
    SET_BOOLS = ("recorder/end_episode",)
    NODES: tuple[str, ...] = ("recorder",)

    def __init__(self, control: Control) -> None:
        """Use a control that has the clients of ``TRIGGERS``, ``SET_BOOLS`` and ``NODES``."""
        self._control = control

    def reset(self, seed: int) -> str:
        """Return what the person has to do."""
        return "put the scene in place by hand"

    def start(self, **parameters: Any) -> Path:
        """Begin to record; see :class:`EpisodeControl`."""
        if parameters:
            self._control.set("recorder", parameters)
        return Path(self._control.trigger("recorder/start_episode"))

    def stop(self, outcome: bool | None = None) -> Path:
        """End the recording; see :class:`EpisodeControl`."""
        if outcome is None:
            return Path(self._control.trigger("recorder/stop_episode"))
        return Path(self._control.set_bool("recorder/end_episode", outcome))

    def discard(self) -> str:
        """Discard the recording; see :class:`EpisodeControl`."""
        return self._control.trigger("recorder/discard_episode")


class TwinEpisodes(RecordedEpisodes):
    """Episodes in the twin, whose scene is a seed."""

    TRIGGERS = (*RecordedEpisodes.TRIGGERS, "twin/reset")
    NODES = (*RecordedEpisodes.NODES, "twin")

    def reset(self, seed: int) -> str:
        """Put the twin's scene of a seed in place; returns seed and instruction."""
        self._control.set("twin", {"seed": seed})
        return self._control.trigger("twin/reset")


class SentSteps:
    """Counts the targets sent to an arm: each restarts the time-out of a wait, an e-stop ends it with an error."""

    def __init__(self, node: Node, control: Control) -> None:
        """Listen to ``joint_command_sent``."""
        self.count, self._control, self._lock = 0, control, threading.Lock()
        topics.JOINT_COMMAND_SENT.hear(node, self._on_sent)
        topics.STOPPED.subscribe(node, self._on_stopped)

    def restart(self) -> None:
        """Count from 0 again."""
        with self._lock:
            self.count = 0

    def _on_stopped(self, message: Bool) -> None:
        self._control.fault(f"the arm is stopped; {RELEASE}" if message.data else "")

    def _on_sent(self, _: JointTrajectory) -> None:
        with self._lock:
            self.count += 1
        self._control.notify(moved=True)
