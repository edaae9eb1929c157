# SPDX-License-Identifier: Apache-2.0
"""When chunks are predicted in real time, in simulated time, with the arm's own server behind."""

from __future__ import annotations

import numpy as np
import pytest

from lrm_ros.chunk_timing import ChunkTiming, ImageTimes
from lrm_ros.config import RobotContract
from lrm_ros.robot.arm import ArmServer
from lrm_ros.types import ActionChunk

CONTRACT = RobotContract(max_step=(100.0,) * 6, lower=(-1e3,) * 6, upper=(1e3,) * 6)
DT_NS = 100_000_000
MS = 1_000_000


class Arm:
    """An arm that is where it was sent."""

    def __init__(self) -> None:
        self.ns, self.at = 0, np.zeros(6, np.float32)

    def read(self) -> tuple[int, np.ndarray]:
        return self.ns, self.at

    def send(self, target: np.ndarray) -> None:
        self.at = target


def rollout(latency_ms: int, predicted: int, execute_steps: int = 8, jitter_ms: int = 20, seconds: int = 12):
    """Run a policy that wants to be at its observation's step number + k after k steps.

    Returns:
        (what was sent at each step, how old the answered observation was in steps), and the timing.
    """
    rng = np.random.default_rng(latency_ms)
    timing, arm = ChunkTiming(0.1, execute_steps), Arm()
    server = ArmServer(arm, CONTRACT)
    busy_until, pending, newest, running, sent = 0, None, 0, None, []
    for ms in range(0, seconds * 1000, 5):
        now = ms * MS
        if pending is not None and now >= busy_until:
            begun, chunk = pending
            timing.took((now - begun) / 1e9)
            chunk = ActionChunk(chunk.stamp_ns, chunk.actions[: timing.steps(predicted)], 0.1)
            server.follow(chunk)
            pending, running = None, chunk
        if now % DT_NS == 0:
            arm.ns = now
            if running is not None:
                target, _ = server.step(now)
                sent.append((target[0], (now - running.stamp_ns) // DT_NS))
            newest = now
        if pending is None and (running is None or newest >= timing.due_ns(running.stamp_ns)):
            targets = newest // DT_NS + np.arange(predicted)
            actions = np.repeat(targets[:, None], 6, 1).astype(np.float32)
            pending, busy_until = (
                (now, ActionChunk(newest, actions, 0.1)),
                now + (latency_ms + rng.integers(jitter_ms)) * MS,
            )
    return sent, timing


@pytest.mark.parametrize("predicted", [14, 50])
@pytest.mark.parametrize("latency_ms", [4, 50, 99, 200, 350, 600])
def test_every_control_step_gets_the_action_that_is_meant_for_it_however_slow_the_policy_is(latency_ms, predicted):
    sent, timing = rollout(latency_ms, predicted)
    assert timing.shortage(predicted) == ""
    targets = np.array([target for target, _ in sent])
    np.testing.assert_array_equal(np.diff(targets), 1.0)  # no step waits, none is made twice
    assert len(sent) > 100


def test_a_fast_policy_sends_what_is_executed_and_a_slow_one_what_bridges_the_next_prediction():
    fast, slow = ChunkTiming(0.1, 8), ChunkTiming(0.1, 8)
    fast.took(0.004)
    slow.took(0.6)
    assert (fast.steps(50), slow.steps(50), slow.steps(12)) == (8, 14, 12)
    assert fast.due_ns(0) == pytest.approx(0.646e9) and slow.due_ns(0) == pytest.approx(0.05e9)
    assert (fast.delay_steps, slow.delay_steps, ChunkTiming(0.1, 8).delay_steps) == (1, 6, 0)


def test_an_answered_observation_is_not_older_than_it_must_be():
    for latency_ms in (4, 200, 600):
        sent, _ = rollout(latency_ms, 50)
        oldest = max(age for _, age in sent)
        # Executed until the next chunk is there: the executed part, or two predictions where those take longer.
        assert oldest <= max(8, 2 * latency_ms / 100 + 2), latency_ms


def test_a_chunk_that_is_shorter_than_two_predictions_is_named_with_both_times():
    timing = ChunkTiming(0.1, 8)
    timing.took(0.9)
    text = timing.shortage(12)
    assert "0.90 s" in text and "1.20 s" in text and "needs 20 steps" in text
    assert timing.shortage(20) == ""


@pytest.mark.parametrize("phases", [(0.0,), (0.0, 0.5), (0.0, 0.3), (0.0, 1 / 3, 2 / 3), (0.0, 0.25, 0.5, 0.75)])
@pytest.mark.parametrize("period_s", [1 / 30, 0.1, 0.2])
def test_cameras_that_are_triggered_each_by_itself_have_a_moment_in_every_period(phases, period_s):
    images = ImageTimes([str(k) for k in range(len(phases))], 0.02)
    arrivals = sorted(((k + phase) * period_s, str(n)) for n, phase in enumerate(phases) for k in range(10))
    moments = []
    for now_s, camera in arrivals:
        images.came(camera, now_s)
        if images.young(now_s):
            moments.append(int(now_s / period_s + 1e-6))
    assert set(range(2, 10)) <= set(moments)


def test_an_image_is_old_after_half_a_control_period_or_when_its_camera_paused():
    images = ImageTimes(["front", "wrist"], 0.1)
    assert not images.young(0.0)
    for k in range(10):
        for camera in ("front", "wrist"):
            images.came(camera, k / 30)
    assert images.young(0.3 + 0.049) and not images.young(0.3 + 0.051)
    images.came("front", 0.7)
    assert not images.young(0.7)  # of "wrist" none for 0.4 s
    images.came("wrist", 0.75)
    assert images.young(0.75 - 0.01) and not images.young(0.81)
