# SPDX-License-Identifier: Apache-2.0
"""A command that was accepted before an arm began anew means nothing, whichever thread comes first."""

from __future__ import annotations

import numpy as np

from lrm_ros.config import RobotContract
from lrm_ros.robot.arm import ArmServer
from lrm_ros.types import ActionChunk

CONTRACT = RobotContract()
HERE = np.zeros(len(CONTRACT.joints), np.float32)


class Still:
    """An arm that stays; each read is a second later."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.sent = HERE

    def read(self):
        self.now_ns += 10**9
        return self.now_ns, HERE

    def send(self, target) -> None:
        self.sent = target


def test_a_command_that_was_accepted_before_the_arm_began_anew_is_not_followed():
    arm = Still()
    server = ArmServer(arm, CONTRACT)
    stamp_ns = arm.now_ns + 10**8
    there = ActionChunk(stamp_ns, HERE[None] + 0.05, CONTRACT.dt_s)
    command = server.accept(there, stamp_ns)
    assert command is not None
    server.start()  # by the bus's thread, before the command is handed over
    server.follow(command)
    server.step(arm.now_ns)
    assert np.array_equal(arm.sent, HERE)
    server.follow(ActionChunk(arm.now_ns, HERE[None] + 0.05, CONTRACT.dt_s))
    server.step(arm.now_ns)
    assert not np.array_equal(arm.sent, HERE), "a new one is"
