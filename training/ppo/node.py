# SPDX-License-Identifier: Apache-2.0
"""The refiner node: ``lrm ppo`` through the nodes; worlds and reward model run in nodes of their own.

It sets up the worlds node and the reward node as its settings say, starts them, and then is the learner: in lock-step,
with the same code, and with the same result to the bit as ``lrm ppo`` with the same settings.
"""

from __future__ import annotations

import threading
import traceback
from pathlib import Path
from typing import Any

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.client import Client
from rclpy.parameter import Parameter

from lrm_ros.config import RefinerConfig, WorldsConfig
from lrm_ros.config_files import to_dict
from lrm_ros.contract import CONTRACT_FILE, load_contract
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.program import run
from lrm_ros.sim.vector.client import Inbox, RemoteEngine, RemoteWorlds, until
from lrm_ros.sim.vector.node import JUDGED
from lrm_ros.sim.vector.rewards import WorldRewards, engine_config
from lrm_ros.training.ppo.command import outcome, read_settings, row, run_bar
from lrm_ros.training.ppo.refine import refine

# From each state one transition nearer to an active node with new parameters.
_DOWN = {State.PRIMARY_STATE_ACTIVE: Transition.TRANSITION_DEACTIVATE,
         State.PRIMARY_STATE_INACTIVE: Transition.TRANSITION_CLEANUP}  # fmt: skip


class RefinerNode(LrmNode[RefinerConfig]):
    """Runs the refinement in a thread while it is active, and ends its graph when that has ended."""

    def __init__(self, **overrides: Any) -> None:
        """Declare the parameters; ``overrides`` are parameter values."""
        super().__init__("refiner", RefinerConfig, overrides)
        self._thread: threading.Thread | None = None
        self._inbox = Inbox()
        self._stopping = False

    def configure(self) -> None:
        """Read the settings and find the other nodes."""
        own = self.config
        self._settings = settings = read_settings(
            own.config, own.settings.split(), {"checkpoint": own.checkpoint, "run": own.run, "reward": own.reward}
        )
        self.contract = load_contract(Path(settings.checkpoint))
        self._inbox = Inbox()
        self._worlds = RemoteWorlds(self, self._inbox, settings.worlds, self.contract)
        judge = engine_config(settings)
        self._engine = RemoteEngine(self, self._inbox, settings.worlds, judge.mode, judge.scale)
        self._rewards = WorldRewards(settings, engine=self._engine)
        rules = self._rewards.rules
        self._others: dict[str, dict[str, Any]] = {
            "worlds": to_dict(
                WorldsConfig(
                    worlds=settings.worlds,
                    processes=settings.processes,
                    ray=settings.ray,
                    execute_steps=settings.execute_steps,
                    max_steps=rules.max_steps,
                    stop_at_success=rules.stop_at_success,
                    judge_every=rules.judge_every,
                )
            )
            | {"contract": str((Path(settings.checkpoint) / CONTRACT_FILE).resolve())},
            "reward": to_dict(judge) | {"camera": JUDGED, "worlds": settings.worlds},
        }
        self._managing = {
            name: (
                self.create_client(GetState, f"{name}/get_state"),
                self.create_client(SetParametersAtomically, f"{name}/set_parameters_atomically"),
                self.create_client(ChangeState, f"{name}/change_state"),
            )
            for name in self._others
        }

    def activate(self) -> None:
        """Start or resume."""
        self._stopping = False
        self._inbox.open()
        self._thread = threading.Thread(target=self._guard, name="refiner")
        self._thread.start()

    def deactivate(self) -> None:
        """Stop; the run goes on at the next start."""
        self._stopping = True
        self._inbox.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._thread = None

    def _guard(self) -> None:
        """Refine, and end the node with the outcome."""
        settings = self._settings
        try:
            for name, parameters in self._others.items():
                self._start(name, parameters)
            self._worlds.forget()
            self._engine.forget()
            ready = lambda: self._worlds.connected and self._engine.connected  # noqa: E731
            until("the topics of the worlds and reward nodes", ready, lambda: self._stopping)
            with run_bar(settings) as bar:
                refine(settings, lambda line: bar.write(row(line)), bar.update, self._rewards, self._worlds)
        except Exception as error:  # whatever it is, the graph must end with it
            if self._stopping:
                return
            self.get_logger().error(f"the refinement stopped: {error}\n{traceback.format_exc()}")
            print(f"error: {error}\nfinished iterations are kept in '{settings.run}'; start again to go on", flush=True)
            self.exit(1)
        else:
            print(outcome(settings), flush=True)
            self.exit(0)

    # ---- the other nodes ---------------------------------------------------------------------------------------------

    def _start(self, name: str, parameters: dict[str, Any]) -> None:
        """Give a node its parameters and make it active, whatever state it is in.

        Raises:
            Silence: it is not there.
            RuntimeError: it refuses; names the node.
        """
        get, put, change = self._managing[name]
        while (state := self._call(name, get, GetState.Request()).current_state.id) in _DOWN:
            self._change(name, change, _DOWN[state])
        request = SetParametersAtomically.Request(
            parameters=[Parameter(key, value=value).to_parameter_msg() for key, value in parameters.items()]
        )
        result = self._call(name, put, request).result
        if not result.successful:
            raise RuntimeError(f"node '{name}' refuses its parameters: {result.reason}")
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            self._change(name, change, transition)

    def _change(self, name: str, client: Client, transition: int) -> None:
        if not self._call(name, client, ChangeState.Request(transition=Transition(id=transition))).success:
            raise RuntimeError(f"node '{name}' could not be started; its own output says why")

    def _call(self, name: str, client: Client, request: Any) -> Any:
        until(f"service '{client.service_name}'", client.service_is_ready, lambda: self._stopping)
        future = client.call_async(request)
        future.add_done_callback(lambda _: self._inbox.deliver(lambda: None))
        self._inbox.wait(f"node '{name}'", lambda: True if future.done() else None)
        return future.result()


def main(argv: list[str] | None = None) -> int:
    """Run the node."""
    return run(RefinerNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
