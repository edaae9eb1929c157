# SPDX-License-Identifier: Apache-2.0
"""The one table of topics: name, message type, quality of service, meaning; nodes publish and subscribe through it.

README.md's section "Topics" has the same lines. Names are relative unless they begin with a slash; a part in angle
brackets stands for a name, which :meth:`Topic.of` fills in.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription, SubscriptionEventCallbacks
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from std_msgs.msg import Bool, Float32, Float64MultiArray, Int64MultiArray, String
from trajectory_msgs.msg import JointTrajectory


def _qos(depth: int, durability: DurabilityPolicy = DurabilityPolicy.VOLATILE) -> QoSProfile:
    """Return a reliable keep-last profile."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.RELIABLE, durability=durability
    )


def _quiet() -> SubscriptionEventCallbacks:
    """Return events without rclpy's warning of publishers that a subscription cannot hear."""
    return SubscriptionEventCallbacks(use_default_callbacks=False)


# Reliable and deep on both sides: in lock-step nothing may be lost, and a recorder must see every frame.
IMAGE = _qos(128)  # twice the steps of a lock-step command that fills an episode
STREAM = _qos(1000)  # joint states, commands, rewards
LATCHED = _qos(1, DurabilityPolicy.TRANSIENT_LOCAL)  # task, e-stop: late joiners get the last one
EVENTS = _qos(100, DurabilityPolicy.TRANSIENT_LOCAL)  # episode: late joiners get the recent ones
STATUS = _qos(10)  # once a second, from every node
TARGET = _qos(10)  # of a controller
# For consumers that only want the newest frame in real time.
NEWEST = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)

OFFERS_S = 1.0  # between two looks at what the publishers of a topic offer [s]


@dataclass(frozen=True)
class Topic:
    """A topic as both of its ends know it.

    Attributes:
        name: relative to the node's namespace, absolute with a leading slash; may hold one ``<part>`` to be filled in.
        message_type: class of its messages.
        qos: of publishers, and of subscriptions that do not say otherwise.
        note: what it carries, one line.
    """

    name: str
    message_type: type
    qos: QoSProfile
    note: str

    def of(self, part: str) -> Topic:
        """Return the topic of one camera or head: ``IMAGE_RAW.of("front")`` is ``front/image_raw``.

        Raises:
            ValueError: the name has no ``<part>``, or no topic can have that in its name.
        """
        if not re.fullmatch(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", part, re.ASCII):
            raise ValueError(
                f"{part!r} cannot be in the name of topic '{self.name}': give letters, digits and '_' alone, beginning "
                "with no digit"
            )
        name, filled = re.subn(r"<\w+>", lambda _: part, self.name)
        if filled != 1:
            raise ValueError(f"topic '{self.name}' has no part to fill in with '{part}'")
        return dataclasses.replace(self, name=name)

    def owned(self) -> Topic:
        """Return the topic as its own node knows it: ``reward/query`` is ``~/query``, however the node is called.

        Raises:
            ValueError: the name has no node's name in front.
        """
        node, slash, rest = self.name.partition("/")
        if not node or not slash:
            raise ValueError(f"topic '{self.name}' is no node's own")
        return dataclasses.replace(self, name=f"~/{rest}")

    def under(self, world: str) -> Topic:
        """Return the topic of one of many worlds: ``JOINT_STATES.under("world_03")`` is ``world_03/joint_states``.

        Raises:
            ValueError: the name is absolute.
        """
        if self.name.startswith("/"):
            raise ValueError(f"topic '{self.name}' is one for all worlds")
        return dataclasses.replace(self, name=f"{world}/{self.name}")

    def publisher(self, node: Node) -> Publisher:
        """Return a new publisher of ``node``."""
        return node.create_publisher(self.message_type, self.name, self.qos)

    def subscribe(self, node: Node, callback: Callable[..., Any], qos: QoSProfile | int | None = None) -> Subscription:
        """Return a new subscription of ``node``.

        A latched topic gets two more, for publishers that do not latch (``ros2 topic pub``) or are best effort: the
        node owns them, and the callback is called twice with what others publish.

        Args:
            node: whose executor calls.
            callback: called with each message, and with its info if it takes two arguments (not of a latched topic).
            qos: another than the topic's, or the depth of one.
        """
        events = None
        if qos is None and self.qos is LATCHED:
            node.create_subscription(self.message_type, self.name, callback, _qos(LATCHED.depth))
            events = _quiet()  # what this one cannot hear the other ones do
            self._hear_best_effort(node, callback)
        wanted = self.qos if qos is None else qos
        return node.create_subscription(self.message_type, self.name, callback, wanted, event_callbacks=events)

    def _hear_best_effort(self, node: Node, callback: Callable[..., Any]) -> None:
        """Subscribe for publishers that are best effort, while there are some: of the others all hear every message."""

        def take(message: Any) -> None:
            offers = [about.qos_profile.reliability for about in node.get_publishers_info_by_topic(self.name)]
            if not offers or ReliabilityPolicy.BEST_EFFORT in offers:  # one that published once may have gone
                callback(message)

        self.subscribe_as_offered(node, take, reliable=False, depth=LATCHED.depth)

    def subscribe_as_offered(
        self, node: Node, callback: Callable[..., Any], reliable: bool, depth: int
    ) -> Subscription:
        """Return a new subscription of ``node`` that does not warn of publishers it cannot hear.

        Args:
            node: whose executor calls.
            callback: called with each message, and with its info if it takes two arguments.
            reliable: hear reliable publishers only, of which nothing is lost; false: hear all.
            depth: so many messages wait.
        """
        qos = _qos(depth)
        if not reliable:
            qos.reliability = ReliabilityPolicy.BEST_EFFORT
        return node.create_subscription(self.message_type, self.name, callback, qos, event_callbacks=_quiet())

    def hear(self, node: Node, callback: Callable[..., Any]) -> None:
        """Subscribe in real time, so that every publisher is heard: reliably while all of them are, else best effort.

        Who comes later is heard within ``OFFERS_S``. In lock-step, where nothing may be lost, use :meth:`subscribe`.

        Args:
            node: whose executor calls.
            callback: called with each message, and with its info if it takes two arguments.
        """
        reliable = True
        heard = self.subscribe_as_offered(node, callback, reliable, self.qos.depth)

        def adapt() -> None:
            nonlocal reliable, heard
            offers = [about.qos_profile.reliability for about in node.get_publishers_info_by_topic(self.name)]
            if offers and reliable == (ReliabilityPolicy.BEST_EFFORT in offers):
                reliable = not reliable
                node.destroy_subscription(heard)
                heard = self.subscribe_as_offered(node, callback, reliable, self.qos.depth)

        adapt()
        # Wall time: a simulated one may stand still.
        node.create_timer(OFFERS_S, adapt, clock=Clock(clock_type=ClockType.STEADY_TIME))


IMAGE_RAW = Topic("<camera>/image_raw", Image, IMAGE, "stamped, optical frame")
IMAGE_COMPRESSED = Topic(
    "<camera>/image_raw/compressed",
    CompressedImage,
    IMAGE,
    "its JPEG or PNG, made while somebody listens; nodes hear it with `image_transport:=compressed`",
)
CAMERA_INFO = Topic("<camera>/camera_info", CameraInfo, IMAGE, "of the image with the same stamp")
JOINT_STATES = Topic("joint_states", JointState, STREAM, "rad, m")
JOINT_COMMAND = Topic(
    "joint_command",
    JointTrajectory,
    STREAM,
    "what is asked of the arm: K points; stamped as the observation it answers",
)
JOINT_COMMAND_SENT = Topic(
    "joint_command_sent",
    JointTrajectory,
    STREAM,
    "what the arm got after limits: one point a control step, stamped when it was sent",
)
CONTROLLER_TRAJECTORY = Topic(
    "<controller>/joint_trajectory",
    JointTrajectory,
    TARGET,
    "node `ros2_control` to a joint_trajectory_controller: one point, stamp 0, time to reach it",
)
CONTROLLER_COMMANDS = Topic(
    "<controller>/commands",
    Float64MultiArray,
    TARGET,
    "node `ros2_control` to a forward position controller: positions in its order",
)
ESTOP = Topic(
    "estop", Bool, LATCHED, "true from anyone stops the arm; false never releases it, its node's `~/release` does"
)
STOPPED = Topic("stopped", Bool, LATCHED, "whether the arm is stopped, said by its node alone")
WISH = Topic("policy/wish", JointTrajectory, STREAM, "what the policy wanted before exploration")
INTERVENTION = Topic(
    "intervention", DiagnosticArray, EVENTS, "rollouts with a person: who leads the arm from that stamp on"
)
TASK = Topic("task", String, LATCHED, "latched")
ROBOT_DESCRIPTION = Topic("robot_description", String, LATCHED, "the arm's URDF")
REWARD = Topic(
    "reward", DiagnosticArray, STREAM, "header of the judged frame; one status a head: OK, ERROR (why) or STALE"
)
REWARD_VALUE = Topic("reward/<head>", Float32, STREAM, "for plots; `reward` is the node's name")
EPISODE = Topic("episode", DiagnosticStatus, EVENTS, "started, ending (last frames), ended, faulty (why), path")
EVALUATION = Topic("evaluation", DiagnosticStatus, EVENTS, "how far an evaluation is, and its result")
QUESTION = Topic(
    "question",
    DiagnosticStatus,
    LATCHED,
    "what a person is asked: `scene` (put it in place), `outcome` (success?) or `nothing`; by services of `node`",
)
SCENE = Topic("scene/image_raw", Image, LATCHED, "while a scene is asked for: as it was, beside as it is now")
TRUTH = Topic(
    "truth",
    DiagnosticStatus,
    STREAM,
    "the twin only: whether the toy is in the bowl; read by evaluation and reports only",
)
WORLDS = Topic("worlds", DiagnosticArray, STREAM, "lock-step: what all worlds show, one status a world")
WORLDS_SEEDS = Topic("worlds/seeds", Int64MultiArray, STREAM, "lock-step: new episodes in all worlds, worlds x seeds")
REWARD_QUERY = Topic(
    "reward/query", DiagnosticArray, STREAM, "which recorded frames, or frames of simulated worlds, to judge"
)
RECORDED = Topic("reward/recorded/image_raw", Image, IMAGE, "recorded frames to judge; frame_id is their query's id")
RECORDED_REWARD = Topic(
    "reward/recorded/reward",
    DiagnosticArray,
    EVENTS,
    "the answer about one of them, or why there is none; frame_id is its query's id",
)
DDS_CHECK = Topic("dds_check", Image, IMAGE, "`lrm doctor` only: whether images pass between two processes")
DIAGNOSTICS = Topic("/diagnostics", DiagnosticArray, STATUS, "rates, drops, latency and faults of each node")
CLOCK = Topic("/clock", ClockMessage, STREAM, "the twin only: simulated time; with `ns:=arm1` it is `/arm1/clock`")


def frames() -> tuple[Topic, Topic]:
    """Return the topics of the frames that move and of those that do not, where there is a package of their messages.

    Raises:
        ImportError: tf2_msgs is not installed.
    """
    from tf2_msgs.msg import TFMessage

    return Topic("/tf", TFMessage, STREAM, "frames that move"), Topic("/tf_static", TFMessage, LATCHED, "other frames")
