# SPDX-License-Identifier: Apache-2.0
"""The replay node: moves an arm or the twin as a recorded episode did, and says how near it came."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import topics
from lrm_ros.config_teleop import ReplayConfig
from lrm_ros.contract import contract_differences
from lrm_ros.record.journal import read_info, read_journal
from lrm_ros.ros.arm_client import DELIVER_S, ArmClient
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.estop import RELEASE, StopWatch
from lrm_ros.ros.program import run
from lrm_ros.ros.streams import Streams
from lrm_ros.types import ActionChunk

WINDOW_S = 0.5  # so much is asked for at once: an arm whose replay is gone moves on no longer [s]
NEAR_RAD = 0.01  # the first pose is reached when every joint was sent so near to it [rad]


class ReplayNode(LrmNode[ReplayConfig]):
    """Goes slowly to where the episode's first action was, asks for its actions at their times, and ends with 0.

    What was sent to the arm then is asked for now; limiter, envelope and e-stop are those of the arm's node. The scene
    is not put back. When joint states stop or the arm is stopped, the arm holds and the program ends with 1.
    """

    def __init__(self, **overrides: Any) -> None:
        """Declare the parameters; ``overrides`` are parameter values."""
        super().__init__("replay", ReplayConfig, overrides)
        self._arm: ArmClient | None = None
        self._running = False
        self._stop = StopWatch(self, self._on_stopped)

    def configure(self) -> None:
        """Read the episode.

        Raises:
            ValueError: it cannot be read, or is of another robot.
        """
        if not self.config.episode:
            raise ValueError("no episode is given: episode:=FILE.mcap, a journal of the recorder")
        recorded = read_info(self.config.episode).contract
        same_cameras = dataclasses.replace(recorded, cameras=self.contract.cameras)
        if differences := contract_differences(same_cameras, self.contract):
            raise ValueError(
                f"'{self.config.episode}' is of another robot: {'; '.join(differences)}; give its contract"
            )
        steps = read_journal(self.config.episode).steps
        self._actions = np.stack([step.action for step in steps])  # (T, D)
        self._states = np.stack([step.observation.state for step in steps])  # (T, D)
        self._errors: list[NDArray[np.float32]] = []
        self._path: NDArray[np.float32] | None = None  # (N, D) to the first pose
        self._begin_ns, self._step, self._playing = 0, -1, False
        self._arm = ArmClient(self)
        topics.JOINT_COMMAND_SENT.hear(self, self._on_sent)
        self._streams = Streams(self, True, self.config.timeout_s, "the arm holds: ", self._on_stream)
        self._streams.listen_states(self._on_state)

    def activate(self) -> None:
        """Begin with the next joint state."""
        self._running = True

    def deactivate(self) -> None:
        """Let the arm hold."""
        self._running = False
        if self._arm is not None and self._arm.asked is not None:
            self._arm.hold(DELIVER_S)

    def cleanup(self) -> None:
        """Forget the arm."""
        self._arm = None

    def _end(self, reason: str) -> None:
        """Let the arm hold and end with 1, once."""
        if self._running:
            self.get_logger().error(reason)
            self.deactivate()
            self.exit(1)

    def _on_stopped(self, stopped: bool) -> None:
        if stopped:
            self._end(f"the arm was stopped; {RELEASE}, then replay again")

    def _on_stream(self, good: bool) -> None:
        if not good and self._arm is not None and self._arm.asked is not None:
            self._end("the replay ends: joint_states are not good any more; see above")

    def _on_sent(self, message: JointTrajectory) -> None:
        assert self._arm is not None
        self._arm.on_sent(message)

    def _on_state(self, stamp_ns: int, position: NDArray[np.float32]) -> None:
        """Ask for what is due from now on, once a control step."""
        if not self._running:
            return
        assert self._arm is not None
        self._arm.on_state(position)
        if self._path is None:
            self._path, self._begin_ns = self._approach(position), stamp_ns
            self._late_s = time.monotonic() + len(self._path) * self.contract.dt_s + self.config.reach_s
        step = int((stamp_ns - self._begin_ns) * self.contract.control_hz / 1e9)
        if step <= self._step:
            return
        self._step = step
        if self._playing:
            self._play(step, position)
        elif self._arm.sent is not None and np.abs(self._arm.sent[1] - self._actions[0]).max() < NEAR_RAD:
            self.get_logger().info(f"replays {len(self._actions)} steps of '{self.config.episode}'")
            self._playing, self._begin_ns, self._step = True, stamp_ns, 0
            self._play(0, position)
        elif time.monotonic() > self._late_s:
            sent = position if self._arm.sent is None else self._arm.sent[1]
            worst = int(np.argmax(np.abs(sent - self._actions[0])))
            self._end(
                f"the arm does not come to the episode's first pose: {self.contract.joints[worst]} was sent to "
                f"{sent[worst]:.2f} of {self._actions[0][worst]:.2f} rad; do its limits or its box forbid it, or is "
                "it not active?"
            )
        else:
            self._ask(self._path, step)

    def _approach(self, position: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (N, D) targets [rad] from where the arm is to the first action, each joint no faster than allowed."""
        step = np.minimum(self.config.approach_speed * self.contract.dt_s, np.array(self.contract.max_step))
        count = max(1, int(np.ceil((np.abs(self._actions[0] - position) / step).max())))
        share = np.arange(1, count + 1)[:, None] / count
        return (position + share * (self._actions[0] - position)).astype(np.float32)

    def _play(self, step: int, position: NDArray[np.float32]) -> None:
        """Ask for the actions from ``step`` on; at the end of them say how near the arm came, and end."""
        assert self._arm is not None
        if step < len(self._actions):
            self._errors.append(np.abs(position - self._states[step]))
            self._ask(self._actions, step)
            return
        worst = np.max(self._errors, axis=0)
        mean = np.mean(self._errors, axis=0)
        each = ", ".join(
            f"{joint} {m:.3f} (at most {w:.3f})" for joint, m, w in zip(self.contract.joints, mean, worst, strict=True)
        )
        self.get_logger().info(f"replayed {len(self._actions)} steps; off the recorded joint positions [rad]: {each}")
        self._running = False
        self._arm.drop()  # no hold: the arm comes to the last point
        self.exit(0)

    def _ask(self, targets: NDArray[np.float32], step: int) -> None:
        """Ask for the next ``WINDOW_S`` of targets (T, D); after their end for the last one, of now."""
        assert self._arm is not None
        count = max(1, round(WINDOW_S * self.contract.control_hz))
        first = min(step, len(targets) - 1)
        stamp_ns = self._begin_ns + round(step * 1e9 * self.contract.dt_s)
        self._arm.ask(ActionChunk(stamp_ns, targets[first : first + count], self.contract.dt_s), self._arm.holds)
        self.diagnostics.count("commands")


def main(argv: list[str] | None = None) -> int:
    """Run the node."""
    return run(ReplayNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
