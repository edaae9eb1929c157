# SPDX-License-Identifier: Apache-2.0
"""The policy node with real topics: lock-step order, exploration, reload. Real time: ``test_policy_realtime.py``."""

from __future__ import annotations

import time

import numpy as np
import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import GetState
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages
from lrm_ros.config import RobotContract
from lrm_ros.config_files import to_dict
from lrm_ros.nodes.policy import PolicyNode
from lrm_ros.policy import FakePolicy
from lrm_ros.robot.so100.kinematics import forward
from lrm_ros.topics import IMAGE, STREAM
from lrm_ros.types import ActionChunk, Frame

CONTRACT = RobotContract()
DT_NS = 100_000_000


class Twin:
    """Answers commands as the twin does in lock-step: K steps at once, an image at the end or every ``frame_every``."""

    def __init__(self, node, max_steps: int = 20, answers: bool = True, frame_every: int = 0) -> None:
        self.node, self.max_steps, self.steps, self.reset_ns = node, max_steps, 0, 0
        self.frame_every = frame_every
        self.ns, self.state = DT_NS, np.zeros(6, np.float32)
        self.executed: list[tuple[int, np.ndarray]] = []
        self.states = node.create_publisher(JointState, "joint_states", STREAM)
        self.images = node.create_publisher(Image, "front/image_raw", IMAGE)
        self.sent = node.create_publisher(JointTrajectory, "joint_command_sent", STREAM)
        if answers:
            node.create_subscription(JointTrajectory, "joint_command", self.on_command, STREAM)

    def observe(self, image: bool = True) -> None:
        self.states.publish(messages.from_state(self.ns, CONTRACT.joints, self.state))
        if image:
            frame = Frame(self.ns, "front", np.full((96, 96, 3), 7, np.uint8))
            self.images.publish(messages.from_frame(frame))

    def reset(self) -> None:
        self.ns += DT_NS
        self.steps, self.reset_ns, self.state = 0, self.ns, np.full(6, self.ns / 1e12, np.float32)
        self.observe()

    def on_command(self, message) -> None:
        chunk = messages.to_chunk(message, CONTRACT.joints, CONTRACT.dt_s)
        if chunk.stamp_ns < self.reset_ns:
            return
        actions = chunk.actions[: self.max_steps - self.steps]
        for k, action in enumerate(actions):
            self.executed.append((self.ns, action))
            self.sent.publish(messages.from_chunk(ActionChunk(self.ns, action[None], CONTRACT.dt_s), CONTRACT.joints))
            self.ns += DT_NS
            self.steps += 1
            self.state = action
            due = self.frame_every > 0 and self.steps % self.frame_every == 0
            self.observe(image=due or k == len(actions) - 1)


def start(spin, probe, twin=None, **parameters):
    node = spin.start(PolicyNode(checkpoint="fake", autostart=False, **parameters))
    wishes = spin.collect(probe, JointTrajectory, "policy/wish", STREAM)
    commands = spin.collect(probe, JointTrajectory, "joint_command", STREAM)
    spin.until(lambda: probe.count_publishers("joint_command") == 1 and node.count_publishers("joint_states") == 1)
    spin.until(lambda: probe.count_subscribers("front/image_raw") == 1)
    return node, wishes, commands


def begin(spin, probe, twin) -> None:
    assert spin.call(probe, Trigger, "policy/reset").success
    twin.reset()


def stamps(received) -> list[int]:
    return [messages.to_ns(message.header.stamp) for message in received]


@pytest.mark.parametrize("frame_every", [0, 1])
def test_in_lock_step_every_chunk_is_executed_before_the_next_observation_is_answered(spin, probe, frame_every):
    twin = Twin(probe, max_steps=20, frame_every=frame_every)
    _, wishes, commands = start(spin, probe, realtime=False, execute_steps=8)
    begin(spin, probe, twin)
    first = twin.ns
    spin.until(lambda: twin.steps == 20 and len(commands) == 3)
    assert stamps(commands) == [first, first + 8 * DT_NS, first + 16 * DT_NS]
    assert stamps(wishes) == stamps(commands)
    assert [ns for ns, _ in twin.executed] == [first + k * DT_NS for k in range(20)]


@pytest.mark.parametrize("max_steps", [16, 20])
@pytest.mark.parametrize("reset_first", [True, False])
def test_an_episode_begins_with_policy_reset_before_or_after_the_twin_is_reset(spin, probe, max_steps, reset_first):
    twin = Twin(probe, max_steps)
    node, _, _ = start(spin, probe, realtime=False, execute_steps=8)
    begin(spin, probe, twin)
    starts = [twin.ns]
    for _ in range(2):
        spin.until(lambda: twin.steps == max_steps)
        spin.until(lambda: node._state is not None and node._state[0] == twin.ns)
        if reset_first:
            twin.reset()
            starts.append(twin.ns)
            spin.until(
                lambda: (
                    node._state is not None
                    and "front" in node._frames
                    and node._state[0] == twin.ns
                    and node._frames["front"].stamp_ns == twin.ns
                )
            )
            assert twin.steps == 0  # quiet until policy/reset
            assert spin.call(probe, Trigger, "policy/reset").success
        else:
            assert spin.call(probe, Trigger, "policy/reset").success
            twin.reset()
            starts.append(twin.ns)
    spin.until(lambda: twin.steps == max_steps)
    expected = [start + k * DT_NS for start in starts for k in range(max_steps)]
    assert [ns for ns, _ in twin.executed] == expected


def test_an_episode_is_not_begun_before_policy_reset_when_the_one_before_left_off_at_a_chunks_end(spin, probe):
    twin = Twin(probe, answers=False)
    node, _, commands = start(spin, probe, realtime=False)
    spin.call(probe, Trigger, "policy/reset")
    twin.reset()
    spin.until(lambda: commands)
    # The chunk is done with success, the twin is reset at once: a busy policy sees the new image before the old state.
    twin.on_command(commands[0])
    twin.reset()
    begin = twin.ns
    spin.until(
        lambda: (
            node._state is not None
            and "front" in node._frames
            and node._state[0] == begin
            and node._frames["front"].stamp_ns == begin
        )
    )
    for _ in range(20):
        spin.executor.spin_once(timeout_sec=0.02)
    assert begin not in [messages.to_ns(command.header.stamp) for command in commands]
    spin.call(probe, Trigger, "policy/reset")
    spin.until(lambda: messages.to_ns(commands[-1].header.stamp) == begin)


def test_exploration_moves_the_gripper_sideways_but_not_the_wish_and_repeats_with_the_seed(spin, probe):
    twin = Twin(probe, max_steps=8)
    node, wishes, commands = start(spin, probe, realtime=False, execute_steps=8, explore_std=0.02)
    offsets = []
    for seed in (5, 6, 5):
        node.set_parameters([Parameter("seed", value=seed)])
        assert spin.call(probe, Trigger, "policy/reset").success
        twin.reset()
        begin_ns = twin.ns  # the last chunk of the episode before may still be on its way
        spin.until(lambda: twin.steps == 8)
        spin.until(lambda begin_ns=begin_ns: begin_ns in stamps(commands) and begin_ns in stamps(wishes))
        wish, command = (
            np.array(sent[stamps(sent).index(begin_ns)].points[0].positions) for sent in (wishes, commands)
        )
        assert command[-1] == pytest.approx(wish[-1])  # the gripper
        offsets.append(forward(command)[0] - forward(wish)[0])
    assert np.abs(offsets[0][:2]).max() > 1e-3
    assert np.abs(np.array(offsets)[:, 2]).max() < 2e-3
    np.testing.assert_allclose(offsets[0], offsets[2], atol=1e-6)
    assert np.abs(offsets[0] - offsets[1]).max() > 1e-3


def test_an_arm_that_exploration_does_not_know_begins_no_episode_with_it(spin, probe, tmp_path):
    file = tmp_path / "koch.yaml"
    file.write_text(yaml.safe_dump(to_dict(RobotContract(name="koch"))))
    twin = Twin(probe)
    node, _, commands = start(spin, probe, realtime=False, contract=str(file))
    assert spin.call(probe, Trigger, "policy/reset").success
    node.set_parameters([Parameter("explore_std", value=0.02)])
    answer = spin.call(probe, Trigger, "policy/reset")
    assert not answer.success and "'koch'" in answer.message and "explore_std to 0" in answer.message
    node.trigger_deactivate()
    node.trigger_cleanup()
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "'koch'" in node.diagnostics.faults["configure"]
    assert commands == [] and twin.steps == 0


def test_after_activation_and_reload_lock_step_waits_for_policy_reset(spin, probe):
    twin = Twin(probe, max_steps=8)
    node, _, commands = start(spin, probe, realtime=False, execute_steps=8)

    def resets_unanswered() -> None:
        twin.reset()
        spin.until(lambda: node._frames and node._state[0] == node._frames["front"].stamp_ns == twin.ns)
        assert spin.call(probe, GetState, "policy/get_state").current_state.label  # everything before is processed
        assert twin.steps == 0

    for count in (1, 2):
        resets_unanswered()
        assert spin.call(probe, Trigger, "policy/reset").success
        spin.until(lambda: twin.steps == 8)
        spin.until(lambda count=count: len(commands) == 2 * count)  # the last one is left unexecuted
        if count == 1:
            assert spin.call(probe, Trigger, "policy/reload").success
    node.trigger_deactivate()
    resets_unanswered()
    node.trigger_activate()
    resets_unanswered()


def test_a_joint_state_that_is_not_a_number_makes_it_hold_and_says_which_joint(spin, probe):
    twin = Twin(probe, max_steps=8)
    node, _, commands = start(spin, probe, realtime=False)
    assert spin.call(probe, Trigger, "policy/reset").success
    twin.state = np.array([0, np.nan, 0, 0, 0, 0], np.float32)
    twin.observe()
    spin.until(lambda: "joint_states" in node.diagnostics.faults)
    assert "shoulder_lift = nan" in node.diagnostics.faults["joint_states"]
    assert commands == []
    twin.reset()
    spin.until(lambda: len(commands) == 1)
    assert node.diagnostics.faults == {}


def test_an_image_without_pixels_makes_it_hold(spin, probe):
    twin = Twin(probe)
    node, _, commands = start(spin, probe, realtime=False)
    twin.states.publish(messages.from_state(DT_NS, CONTRACT.joints, np.zeros(6)))
    twin.images.publish(Image(header=messages.from_state(DT_NS, [], []).header, encoding="rgb8"))
    spin.until(lambda: "front/image_raw" in node.diagnostics.faults)
    assert "no pixels" in node.diagnostics.faults["front/image_raw"] and commands == []


def test_a_failed_reload_keeps_the_policy_in_use_and_says_why(spin, probe, tmp_path):
    twin = Twin(probe, max_steps=8)
    node, _, commands = start(spin, probe, realtime=False)
    node.set_parameters([Parameter("checkpoint", value=str(tmp_path / "nothing"))])
    answer = spin.call(probe, Trigger, "policy/reload")
    assert not answer.success and "nothing" in answer.message and "lrm finetune" in answer.message
    begin(spin, probe, twin)
    spin.until(lambda: len(commands) == 1)


def test_without_a_checkpoint_it_waits_for_a_reload_and_says_so(spin, probe):
    twin = Twin(probe, max_steps=8)
    node, _, commands = start(spin, probe, realtime=False, execute_steps=4)
    node.trigger_deactivate()
    node.trigger_cleanup()
    node.set_parameters([Parameter("checkpoint", value="")])
    node.trigger_configure()
    node.trigger_activate()
    spin.until(lambda: probe.count_subscribers("front/image_raw") == 1)
    begin(spin, probe, twin)
    spin.until(lambda: "policy" in node.diagnostics.faults)
    assert "policy/reload" in node.diagnostics.faults["policy"] and commands == []
    node.set_parameters([Parameter("checkpoint", value="fake")])
    assert spin.call(probe, Trigger, "policy/reload").success
    assert spin.call(probe, Trigger, "policy/reset").success
    spin.until(lambda: twin.steps == 8)


def test_the_latency_of_the_policy_is_in_the_diagnostics(spin, probe):
    twin = Twin(probe, max_steps=8)
    node, _, commands = start(spin, probe, realtime=False)
    received = spin.collect(probe, DiagnosticArray, "/diagnostics")
    begin(spin, probe, twin)
    spin.until(lambda: len(commands) == 1)
    spin.until(lambda: received or node.diagnostics.publish())
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        values = [messages.status_values(s) for m in received for s in m.status if s.name == "/policy"]
        if any("act_ms_p95" in v for v in values):
            return
        spin.executor.spin_once(timeout_sec=0.05)
    raise AssertionError("no act_ms_p95 in /diagnostics")


class LooksBack(FakePolicy):
    """Notes what it sees; looks at two control steps."""

    def __init__(self, contract, execute_steps: int) -> None:
        super().__init__(contract, execute_steps)
        self.observed_steps, self.seen, self.seeds = 2, [], []

    def act(self, observation):
        self.seen.append(observation)
        return super().act(observation)

    def reset(self, seed=None) -> None:
        self.seeds.append(seed)


def test_a_policy_that_looks_back_sees_the_step_before_but_not_of_the_episode_before(spin, probe, monkeypatch):
    monkeypatch.setattr("lrm_ros.nodes.policy.FakePolicy", LooksBack)
    twin = Twin(probe, max_steps=8, frame_every=1)
    node, _, _ = start(spin, probe, realtime=False, execute_steps=4)
    policy, begins = node._predictor.policy, []
    for seed in (5, 5, 6, 5):
        node.set_parameters([Parameter("seed", value=seed)])
        begin(spin, probe, twin)
        begins.append(twin.ns)
        count = 3 * len(begins)
        spin.until(lambda count=count: twin.steps == 8 and len(policy.seen) == count)
    for k, ns in enumerate(begins):
        first, *later = policy.seen[3 * k : 3 * k + 3]
        assert first.stamp_ns == ns and first.before == ()
        for one in later:
            (before,) = one.before
            assert before.stamp_ns == before.frames["front"].stamp_ns == one.stamp_ns - DT_NS
    # What is drawn follows from the seed and the episodes since it was set.
    assert len(set(policy.seeds)) == 3 and policy.seeds[0] == policy.seeds[3]


def test_without_a_frame_of_every_step_lock_step_does_not_ask_a_policy_that_looks_back_and_says_so(
    spin, probe, monkeypatch
):
    monkeypatch.setattr("lrm_ros.nodes.policy.FakePolicy", LooksBack)
    twin = Twin(probe, max_steps=8)
    node, _, commands = start(spin, probe, realtime=False, execute_steps=4)
    begin(spin, probe, twin)
    spin.until(lambda: "policy" in node.diagnostics.faults)
    assert "no front of 0.1 s before the newest" in node.diagnostics.faults["policy"]
    assert "frame_every 1" in node.diagnostics.faults["policy"] and len(commands) == 1 and twin.steps == 4
