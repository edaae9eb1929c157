# SPDX-License-Identifier: Apache-2.0
"""The recorder node: what happens on the topics between start and end of an episode -> one crash-safe journal.

Callbacks only convert and queue; a thread encodes and writes, so a slow disk never holds up the subscriptions.
An episode starts when all inputs are good, and is a success when they were all the time.
"""

from __future__ import annotations

import queue
import threading
import time
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from numpy.typing import NDArray
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages, topics
from lrm_ros.config import CameraSpec, RecorderConfig
from lrm_ros.contract import check_size, implausible, oldest_s
from lrm_ros.parameters import EPISODE_PARAMETERS
from lrm_ros.record.steps import Steps
from lrm_ros.record.writer import JournalWriter, journal_path, make_folder
from lrm_ros.robot.limits import Plausibility
from lrm_ros.ros import recorded
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.camera_images import CameraImages, for_journal
from lrm_ros.ros.estop import RELEASE, StopWatch
from lrm_ros.ros.last_reward import ENDING, LastReward, last_frame_values, publishes_and_hears
from lrm_ros.ros.program import run
from lrm_ros.ros.recorded import CAMERA_INFO, LEADER, JointValues, episode_message, live_topics, show_free, write_queued
from lrm_ros.ros.streams import Streams
from lrm_ros.types import ActionChunk

OK, ERROR = DiagnosticStatus.OK, DiagnosticStatus.ERROR
_NOTHING = "no episode is being recorded"
_NO_TASK = "there is no task text; publish it on topic 'task' or set the recorder's parameter 'task_text'"


class RecorderNode(LrmNode[RecorderConfig]):
    """Services ``~/{start,stop,end,discard}_episode``; topic ``episode`` says what became of each.

    ``start_episode`` is refused while an input is not good. An episode in which one was not good ends without success:
    its journal is finished as ``NAME.mcap.faulty``, and the reply says what was wrong.
    """

    def __init__(self, **overrides: Any) -> None:
        """Declare the parameters; ``overrides`` are parameter values."""
        super().__init__("recorder", RecorderConfig, overrides, EPISODE_PARAMETERS)
        self._streams: Streams | None = None
        self._steps, self._last_reward = Steps((), 0.0, None), LastReward()  # of the open episode
        self._task, self._ending = "", False  # ending: it lacks only its last rewards
        self._spoilt: dict[str, str] = {}  # what happened in the open episode that must not
        self._arm = StopWatch(self, lambda _: self._spoilt.update(estop="the arm was stopped by its e-stop"))
        self._state_ns = 0  # stamp of the newest joint state
        self._newest: dict[str, tuple[str, tuple[Any, ...]]] = {}
        self._writer: JournalWriter | None = None
        self._lock = threading.Lock()  # guards the writer's file between the thread and the services
        self._queue: queue.Queue[tuple[str, tuple[Any, ...]]] = queue.Queue(maxsize=512)
        self._thread: threading.Thread | None = None
        self._failure, self._started_s, self._dropped = "", 0.0, 0

    def configure(self) -> None:
        """Subscribe to everything an episode holds."""
        self._episode = topics.EPISODE.publisher(self)
        streams = self._streams = Streams(self, self.config.realtime)
        hz = self.contract.control_hz
        for spec in self.contract.cameras:
            images = CameraImages(self, spec.name, self.config.image_transport)
            streams.listen(images.topic, partial(self._on_image, spec, images), hz)
            info = topics.CAMERA_INFO.of(spec.name)
            take = partial(self._on_whole, f"/{spec.name}/camera_info", CAMERA_INFO)
            streams.listen(info, take, stamped=False)
        self._joints = JointValues(self.contract.joints)
        streams.listen_states(self._on_state, hz, whole=self._joints.add)
        self._plausibility = Plausibility(self.contract)
        streams.listen(topics.JOINT_COMMAND_SENT, self._on_sent, cause=topics.JOINT_COMMAND)
        streams.listen(topics.JOINT_COMMAND, partial(self._on_chunk, "command"), stamped=False)
        streams.listen(topics.WISH, partial(self._on_chunk, "wish"), stamped=False)
        streams.listen(topics.REWARD, self._on_reward, stamped=False)
        streams.listen(topics.INTERVENTION, partial(self._on_whole, "/intervention", LEADER), stamped=False)
        topics.TASK.subscribe(self, self._on_task)
        self.create_timer(1.0, lambda: show_free(self.diagnostics, self.config.folder))
        self.create_service(Trigger, "~/start_episode", self._on_start)
        self.create_service(Trigger, "~/stop_episode", lambda _, response: self._on_end(None, response))
        self.create_service(SetBool, "~/end_episode", lambda asked, response: self._on_end(asked.data, response))
        self.create_service(Trigger, "~/discard_episode", self._on_discard)

    def activate(self) -> None:
        """Start the writing thread."""
        self._thread = threading.Thread(target=write_queued, args=(self._queue, self._write), name="journal")
        self._thread.start()

    def deactivate(self) -> None:
        """Stop; an episode still open stays on the disk as ``.part``."""
        if self._writer is not None:
            self._queue.join()
            self._fail("the recorder was stopped in the middle of the episode")
        if self._thread is not None:
            self._queue.put(("stop", ()))
            self._thread.join()
            self._thread = None

    @property
    def streams(self) -> Streams:
        """The inputs, which there are from configure to cleanup."""
        assert self._streams is not None
        return self._streams

    def cleanup(self) -> None:
        """Forget the inputs."""
        self._streams, self._newest = None, {}

    # -- topics ------------------------------------------------------------------------------------------------------

    def _on_image(self, spec: CameraSpec, images: CameraImages, message: Image | CompressedImage) -> None:
        frame = images.frame(message)
        check_size(frame, spec)
        self._keep(f"frames_{spec.name}", frame.stamp_ns, *for_journal(message, frame, self.config.image_format))

    def _on_state(self, stamp_ns: int, state: NDArray[np.float32]) -> None:
        self._state_ns = stamp_ns
        self._keep("states", stamp_ns, "joints", stamp_ns, *self._joints.row(stamp_ns, state))

    def _on_whole(self, topic: str, schema: str, message: CameraInfo | DiagnosticArray) -> None:
        stamp_ns = messages.to_ns(message.header.stamp) or self._state_ns
        self._keep(topic[1:], stamp_ns, "message", topic, schema, stamp_ns, serialize_message(message))

    def _on_sent(self, message: JointTrajectory) -> None:
        chunk = messages.to_chunk(message, self.contract.joints, self.contract.dt_s)
        self._plausibility.check(chunk.actions[0].tolist(), time.monotonic())
        self._put("actions", chunk.stamp_ns, "sent", chunk.stamp_ns, chunk.actions[0])

    def _on_chunk(self, kind: str, message: JointTrajectory) -> None:
        chunk = messages.to_chunk(message, self.contract.joints, self.contract.dt_s)
        for action in chunk.actions.tolist():
            if reason := implausible(action, self.contract):
                raise ValueError(reason)
        if not chunk.stamp_ns:  # means now, to the arm
            chunk = ActionChunk(self._state_ns, chunk.actions, chunk.dt_s)
        self._put(kind + "s", chunk.stamp_ns, kind, chunk)

    def _on_reward(self, message: DiagnosticArray) -> None:
        message.status = [status for status in message.status if status.level != DiagnosticStatus.STALE]
        if message.status:  # a held value repeats an answer that is recorded already
            camera = message.header.frame_id.removesuffix("_optical_frame")
            rewards = messages.to_rewards(message)
            self._last_reward.came(camera, rewards)
            self._put("rewards", rewards[0].stamp_ns, "rewards", rewards, camera)

    def _on_task(self, message: String) -> None:
        self._task = message.data
        writer = self._writer
        if writer is not None and message.data != writer.task and not self.get_parameter("task_text").value:
            changed = f"the task became '{message.data}' in the middle of an episode of '{writer.task}'"
            self._spoilt["task"] = changed + "; end an episode before another task is given"

    def _keep(self, name: str, stamp_ns: int, kind: str, *values: Any) -> None:
        """Queue a message, and remember it as the newest: an episode starts with what was seen just before."""
        self._put(name, stamp_ns, kind, *values)
        self._newest[name] = (kind, (*values, None))

    def _put(self, name: str, stamp_ns: int, kind: str, *values: Any) -> None:
        """Queue one message for the writing thread while an episode is open."""
        received_ns = self.streams.received_ns(stamp_ns)
        if received_ns is not None:
            self.diagnostics.latency(name, (received_ns - stamp_ns) / 1e9)
        self.diagnostics.count(name)
        if self._writer is None or (self._ending and kind != "rewards"):
            return
        try:
            self._queue.put((kind, (*values, received_ns)), timeout=0.5)
            self._steps.add(kind, *values)
            self.diagnostics.recovered("queue", "the disk keeps up again")
        except queue.Full:
            self._dropped += 1
            self.diagnostics.count("dropped")
            self.diagnostics.fault("queue", f"the disk at '{self.config.folder}' is too slow: messages are being lost")

    # -- writing -----------------------------------------------------------------------------------------------------

    def _write(self, kind: str, values: tuple[Any, ...]) -> None:
        """Call one method of the journal's writer; a failure ends the episode, not the thread."""
        try:
            with self._lock:
                if self._writer is not None:
                    getattr(self._writer, kind)(*values)
        except OSError as error:
            self._fail(f"{error}; free disk space at '{self.config.folder}' or set parameter 'folder' to another disk")
        except Exception as error:
            self._fail(f"{kind}: {error}\n{traceback.format_exc()}")

    def _fail(self, reason: str) -> None:
        """Close the open episode without finishing it and say why."""
        with self._lock:
            writer, self._writer = self._writer, None
            if writer is None:
                return
            part = writer.abandon()
        self._failure = f"episode '{writer.episode_id}' was not finished: {reason}"
        self.diagnostics.fault("journal", self._failure)
        self._report(writer, "failed", part, reason=reason, level=ERROR)

    def _report(self, writer: JournalWriter, event: str, path: Path, level: bytes = OK, **values: Any) -> None:
        """Publish what happened to an episode."""
        about = {"dropped": self._dropped, "seconds": f"{time.monotonic() - self._started_s:.2f}", **values}
        self._episode.publish(episode_message(writer, event, path, level, about))

    # -- services ----------------------------------------------------------------------------------------------------

    def _on_start(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Open a journal."""
        try:
            writer = self._open()
        except (OSError, ValueError) as error:
            response.success, response.message = False, str(error)
            self.get_logger().error(f"no episode started: {error}")
            return response
        self._failure, self._spoilt, self._dropped, self._started_s = "", {}, 0, time.monotonic()
        limit_s = oldest_s(self.contract) if self.config.realtime else 1.5 * self.contract.dt_s
        # In lock-step every control step has its state, but a frame only if one was asked for.
        self._steps = Steps([c.name for c in self.contract.cameras], limit_s, limit_s if self.config.realtime else None)
        self._last_reward, self._ending = LastReward(self._steps.has_frame), False
        self.streams.begin()
        self._writer = writer
        for kind, values in self._newest.values():
            told_ns = self._state_ns or None if kind == "message" else None  # it may be of long ago
            self._queue.put((kind, (*values[:-1], told_ns)))
            self._steps.add(kind, *values)
        self.diagnostics.recovered("journal", "recording again")
        self._report(writer, "started", writer.path)
        response.success, response.message = True, str(writer.path)
        return response

    def _open(self) -> JournalWriter:
        """Return a writer for a new episode.

        Raises:
            ValueError: not active, an episode is open, no task, an input that is not good, or a wrong parameter.
            OSError: the folder cannot be written, is nearly full, or has that episode.
        """
        if not self.active:
            raise ValueError("the recorder is not active; activate it first")
        if self._writer is not None:
            raise ValueError(f"episode '{self._writer.episode_id}' is being recorded; end or discard it first")
        if self._arm.stopped:
            raise ValueError(f"the arm is stopped; {RELEASE}")
        task = self.get_parameter("task_text").value or self._task
        if not task.strip():
            raise ValueError(_NO_TASK)
        if faults := self.streams.not_ready():
            raise ValueError("; ".join(faults.values()))
        config = self.config
        folder = make_folder(config.folder, config.min_free_mb)
        name, source = (str(self.get_parameter(key).value) for key in ("episode_id", "source"))
        path = journal_path(folder, name)
        live = live_topics(self, self.contract)
        return recorded.open_journal(self.get_logger(), path, task, self.contract, source, config, live)

    def _on_end(self, outcome: bool | None, response: Any) -> Any:
        """Finish the journal; the reply's message is its path, without success what was wrong and where it is."""
        faults = unjudged = ""
        if self._writer is not None:
            self.streams.drain()
            faults = self._faults_of_the_episode()
            unjudged = self._await_last_reward(self._writer)
            self._queue.join()
        with self._lock:
            writer, self._writer = self._writer, None
        if writer is None:
            response.success = False
            response.message = self._failure or f"{_NOTHING}; call {self.get_name()}/start_episode first"
            return response
        gaps = ", ".join(f"{topic}: {count}" for topic, count in self._steps.gaps(self.contract.dt_s).items())
        notes = {"dropped": str(self._dropped), "gaps": gaps, "faults": faults, "unjudged": unjudged}
        try:
            path = recorded.finish_journal(self.get_logger(), writer, outcome, notes, faulty=bool(faults))
        except OSError as error:
            self._writer = writer
            self._fail(f"{error}; free disk space at '{self.config.folder}'")
            response.success, response.message = False, self._failure
            return response
        told = "" if outcome is None else str(outcome).lower()
        if faults:
            response.success, response.message = False, f"episode '{writer.episode_id}' is not good: {faults}"
            response.message += f". Its journal is '{path}'; rename it to .mcap to use it all the same"
            self.get_logger().error(response.message)
            self._report(writer, "faulty", path, ERROR, outcome=told, reason=faults)
            return response
        self._report(writer, "ended", path, outcome=told, gaps=gaps, unjudged=unjudged)
        response.success, response.message = True, str(path)
        return response

    def _await_last_reward(self, writer: JournalWriter) -> str:
        """Wait for the reward of the last frames, where a reward node judges; return what has not come, if anything.

        That is recorded as Unscored: an old answer must not stand for it. Services and timers wait, streams do not.
        """
        last, streams, rewards = self._steps.last_frames(), self.streams, self._last_reward
        if not (streams.has_publisher(topics.REWARD) and rewards.missing(last)):
            return ""
        self._ending = True
        self._report(writer, ENDING, writer.part, **last_frame_values(last))
        timeout_s = self.config.reward_s if publishes_and_hears(self, topics.REWARD, topics.EPISODE) else None
        if reason := rewards.wait(last, timeout_s, streams.attend, in_order=not self.config.realtime):
            self.get_logger().warning(f"episode '{writer.episode_id}': {reason}")
        for camera, answers in rewards.unscored(last, reason).items():
            self._put("rewards", last[camera], "rewards", answers, camera)
        self._ending = False
        return reason

    def _faults_of_the_episode(self) -> str:
        """Return what was wrong with the episode that ends, empty if nothing was."""
        faults = self._steps.faults() | self.streams.end() | self._spoilt
        if self._dropped:
            faults["queue"] = f"{self._dropped} messages were lost: the disk at '{self.config.folder}' is too slow"
        return "; ".join(faults.values())

    def _on_discard(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Delete the open episode."""
        if self._writer is not None:
            self._queue.join()
        with self._lock:
            writer, self._writer = self._writer, None
        if writer is None:
            response.success, response.message = False, _NOTHING
            return response
        self.streams.end()
        writer.discard()
        self._report(writer, "discarded", writer.path)
        response.success, response.message = True, f"episode '{writer.episode_id}' discarded"
        return response


def main(argv: list[str] | None = None) -> int:
    """Run the node."""
    return run(RecorderNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
