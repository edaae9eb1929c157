# SPDX-License-Identifier: Apache-2.0
"""The base of every node: parameters from a dataclass, lifecycle that reports its errors.

A node derives from :class:`LrmNode`, overrides ``configure``, ``activate``, ``deactivate``, ``cleanup`` (they raise on
trouble and return nothing) and ends its file with ``main`` calling :func:`lrm_ros.ros.program.run`.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from lrm_ros.config import RobotContract
from lrm_ros.config_arm import SECTIONS as ARM_SECTIONS
from lrm_ros.config_files import load_yaml
from lrm_ros.contract import require_limits, require_radians
from lrm_ros.parameters import (
    AT_CONFIGURE,
    AT_START,
    BUILT_IN,
    NODE_PARAMETERS,
    ros_value,
    to_parameter,
    unknown_parameter,
)
from lrm_ros.programs import exit_code
from lrm_ros.ros.diagnostics import Diagnostics
from lrm_ros.ros.parameter_files import passed_over
from lrm_ros.ros.surroundings import Surroundings
from lrm_ros.ros.transport import set_transport, share_file
from lrm_ros.versions import rclpy_version

__all__ = ["LrmNode", "set_transport", "share_file"]

C = TypeVar("C")


class LrmNode(LifecycleNode, Generic[C]):
    """A lifecycle node whose parameters are a configuration dataclass.

    Attributes:
        config: the parameters as the dataclass, always current.
        contract: the robot contract (from the file in parameter ``contract``; empty: the default SO-100).
        diagnostics: rates, latencies and faults on ``/diagnostics``.
        autostart: whether :func:`run` configures and activates the node.
    """

    def __init__(
        self,
        name: str,
        config_type: type[C],
        overrides: Mapping[str, Any] | None = None,
        extra: Mapping[str, tuple[Any, str]] | None = None,
    ) -> None:
        """Declare the parameters.

        Args:
            name: node name.
            config_type: dataclass of ``lrm_ros.config``.
            overrides: parameter values (tests and in-process use), stronger than the command line.
            extra: parameters beside the dataclass: name -> (default, help).

        Raises:
            ValueError: an unknown parameter or a value of the wrong type, naming parameter, value and cure.
        """
        given = [Parameter(key, value=list(v) if isinstance(v, tuple) else v) for key, v in (overrides or {}).items()]
        super().__init__(name, parameter_overrides=given)
        self._refuse_wrong_transitions()
        self._answer_state = self._service(GetState).callback
        self._config_type = config_type
        declared = {f.name: (f.default, f.metadata["help"]) for f in dataclasses.fields(config_type)}  # type: ignore[arg-type]
        self._extra = {**NODE_PARAMETERS, **(extra or {})}
        declared |= self._extra
        try:
            self._check_overrides(declared)
        except ValueError:
            self.destroy_node()
            raise
        for key, (default, text) in declared.items():
            value = list(default) if isinstance(default, tuple) else default
            self.declare_parameter(key, value, self._descriptor(key, text))
        self.config: C = self._read_config()
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self.add_post_set_parameters_callback(self._on_parameters_set)
        self.autostart = bool(self.get_parameter("autostart").value)
        self.contract = RobotContract()
        self.diagnostics = Diagnostics(self)
        self._surroundings = Surroundings(self, self.diagnostics)
        self._declared = declared
        self.on_exit: Callable[[int], None] = lambda code: None
        self.fault_code = 1  # of a program whose last transition failed
        self._closed = False
        self._permanent = set(self._entities())

    def usage(self) -> str:
        """Return what ``--help`` prints: what the node does and its parameters with their defaults."""
        lines = [f"{self.get_name()}: {inspect.getdoc(type(self))}", "", "parameters, each --ros-args -p NAME:=VALUE:"]
        for name, (default, text) in self._declared.items():
            shown = list(default) if isinstance(default, tuple) else default
            lines.append(f"  {name:20s} {text} ({'empty' if shown == '' else shown})")
        return "\n".join(lines)

    # -- what a node overrides ---------------------------------------------------------------------------------------

    def configure(self) -> None:
        """Load models, open devices, create publishers, subscriptions and services. Raises on trouble."""

    def activate(self) -> None:
        """Start to run."""

    def deactivate(self) -> None:
        """Hold: stop publishing and moving, keep everything loaded."""

    def cleanup(self) -> None:
        """Free models, devices and threads; must cope with a ``configure`` that failed half-way.

        Publishers, subscriptions, services, clients and timers made since ``configure`` are destroyed by the base.
        """

    def fixed(self, new: C) -> set[str]:
        """Return the parameters that take effect only at configure, if they were to be set as in ``new``."""
        return {f.name for f in dataclasses.fields(self._config_type) if f.metadata.get("fixed")}  # type: ignore[arg-type]

    # -- parameters --------------------------------------------------------------------------------------------------

    def _check_overrides(self, declared: Mapping[str, tuple[Any, str]]) -> None:
        """Raise ValueError for a misspelt parameter (rclpy ignores it) or a value of the wrong type."""
        given: Mapping[str, Parameter] | None = getattr(self, "_parameter_overrides", None)
        if given is None:  # rclpy has no other way to ask what was given
            version = rclpy_version()
            self.get_logger().warning(f"rclpy {version} does not tell what was given: a misspelt parameter is ignored")
            return
        for line in passed_over(sys.argv, self.get_fully_qualified_name()):
            self.get_logger().warning(line)
        for name, parameter in given.items():
            if name in BUILT_IN or name.startswith("qos_overrides."):
                continue
            if name not in declared:
                raise ValueError(unknown_parameter(self.get_name(), name, declared))
            self._convert(name, parameter.value)

    def _convert(self, name: str, value: Any) -> Any:
        """Return a parameter value as its field's type; raises ValueError, see :func:`to_parameter`."""
        extra = {key: default for key, (default, _) in self._extra.items()}
        return to_parameter(self._config_type, extra, self.get_name(), name, value)

    def _descriptor(self, name: str, text: str) -> ParameterDescriptor:
        """Return what tools show of a parameter: its help and, of a number, its range."""
        descriptor = ParameterDescriptor(description=text, dynamic_typing=True)
        field = next((f for f in dataclasses.fields(self._config_type) if f.name == name), None)  # type: ignore[arg-type]
        if field is not None and "range" in field.metadata:
            low, high = field.metadata["range"]
            if isinstance(field.default, int):
                descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
            else:
                descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
        return descriptor

    def _on_set_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        """Refuse unknown names, wrong types and what would have no effect now, with the reason."""
        try:
            self._refuse_without_effect(
                {
                    parameter.name: self._convert(parameter.name, parameter.value)
                    for parameter in parameters
                    if parameter.name not in BUILT_IN and not parameter.name.startswith("qos_overrides.")
                }
            )
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _refuse_without_effect(self, values: Mapping[str, Any]) -> None:
        """Raise ValueError if a value is another one and would have no effect before the next configure or start."""
        now = {**vars(self.config), **{name: self.get_parameter(name).value for name in self._extra}}
        changed = {name for name, value in values.items() if value != now[name]}
        if AT_START in changed:
            raise ValueError(
                f"node '{self.get_name()}': parameter '{AT_START}' takes effect when the program starts: start it "
                f"again with {AT_START}:={ros_value(values[AT_START])}"
            )
        if self.state_label in ("unconfigured", "finalized"):
            return
        new = dataclasses.replace(self.config, **{n: v for n, v in values.items() if n not in self._extra})  # type: ignore[type-var]
        if fixed := sorted(changed & (self.fixed(new) | {AT_CONFIGURE})):
            raise ValueError(
                f"node '{self.get_name()}': parameter '{fixed[0]}' takes effect at configure: deactivate, cleanup, set "
                f"{fixed[0]}:={ros_value(values[fixed[0]])}, configure"
            )

    def _on_parameters_set(self, _: list[Parameter]) -> None:
        """Keep ``config`` current."""
        self.config = self._read_config()

    def _read_config(self) -> C:
        """Return the parameters as the dataclass."""
        names = [f.name for f in dataclasses.fields(self._config_type)]  # type: ignore[arg-type]
        return self._config_type(**{n: self._convert(n, self.get_parameter(n).value) for n in names})

    # -- lifecycle ---------------------------------------------------------------------------------------------------

    def _service(self, kind: type) -> Any:
        """Return the one service of a type that every lifecycle node has."""
        return next(service for service in self.services if service.srv_type is kind)

    def _refuse_wrong_transitions(self) -> None:
        """Answer a call for a transition that is not possible with no success; in rclpy 7 it would end the program."""
        service = self._service(ChangeState)
        change = service.callback

        def answer(request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
            try:
                return change(request, response)
            except RuntimeError as error:  # rcl's: what a transition itself raises does not come this far
                self.get_logger().error(f"transition {request.transition.id} in state '{self.state_label}': {error}")
                response.success = False
                return response

        service.callback = answer

    def _guarded(self, what: str, hook: Callable[[], None]) -> bool:
        """Run a hook; log an exception (rclpy swallows it). Returns whether it went well.

        What the user gave (a wrong file, folder or value) is one line; anything else comes with its traceback.
        """
        try:
            hook()
        except Exception as error:
            self.diagnostics.fault(what, f"{what} failed: {error}", tell=lambda _: None)
            self.fault_code = exit_code(error)
            told = "" if self.fault_code == 2 else f"\n{traceback.format_exc()}"
            self.get_logger().error(f"{what} failed: {error}{told}")
            if not told:
                self.get_logger().debug(traceback.format_exc())
            return False
        self.diagnostics.recovered(what, f"{what} works again")
        return True

    def _entities(self) -> list[Any]:
        """Return everything that talks to the ROS graph or is called by the executor."""
        return [*self.publishers, *self.subscriptions, *self.services, *self.clients, *self.timers]

    def _cleanup(self) -> None:
        try:
            self.cleanup()
        finally:
            for entity in self._entities():
                if entity in self._permanent:
                    continue
                for kind in ("publisher", "subscription", "service", "client", "timer"):
                    if getattr(self, f"destroy_{kind}")(entity):
                        break

    def _configure(self) -> None:
        self._permanent = set(self._entities())
        path = str(self.get_parameter("contract").value)
        self.contract = load_yaml(path, RobotContract, ARM_SECTIONS) if path else RobotContract()
        require_limits(self.contract, f"robot contract '{path}'")
        require_radians(self.contract, f"robot contract '{path}'")
        self.configure()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Configure; on failure clean up and stay unconfigured."""
        if not self._guarded("configure", self._configure):
            self._guarded("cleanup", self._cleanup)
            return TransitionCallbackReturn.FAILURE
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Activate; on failure stay inactive."""
        if not self._guarded("activate", self.activate):
            return TransitionCallbackReturn.FAILURE
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Deactivate."""
        ok = self._guarded("deactivate", self.deactivate)
        return super().on_deactivate(state) if ok else TransitionCallbackReturn.ERROR

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Clean up."""
        ok = self._guarded("cleanup", self._cleanup)
        return super().on_cleanup(state) if ok else TransitionCallbackReturn.ERROR

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Deactivate if active and clean up."""
        if state.label == "active":
            self._guarded("deactivate", self.deactivate)
        self._guarded("cleanup", self._cleanup)
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an error: clean up and become unconfigured, so that the node can be configured again."""
        ok = self._guarded("cleanup", self._cleanup)
        return TransitionCallbackReturn.SUCCESS if ok else TransitionCallbackReturn.FAILURE

    def exit(self, code: int = 0) -> None:
        """End the program that runs this node with :func:`run`, e.g. when its work is done; any thread may call it."""
        self.on_exit(code)

    def close(self) -> None:
        """Shut down from any state, also from a transition that a signal interrupted, and destroy the node; once."""
        if self._closed:
            return
        self._closed = True
        if self.state_label in ("unconfigured", "inactive", "active"):
            self.trigger_shutdown()
        elif self.state_label != "finalized":
            self._guarded("cleanup", self._cleanup)
        self.destroy_node()

    @property
    def time_known(self) -> bool:
        """Whether the node can stamp messages: with ``use_sim_time`` not before ``/clock`` has told the time."""
        return self.get_clock().now().nanoseconds > 0

    @property
    def state_label(self) -> str:
        """The lifecycle state, as the node's own service tells it: ``"unconfigured"``, ``"activating"``..."""
        return self._answer_state(GetState.Request(), GetState.Response()).current_state.label

    @property
    def active(self) -> bool:
        """Whether the node is in the lifecycle state ``active``."""
        return self.state_label == "active"
