# SPDX-License-Identifier: Apache-2.0
"""The reward node: camera frames -> engine -> topic ``reward``, one message a frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.publisher import Publisher
from rclpy.service import Service
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float32, String
from std_srvs.srv import Trigger

from lrm_ros import messages, topics
from lrm_ros.config import RewardConfig
from lrm_ros.reward.cameras import together
from lrm_ros.reward.engine import FIRST_FRAME, Held, RewardEngine, check_config
from lrm_ros.reward.load import load_model
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.camera_images import CameraImages
from lrm_ros.ros.last_reward import ENDING, last_frame_ns
from lrm_ros.ros.program import run
from lrm_ros.ros.reward_live import LiveRewards
from lrm_ros.ros.reward_recorded import RecordedQueries
from lrm_ros.ros.reward_worlds import WorldQueries
from lrm_ros.ros.streams import Streams
from lrm_ros.ros.views import Views
from lrm_ros.types import VIDEO_HEADS, Frame, Reward, Unscored

END_S = 1.0  # an inference has so long to end at cleanup, and once more at the next configure [s]
STOPPED_S = 3.0  # in real time a camera has stopped after so long [s]


class RewardNode(LrmNode[RewardConfig]):
    """Judges every K-th frame of a camera and holds the value in between (paper eq. 8).

    Several cameras (``camera:=front,wrist``) judge the same scene: the reward is the mean of their answers, Unscored if
    one of them is, with the stamp of the first one's frame. In lock-step their frames of one stamp belong together, in
    real time the newest of each within half a second.

    ``reward`` carries the heads' answers (unscaled) with the stamp of the frame they judge: OK, ERROR with the reason,
    or STALE when held. ``~/<head>`` are the same numbers for plots; that of the active mode is multiplied by
    ``scale``. An Unscored answer publishes no number. Service ``~/reset`` begins a new episode; the last frame
    of the old one is judged before, if the interval had skipped it. So is the last frame of an episode that the
    recorder ends (topic ``episode``), without a reset.

    In real time (parameter ``realtime``) a thread judges: a model that is slower than the frames that are due judges
    the newest of them, and the others count as dropped. Frames in between repeat the newest reward there is; there is
    none before the first answer. ``~/reset`` does not wait: the old episode's answers come with their own stamps and
    hold on in no other. In lock-step every frame that is due is judged before the next one is taken.

    With a video head as ``mode`` and its weights as ``model`` the node judges the episode so far: it keeps every judged
    frame until ``~/reset``.

    Beside that it answers queries about recorded frames by the completion head, as the improver's judge asks them
    (``lrm_ros.ros.reward_recorded``): nothing of it is on ``reward``. In real time the same thread does both in turn.

    With parameter ``worlds`` it answers queries about the frames of that many simulated worlds instead, see
    ``lrm_ros.ros.reward_worlds``.
    """

    def __init__(self, **overrides: Any) -> None:
        """Declare the parameters; ``overrides`` are parameter values."""
        super().__init__("reward", RewardConfig, overrides)
        self._engine: RewardEngine | None = None
        self._subscriptions_made: list[Subscription] = []
        self._ends: Subscription | None = None
        self._reset: Service | None = None
        self._plots: dict[str, Publisher] = {}
        self._task = ""
        self._newest: Mapping[str, Frame] | None = None
        self._fresh = False
        self._last_ns: int | None = None  # stamp of an episode's last frame, which has not come yet
        self._live: LiveRewards | None = None
        self._unended: LiveRewards | None = None  # its inference had not ended at cleanup
        self._queries: WorldQueries | None = None
        self._recorded: RecordedQueries | None = None

    def fixed(self, new: RewardConfig) -> set[str]:
        """Another model is another ``mode`` of a video head, too; in simulated worlds everything stays."""
        if self.config.worlds:
            return {field.name for field in fields(new)}
        return super().fixed(new) | ({"mode"} if {self.config.mode, new.mode} & set(VIDEO_HEADS) else set())

    def configure(self) -> None:
        """Load the model and subscribe.

        Raises:
            ValueError: wrong parameters, or the model of before is still busy.
        """
        check_config(self.config)
        for camera in self.config.cameras:  # before the model, which may take minutes
            topics.IMAGE_RAW.of(camera)
        if self.config.worlds and len(self.config.cameras) > 1:
            raise ValueError(f"camera:={self.config.camera}: a simulated world has one camera that is judged")
        if self.config.worlds and self.config.image_transport != "raw":
            raise ValueError(
                f"image_transport:={self.config.image_transport}: simulated worlds publish raw images only"
            )
        if self._unended is not None and not self._unended.stop(END_S):
            raise ValueError(
                "the model of before the cleanup still judges a frame; configure again when it has answered, or start "
                "the node anew"
            )
        self._unended = None
        self._engine = RewardEngine(self.config, load_model(self.config.model, self.config.device, self.config.mode))
        self.diagnostics.value("model", self._engine.model.name)
        if self.config.worlds:
            self._queries = WorldQueries(self, self._engine, self.config.worlds, self.config.camera)
            return
        self._adopted = self.config
        self._reward = topics.REWARD.publisher(self)
        if self.config.realtime:
            self._live = LiveRewards(self, self._engine, self._publish)
        here = self._live.aside if self._live is not None else _at_once
        self._recorded = RecordedQueries(self, self._engine.model, self.config.min_mass, here)
        self._streams = Streams(self, self.config.realtime, STOPPED_S)
        self._views = Views(self.config.cameras, self.config.realtime)
        for camera in self.config.cameras:
            images = CameraImages(self, camera, self.config.image_transport)
            self._streams.listen(images.topic, partial(self._on_image, images), 1 / STOPPED_S, stamped=False)
        self._subscriptions_made = [topics.TASK.subscribe(self, self._on_task)]
        self._reset = self.create_service(Trigger, "~/reset", self._on_reset)

    def activate(self) -> None:
        """Listen for the ends of episodes: by that a recorder knows that its last frame is judged."""
        if self._queries is None:
            self._ends = topics.EPISODE.subscribe(self, self._on_episode, qos=topics.EVENTS.depth)  # none of the past

    def deactivate(self) -> None:
        """Hold: frames that arrive now belong to no episode."""
        if self._ends is not None:
            self.destroy_subscription(self._ends)
            self._ends = None
        self._forget()
        if self._queries is not None:
            self._queries.forget()
        if self._recorded is not None:
            self._recorded.forget()

    def cleanup(self) -> None:
        """Free the model and drop subscriptions, publishers and the service."""
        self._forget()
        if self._recorded is not None:
            self._recorded.close()
        for subscription in self._subscriptions_made:
            self.destroy_subscription(subscription)
        for publisher in self._plots.values():
            self.destroy_publisher(publisher)
        if self._reset is not None:
            self.destroy_service(self._reset)
            self.destroy_publisher(self._reward)
        live, self._live = self._live, None
        if live is not None and not live.stop(END_S):
            self._unended = live
        self._subscriptions_made, self._plots, self._reset, self._engine = [], {}, None, None
        self._newest = self._queries = self._recorded = None

    def _on_task(self, message: String) -> None:
        self._task = message.data

    def _on_image(self, images: CameraImages, message: Image | CompressedImage) -> None:
        if not self.active:
            return
        try:
            frame = images.frame(message)
            self._adopt_config()
        except ValueError as error:
            self.diagnostics.count("rejected")
            self.diagnostics.fault("input", f"frame not judged: {error}")
            return
        self.diagnostics.recovered("input", "frames are good again")
        frames = self._views.take(frame)
        if frames is None:
            return
        if self._live is not None:
            self._live.take(frames, self._task)
        else:
            self._judge(frames, last=_stamp_of(frames) == self._last_ns)

    def _on_episode(self, message: DiagnosticStatus) -> None:
        """Judge the last frame of an episode, of which the recorder lacks the reward."""
        stamp_ns = last_frame_ns(messages.status_values(message), self.config.cameras[0])
        if message.message != ENDING or stamp_ns is None or not self.active:
            return
        if self._live is not None:
            self._live.end(stamp_ns)
        elif self._newest is None or _stamp_of(self._newest) < stamp_ns:
            self._last_ns = stamp_ns
        elif _stamp_of(self._newest) == stamp_ns and not self._fresh:
            self._judge(self._newest, last=True)

    def _judge(self, frames: Mapping[str, Frame], last: bool = False) -> None:
        """Take one frame of each camera and publish the reward that holds for it."""
        assert self._engine is not None
        held = together(self._engine.step(frames, self._task, list(frames) if last else []), self._engine.config)
        self._newest, self._fresh = frames, held.fresh
        self.diagnostics.count("frames")
        self._publish(held, self.config)

    def _publish(self, held: Held, config: RewardConfig) -> None:
        """Publish what holds for a frame; who hears it finds it in the diagnostics, too."""
        answers = list(held.answers.values())
        if held.fresh:
            self._diagnose(answers)
        self._reward.publish(messages.from_rewards(answers, config.cameras[0], held=not held.fresh))
        for answer in answers:
            if isinstance(answer, Reward):
                value = held.signal if answer.head == config.mode and held.signal is not None else answer.value
                self._plot(answer.head).publish(Float32(data=value))

    def _diagnose(self, answers: Sequence[Reward | Unscored]) -> None:
        """Count new answers and say what is wrong with them."""
        self.diagnostics.count("judged")
        reasons = [answer.reason for answer in answers if not isinstance(answer, Reward)]
        self.diagnostics.count("unscored", len(reasons))
        if wrong := [reason for reason in reasons if FIRST_FRAME not in reason]:
            self.diagnostics.fault("answers", f"no reward: {wrong[0]}")
        else:
            self.diagnostics.recovered("answers", "frames are judged again")
        scored = [answer.latency_s for answer in answers if isinstance(answer, Reward)]
        if scored:
            self.diagnostics.latency("model", max(scored))

    def _plot(self, head: str) -> Publisher:
        if head not in self._plots:
            self._plots[head] = topics.REWARD_VALUE.of(head).owned().publisher(self)
        return self._plots[head]

    def _adopt_config(self) -> None:
        """Take over parameters set at run time.

        Raises:
            ValueError: they are wrong, or wrong together.
        """
        assert self._engine is not None
        new = self.config
        if self._adopted == new:
            return
        check_config(new)
        self._adopted = new
        if self._live is not None:
            self._live.adopt(new)
        else:
            self._engine.config = new
            self._reset_engine()

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = True, "new episode"
        if self._live is not None and self.active:
            if self._live.reset():
                response.message = "new episode; the last frame of the old one is being judged"
            return response
        if self.active and self._newest is not None and not self._fresh:
            self._judge(self._newest, last=True)
        self._forget()
        return response

    def _forget(self) -> None:
        """Begin a new episode."""
        self._newest = self._last_ns = None
        if self._live is not None:
            self._live.forget()
        elif self._engine is not None:
            self._reset_engine()

    def _reset_engine(self) -> None:
        assert self._engine is not None
        for camera in self.config.cameras:
            self._engine.reset(camera)


def _stamp_of(frames: Mapping[str, Frame]) -> int:
    """Return the stamp of a view [ns]: that of the first camera's frame."""
    return next(iter(frames.values())).stamp_ns


def _at_once(job: Callable[[], None]) -> None:
    """Do a job in the executor's thread, which judges in lock-step."""
    job()


def main(argv: list[str] | None = None) -> int:
    """Run the node."""
    return run(RewardNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
