# SPDX-License-Identifier: Apache-2.0
"""A person's hand through one of LeRobot's teleoperators: joint angles in rad or motion in metres, never its units.

A leader arm gives the angles of all joints. A gamepad (``delta_x`` and so on) and a phone (``phone.pos``) move the
gripper's place. Nothing here moves an arm: a leader has no torque.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import termios
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract, TeleopConfig
from lrm_ros.config_arm import JointUnits
from lrm_ros.config_files import given_path
from lrm_ros.errors import one_line
from lrm_ros.robot.devices.gamepad import Pad, find_pad, tame_pygame
from lrm_ros.robot.feetech import Servos, connect
from lrm_ros.robot.feetech_check import calibration_files, check_calibration_file, check_port, check_servos
from lrm_ros.robot.lerobot_types import TELEOPERATORS, config_class, options_of

LONGEST_S = 0.1  # a stick that was not read for longer has moved nothing meanwhile [s]
# Of an episode, by LeRobot's names; a gamepad's buttons give them.
SUCCESS, FAILURE, AGAIN = "success", "failure", "again"


@dataclasses.dataclass(frozen=True)
class Motion:
    """What the hand does.

    Attributes:
        joints: (D,) where a leader's joints are [rad]; ``None``: it is no leader.
        change: (3,) of the gripper's place since the last read, forward, left, up [m].
        gripper: change of the gripper's angle since then, positive opens [rad].
        events: of ``SUCCESS``, ``FAILURE``, ``AGAIN``, in the order in which they came.
        held: whether the take-over button is held; ``None``: there is none.
    """

    joints: NDArray[np.float32] | None = None
    change: NDArray[np.float64] = dataclasses.field(default_factory=lambda: np.zeros(3))
    gripper: float = 0.0
    events: tuple[str, ...] = ()
    held: bool | None = None


class LeRobotInput:
    """One of LeRobot's teleoperators. Not thread-safe: one thread reads it.

    Attributes:
        leads_joints: whether it is a leader arm; known once it is connected.
    """

    def __init__(self, config: TeleopConfig, contract: RobotContract, units: tuple[JointUnits, ...] = ()) -> None:
        """Take a device that is not connected.

        Args:
            config: which, and how quick a stick moves the arm.
            contract: joints of the arm.
            units: of a leader's joints, in the contract's order: those of the arm behind LeRobot's driver.
        """
        self._config, self._contract, self._units = config, contract, units
        self.leads_joints = False
        self._device: Any = None
        self._servos: Servos | None = None
        self._pad: Pad | None = None
        self._message: Any = None  # the last one of an Android phone
        self._keys: list[str] = []
        self._read_s, self._told = 0.0, ""
        self._place: NDArray[np.float64] | None = None  # of an enabled phone at the last read [m]

    # -- connection --------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connect the device. A phone waits here until its pose was captured, as LeRobot's class asks for it.

        Raises:
            ValueError: something is not as it must be; one line with its cure.
        """
        config = self._config
        if config.input == "gamepad":
            tame_pygame()
        device = make_teleoperator(config)
        features = device.action_features
        names = set(features.get("names", features))
        joints = {name.removesuffix(".pos") for name in names if name.endswith(".pos") and name != "phone.pos"}
        self.leads_joints = bool(joints)
        if joints:
            self._check_joints(joints)
        elif not names & {"delta_x", "phone.pos"}:
            raise ValueError(
                f"LeRobot's '{config.input}' gives {', '.join(sorted(names))}, which is neither a joint of the arm nor "
                "a motion of its gripper; choose another input"
            )
        bus = getattr(device, "bus", None)
        with self._lines(device):
            if type(bus).__name__ == "FeetechMotorsBus":
                self._prepare(device, bus)
            if "calibrate" in inspect.signature(device.connect).parameters:
                connect(device)
            else:
                device.connect()
        if joints and self._servos is None and not device.is_calibrated:
            device.disconnect()
            raise ValueError(f"'{config.input}' is not calibrated; run 'lerobot-calibrate {self._words()}'")
        gamepad: Any = getattr(device, "gamepad", None)
        if getattr(gamepad, "running", True) is False:
            device.disconnect()
            raise ValueError("LeRobot's 'gamepad' has found no gamepad; plug one in, or switch it on")
        self._pad = find_pad(gamepad)
        if self._servos is not None:
            self._servos.remember()  # the driver then sleeps until an answer is there
        self._device, self._place, self._read_s = device, None, time.monotonic()

    def _words(self) -> str:
        config = self._config
        return f"--teleop.type={config.input} --teleop.port={config.input_port} --teleop.id={config.input_id}"

    def _check_joints(self, joints: set[str]) -> None:
        """Raise ValueError for a leader of other joints, or of unknown units."""
        wanted, kind = self._contract.joints, self._config.input
        if joints != set(wanted):
            raise ValueError(
                f"LeRobot's '{kind}' has joints {', '.join(sorted(joints))}, the robot contract {', '.join(wanted)}; "
                "a leader has the joints of its arm"
            )
        if len(self._units) != len(wanted):
            raise ValueError(
                f"nothing says what the numbers of leader '{kind}' are in rad: they are read as those of section 'arm' "
                "of the contract's file; give contract:=FILE, e.g. config/so101.yaml, in the twin config/so100_bus.yaml"
            )
        self._keys = [f"{joint}.pos" for joint in wanted]
        affine = np.array([unit.affine for unit in self._units], np.float64)  # (D, 2)
        self._scale, self._offset = affine[:, 0], affine[:, 1]

    def _prepare(self, device: Any, bus: Any) -> None:
        """Check a leader's servos and calibration, and switch off a torque that another program has left on."""
        config = self._config
        check_port(config.input_port, "set input_port:=PATH")
        check_calibration_file(device.calibration_fpath, device.calibration, self._words())
        servos = Servos(bus)
        bus.connect(handshake=False)
        try:
            others = calibration_files(device.calibration_fpath.parent)
            check_servos(servos, bus, config.input_port, device.calibration, self._words(), others)
            servos.torque_off()
        finally:
            servos.close()
        self._servos = servos

    @contextlib.contextmanager
    def _lines(self, device: Any) -> Iterator[None]:
        """Turn what a device raises into one line; a port is closed."""
        try:
            yield
        except ValueError:
            raise
        except ImportError as error:
            raise ValueError(
                f"'{self._config.input}' needs a library that is not installed: {one_line(error)}"
            ) from error
        except (OSError, RuntimeError, IndexError, AttributeError, termios.error) as error:
            with contextlib.suppress(Exception):
                device.bus.port_handler.closePort()
            at = f" at '{self._config.input_port}'" if self._config.input_port else ""
            raise ValueError(
                f"no connection with '{self._config.input}'{at}: {one_line(error)}; check cable and power, and that no "
                "other program has it"
            ) from error

    def close(self) -> None:
        """Disconnect; may be called again."""
        device, self._device = self._device, None
        if device is None:
            return
        if self._servos is not None:
            self._servos.close()
            return
        with contextlib.suppress(Exception):  # of a device that is gone
            device.disconnect()

    # -- reading -----------------------------------------------------------------------------------------------------

    def read(self) -> Motion | None:
        """Return what the hand has done since the last read, ``None`` if the device has said nothing since then.

        Raises:
            ConnectionError: the device does not answer.
            OSError: its port is gone.
            ValueError: it answers what cannot be used.
        """
        now_s = time.monotonic()
        passed_s, self._read_s = now_s - self._read_s, now_s
        if self._pad is not None:
            self._pad.before_read()
        try:
            found = self._device.get_action() if self._servos is None else self._servos.in_step(self._device.get_action)
        except termios.error as error:
            raise OSError(one_line(error)) from error
        if self.leads_joints:
            return self._leader(found)
        if self._device.name == "phone":
            return self._phone(found, min(passed_s, LONGEST_S)) if self._phone_spoke() else None
        motion = self._gamepad(found, min(passed_s, LONGEST_S))
        if self._pad is not None:
            self._pad.check()
        return motion

    def _leader(self, found: Any) -> Motion:
        values = np.array([found[key] for key in self._keys], np.float64)
        if not np.isfinite(values).all():
            raise ValueError(f"leader '{self._config.input}' says {found}, which is not finite")
        return Motion((self._scale * values + self._offset).astype(np.float32))

    def _gamepad(self, found: Any, passed_s: float) -> Motion:
        """Sticks are a speed; the gripper's buttons, too: 0 closes, 1 stays, 2 opens."""
        sticks = np.array([float(found[f"delta_{axis}"]) for axis in "xyz"])
        gripper = (float(found.get("gripper", 1)) - 1) * self._config.gripper_speed * passed_s
        told, held = "", None
        if hasattr(self._device, "get_teleop_events"):
            now = {event.value: bool(on) for event, on in self._device.get_teleop_events().items()}
            held = now.get("is_intervention")
            names = {"rerecord_episode": AGAIN, "success": SUCCESS, "terminate_episode": FAILURE}
            told = next((event for name, event in names.items() if now.get(name)), "")
        before, self._told = self._told, told
        events = (told,) if told and told != before else ()  # a button that is held tells it at each read
        return Motion(None, np.clip(sticks, -1, 1) * self._config.cartesian_speed * passed_s, gripper, events, held)

    def _phone_spoke(self) -> bool:
        """Whether a phone has said anything since the last read: LeRobot's class repeats the last of an Android one."""
        phone = getattr(self._device, "_phone_impl", None)
        before, self._message = self._message, getattr(phone, "_latest_message", None)
        return self._message is None or self._message is not before

    def _phone(self, found: Any, passed_s: float) -> Motion:
        """A phone moves the gripper while it is enabled; its axes are as LeRobot's processor of phones takes them."""
        if not found:
            self._place = None
            return Motion()
        x, y, z = np.asarray(found["phone.pos"], np.float64)
        before, self._place = self._place, np.array([-y, x, z]) if found["phone.enabled"] else None
        change = np.zeros(3) if before is None or self._place is None else self._place - before
        inputs = found["phone.raw_inputs"]
        way = inputs.get("a3", float(inputs.get("reservedButtonA", 0)) - float(inputs.get("reservedButtonB", 0)))
        return Motion(None, change, float(way) * self._config.gripper_speed * passed_s)


def make_teleoperator(config: TeleopConfig) -> Any:
    """Return LeRobot's teleoperator, not connected.

    Raises:
        FileNotFoundError: ``input_calibration_dir`` begins with the home of nobody.
        ValueError: LeRobot knows no such type, or it has no such option, or its library is not installed.
    """
    from lerobot.teleoperators.utils import make_teleoperator_from_config

    kind = config_class(TELEOPERATORS, config.input, "input")
    known = {field.name: field for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {"port": config.input_port, "id": config.input_id or None}
    if config.input_calibration_dir:
        values["calibration_dir"] = given_path(config.input_calibration_dir)
    # Degrees whatever the version's default; no retries inside, after which late answers would be taken for new.
    values |= {"use_degrees": True, "num_read_retries": 0}
    values = {name: value for name, value in values.items() if name in known}
    options = options_of(config.input_options, config.input, known, values, "input_options")
    try:
        return make_teleoperator_from_config(kind(**values, **options))
    except ImportError as error:
        raise ValueError(
            f"LeRobot's '{config.input}' needs a library that is not installed: {one_line(error)}; install LeRobot's "
            "extra for it, e.g. pip install 'lerobot[gamepad]' or 'lerobot[phone]', a leader's: 'lrm_ros[arm]'"
        ) from error
    except TypeError as error:
        raise ValueError(f"LeRobot's '{config.input}': {error}; set it in input_options: NAME=VALUE") from error
