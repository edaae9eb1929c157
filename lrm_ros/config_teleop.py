# SPDX-License-Identifier: Apache-2.0
"""The defaults of the teleoperation node and of the replay of an episode; see ``lrm_ros.config``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from lrm_ros import seeds
from lrm_ros.config_files import option as _opt

_fix = partial(_opt, fixed=True)  # takes effect when the node is configured

SECONDS = (0.01, 3600.0)
KEYBOARD = "keyboard"  # the input that needs no device of LeRobot's


@dataclass(frozen=True)
class TeleopConfig:
    """The teleoperation node."""

    input: str = _fix(
        KEYBOARD, "keyboard, or beside it one of LeRobot's teleoperators by its type, e.g. so101_leader, gamepad, phone"
    )
    input_port: str = _fix("", "serial port of a leader arm, best one of /dev/serial/by-id")
    input_id: str = _fix("", "LeRobot's id of a leader arm: its calibration is CALIBRATION_DIR/ID.json")
    input_calibration_dir: str = _fix("", "folder of its calibration; empty: LeRobot's own")
    input_options: str = _fix("", "more options of LeRobot's teleoperator: NAME=VALUE, separated by spaces")
    align: float = _opt(
        0.15, "a leader arm leads once each of its joints is this near to where the arm was sent [rad]", 0.01, 3.2
    )
    joint_step: float = _opt(0.05, "joint jog a key press [rad]", 0.0, 3.2)
    cartesian_step: float = _opt(0.01, "Cartesian jog a key press [m]", 0.0, 1.0)
    cartesian_speed: float = _opt(0.1, "gamepad: speed of the gripper's place at a full stick [m/s]", 0.0, 2.0)
    rate_hz: float = _fix(10.0, "rate of joint commands [Hz]; a leader's: at least the control rate", 0.1, 1000.0)
    gripper_step: float = _opt(0.2, "gripper jog a key press [rad]", 0.0, 3.2)
    gripper_speed: float = _opt(1.5, "gamepad and phone: speed of the gripper [rad/s]", 0.0, 10.0)
    seed: int = _opt(0, "twin: seed of the first demonstration; each finished one adds 1", 0, seeds.LIMIT - 1)
    timeout_s: float = _opt(1.0, "do not move when joint_states are older than this [s]", *SECONDS)
    reset_s: float = _opt(
        0.0,
        "time to put the scene back [s], after which the next episode begins by itself; 0: a person starts it",
        0.0,
        3600.0,
    )
    episodes: int = _opt(0, "end after so many episodes; 0: when a person says so", 0, 1_000_000)
    rollout: bool = _fix(False, "a policy acts in the episodes; the person takes over and gives back")


@dataclass(frozen=True)
class ReplayConfig:
    """The replay node."""

    episode: str = _fix("", "journal of the episode, FILE.mcap")
    approach_speed: float = _fix(0.5, "speed of the way to the episode's first pose [rad/s]", 0.01, 10.0)
    reach_s: float = _fix(10.0, "the arm may need so much longer for it, e.g. by its envelope [s]", 0.1, 600.0)
    timeout_s: float = _fix(0.5, "hold and end when joint_states are older than this [s]", *SECONDS)
