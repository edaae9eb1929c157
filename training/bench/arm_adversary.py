# SPDX-License-Identifier: Apache-2.0
"""``lrm bench arm --adversary N``: commands that try to lead the arm out of its envelope, over DDS to emulated servos.

With the limits of config/so101.yaml. Looked at: each packet of goals on the bus, and where the joints behind the servos
are at that moment, by the points of the URDF. The servos sag and hurry: what they need as margin is docs/safety.md's.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract
from lrm_ros.robot.urdf import LinkPoints, Urdf
from lrm_ros.training.bench.arm_bed import STEP, Bed, Commander, Seen, bed

KINDS = ("random", "bang-bang", "at the limits", "below the table", "tremor", "chunk", "not finite", "late", "stop")
PERIOD_S = 0.01  # mean time between two commands
# What may be passed, of docs/safety.md: by goals no more than their rounding to steps, by joints what servos need.
MARGINS = {"goal_joint_rad": 2 * STEP, "goal_box_m": 0.0, "joint_rad": 0.003, "box_m": 0.006}


def wishes(kind: str, contract: RobotContract, last: NDArray, rng: np.random.Generator) -> NDArray:
    """Return the points (K, D) [rad] of a command of a kind."""
    low, high = np.array(contract.lower), np.array(contract.upper)
    if kind == "bang-bang":
        return np.where(rng.random(len(low)) < 0.5, low - 0.5, high + 0.5)[None]
    if kind == "at the limits":
        return (np.where(rng.random(len(low)) < 0.5, low, high) + rng.choice([-1e-7, 0.0, 1e-7], len(low)))[None]
    if kind == "below the table":
        wish = rng.uniform(low, high)
        wish[1:3] = rng.uniform(0.5, 1.7), rng.uniform(0.3, 1.6)
        return wish[None]
    if kind == "tremor":
        return np.clip(last + rng.normal(0, 0.05, len(low)), low - 1, high + 1)[None]
    if kind == "chunk":
        return rng.uniform(low - 0.2, high + 0.2, (int(rng.integers(2, 20)), len(low)))
    wish = rng.uniform(low - 0.2, high + 0.2)
    if kind == "not finite":
        wish[rng.integers(len(wish))] = rng.choice([np.nan, np.inf, -np.inf])
    return wish[None]


def send(commander: Commander, contract: RobotContract, count: int) -> dict[str, int]:
    """Send so many commands; returns how many of each kind."""
    rng, sent = np.random.default_rng(0), dict.fromkeys(KINDS, 0)
    last: NDArray = commander.find().astype(np.float64)
    kind, left = "random", 0
    for _ in range(count):
        if not left:
            kind, left = str(rng.choice(KINDS)), int(rng.integers(5, 60))
            if kind == "stop":
                left = 1
                commander.stop()
        left -= 1
        points = wishes(kind, contract, last, rng)
        last = points[-1] if np.isfinite(points).all() else last
        late_ns = int(rng.integers(0, 1_500_000_000)) if kind == "late" else 0
        commander.command(points, time.time_ns() - late_ns if late_ns else 0)
        sent[kind] += 1
        time.sleep(rng.exponential(PERIOD_S))
        if kind == "stop":
            commander.release()
    return sent


def look(arm: Bed, seen: list[Seen]) -> dict[str, float]:
    """Return how far goals and joints were beyond their limits at most; negative: that far inside."""
    low, high = np.array(arm.contract.lower), np.array(arm.contract.upper)
    box = np.array([arm.section.box_lower, arm.section.box_upper])
    points = LinkPoints(Urdf(arm.section.urdf), arm.contract.joints, arm.section.points)
    goals = (np.array([packet.goals for packet in seen]) - 2048) * STEP
    joints = np.array([packet.joints for packet in seen])
    found = {}
    for name, angles in (("goal_", goals), ("", joints)):
        found[f"{name}joint_rad"] = float(np.maximum(low - angles, angles - high).max())
        at = points(angles)
        found[f"{name}box_m"] = float(np.maximum(box[0] - at, at - box[1]).max())
    at_s = np.array([packet.at_s for packet in seen])
    # Over 50 packets: rounding to steps is then small, and so is what a packet waits for its process.
    speed = np.abs((goals[50:] - goals[:-50]) / (at_s[50:] - at_s[:-50])[:, None]).max(axis=0)
    found["goal_speed_share"] = float((speed / arm.section.max_velocity).max())
    return found


def attack(commands: int, log: Path | None) -> dict[str, Any]:
    """Send the commands and return the figures; raises as ``bed``."""
    with bed(log, limits=True) as arm:
        began = time.monotonic()
        sent = send(arm.commander, arm.contract, commands)
        seconds = time.monotonic() - began
        names = ("cycles_held_back_by_the_box", "late_cycles", "rejected", "estops")
        time.sleep(1.5)  # the newest diagnostics
        shown = {name: arm.commander.values.get(name, "?") for name in names}
    worst = {name: round(value, 5) for name, value in look(arm, arm.seen).items()}
    figures = {"commands": sum(sent.values()), "of": sent, "packets": len(arm.seen), "seconds": round(seconds, 1)}
    return figures | shown | worst


def passed(figures: dict[str, Any]) -> list[str]:
    """Return what was passed by more than its margin."""
    return [name for name, margin in MARGINS.items() if figures[name] > margin]
