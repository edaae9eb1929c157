# SPDX-License-Identifier: Apache-2.0
"""The e-stop of an arm's node over real topics and services: what stops it, what does not release it, what it says."""

from __future__ import annotations

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from lrm_ros import topics
from lrm_ros.config import RecorderConfig
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.estop import RELEASED_S, EStop, StopWatch

VOLATILE = QoSProfile(depth=1)
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


class Arm(LrmNode[RecorderConfig]):
    """An arm's node without an arm."""

    def __init__(self) -> None:
        super().__init__("arm", RecorderConfig)
        self.holds = self.resumes = 0
        self.trouble: Exception | None = None
        self.estop = EStop(self, self.hold, self.resume)

    def hold(self) -> None:
        self.holds += 1
        if self.trouble:
            raise self.trouble

    def resume(self) -> None:
        self.resumes += 1
        if self.trouble:
            raise self.trouble


@pytest.fixture
def arm(spin) -> Arm:
    return spin.add(Arm())


def stopped_by(spin, probe, qos: QoSProfile = topics.LATCHED, hearing: int = 4):
    """Publish ``true`` once all subscriptions that can hear it are found; returns the publisher."""
    publisher = probe.create_publisher(Bool, "estop", qos)
    spin.until(lambda: probe.count_subscribers("estop") == 4 and publisher.get_subscription_count() == hearing)
    publisher.publish(Bool(data=True))
    return publisher


def calls(spin, probe, what: str) -> tuple[bool, str]:
    response = spin.call(probe, Trigger, f"arm/{what}")
    return response.success, response.message


@pytest.mark.parametrize(
    ("qos", "hearing"),
    [(topics.LATCHED, 4), (VOLATILE, 3), (BEST_EFFORT, 2)],
    ids=["latched", "volatile", "best effort"],
)
def test_true_from_anyone_stops_and_only_the_service_releases(spin, probe, arm, qos, hearing) -> None:
    said = spin.collect(probe, Bool, "stopped", topics.LATCHED)
    spin.until(lambda: [m.data for m in said] == [False], what="the state of an arm that is not stopped")
    publisher = stopped_by(spin, probe, qos, hearing)
    spin.until(lambda: [m.data for m in said] == [False, True])
    assert arm.estop.latched and arm.holds == 1
    assert "the arm is stopped by topic 'estop'" in arm.diagnostics.faults["estop"]
    assert "lrm estop --release" in arm.estop.refusal()
    publisher.publish(Bool(data=False))
    assert calls(spin, probe, "estop") == (True, "stopped by topic 'estop'")  # and what came before is heard
    assert arm.estop.latched and arm.holds == 1
    assert calls(spin, probe, "release") == (True, "released")
    assert not arm.estop.latched and arm.resumes == 1 and arm.estop.refusal() == "" and not arm.diagnostics.faults
    assert calls(spin, probe, "release") == (True, "it was not stopped")
    spin.until(lambda: [m.data for m in said] == [False, True, False])


def test_a_service_stops_it_and_late_joiners_know(spin, probe, arm) -> None:
    assert calls(spin, probe, "estop") == (True, "stopped by service 'arm/estop'")
    changes: list[bool] = []
    watch = StopWatch(spin.add(LrmNode("mover", RecorderConfig)), changes.append)
    spin.until(lambda: watch.stopped)
    assert calls(spin, probe, "release")[0]
    spin.until(lambda: not watch.stopped)
    assert changes == [True, False]


def test_an_arm_that_starts_later_is_stopped_by_who_still_says_so(spin, probe) -> None:
    publisher = topics.ESTOP.publisher(probe)
    publisher.publish(Bool(data=True))
    arm = spin.add(Arm())
    spin.until(lambda: arm.estop.latched)


def test_it_is_stopped_in_every_state_and_through_a_cleanup(spin, probe, arm) -> None:
    assert calls(spin, probe, "estop")[0]
    for transition in ("configure", "activate", "deactivate", "cleanup", "configure"):
        getattr(arm, f"trigger_{transition}")()
        assert arm.estop.latched
    assert calls(spin, probe, "release") == (True, "released")
    stopped_by(spin, probe)
    spin.until(lambda: arm.estop.latched, what="a stop after the cleanup")


def test_an_arm_that_cannot_hold_or_resume_is_not_said_to(spin, probe, arm) -> None:
    arm.trouble = ConnectionError("no answer from id 3")
    stopped_by(spin, probe)
    spin.until(lambda: arm.holds >= 1)
    done, why = calls(spin, probe, "estop")
    assert not done and why.startswith("the arm is stopped by topic 'estop', but may not hold: ")
    assert "no answer from id 3" in why and arm.diagnostics.faults["estop"] == why
    assert arm.estop.latched and arm.holds >= 2, "it is told again"
    assert calls(spin, probe, "release") == (False, "the arm stays stopped: no answer from id 3")
    assert arm.estop.latched
    arm.trouble = None
    assert calls(spin, probe, "estop")[0]
    assert calls(spin, probe, "release") == (True, "released")


def test_an_arms_node_that_starts_anew_has_not_released_anything(spin, probe):
    """It says that it is not stopped, then hears the ``true`` that is still offered."""
    node = spin.add(LrmNode("mover", RecorderConfig, {}))
    changes: list[bool] = []
    watch = StopWatch(node, changes.append, RELEASED_S)
    arm = topics.STOPPED.publisher(probe)
    spin.until(lambda: arm.get_subscription_count() == 3)
    for stopped in (True, False, True, False, True):
        arm.publish(Bool(data=stopped))
    beats = spin.collect(probe, DiagnosticArray, "/diagnostics")
    arm.publish(Bool(data=True))
    spin.until(lambda: len(beats) > 3)  # longer than a release must last
    assert changes == [True] and watch.stopped
    arm.publish(Bool(data=False))
    spin.until(lambda: changes == [True, False])
    assert not watch.stopped
