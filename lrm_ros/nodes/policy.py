# SPDX-License-Identifier: Apache-2.0
"""The policy node: newest observation -> policy -> ``policy/wish`` and ``joint_command``, chunk by chunk."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import topics
from lrm_ros.chunk_timing import ChunkTiming, ImageTimes
from lrm_ros.config import CameraSpec, PolicyConfig
from lrm_ros.errors import one_line
from lrm_ros.policy import FakePolicy, Policy, PolicyRunner
from lrm_ros.ros.arm_client import DELIVER_S, ArmClient
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.camera_images import CameraImages
from lrm_ros.ros.estop import RELEASE, StopWatch
from lrm_ros.ros.history import History
from lrm_ros.ros.predictor import Predictor
from lrm_ros.ros.program import run
from lrm_ros.ros.streams import Streams
from lrm_ros.types import Frame, Observation

_PREDICTION_S = 2.0  # a prediction that is being made is waited for so long [s]


class PolicyNode(LrmNode[PolicyConfig]):
    """Runs a policy; ``checkpoint`` is a folder, ``fake`` (holds still), or empty (waits for ``~/reload``).

    Real time: a thread predicts, so that a slow policy starves nothing. The next chunk is begun so early that it is
    there before the executed part of the running one ends (``lrm_ros.chunk_timing``); the arm skips the actions whose
    time has passed meanwhile. It looks at images that are young (``ImageTimes``). When an input stops or cannot be
    used, the policy raises anything, a policy is loaded, or the node is deactivated or ends, the arm is told to hold
    the last target it was sent (``lrm_ros.ros.arm_client``). It acts again when everything is good again. An arm that
    was stopped (``lrm_ros.ros.estop``) is asked for nothing until, released, ``~/reset`` or an activation follows.

    Lock-step (``realtime`` false): acts when every camera's newest image has the stamp of the newest joint state, that
    state is the one after the previous chunk, and the chunk's last point has come back on ``joint_command_sent``. It
    begins with ``~/reset``, also after activation and reload, on the first observation that no sent command led
    to, whether that is there already or still to come. An episode's last chunk is left unexecuted, so the node is quiet
    while the twin is reset. The arm stands between chunks, so nothing is sent to make it hold.

    Exploration moves the gripper of ``joint_command`` (not of the wish) sideways by one offset an episode, until after
    the grasp (see ``lrm_ros.robot.so100.explore``). It is the n-th draw since ``seed`` was set: set ``seed`` before
    ``~/reset`` to choose it. What a policy draws itself (diffusion, flows) follows from seed and n as well.

    A policy that looks back sees the control steps before an observation, too (``lrm_ros.ros.history``); lock-step then
    needs a frame of every step.
    """

    def __init__(self, **overrides: Any) -> None:
        """Declare the parameters; ``overrides`` are parameter values."""
        super().__init__("policy", PolicyConfig, overrides)
        self._predicted = self.create_guard_condition(self._consider)
        self._arm: ArmClient | None = None
        self._predictor: Predictor | None = None
        self._streams: Streams | None = None
        self._task = ""
        self._frames: dict[str, Frame] = {}
        self._state: tuple[int, NDArray[np.float32]] | None = None
        self._images = ImageTimes((), 0.0)
        self._running = False
        self._stop = StopWatch(self, self._on_stopped)
        self._halted = False  # the arm was stopped since it was last told to begin
        self._begun = False  # an episode has begun: lock-step acts in none before ~/reset
        self._begin_ns: int | None = None  # stamp of its first observation that was answered [ns]
        self._fresh_start = False  # the next observation acted on must begin an episode

    def configure(self) -> None:
        """Load the policy and subscribe."""
        config = self.config
        self._dt_ns = round(1e9 * self.contract.dt_s)
        self._images = self._no_images()
        self._history = History([camera.name for camera in self.contract.cameras], self._dt_ns)
        self._arm = ArmClient(self)
        self._predictor = Predictor(self, self._arm, self._on_policy_failed, self._predicted.trigger)
        self._load()
        self._begin_episode()
        timeout_s, newest = (config.timeout_s, 1) if config.realtime else (None, None)
        few = 10 if config.realtime else None  # a state may come in several messages
        streams = Streams(self, config.realtime, timeout_s, "the policy holds: ", self._on_stream)
        self._streams = streams
        # In this order, because the executor takes one message of each in turn: what was sent before what it led to.
        streams.listen(topics.JOINT_COMMAND_SENT, self._on_sent, stamped=False)
        streams.listen_states(self._on_state, self.contract.control_hz, few)
        hz = 1 / config.timeout_s  # a camera may be slower than the arm's control, but must not stop
        for camera in self.contract.cameras:
            images = CameraImages(self, camera.name, config.image_transport)
            streams.listen(images.topic, partial(self._on_image, camera, images), hz, depth=newest)
        topics.TASK.subscribe(self, self._on_task)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(Trigger, "~/reload", self._on_reload)

    def activate(self) -> None:
        """Run; in lock-step wait for ``~/reset``."""
        assert self._arm is not None
        self._arm.drop()
        self._fresh_start, self._running, self._begun = False, True, False
        self._go_on()
        if self.config.realtime:
            self._start_anew()
        self._consider()

    def _start_anew(self) -> None:
        """Forget what was seen: it may be old (real time)."""
        assert self._streams is not None
        self._state, self._frames, self._images = None, {}, self._no_images()
        self._history.clear()
        self._streams.restart()

    def _no_images(self) -> ImageTimes:
        return ImageTimes([camera.name for camera in self.contract.cameras], self.contract.dt_s)

    def deactivate(self) -> None:
        """Hold; in real time the arm has been told when this returns."""
        self._hold(deliver_s=DELIVER_S)
        self._running = False
        if not self._stop.stopped:
            self._released()

    def cleanup(self) -> None:
        """Free the policy and forget what was seen."""
        predictor, self._predictor = self._predictor, None
        if predictor is not None and not predictor.stop(_PREDICTION_S):
            self.get_logger().warning(f"the policy still predicts after {_PREDICTION_S:g} s; its thread ends by itself")
        self._state, self._arm, self._streams = None, None, None
        self._frames = {}

    # -- inputs ------------------------------------------------------------------------------------------------------

    def _on_task(self, message: String) -> None:
        self._task = message.data

    def _on_sent(self, message: JointTrajectory) -> None:
        assert self._arm is not None
        self._arm.on_sent(message)
        if not self.config.realtime:
            self._consider()

    def _on_state(self, stamp_ns: int, position: NDArray[np.float32]) -> None:
        assert self._arm is not None and self._predictor is not None
        self._state = (stamp_ns, position)
        self._history.add_state(stamp_ns, position)
        self._predictor.newest_ns = stamp_ns
        self._arm.on_state(position)
        self._consider()

    def _on_image(self, camera: CameraSpec, images: CameraImages, message: Image | CompressedImage) -> None:
        self._frames[camera.name] = frame = images.frame(message)
        self._history.add_frame(frame)
        self._images.came(camera.name, time.monotonic())
        self._consider()

    def _on_stream(self, good: bool) -> None:
        """Hold when an input cannot be used; act again when all can."""
        if good:
            self._consider()
        else:
            self.diagnostics.count("rejected")
            self._hold_own()

    def _on_policy_failed(self, reason: str) -> None:
        """Hold: the policy has raised something; in the thread that predicts."""
        self.diagnostics.count("rejected")
        if self.diagnostics.fault("policy", f"the policy holds: {reason}"):
            self._hold_own()

    def _on_stopped(self, stopped: bool) -> None:
        """Ask for nothing more: the arm holds by itself. A release alone moves nothing."""
        self._halted = True
        if self._arm is not None:
            self._arm.drop()
        name = self.get_name()
        if not stopped and not self._running:
            self._released()
            return
        cure = RELEASE if stopped else f"it is released: call {name}/reset, or deactivate and activate {name}"
        self.diagnostics.fault("estop", f"the policy asks for nothing, the arm was stopped; {cure}")

    def _released(self) -> None:
        """An inactive policy asks for nothing anyway: no fault is left of a stop that was released."""
        self.diagnostics.recovered("estop", "the arm is released; the policy is not active")

    def _go_on(self) -> None:
        """Ask for motions again, if the arm is not stopped."""
        self._halted = self._stop.stopped
        if not self._halted:
            self.diagnostics.recovered("estop", "the policy may move the arm again")

    # -- acting ------------------------------------------------------------------------------------------------------

    def _consider(self) -> None:
        """Act if an observation is due and usable."""
        predictor, realtime = self._predictor, self.config.realtime
        if not self._running or self._halted or not (self._begun or realtime) or predictor is None or predictor.busy:
            return
        assert self._arm is not None and self._streams is not None
        if not self._streams.good:
            return
        observation = self._fresh_observation() if realtime else self._next_observation()
        if observation is None:
            return
        if predictor.policy is None:
            self.diagnostics.fault("policy", f"no policy: set parameter 'checkpoint' and call {self.get_name()}/reload")
            return
        if self._begin_ns is None:
            self._begin_ns = observation.stamp_ns
        try:
            observation = self._history.complete(observation, self._begin_ns, not realtime)
        except ValueError as error:
            self._on_policy_failed(str(error))
            return
        predictor.answer(observation)
        self._fresh_start = self._fresh_start and not realtime and self._arm.asked is None

    def _next_observation(self) -> Observation | None:
        """Return the observation of this lock-step's turn, once all of it is here."""
        names = [camera.name for camera in self.contract.cameras]
        if self._state is None or any(name not in self._frames for name in names):
            return None
        stamp_ns, state = self._state
        # Sent is not enough: until its state is here, the newest image is the one before the chunk's last step.
        assert self._arm is not None
        chunk, due = self._arm.asked, True
        if chunk is not None:
            end_ns = chunk.stamp_ns + len(chunk.actions) * self._dt_ns
            due = self._sent_after(end_ns - 1.5 * self._dt_ns) and stamp_ns > end_ns - 0.5 * self._dt_ns
        # No command led to an episode's first state. It waits for the reset that begins the episode here, too: the
        # one before may have left off at a chunk's end. After that reset nothing of the one before is answered.
        first = not self._sent_after(stamp_ns - 1.5 * self._dt_ns)
        frames = {name: self._frames[name] for name in names}
        if not due or first != self._fresh_start or any(frame.stamp_ns != stamp_ns for frame in frames.values()):
            return None
        return Observation(stamp_ns, frames, state, self._task)

    def _fresh_observation(self) -> Observation | None:
        """Return the newest observation if all of it is fresh and the running chunk is near its end (real time)."""
        names = [camera.name for camera in self.contract.cameras]
        if self._state is None or any(name not in self._frames for name in names):
            return None
        stamp_ns, state = self._state
        assert self._arm is not None and self._predictor is not None
        chunk = self._arm.asked
        if chunk is not None and stamp_ns < self._predictor.timing.due_ns(chunk.stamp_ns):
            return None
        frames = {name: self._frames[name] for name in names}
        # Of about the state's time; or as young as they get, where a camera's stamps are later than its exposures.
        of_now = all(stamp_ns - frame.stamp_ns < self._dt_ns / 2 for frame in frames.values())
        if not of_now and not self._images.young(time.monotonic()):
            return None
        return Observation(stamp_ns, frames, state, self._task)

    def _sent_after(self, ns: float) -> bool:
        """Return whether the arm's newest sent command is younger than ``ns``."""
        sent = None if self._arm is None else self._arm.sent
        return sent is not None and sent[0] > ns

    def _hold_own(self) -> None:
        """Make the arm hold if this node moves it: inactive, or since a stop, it is held, and may be another's."""
        if self._running and not self._halted:
            self._hold()

    def _hold(self, deliver_s: float = 0.0) -> None:
        """Make the arm hold; in lock-step it stands and is only asked for nothing that is being predicted."""
        if self._arm is None:
            return
        if self.config.realtime:
            self._arm.hold(deliver_s)
        else:
            self._arm.drop()

    # -- services ----------------------------------------------------------------------------------------------------

    def _begin_episode(self) -> None:
        """Forget the last episode; raises ValueError if exploration does not know this arm."""
        assert self._predictor is not None
        self._predictor.begin_episode()
        self._begin_ns = None
        self.diagnostics.value("explore_offset", self._offset())

    def _offset(self) -> list[float]:
        """Return this episode's exploration offset [m], for people."""
        assert self._predictor is not None
        return [round(float(value), 4) for value in self._predictor.exploration.offset]

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            if self._stop.stopped:
                raise ValueError(f"the arm is stopped; {RELEASE}")
            self._begin_episode()
        except ValueError as error:
            response.success, response.message = False, f"no new episode: {error}"
            self.get_logger().error(response.message)
            return response
        self._fresh_start = self._begun = True
        self._go_on()
        response.success, response.message = True, f"new episode, offset {self._offset()} m"
        self._consider()
        return response

    def _on_reload(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        assert self._predictor is not None
        self._hold_own()
        try:
            if not self._predictor.wait(_PREDICTION_S):
                raise ValueError(f"it has been predicting for more than {_PREDICTION_S:g} s; call again")
            self._load()
        except Exception as error:
            response.success, response.message = False, f"the policy in use stays: {one_line(error)}"
            self.get_logger().error(response.message)
        else:
            self._begun = False
            self.diagnostics.recovered("policy", "a policy is loaded")
            response.success, response.message = True, f"policy '{self.config.checkpoint}' loaded"
        if self.config.realtime:
            self._start_anew()
        self._consider()
        return response

    def _load(self) -> None:
        """Load the checkpoint of the parameters; the one in use stays if that fails."""
        config, predictor = self.config, self._predictor
        assert predictor is not None
        policy: Policy | None = None
        if config.checkpoint == "fake":
            policy = FakePolicy(self.contract, config.execute_steps)
        elif config.checkpoint:
            policy = PolicyRunner(config.checkpoint, self.contract, config.execute_steps, config.device, config.units)
            if policy.note:
                self.get_logger().warning(policy.note)
        self._history.look_back(1 if policy is None else policy.observed_steps)
        predictor.policy, predictor.timing = policy, ChunkTiming(self.contract.dt_s, config.execute_steps)
        self.diagnostics.value("checkpoint", config.checkpoint or "none")


def main(argv: list[str] | None = None) -> int:
    """Run the node."""
    return run(PolicyNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
