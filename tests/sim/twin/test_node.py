# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from spinner import Spinner  # type: ignore[import-not-found]
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages
from lrm_ros.config import RobotContract
from lrm_ros.sim.twin.node import TwinNode
from lrm_ros.topics import IMAGE, LATCHED, STREAM
from lrm_ros.types import ActionChunk

JOINTS = RobotContract().joints
DT_NS = 100_000_000


class Twin:
    """The real node, and what it published since the last reset."""

    def __init__(self, spin: Spinner) -> None:
        import rclpy

        self.spin = spin
        self.node = spin.start(TwinNode(realtime=False, frame_every=0))
        self.probe = spin.add(rclpy.create_node("probe"))
        self.heard: list[tuple[str, object]] = []
        topics = {
            "joint_states": (JointState, STREAM),
            "joint_command_sent": (JointTrajectory, STREAM),
            "/clock": (Clock, STREAM),
            "front/image_raw": (Image, IMAGE),
            "front/camera_info": (CameraInfo, IMAGE),
            "truth": (DiagnosticStatus, STREAM),
            "task": (String, LATCHED),
        }
        for topic, (kind, qos) in topics.items():
            self.probe.create_subscription(kind, topic, lambda m, t=topic: self.heard.append((t, m)), qos)
        self.command = self.probe.create_publisher(JointTrajectory, "joint_command", STREAM)
        spin.until(lambda: self.command.get_subscription_count())
        spin.until(lambda: all(self.probe.count_publishers(t) for t in topics))
        self.reset(0)

    def reset(self, seed: int, **parameters) -> None:
        """Reset with parameters; the defaults are those of the tests."""
        values = {"realtime": False, "frame_every": 0, "max_steps": 0, "disturbance_std": 0.0, "seed": seed}
        self.node.set_parameters([Parameter(key, value=value) for key, value in (values | parameters).items()])
        self.heard.clear()
        assert self.spin.call(self.probe, Trigger, "twin/reset").success
        self.spin.until(lambda: self.complete(0), what="the first observation")

    def of(self, topic: str) -> list:
        return [message for name, message in self.heard if name == topic]

    @property
    def stamp_ns(self) -> int:
        return messages.to_ns(self.of("joint_states")[-1].header.stamp)

    @property
    def state(self) -> np.ndarray:
        return messages.to_state(self.of("joint_states")[-1], JOINTS)

    @property
    def truth(self) -> dict[str, str]:
        return messages.status_values(self.of("truth")[-1])

    def chunk(self, change: float, steps: int, stamp_ns: int | None = None) -> JointTrajectory:
        """A command that moves the first joint evenly."""
        actions = np.repeat(self.state[None], steps, axis=0)
        actions[:, 0] += change * np.arange(1, steps + 1) / steps
        return messages.from_chunk(ActionChunk(stamp_ns or self.stamp_ns, actions, 0.1), JOINTS)

    def send(self, message: JointTrajectory, steps: int | None = None) -> None:
        """Publish a command and wait until it has been executed and all of it heard."""
        wanted = int(self.truth["steps"]) + (len(message.points) if steps is None else steps)
        self.command.publish(message)
        self.spin.until(lambda: self.complete(wanted), what="execution")

    def complete(self, steps: int) -> bool:
        """Whether everything that belongs to this many steps has come: topics have no order between them."""
        if not all(self.of(topic) for topic in ("truth", "task", "joint_states", "/clock", "front/image_raw")):
            return False
        end = self.node._server._start_ns + steps * DT_NS
        stamps = {messages.to_ns(self.of(topic)[-1].header.stamp) for topic in ("joint_states", "front/image_raw")}
        stamps |= {messages.to_ns(self.of("/clock")[-1].clock)}
        infos, images = self.of("front/camera_info"), self.of("front/image_raw")
        counted = len(self.of("joint_command_sent")) >= steps and len(infos) == len(images)
        return stamps == {end} and self.truth["steps"] == str(steps) and counted


@pytest.fixture(scope="module")
def module_twin():
    spinner = Spinner()
    yield Twin(spinner)
    spinner.close()


@pytest.fixture
def twin(module_twin):
    module_twin.reset(0)
    return module_twin


def test_reset_publishes_the_first_observation_and_the_task(twin):
    stamps = {messages.to_ns(twin.of(t)[0].header.stamp) for t in ("joint_states", "front/image_raw")}
    assert stamps == {messages.to_ns(twin.of("/clock")[0].clock)}
    assert twin.of("task")[0].data.startswith("put the ")
    assert twin.truth["seed"] == "0" and twin.truth["steps"] == "0" and twin.truth["success"] == "false"
    frame = messages.to_frame(twin.of("front/image_raw")[0], "front")
    assert frame.image.shape == (96, 96, 3) and frame.image.std() > 10


def test_camera_info_has_the_renderers_own_intrinsics(twin):
    sensor = twin.node._world.task_env._sensors["front"]
    rendered = sensor.get_params()["intrinsic_cv"][0].cpu().numpy()
    info = twin.of("front/camera_info")[0]
    np.testing.assert_allclose(np.reshape(info.k, (3, 3)), rendered, rtol=1e-5)
    assert (info.width, info.height) == (96, 96) and info.header.frame_id == "front_optical_frame"


def test_lock_step_executes_a_whole_command_at_once_with_one_image_at_its_end(twin):
    begin, first = twin.stamp_ns, float(twin.state[0])
    twin.send(twin.chunk(0.4, 8))
    states = [messages.to_ns(m.header.stamp) for m in twin.of("joint_states")]
    sent = [messages.to_ns(m.header.stamp) for m in twin.of("joint_command_sent")]
    assert sent == [begin + k * DT_NS for k in range(8)]
    assert states == [begin + k * DT_NS for k in range(9)]
    assert [messages.to_ns(m.clock) for m in twin.of("/clock")] == states
    assert len(twin.of("front/image_raw")) == 2
    assert messages.to_ns(twin.of("front/image_raw")[-1].header.stamp) == states[-1]
    assert twin.truth["steps"] == "8"
    assert twin.state[0] - first == pytest.approx(0.4, abs=0.1)


def test_nothing_moves_without_a_command(twin):
    twin.spin.call(twin.probe, Trigger, "twin/reset")
    twin.spin.until(lambda: len(twin.of("truth")) == 2)
    assert not twin.of("joint_command_sent") and twin.truth["steps"] == "0"


def test_the_same_seed_is_the_same_episode_and_another_seed_is_not(twin):
    def look():
        return twin.of("task")[0].data, messages.to_frame(twin.of("front/image_raw")[0], "front").image

    twin.reset(5)
    task, image = look()
    twin.send(twin.chunk(0.4, 4))
    twin.reset(6)
    other = look()[1]
    twin.reset(5)
    again_task, again = look()
    assert again_task == task
    np.testing.assert_array_equal(again, image)
    assert (other != image).any()


def test_frame_every_adds_images_within_a_command(twin):
    twin.reset(0, frame_every=3)
    begin = twin.stamp_ns
    twin.send(twin.chunk(0.2, 8))
    steps = [(messages.to_ns(m.header.stamp) - begin) // DT_NS for m in twin.of("front/image_raw")]
    assert steps == [0, 3, 6, 8]


def test_max_steps_ends_the_episode_but_not_the_next_one(twin):
    twin.reset(0, max_steps=10)
    twin.send(twin.chunk(0.1, 8))
    twin.send(twin.chunk(0.1, 8), steps=2)
    assert len(twin.of("joint_command_sent")) == 10
    twin.command.publish(twin.chunk(0.1, 8))
    twin.reset(1, max_steps=10)
    twin.send(twin.chunk(0.1, 8))
    assert twin.truth["steps"] == "8"


def test_a_command_from_before_the_reset_is_ignored(twin):
    old = twin.chunk(0.4, 8)
    twin.reset(0)
    ignored = twin.node.diagnostics.total("ignored")
    twin.command.publish(old)
    twin.spin.until(lambda: twin.node.diagnostics.total("ignored") == ignored + 1)
    assert not twin.of("joint_command_sent")


def test_what_is_sent_is_inside_the_limits(twin):
    message = twin.chunk(3.0, 1)
    start = float(twin.of("joint_states")[-1].position[0])
    twin.send(message)
    sent = messages.to_chunk(twin.of("joint_command_sent")[0], JOINTS, 0.1).actions[0]
    assert sent[0] == pytest.approx(start + RobotContract().max_step[0], abs=1e-5)


@pytest.mark.parametrize(
    ("spoil", "cure"),
    [
        (lambda m: m.points[0].positions.__setitem__(2, math.nan), "not finite"),
        (lambda m: m.joint_names.__setitem__(2, "elbow"), "elbow_flex"),
        (lambda m: m.points[1].positions.pop(), "positions"),
        (lambda m: [point.positions.pop() for point in m.points], "positions"),
        (lambda m: m.points.clear(), "no points"),
        (lambda m: setattr(m.points[1].time_from_start, "sec", 3), "control period"),
        (lambda m: setattr(m.header.stamp, "sec", 2_000_000_000), "use_sim_time"),
    ],
    ids=["nan", "joint name", "one short point", "short points", "no points", "spacing", "wall clock"],
)
def test_an_unusable_command_is_one_error_and_moves_nothing(twin, spoil, cure):
    rejected = twin.node.diagnostics.total("rejected")
    for times in (1, 2):
        message = twin.chunk(0.1, 2)
        spoil(message)
        twin.command.publish(message)
        twin.spin.until(lambda n=times: twin.node.diagnostics.total("rejected") == rejected + n)
    assert cure in twin.node.diagnostics.faults["joint_command"]
    assert not twin.of("joint_command_sent")
    twin.send(twin.chunk(0.1, 2))
    assert "joint_command" not in twin.node.diagnostics.faults


def test_a_disturbance_moves_the_arm_but_not_the_recorded_command(twin):
    twin.send(twin.chunk(0.2, 8))
    clean, undisturbed = twin.of("joint_command_sent"), twin.state
    twin.reset(0, disturbance_std=0.03)
    twin.send(twin.chunk(0.2, 8))
    for a, b in zip(clean, twin.of("joint_command_sent"), strict=True):
        assert a.points[0].positions == b.points[0].positions
    difference = np.abs(twin.state - undisturbed)
    assert difference[:5].max() > 0.005 and difference.max() < 0.2


def test_real_time_steps_by_itself_and_holds_the_last_target(twin):
    message = twin.chunk(0.3, 3)
    goal = message.points[-1].positions[0]
    twin.reset(0, realtime=True, frame_every=2)
    message.header.stamp.sec = message.header.stamp.nanosec = 0
    twin.command.publish(message)
    twin.spin.until(lambda: len(twin.of("joint_command_sent")) >= 8)
    targets = [m.points[0].positions[0] for m in twin.of("joint_command_sent")]
    moved = [value for k, value in enumerate(targets) if k == 0 or value != targets[k - 1]]
    assert len(moved) in (3, 4) and targets[-1] == pytest.approx(goal)
    assert len(twin.of("truth")) >= 8 and 4 <= len(twin.of("front/image_raw")) <= 6
    twin.reset(0)  # what was still on its way is heard here, not by the next test


def test_in_real_time_the_camera_waits_for_no_command(twin):
    twin.reset(0, realtime=True, frame_every=0)
    stamps = lambda topic: [messages.to_ns(m.header.stamp) for m in twin.of(topic)]  # noqa: E731
    twin.spin.until(lambda: len(stamps("front/image_raw")) >= 4, what="images")
    images = stamps("front/image_raw")
    assert set(np.diff(images)) == {100_000_000}  # one a step
    twin.reset(0)


def test_a_deactivation_in_real_time_holds_and_the_command_does_not_go_on(twin):
    message = twin.chunk(0.9, 9)
    goal = message.points[-1].positions[0]
    twin.reset(0, realtime=True)
    message.header.stamp.sec = message.header.stamp.nanosec = 0
    twin.command.publish(message)
    sent = lambda: [m.points[0].positions[0] for m in twin.of("joint_command_sent")]  # noqa: E731
    twin.spin.until(lambda: len(set(sent())) >= 2, what="motion")
    twin.node.trigger_deactivate()
    stayed = float(twin.node._server.sent[0])
    assert stayed < goal - 0.05, "deactivated in the midst of the command"
    twin.spin.until(lambda: len(sent()) >= 2 and sent()[-1] == sent()[-2] == pytest.approx(stayed), what="the hold")
    heard = len(sent())
    twin.node.trigger_activate()
    twin.spin.until(lambda: len(sent()) >= heard + 3, what="steps after the activation")
    assert set(sent()[heard:]) == {sent()[heard - 1]}
    twin.reset(0)


def test_the_expert_demonstrates_on_request(twin):
    twin.reset(1, disturbance_std=0.0)
    steps = int(twin.spin.call(twin.probe, Trigger, "twin/demonstrate").message)
    twin.spin.until(lambda: twin.complete(steps), 30.0, "the demonstration")
    assert twin.truth["success"] == "true" and float(twin.truth["progress"]) == 1.0


def test_a_contract_of_another_arm_is_refused(twin, tmp_path):
    import yaml

    from lrm_ros.config_files import to_dict

    contract = to_dict(RobotContract())
    contract["control_hz"] = 20.0
    (tmp_path / "arm.yaml").write_text(yaml.safe_dump(contract))
    node = twin.spin.add(TwinNode(contract=str(tmp_path / "arm.yaml")))
    node.trigger_configure()
    assert not node.active
    assert "20 Hz" in node.diagnostics.faults["configure"]
