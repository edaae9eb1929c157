# SPDX-License-Identifier: Apache-2.0
"""The rows of ``lrm bench arm-faults``: what strikes an arm in motion, what mends it, what a person reads and says."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lrm_ros.config_arm import ArmNodeConfig
from lrm_ros.record.journal import read_journal
from lrm_ros.record.recover import recover
from lrm_ros.sim.servo_bus.faults import Fault
from lrm_ros.training.bench.arm_bus import NAME
from lrm_ros.training.bench.arm_desk import SPEED, Desk

BURST_S, BURSTS = 0.04, 20  # of a node that is slow


@dataclass(frozen=True)
class Row:
    """A fault.

    Attributes:
        strike: a line or a fault for the bus, or what makes it; returns the end of its time-out [monotonic s].
        reads: what a person reads, a regular expression; empty: nothing is to be read.
        mend: takes it away.
        word: of a person, before which nothing moves: ``reset`` (``arm/reset``), ``release``, or
            ``start`` of the node.
        timeout_s: that the fault has by its nature, beside what ``strike`` returns.
        limp: the power is gone: no goal may come that would switch the torque on.
        last_point: the arm goes to the last point of its newest command.
        arrives: it goes on and arrives, without a leap.
    """

    strike: str | Fault | Callable[[Desk], float]
    reads: str = ""
    mend: str | Callable[[Desk], None] = ""
    word: str = ""
    timeout_s: float = 0.0
    limp: bool = False
    last_point: bool = False
    arrives: bool = False


# -- what strikes and what mends -------------------------------------------------------------------------------------


def _now(desk: Desk, name: str, number: int) -> float:
    at_s = time.monotonic()
    os.kill(desk.pid(name), number)
    return at_s


def _stop_node(desk: Desk) -> float:
    return _now(desk, "arm", signal.SIGSTOP)


def _go_on(desk: Desk) -> None:
    desk.swing(time.time_ns())  # waits for the node, and is an old one then
    time.sleep(0.01)
    _now(desk, "arm", signal.SIGCONT)


def _bursts(desk: Desk) -> float:
    at_s = time.monotonic()
    for _ in range(BURSTS):
        for number in (signal.SIGSTOP, signal.SIGCONT):
            _now(desk, "arm", number)
            time.sleep(BURST_S)
    return at_s


def _kill_node(desk: Desk) -> float:
    at_s = time.monotonic()
    if (died := desk.kill("arm")) != "arm":
        raise RuntimeError(f"the graph of the killed arm node names '{died}'")
    return at_s


def _kill_recorder(desk: Desk) -> float:
    at_s = time.monotonic()
    desk.kill("recorder")
    return at_s


def _start_recorder(desk: Desk) -> None:
    desk.stop("recorder")
    for part in (desk.file.parent / "episodes").glob("*.part"):
        with contextlib.suppress(ValueError):  # killed before anything of it was written
            read_journal(recover(part))
    desk.start("recorder")


def _last_point(desk: Desk) -> float:
    """Return when the newest command is over and braked: its last point, and velocity / acceleration."""
    time.sleep(0.05)
    chunk = desk.last
    assert chunk is not None
    over_s = (chunk.stamp_ns - time.time_ns()) / 1e9 + len(chunk.actions) * chunk.dt_s
    return time.monotonic() + over_s + SPEED / desk.section.max_acceleration[0]


def _kill_policy(desk: Desk) -> float:
    desk.kill("policy")
    return _last_point(desk)


def _stop_all_others(desk: Desk) -> float:
    for name in ("policy", "recorder"):
        _now(desk, name, signal.SIGSTOP)
    return _last_point(desk)


def _start_others(desk: Desk) -> None:
    desk.kill("policy")
    _now(desk, "recorder", signal.SIGCONT)


def _slow_policy(desk: Desk) -> float:
    """Command the next third of a second, then nothing."""
    pan = desk.pan
    direction = 1 if pan < 0 else -1
    points = np.repeat(desk.commander.find()[None], 10, axis=0)
    points[:, 0] = pan + direction * np.arange(1, 11) * SPEED * desk.contract.dt_s
    desk.commander.command(points, time.time_ns())
    return _last_point(desk)


def _estop(desk: Desk) -> float:
    return desk.commander.stop() + SPEED / desk.section.max_acceleration[0]


def _replug(desk: Desk) -> None:
    desk.bus.do(f"plug {desk.file.parent / NAME}")


def _cut_power(desk: Desk) -> None:
    """As a person ends an overload that does not go away by itself."""
    desk.bus.do("brownout 0.3")
    time.sleep(0.6)


def _sometimes(desk: Desk) -> float:
    for fault in (Fault("lost", share=0.002), Fault("corrupt", share=0.002), Fault("late", share=0.002, seconds=0.02)):
        at_s = desk.bus.do(fault)
    return at_s


POLICY = {"the policy is killed", "all other programs stand still"}  # the policy moves the arm there
SILENT, SILENT_S = "no joint state for", ArmNodeConfig.state_timeout_s
ROWS: dict[str, Row] = {
    "all servos silent": Row("silent", SILENT, "clear", timeout_s=SILENT_S),
    "one servo silent": Row(Fault("silent", id=3), SILENT, "clear", timeout_s=SILENT_S),
    "a servo is unplugged": Row("gone elbow_flex", SILENT, "back elbow_flex", timeout_s=SILENT_S),
    "all answers late": Row("late 0.2", SILENT, "clear", timeout_s=SILENT_S),
    "bytes lost in all answers": Row("lost", SILENT, "clear", timeout_s=SILENT_S),
    "bits turned in all answers": Row("corrupt", SILENT, "clear", timeout_s=SILENT_S),
    "answers damaged or late now and then": Row(_sometimes, mend="clear", arrives=True),
    "overload": Row("overload shoulder_pan", "servo shoulder_pan reports overload; the arm holds", _cut_power, "reset"),
    "heat": Row("hot shoulder_lift 90", "servo shoulder_lift has switched its torque off: heat",
                "hot shoulder_lift 30", "reset"),
    "brown-out": Row("brownout 0.3", "the servos have lost power", word="reset", limp=True),
    "unplugged, back under another name": Row("unplug", "serial port .* is gone", _replug, "reset"),
    "the node is stopped": Row(_stop_node, f"{SILENT}|answered late", _go_on, timeout_s=SILENT_S),
    "the node is slow": Row(_bursts, arrives=True),
    "the node is killed": Row(_kill_node, word="start"),
    "the policy is killed": Row(_kill_policy, last_point=True),
    "commands come slowly": Row(_slow_policy, last_point=True),
    "all other programs stand still": Row(_stop_all_others, mend=_start_others, last_point=True),
    "the recorder is killed": Row(_kill_recorder, mend=_start_recorder, arrives=True),
    "e-stop": Row(_estop, "the arm is stopped by topic 'estop'", word="release"),
}  # fmt: skip
