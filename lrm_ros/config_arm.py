# SPDX-License-Identifier: Apache-2.0
"""The settings of a real arm: section ``arm`` or ``ros2_control`` of a robot contract's file, and those of its node.

``arm``: behind LeRobot's driver. ``ros2_control``: behind controllers of a controller_manager.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from pathlib import Path

from lrm_ros.config import RobotContract
from lrm_ros.config_files import from_dict, read_yaml
from lrm_ros.config_files import option as _opt

SECTION, CONTROL_SECTION = "arm", "ros2_control"  # of the contract's file
SECTIONS = (SECTION, CONTROL_SECTION)
# Wishes are followed to so near the box [m]: at rest there, the arm can still begin any motion away from it.
KEPT_M = 0.002
UNITS = ("degrees", "range_m100_100", "range_0_100")  # LeRobot's, of ``lerobot.motors.MotorNormMode``
TRAJECTORY, POSITION = "joint_trajectory", "position"  # what a controller listens to


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
class ControllerConfig:
    """A controller of a controller_manager that is sent targets by topic."""

    name: str = _opt("", "of the controller, absolute with a leading slash, else in the node's namespace")
    type: str = _opt(
        TRAJECTORY,
        "joint_trajectory: a joint_trajectory_controller; position: a forward_command_controller or "
        "position_controllers/JointGroupPositionController of interface position",
        choices=(TRAJECTORY, POSITION),
    )
    joints: tuple[str, ...] = _opt((), "its joints in its own order, by the controller's names")

    def __post_init__(self) -> None:
        if not re.fullmatch(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", self.name, re.ASCII):
            raise ValueError(f"a controller is called '{self.name}'; give its name, e.g. arm_controller")
        if not self.joints:
            raise ValueError(f"controller '{self.name}' has no joints; list its parameter joints, in that order")


@dataclass(frozen=True)
class ControlConfig(EnvelopeSettings):
    """Section ``ros2_control`` of a robot contract's file: which controllers drive the arm, the envelope."""

    controllers: tuple[ControllerConfig, ...] = _opt((), "who is sent the targets; each joint is in one of them")
    joints: tuple[str, ...] = _opt((), "the controllers' names of the contract's joints, in its order; empty: the same")
    joint_states: str = _opt("joint_states", "topic of the joint_state_broadcaster")
    grippers: tuple[str, ...] = _opt((), "joints of the contract that may stand off their target: they press on things")
    follow_tolerance: float = _opt(0.3, "a joint further off its target does not follow [rad]", 0.01, 10.0)
    urdf: str = _opt("", "description of the arm, relative to this file; empty: none, then there can be no box")


@dataclass(frozen=True)
class ControlNodeConfig:
    """The node in front of controllers of ros2_control."""

    rate_hz: float = _opt(
        100.0, "least number of times a second that the controllers are sent a target", 10.0, 500.0, fixed=True
    )
    approach_speed: float = _opt(0.5, "speed at which a first command is approached [rad/s]", 0.01, 10.0)
    state_timeout_s: float = _opt(0.3, "hold after this long without a joint state [s]", 0.05, 10.0, fixed=True)
    wait_s: float = _opt(10.0, "wait at configure so long for controllers and joint states [s]", 0.0, 600.0, fixed=True)


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
    where = f"{path}: {SECTION}"
    values = _section(path, SECTION, "config/so101.yaml")
    _check_limits(path, contract)
    config = from_dict(ArmConfig, values, where)
    if (names := tuple(joint.name for joint in config.joints)) != contract.joints:
        raise ValueError(
            f"{where}.joints are {', '.join(names) or 'none'}, the contract's {', '.join(contract.joints)}; "
            "give the same in the same order"
        )
    _check_envelope(config, config.urdf, contract, where)
    for joint, angle, low, high in zip(contract.joints, config.rest, contract.lower, contract.upper, strict=False):
        if not low <= angle <= high:
            raise ValueError(f"{where}.rest: {joint} = {angle:g} rad is outside {low:g} to {high:g} rad")
    if config.urdf:
        config = dataclasses.replace(config, urdf=str(Path(path).parent / config.urdf))
    return config


def find_arm(path: str, contract: RobotContract) -> ArmConfig | None:
    """Return section ``arm`` of a robot contract's file, ``None`` if there is none; raises as :func:`load_arm`."""
    return load_arm(path, contract) if path and SECTION in read_yaml(path) else None


def load_control(path: str | Path, contract: RobotContract) -> ControlConfig:
    """Read section ``ros2_control`` of a robot contract's file.

    Returns:
        The settings; ``joints`` has a name for each joint of the contract.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has no such section, its controllers do not have the contract's joints once each, or a value is
            wrong; says what to do.
    """
    where = f"{path}: {CONTROL_SECTION}"
    values = _section(path, CONTROL_SECTION, "config/ros2_control.yaml")
    _check_limits(path, contract)
    config = from_dict(ControlConfig, values, where)
    names = config.joints or contract.joints
    if len(names) != len(contract.joints):
        raise ValueError(
            f"{where}.joints has {len(names)} names, there are {len(contract.joints)} joints: "
            f"{', '.join(contract.joints)}; give the controllers' name of each in this order, or leave it out"
        )
    driven = [joint for controller in config.controllers for joint in controller.joints]
    twice = sorted({joint for joint in (*names, *driven) if driven.count(joint) > 1 or names.count(joint) > 1})
    if twice:
        raise ValueError(f"{where}: joint {', '.join(twice)} is there twice; a joint has one name and one controller")
    if missing := [joint for joint in names if joint not in driven]:
        raise ValueError(
            f"{where}: no controller has joint {', '.join(missing)}; the controllers have {', '.join(driven) or 'none'}"
        )
    if strange := [joint for joint in driven if joint not in names]:
        raise ValueError(
            f"{where}: joint {', '.join(strange)} is not one of {', '.join(names)}; add it to the contract, or leave "
            "it out if its joint_trajectory_controller has allow_partial_joints_goal"
        )
    if unknown := [joint for joint in config.grippers if joint not in contract.joints]:
        raise ValueError(f"{where}.grippers: {', '.join(unknown)} is no joint; joints: {', '.join(contract.joints)}")
    _check_envelope(config, config.urdf, contract, where)
    urdf = str(Path(path).parent / config.urdf) if config.urdf else ""
    return dataclasses.replace(config, joints=names, urdf=urdf)


def driven_by(path: str | Path) -> str:
    """Return which section of a robot contract's file says how its arm is driven: one of ``SECTIONS``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has neither or both.
    """
    values = read_yaml(path)
    found = [section for section in SECTIONS if section in values]
    if len(found) > 1:
        raise ValueError(f"{path}: sections {' and '.join(found)} both say how the arm is driven; leave one")
    if not found:
        _section(path, SECTION, "config/so101.yaml, or 'ros2_control' from config/ros2_control.yaml")
    return found[0]


def _check_limits(path: str | Path, contract: RobotContract) -> None:
    if not contract.has_limits:
        raise ValueError(
            f"{path}: there are no limits, so no arm moves by it; give lower, upper and max_step [rad], as "
            "config/so101.yaml does"
        )


def _section(path: str | Path, name: str, example: str) -> dict[str, object]:
    """Return a section of a file.

    Raises:
        ValueError: there is none.
    """
    values = read_yaml(path).get(name)
    if not isinstance(values, dict):
        raise ValueError(
            f"{path}: there is no section '{name}', so nothing says how the arm is driven; copy it from {example}"
        )
    return values


def _check_envelope(settings: EnvelopeSettings, urdf: str, contract: RobotContract, where: str) -> None:
    """Raise ValueError for limits of another number of joints, and for a box without a description."""
    for name in ("max_velocity", "max_acceleration"):
        if len(given := getattr(settings, name)) != len(contract.joints):
            raise ValueError(
                f"{where}.{name} has {len(given)} values, there are {len(contract.joints)} joints; give one for each, "
                "as config/so101.yaml does"
            )
    if settings.box_lower and not urdf:
        raise ValueError(f"{where} has a box but no urdf; name the arm's description or leave the box")
