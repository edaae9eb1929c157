# SPDX-License-Identifier: Apache-2.0
"""An arm behind one of LeRobot's drivers: joint angles in rad outside, the driver's units inside.

Any robot that LeRobot knows by a type. Those with Feetech's servos (SO-100, SO-101) are checked before they are driven,
and guarded against what the driver does not tell (``feetech``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import termios
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract
from lrm_ros.config_arm import ArmConfig
from lrm_ros.config_files import given_path
from lrm_ros.errors import one_line
from lrm_ros.robot.arm import NotSent
from lrm_ros.robot.feetech import Servos, connect
from lrm_ros.robot.feetech_check import (
    NoAnswer,
    calibration_files,
    check_calibration_file,
    check_port,
    check_servos,
)
from lrm_ros.robot.lerobot_types import ROBOTS, config_class, options_of

# A joint whose calibrated range ends further than this from its limit was not moved through its range [rad].
REACH = 0.12
AGAIN_S = (0.2, 1.0, 3.0)  # to connect [s]


class PortLost(OSError):
    """The serial port is gone: the adapter was pulled out, or lost its power."""


class LeRobotArm:
    """An ``lrm_ros.robot.arm.Arm``. Nothing here is thread-safe: one thread has the bus.

    Attributes:
        contract: the robot contract with the joint limits that this arm's calibrated ranges leave of it.
        grippers: joints that LeRobot has as a range from 0 to 100: they press on what they hold.
        servos: of an arm with Feetech's servos, else ``None``; that of a new connection is another.
        unsure: a read has failed, if only at its first attempt, since :meth:`checked`: the servos may have lost their
            power.
    """

    def __init__(self, config: ArmConfig, contract: RobotContract) -> None:
        """Take an arm that is not connected.

        Args:
            config: its driver and units.
            contract: its joints and their limits.
        """
        self._config, self._whole = config, contract
        self.contract = contract
        self.grippers = {joint.name for joint in config.joints if joint.units == "range_0_100"}
        self.servos: Servos | None = None
        self.unsure = False
        self._robot: Any = None
        self._lost = ""  # why the port was closed
        affine = np.array([joint.affine for joint in config.joints], np.float64)  # (D, 2)
        self._scale, self._offset = affine[:, 0], affine[:, 1]
        self._keys = [f"{joint}.pos" for joint in contract.joints]

    # -- connection --------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Open the port, check the arm, and switch its torque on where it is. Nobody is asked for anything.

        Where servos do not answer it is tried again after ``AGAIN_S``: a host on which a whole graph starts is busy.

        Raises:
            ValueError: something is not as it must be; one line with its cure. The port is closed again and the torque
                as it was; if the driver fails after the checks, the servos may hold.
            PortLost: the port went away meanwhile.
        """
        for pause_s in (*AGAIN_S, 0.0):
            try:
                self._connect()
                return
            except NoAnswer:
                if not pause_s:
                    raise
                time.sleep(pause_s)

    def _connect(self) -> None:
        config = self._config
        words = f"--robot.type={config.type} --robot.port={config.port} --robot.id={config.id}"
        if config.port:
            check_port(config.port)  # before LeRobot is loaded, which takes seconds
        robot = make_robot(config)
        if hasattr(robot.config, "port"):
            check_port(config.port)
        names = tuple(key.removesuffix(".pos") for key in robot.action_features)
        if set(names) != set(self._whole.joints):
            raise ValueError(
                f"LeRobot's '{config.type}' has joints {', '.join(names)}, the robot contract "
                f"{', '.join(self._whole.joints)}; give the contract of this robot"
            )
        bus = getattr(robot, "bus", None)
        if type(bus).__name__ == "FeetechMotorsBus":
            self._prepare(robot, bus, words)
        with self._lines(robot):
            connect(robot)
        if self.servos is None and not robot.is_calibrated:
            robot.disconnect()
            raise ValueError(
                f"'{config.type}' with id '{config.id}' is not calibrated; run 'lerobot-calibrate {words}'"
            )
        self._robot, self._lost = robot, ""
        if self.servos is not None:
            self.servos.remember()
        self.unsure = False

    def _prepare(self, robot: Any, bus: Any, words: str) -> None:
        """Check servos and calibration, and let the servos hold where they are when their torque comes on."""
        check_calibration_file(robot.calibration_fpath, robot.calibration, words)
        self.contract = self._reachable(robot)
        servos = Servos(bus)
        with self._lines(robot):
            bus.connect(handshake=False)
        try:
            with self._lines(robot):
                others = calibration_files(robot.calibration_fpath.parent)
                check_servos(servos, bus, self._config.port, robot.calibration, words, others)
                servos.hold_here()
        finally:
            servos.close()
        self.servos = servos

    def _reachable(self, robot: Any) -> RobotContract:
        """Return the contract with the limits that the calibrated ranges leave.

        Raises:
            ValueError: a range does not reach a limit by far.
        """
        lower, upper = list(self._whole.lower), list(self._whole.upper)
        for i, joint in enumerate(self._whole.joints):
            if self._config.joints[i].units != "degrees":
                continue  # the ends of the range are its angles, whatever the range
            calibrated = robot.calibration[joint]
            half = (calibrated.range_max - calibrated.range_min) / 2 * 360 / 4095  # degrees, as LeRobot has them
            ends = sorted((self._scale[i] * half + self._offset[i], -self._scale[i] * half + self._offset[i]))
            if ends[0] > lower[i] + REACH or ends[1] < upper[i] - REACH:
                raise ValueError(
                    f"{joint} is calibrated from {ends[0]:.2f} to {ends[1]:.2f} rad, the contract's limits are "
                    f"{lower[i]:g} to {upper[i]:g}; calibrate again and move it through its whole range, or narrow the "
                    "limits in the contract"
                )
            lower[i], upper[i] = max(lower[i], float(ends[0])), min(upper[i], float(ends[1]))
        return dataclasses.replace(self._whole, lower=tuple(lower), upper=tuple(upper))

    @contextlib.contextmanager
    def _lines(self, robot: Any) -> Iterator[None]:
        """Turn what a driver raises into one line; the port is closed."""
        try:
            yield
        except ValueError:
            raise
        except (OSError, RuntimeError, IndexError, termios.error) as error:
            with contextlib.suppress(Exception):
                robot.bus.port_handler.closePort()
            raise NoAnswer(
                f"no connection with the arm at '{self._config.port}': {one_line(error)}; check cable and power, and "
                "that no other program has the port"
            ) from error

    @property
    def connected(self) -> bool:
        """Whether it was connected and not closed since; a port that is gone is closed by the next call."""
        return self._robot is not None

    def reconnect(self) -> None:
        """Begin anew after a fault: raises as :meth:`connect`."""
        self.close()
        self.connect()

    def close(self, torque_off: bool = False) -> None:
        """Close the port. Without ``torque_off`` the servos hold where they were sent last.

        Raises:
            ConnectionError: the torque could not be switched off; the port is closed all the same.
            PortLost: the port is gone.
        """
        robot = self._robot
        if robot is None:
            return
        try:
            if self.servos is None:
                robot.disconnect()
            elif torque_off:
                self.torque_off()
        finally:
            self._robot = None
            if self.servos is not None:
                self.servos.close()

    # -- motion ------------------------------------------------------------------------------------------------------

    def read(self) -> tuple[int, NDArray[np.float32]]:
        """Return (time of the measurement [ns], (D,) joint positions [rad]), never those of an earlier read.

        Raises:
            ConnectionError: the servos do not answer, or the driver fails or says what is no position.
            PortLost: the port is gone.
        """
        with self._port():
            try:
                began = time.time_ns()
                values = self._values()
                ended = time.time_ns()
            except ConnectionError:
                self.unsure = True
                raise
        stamp_ns = (began + ended) // 2 if ended - began < 20_000_000 else ended
        return stamp_ns, (self._scale * values + self._offset).astype(np.float32)

    def _values(self) -> NDArray[np.float64]:
        """Return the driver's numbers of all joints (D,); whatever is none of them is a read that failed."""
        try:
            found = self._observe()
            values = np.array([found[key] for key in self._keys], np.float64)
        except (OSError, termios.error):
            raise
        except Exception as error:
            raise self._failed(error) from error
        bad = [f"{key} = {value}" for key, value in zip(self._keys, values, strict=True) if not np.isfinite(value)]
        if bad:
            raise ConnectionError(f"LeRobot's driver of '{self._config.type}' reads {', '.join(bad)}")
        return values

    def _observe(self) -> Any:
        """Return the driver's observation."""
        servos = self.servos
        if servos is None:
            return self._robot.get_observation()
        before = servos.failed
        found = servos.in_step(self._robot.get_observation)
        self.unsure = self.unsure or servos.failed > before
        return found

    def send(self, target: NDArray[np.float32]) -> None:
        """Go to (D,) absolute joint positions [rad], which are inside the limits already.

        Raises:
            NotSent: the driver fails.
            PortLost: the port is gone.
        """
        values = (np.asarray(target, np.float64) - self._offset) / self._scale
        try:
            with self._port():
                self._robot.send_action(dict(zip(self._keys, values.tolist(), strict=True)))
        except ConnectionError as error:
            raise NotSent(str(error)) from error

    def checked(self) -> str:
        """Say which servos have lost power since they were connected, empty if none; then :attr:`unsure` is over.

        Raises:
            ConnectionError: a servo does not answer.
            PortLost: the port is gone.
        """
        if self.servos is None:
            self.unsure = False
            return ""
        with self._port():
            lost = self.servos.power_lost()
        self.unsure = bool(lost)
        return lost

    def poll(self) -> str:
        """Read one more value of the servos' health, see :meth:`Servos.poll`; raises as :meth:`checked`."""
        if self.servos is None:
            return ""
        with self._port():
            return self.servos.poll()

    def torque_off(self) -> None:
        """Switch the torque off; raises as :meth:`checked`, also where it stays on.

        Raises:
            ValueError: LeRobot has no way to do so for this robot.
        """
        if self.servos is None:
            raise ValueError(f"LeRobot's '{self._config.type}' cannot be told to switch its torque off; use its switch")
        with self._port():
            self.servos.torque_off()

    @contextlib.contextmanager
    def _port(self) -> Iterator[None]:
        """Raise PortLost for whatever says that the port is gone."""
        if self._robot is None:
            raise PortLost(self._lost or f"serial port '{self._config.port}' is closed")
        try:
            yield
        except (ConnectionError, PortLost):
            raise
        except (OSError, termios.error) as error:
            self._lost = (
                f"serial port '{self._config.port}' is gone ({one_line(error)}); plug the arm in, then call service "
                "~/reset"
            )
            self._robot = None
            if self.servos is not None:
                self.servos.close()
            raise PortLost(self._lost) from error
        except Exception as error:  # of a library below the driver
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> ConnectionError:
        return ConnectionError(f"LeRobot's driver of '{self._config.type}' fails: {one_line(error)}")


def make_robot(config: ArmConfig) -> Any:
    """Return LeRobot's robot, not connected.

    Raises:
        FileNotFoundError: ``calibration_dir`` begins with the home of nobody.
        ValueError: LeRobot knows no such type, or it has no such option, or its driver is not installed.
    """
    from lerobot.robots.utils import make_robot_from_config

    kind = config_class(ROBOTS, config.type, "arm.type")
    known = {field.name: field for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {"port": config.port, "id": config.id or None}
    if config.calibration_dir:
        values["calibration_dir"] = given_path(config.calibration_dir)
    # Degrees whatever the version's default; no retries inside, after which late answers would be taken for new; and
    # the torque stays as it is when the port is closed.
    values |= {"use_degrees": True, "num_read_retries": 0, "disable_torque_on_disconnect": False}
    values = {name: value for name, value in values.items() if name in known}
    try:
        options = options_of(config.options, config.type, known, values, "arm.options")
        return make_robot_from_config(kind(**values, **options))
    except ImportError as error:
        raise ValueError(
            f"LeRobot's driver of '{config.type}' is not installed: {one_line(error)}; pip install 'lrm_ros[arm]'"
        ) from error
    except TypeError as error:
        raise ValueError(f"LeRobot's '{config.type}': {error}; set it in arm.options: NAME=VALUE") from error
