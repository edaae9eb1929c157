# SPDX-License-Identifier: Apache-2.0
"""The policy node: newest observation -> policy -> ``policy/wish`` and ``joint_command``, chunk by chunk."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages, topics
from lrm_ros.config import PolicyConfig
from lrm_ros.policy import FakePolicy, Policy, PolicyRunner
from lrm_ros.robot.so100.explore import draw_offset, explored
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.program import run
from lrm_ros.types import ActionChunk, Frame, Observation


class PolicyNode(LrmNode[PolicyConfig]):
    """Runs a policy; ``checkpoint`` is a folder, ``fake`` (holds still), or empty (waits for ``~/reload``).

    Real time: acts on images younger than half a control period when the last point of the running chunk is due, so
    that the arm has a target while the prediction takes its time. When images or joint states stop, or the node is
    deactivated, the arm is told to hold the last target it was sent.

    Lock-step (``realtime`` false): acts when every camera's newest image has the stamp of the newest joint state, that
    state is the one after the previous chunk, and the chunk's last point has come back on ``joint_command_sent``. It
    begins with ``~/reset``, also after activation and reload, on the first observation that no sent command led
    to, whether that is there already or still to come. An episode's last chunk is left unexecuted, so the node is quiet
    while the twin is reset.

    Exploration moves the gripper of ``joint_command`` (not of the wish) sideways by one offset an episode, until after
    the grasp (see ``lrm_ros.robot.so100.explore``). It is the n-th draw since ``seed`` was set: set ``seed`` before
    ``~/reset`` to choose it.
    """

    def __init__(self, **overrides: Any) -> None:
        """Declare the parameters; ``overrides`` are parameter values."""
        super().__init__("policy", PolicyConfig, overrides)
        self._runner: Policy | None = None
        self._task = ""
        self._frames: dict[str, Frame] = {}
        self._state: tuple[int, NDArray[np.float32]] | None = None
        self._sent: tuple[int, NDArray[np.float32]] | None = None
        self._arrived: dict[str, float] = {}  # topic -> time.monotonic() of its newest message
        self._chunk: ActionChunk | None = None
        self._running = False
        self._begun = False  # an episode has begun: lock-step acts in none before ~/reset
        self._fresh_start = False  # the next observation acted on must begin an episode
        self._episodes = 0
        self._drawn_with: int | None = None  # seed of the last offset
        self._offset: NDArray[np.float64] = np.zeros(3)
        self._begin_ns: int | None = None  # stamp of the episode's first chunk

    def configure(self) -> None:
        """Load the policy and subscribe."""
        self._dt_ns = round(1e9 * self.contract.dt_s)
        self._load()
        self._begin_episode()
        self._wish = topics.WISH.publisher(self)
        self._command = topics.JOINT_COMMAND.publisher(self)
        # In this order, because the executor takes one message of each in turn: what was sent before what it led to.
        topics.JOINT_COMMAND_SENT.subscribe(self, self._on_sent)
        topics.JOINT_STATES.subscribe(self, self._on_state)
        for camera in self.contract.cameras:
            qos = topics.NEWEST if self.config.realtime else topics.IMAGE
            topics.IMAGE_RAW.of(camera.name).subscribe(self, partial(self._on_image, camera.name), qos)
        topics.TASK.subscribe(self, self._on_task)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(Trigger, "~/reload", self._on_reload)
        if self.config.realtime:
            steady = Clock(clock_type=ClockType.STEADY_TIME)  # a stopped sim clock must not hide a stopped camera
            self.create_timer(self.config.timeout_s / 2, self._watch, clock=steady)

    def activate(self) -> None:
        """Run; in lock-step wait for ``~/reset``."""
        if self.config.realtime:  # what came before may be old
            self._state, self._frames = None, {}
            inputs = ("joint_states", *(camera.name for camera in self.contract.cameras))
            self._arrived = dict.fromkeys(inputs, time.monotonic())
        self._chunk, self._fresh_start, self._running, self._begun = None, False, True, False
        self._consider()

    def deactivate(self) -> None:
        """Hold."""
        self._running = False
        self._hold()

    def cleanup(self) -> None:
        """Free the policy and forget what was seen."""
        self._runner, self._state, self._sent, self._chunk = None, None, None, None
        self._frames = {}

    # -- inputs ------------------------------------------------------------------------------------------------------

    def _on_task(self, message: String) -> None:
        self._task = message.data

    def _on_sent(self, message: JointTrajectory) -> None:
        try:
            sent = messages.to_chunk(message, self.contract.joints, self.contract.dt_s)
        except ValueError as error:
            self.diagnostics.fault("joint_command_sent", f"cannot follow the arm: {error}")
            return
        self.diagnostics.recovered("joint_command_sent", "joint_command_sent is good again")
        self._sent = (sent.stamp_ns, sent.actions[0])
        if not self.config.realtime:
            self._consider()

    def _on_state(self, message: JointState) -> None:
        self._arrived["joint_states"] = time.monotonic()
        try:
            self._state = (messages.to_ns(message.header.stamp), messages.to_state(message, self.contract.joints))
        except ValueError as error:
            self._state = None
            self._reject("joint_states", f"the policy holds: {error}")
            return
        self.diagnostics.recovered("joint_states", "joint states are good again")
        self._consider()

    def _on_image(self, camera: str, message: Image) -> None:
        self._arrived[camera] = time.monotonic()
        try:
            self._frames[camera] = messages.to_frame(message, camera)
        except ValueError as error:
            self._frames.pop(camera, None)
            self._reject(camera, f"the policy holds: {error}")
            return
        self.diagnostics.recovered(camera, f"camera '{camera}' is good again")
        self._consider()

    def _reject(self, key: str, reason: str) -> None:
        """Report an unusable input and hold."""
        self.diagnostics.count("rejected")
        if self.diagnostics.fault(key, reason):
            self._hold()

    def _watch(self) -> None:
        """Report inputs that have stopped (real time)."""
        if not self._running:
            return
        now = time.monotonic()
        for topic, since in self._arrived.items():
            if now - since > self.config.timeout_s:
                what = topic if topic == "joint_states" else f"camera '{topic}'"
                self._reject(
                    topic, f"the policy holds: {what} stopped {now - since:.1f} s ago; check its node and cable"
                )

    # -- acting ------------------------------------------------------------------------------------------------------

    def _consider(self) -> None:
        """Act if an observation is due and usable."""
        if not self._running or not (self._begun or self.config.realtime):
            return
        observation = self._observation()
        if observation is None:
            return
        if self._runner is None:
            self.diagnostics.fault("policy", f"no policy: set parameter 'checkpoint' and call {self.get_name()}/reload")
            return
        started = time.perf_counter()
        try:
            chunk = self._runner.act(observation)
        except ValueError as error:
            self._reject("policy", f"the policy holds: {error}")
            return
        self.diagnostics.recovered("policy", "the policy acts again")
        self._publish(chunk)
        self.diagnostics.latency("act", time.perf_counter() - started)
        if self.config.realtime:
            age_ns = self.get_clock().now().nanoseconds - observation.stamp_ns
            self.diagnostics.latency("observation_to_command", age_ns / 1e9)
        self.diagnostics.count("chunks")

    def _observation(self) -> Observation | None:
        """Return the observation to act on now, if one is due."""
        names = [camera.name for camera in self.contract.cameras]
        if self._state is None or any(name not in self._frames for name in names):
            return None
        stamp_ns, state = self._state
        frames = {name: self._frames[name] for name in names}
        if self.config.realtime:
            due = self._chunk is None or stamp_ns >= self._end_ns(self._chunk) - 1.5 * self._dt_ns
            now = time.monotonic()
            # The twin's image follows its joint state; a faster camera's last one is taken as it is.
            ready = all(now - self._arrived[name] < self.contract.dt_s / 2 for name in names)
            ready = ready and now - self._arrived["joint_states"] < self.config.timeout_s
        else:
            # Sent is not enough: until its state is here, the newest image is the one before the chunk's last step.
            due = self._chunk is None or (
                self._sent_after(self._end_ns(self._chunk) - 1.5 * self._dt_ns)
                and stamp_ns > self._end_ns(self._chunk) - 0.5 * self._dt_ns
            )
            # No command led to an episode's first state. It waits for the reset that begins the episode here, too: the
            # one before may have left off at a chunk's end. After that reset nothing of the one before is answered.
            first = not self._sent_after(stamp_ns - 1.5 * self._dt_ns)
            due = due and first == self._fresh_start
            ready = all(frame.stamp_ns == stamp_ns for frame in frames.values())
        if not due or not ready:
            return None
        return Observation(stamp_ns, frames, state, self._task)

    def _end_ns(self, chunk: ActionChunk) -> int:
        """Return the stamp of the first control step after a chunk."""
        return chunk.stamp_ns + len(chunk.actions) * self._dt_ns

    def _sent_after(self, ns: float) -> bool:
        """Return whether the arm's newest sent command is younger than ``ns``."""
        return self._sent is not None and self._sent[0] > ns

    def _publish(self, chunk: ActionChunk) -> None:
        """Publish the policy's wish and what is asked of the arm."""
        if self._begin_ns is None:
            self._begin_ns = chunk.stamp_ns
        config = self.config
        asked = explored(chunk, self._offset, self._begin_ns, config.explore_hold_s, config.explore_fade_s)
        self._chunk, self._fresh_start = chunk, False
        self._wish.publish(messages.from_chunk(chunk, self.contract.joints))
        self._command.publish(messages.from_chunk(asked, self.contract.joints))

    def _hold(self) -> None:
        """Forget the chunk; in real time also tell the arm to stay at the last target it was sent."""
        underway, self._chunk = self._chunk, None
        if underway is None or not self.config.realtime or self._sent is None or self._state is None:
            return
        stay = ActionChunk(self._state[0], self._sent[1][None], self.contract.dt_s)
        self._command.publish(messages.from_chunk(stay, self.contract.joints))

    # -- services ----------------------------------------------------------------------------------------------------

    def _begin_episode(self) -> None:
        """Forget the last episode and draw the exploration offset of this one."""
        config = self.config
        self._episodes = 0 if config.seed != self._drawn_with else self._episodes + 1
        self._drawn_with = config.seed
        self._offset = draw_offset(config.explore_std, config.seed, self._episodes)
        self._begin_ns = None
        self.diagnostics.value("explore_offset", np.round(self._offset, 4).tolist())
        self._chunk = None
        if self._runner is not None:
            self._runner.reset()

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._begin_episode()
        self._fresh_start = self._begun = True
        response.success, response.message = True, f"new episode, offset {np.round(self._offset, 4).tolist()} m"
        self._consider()
        return response

    def _on_reload(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            self._load()
        except (ValueError, OSError) as error:
            response.success, response.message = False, f"the policy in use stays: {error}"
            self.get_logger().error(response.message)
            return response
        self._begun = False
        self.diagnostics.recovered("policy", "a policy is loaded")
        response.success, response.message = True, f"policy '{self.config.checkpoint}' loaded"
        self._consider()
        return response

    def _load(self) -> None:
        """Load the checkpoint of the parameters; the one in use stays if that fails."""
        config = self.config
        runner: Policy | None = None
        if config.checkpoint == "fake":
            runner = FakePolicy(self.contract, config.execute_steps)
        elif config.checkpoint:
            runner = PolicyRunner(config.checkpoint, self.contract, config.execute_steps, config.device)
        self._runner = runner
        self.diagnostics.value("checkpoint", config.checkpoint or "none")


def main(argv: list[str] | None = None) -> int:
    """Run the node."""
    return run(PolicyNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
