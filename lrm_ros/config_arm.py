# SPDX-License-Identifier: Apache-2.0
"""The settings of a real arm: section ``arm`` of a robot contract's file, and the parameters of the arm node."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

from lrm_ros.config import RobotContract
from lrm_ros.config_files import from_dict, read_yaml
from lrm_ros.config_files import option as _opt

SECTION = "arm"  # of the contract's file
# Wishes are followed to so near the box [m]: at rest there, the arm can still begin any motion away from it.
KEPT_M = 0.002
UNITS = ("degrees", "range_m100_100", "range_0_100")  # LeRobot's, of ``lerobot.motors.MotorNormMode``


@dataclass(frozen=True)
class JointUnits:
    """How LeRobot's number for a joint is its angle.

    degrees: angle = sign * degrees * pi / 180 + zero. range_m100_100 and range_0_100: the ends of the range are the
    angles ``lower`` and ``upper``, of which ``lower`` may be the greater.
    """

    name: str = _opt("", "joint name, as the robot contract and LeRobot have it")
    units: str = _opt("degrees", f"LeRobot's units: {', '.join(UNITS)}", choices=UNITS)
    sign: float = _opt(1.0, "degrees: 1 or -1")
    zero: float = _opt(0.0, "degrees: angle at 0 degrees [rad]")
    lower: float | None = _opt(None, "range: angle at its lower end [rad]")
    upper: float | None = _opt(None, "range: angle at its upper end [rad]")

    def __post_init__(self) -> None:
        if self.sign not in (1.0, -1.0):
            raise ValueError(f"joint '{self.name}': sign is {self.sign:g}; give 1 or -1")
        if self.units != "degrees" and (self.lower is None or self.upper is None or self.lower == self.upper):
            raise ValueError(
                f"joint '{self.name}': {self.units} needs lower and upper, two angles [rad] at the ends of its range"
            )

    @property
    def affine(self) -> tuple[float, float]:
        """(scale, offset): angle [rad] = scale * LeRobot's number + offset."""
        if self.units == "degrees":
            return self.sign * 3.141592653589793 / 180, self.zero
        assert self.lower is not None and self.upper is not None
        low, high = (0.0, 100.0) if self.units == "range_0_100" else (-100.0, 100.0)
        scale = (self.upper - self.lower) / (high - low)
        return scale, self.lower - scale * low


@dataclass(frozen=True)
class EnvelopeSettings:
    """Limits beyond those of the robot contract; they are the motion's, not the servos'."""

    max_velocity: tuple[float, ...] = _opt((), "highest velocity of each joint [rad/s]")
    max_acceleration: tuple[float, ...] = _opt((), "highest acceleration of each joint [rad/s^2]")
    box_lower: tuple[float, ...] = _opt((), "lower corner x, y, z of the workspace in the root link [m]; empty: none")
    box_upper: tuple[float, ...] = _opt((), "upper corner x, y, z of the workspace in the root link [m]; empty: none")
    points: tuple[str, ...] = _opt(
        ("gripperframe", "wrist", "lower_arm"), "links of the URDF whose origins stay in the box"
    )

    def __post_init__(self) -> None:
        for name in ("max_velocity", "max_acceleration"):
            if not all(0 < value < math.inf for value in getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}; give finite numbers above 0")
        lower, upper = self.box_lower, self.box_upper
        wide = [high - low > 2 * KEPT_M for low, high in zip(lower, upper, strict=False)]  # which no NaN is
        if (lower or upper) and not (len(lower) == len(upper) == 3 and all(wide)):
            raise ValueError(
                f"the box goes from {lower} to {upper}; give x, y, z of two corners, the lower one first, in metres"
            )
        if lower and not self.points:
            raise ValueError("there is a box, but no points that it holds; name links of the URDF")


@dataclass(frozen=True)
class ArmConfig(EnvelopeSettings):
    """Section ``arm`` of a robot contract's file: which of LeRobot's drivers, what its numbers mean, the envelope."""

    type: str = _opt("so101_follower", "LeRobot's name of the robot")
    port: str = _opt("", "serial port, best one of /dev/serial/by-id")
    id: str = _opt("", "LeRobot's id of the arm: its calibration is CALIBRATION_DIR/ID.json")
    calibration_dir: str = _opt("", "folder of the calibration; empty: LeRobot's own")
    options: str = _opt("", "more options of the driver: NAME=VALUE, separated by spaces")
    joints: tuple[JointUnits, ...] = _opt((), "units of each joint")
    urdf: str = _opt("", "description of the arm, relative to this file; empty: none, then there can be no box")
    rest: tuple[float, ...] = _opt((), "pose in which the arm lies without torque [rad]; empty: none is known")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rest and len(self.rest) != len(self.joints):
            raise ValueError(
                f"rest has {len(self.rest)} angles, there are {len(self.joints)} joints; give one for each"
            )


@dataclass(frozen=True)
class ArmNodeConfig:
    """The arm node."""

    port: str = _opt("", "serial port; empty: the contract's", fixed=True)
    id: str = _opt("", "LeRobot's id of the arm; empty: the contract's", fixed=True)
    calibration_dir: str = _opt("", "folder of the calibration; empty: the contract's", fixed=True)
    rate_hz: float = _opt(
        100.0, "least number of times a second that the arm is read and sent a target", 10.0, 500.0, fixed=True
    )
    approach_speed: float = _opt(0.5, "speed at which a first command is approached [rad/s]", 0.01, 10.0)
    rest_speed: float = _opt(0.7, "speed of the way to the resting pose [rad/s]", 0.01, 10.0)
    estop_torque_off: bool = _opt(False, "an e-stop switches the torque off: the arm falls; else it holds")
    state_timeout_s: float = _opt(0.3, "hold after this long without a joint state [s]", 0.05, 10.0)


def load_arm(path: str | Path, contract: RobotContract) -> ArmConfig:
    """Read section ``arm`` of a robot contract's file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has no such section, the contract no limits, its joints are not the contract's, or a value is
            wrong; says what to do.
    """
    values = read_yaml(path).get(SECTION)
    if not isinstance(values, dict):
        raise ValueError(
            f"{path}: there is no section '{SECTION}', so nothing says how the arm is driven; copy it from "
            "config/so101.yaml"
        )
    if not contract.has_limits:
        raise ValueError(
            f"{path}: there are no limits, so no arm moves by it; give lower, upper and max_step [rad], as "
            "config/so101.yaml does"
        )
    config = from_dict(ArmConfig, values, f"{path}: {SECTION}")
    if (names := tuple(joint.name for joint in config.joints)) != contract.joints:
        raise ValueError(
            f"{path}: {SECTION}.joints are {', '.join(names) or 'none'}, the contract's {', '.join(contract.joints)}; "
            "give the same in the same order"
        )
    for name in ("max_velocity", "max_acceleration"):
        if len(given := getattr(config, name)) != len(contract.joints):
            raise ValueError(
                f"{path}: {SECTION}.{name} has {len(given)} values, there are {len(contract.joints)} joints; give one "
                "for each, as config/so101.yaml does"
            )
    if config.box_lower and not config.urdf:
        raise ValueError(f"{path}: {SECTION} has a box but no urdf; name the arm's description or leave the box")
    for joint, angle, low, high in zip(contract.joints, config.rest, contract.lower, contract.upper, strict=False):
        if not low <= angle <= high:
            raise ValueError(f"{path}: {SECTION}.rest: {joint} = {angle:g} rad is outside {low:g} to {high:g} rad")
    if config.urdf:
        config = dataclasses.replace(config, urdf=str(Path(path).parent / config.urdf))
    return config
