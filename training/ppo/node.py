# SPDX-License-Identifier: Apache-2.0
"""The refiner node: ``lrm ppo`` through the nodes; worlds and reward model run in nodes of their own.

It sets up the worlds node and the reward node as its settings say, starts them, and then is the learner: in lock-step,
with the same code, and with the same result to the bit as ``lrm ppo`` with the same settings.
"""

from __future__ import annotations

import threading
import traceback
from typing import Any

from lrm_ros.checkpoint import contract_file, policy_contract
from lrm_ros.config import RefinerConfig, WorldsConfig
from lrm_ros.config_files import to_dict
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.control import Control
from lrm_ros.ros.program import run
from lrm_ros.sim.vector.client import TIMEOUT_S, Inbox, RemoteEngine, RemoteWorlds, wait_until
from lrm_ros.sim.vector.node import JUDGED
from lrm_ros.sim.vector.rewards import WorldRewards, engine_config
from lrm_ros.training.ppo.command import outcome, read_settings, row, run_bar
from lrm_ros.training.ppo.refine import refine


class RefinerNode(LrmNode[RefinerConfig]):
    """Runs the refinement in a thread while it is active, and ends its graph when that has ended."""

    def __init__(self, **overrides: Any) -> None:
        """Declare the parameters; ``overrides`` are parameter values."""
        super().__init__("refiner", RefinerConfig, overrides)
        self._thread: threading.Thread | None = None
        self._inbox = Inbox()
        self._stopping = False
        self._control: Control | None = None

    def configure(self) -> None:
        """Read the settings and find the other nodes."""
        own = self.config
        self._settings = settings = read_settings(
            own.config, own.settings.split(), {"checkpoint": own.checkpoint, "run": own.run, "reward": own.reward}
        )
        self.contract = policy_contract(settings.checkpoint)
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
            | {"contract": str(contract_file(settings.checkpoint).resolve())},
            "reward": to_dict(judge) | {"camera": JUDGED, "worlds": settings.worlds},
        }
        self._control = Control(
            self, nodes=tuple(self._others), lifecycles=tuple(self._others), timeout_s=TIMEOUT_S, find_s=TIMEOUT_S
        )

    def activate(self) -> None:
        """Start or resume."""
        self._stopping = False
        self._inbox.open()
        assert self._control is not None
        self._control.resume()
        self._thread = threading.Thread(target=self._guard, name="refiner")
        self._thread.start()

    def deactivate(self) -> None:
        """Stop; the run goes on at the next start."""
        self._stopping = True
        self._inbox.close()
        if self._control is not None:
            self._control.stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._thread = None

    def _guard(self) -> None:
        """Refine, and end the node with the outcome."""
        settings, control = self._settings, self._control
        assert control is not None
        try:
            for name, parameters in self._others.items():
                control.restart(name, parameters)
            self._worlds.clear()
            self._engine.clear()
            ready = lambda: self._worlds.connected and self._engine.connected  # noqa: E731
            wait_until("the topics of the worlds and reward nodes", ready, lambda: self._stopping)
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


def main(argv: list[str] | None = None) -> int:
    """Run the node."""
    return run(RefinerNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
