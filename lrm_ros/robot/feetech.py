# SPDX-License-Identifier: Apache-2.0
"""Feetech's servos behind LeRobot's driver: what is checked before they move, and what the driver does not tell.

The driver's sync_read ignores the servos' error bits, takes an answer that came late for that of the next read, and
reads on after a loss of power as if nothing had been. :class:`Servos` looks after all of it with the driver's own
calls; it knows no joint angles.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# Error bits of a status packet and of register Status (Feetech's protocol manual).
ERRORS = {1: "voltage", 2: "position sensor", 4: "heat", 8: "over-current", 16: "angle", 32: "overload"}
LIMP = 4 | 8 | 2  # of them those that take a servo's torque
# The answers to a read that failed may come for so long [s].
LATE_S = 2.0
ATTEMPTS = 3  # to connect
ASLEEP_S = 0.005  # one of the driver's attempts at reading sleeps so long at most [s]
_MORE = 13  # a read asks for so many bytes more at most: from Present_Position on what the servo feels, up to 71
_LENGTH = 3  # where a packet has the number of its bytes that follow


@dataclass(frozen=True)
class Health:
    """What the servos feel; each by joint.

    Attributes:
        load: share of the stall torque, -1 to 1.
        volts: of the supply.
        celsius: temperature.
        errors: error bits of the last answer.
    """

    load: Mapping[str, float]
    volts: Mapping[str, float]
    celsius: Mapping[str, float]
    errors: Mapping[str, int]


def error_names(bits: int) -> str:
    """Return the names of error bits, e.g. ``"heat, overload"``."""
    return ", ".join(name for bit, name in ERRORS.items() if bits & bit) or f"error {bits}"


def connect(robot: Any) -> None:
    """Connect a robot of LeRobot's; nobody is asked for a calibration.

    The driver asks each servo once whether it is there. One answer that a busy host takes too late is no missing servo:
    it is tried again. Raises what the driver does at the last of ``ATTEMPTS``; that is an IndexError where its ping
    takes a late answer for that of its own read.

    The driver switches the torque off while it writes its settings, and an arm in the air sags. One that holds and has
    them all goes on holding.
    """
    configure = robot.configure
    robot.configure = lambda: None if _holds_configured(robot.bus, configure) else configure()
    for left in reversed(range(ATTEMPTS)):
        try:
            robot.connect(calibrate=False)
            return
        except (ConnectionError, RuntimeError, IndexError):
            if not left or not hasattr(robot, "bus"):
                raise
            with contextlib.suppress(Exception):
                robot.bus.port_handler.closePort()


def _holds_configured(bus: Any, configure: Callable[[], None]) -> bool:
    """Return whether all servos have torque, and what the driver's ``configure`` would write."""
    if any(on != 1 for on in bus.sync_read("Torque_Enable", normalize=False).values()):
        return False
    same = True

    def compare(name: str, motor: str, value: float, **_: Any) -> None:
        nonlocal same
        same = same and name not in bus.normalized_data and bus.read(name, motor, normalize=False) == value

    with contextlib.ExitStack() as stack:
        for name in ("write", "disable_torque", "enable_torque"):
            stack.callback(delattr, bus, name)  # the class's own is there again
            setattr(bus, name, compare if name == "write" else lambda *_, **__: None)
        configure()
    return same


class Servos:
    """The servos of one arm, by the names of LeRobot's motors.

    Attributes:
        late: how many answers were found that belonged to an earlier read; none of them became a value.
        failed: how many reads had no answer, or a damaged one, at the first attempt.
        errors: error bits of each servo's last answer.
    """

    def __init__(self, bus: Any) -> None:
        """Take a ``FeetechMotorsBus`` and look at each status packet that it reads from now on."""
        self.late = self.failed = 0
        self._bus = bus
        self._names = tuple(bus.motors)
        self._by_id = {bus.motors[name].id: name for name in self._names}
        self.errors = dict.fromkeys(self._names, 0)
        self._acceleration: dict[str, int] = {}
        self._felt: dict[str, dict[str, float]] = {"Present_Load": {}, "Present_Voltage": {}, "Present_Temperature": {}}
        self._turn = self._length = 0
        self._open: dict[int, float] = {}  # number of bytes -> when a read of so many failed [s]
        self._watch(bus.packet_handler)

    def _watch(self, handler: Any) -> None:
        """Look at what the driver asks and is answered.

        A sync_read asks for some bytes more than the driver wants: for as many that no read has asked for whose answers
        may still come. By its length an answer tells which read it belongs to; those to others are passed over.
        """
        packet: list[int] = []
        ask, take, read = handler.syncReadTx, handler.rxPacket, handler.readRx

        def asked(port: Any, address: int, length: int, ids: list[int], count: int) -> int:
            over_s = time.monotonic() - LATE_S  # reads that failed before count no more
            lengths = range(length + 1, length + 1 + _MORE)
            self._length = min(lengths, key=lambda length: max(self._open.get(length, 0.0), over_s))
            return int(ask(port, address, self._length, ids, count))

        def taken(port: Any) -> tuple[list[int], int]:
            packet[:], result = take(port)
            return list(packet), result

        def watched(port: Any, id_: int, length: int) -> tuple[list[int], int, int]:
            data, result, error = read(port, id_, length)
            while result == 0 and packet[_LENGTH] - 2 != self._length:
                self.late += 1
                data, result, error = read(port, id_, length)
            if result == 0 and id_ in self._by_id:
                self.errors[self._by_id[id_]] = error
            return data, result, error

        handler.syncReadTx, handler.rxPacket, handler.readRx = asked, taken, watched

    def in_step(self, read: Callable[[], Any]) -> Any:
        """Return what ``read`` reads by sync_read, once more if it fails; never an answer to an earlier read.

        Raises:
            ConnectionError: the servos do not answer.
        """
        port = self._bus.port_handler
        for last in (False, True):
            if port.getBytesAvailable() > 0:  # the driver empties its output only
                self.late += 1
                port.ser.reset_input_buffer()
            try:
                return read()
            except ConnectionError:
                self._open[self._length] = time.monotonic()
                if last:
                    raise
                self.failed += 1
        raise AssertionError

    # -- state of the servos -----------------------------------------------------------------------------------------

    def registers(self, name: str) -> dict[str, int]:
        """Return a register of every servo, raw; error bits do not matter.

        Raises:
            ConnectionError: a servo does not answer.
        """
        return dict(self.in_step(lambda: self._bus.sync_read(name, normalize=False)))

    def remember(self) -> None:
        """Note what a loss of power would take away, right after the driver has connected and set it."""
        # The driver asks for bytes in a busy loop; asleep until they are there it takes no CPU, and is woken at once.
        self._bus.port_handler.ser.timeout = ASLEEP_S
        self._acceleration = self.registers("Acceleration")
        for name in self._felt:
            self._feel(name)

    def poll(self) -> str:
        """Read one more register of all servos; returns what a loss of power has left, empty if there was none."""
        turn, self._turn = self._turn, self._turn + 1
        if turn % 3 == 0:
            return self._limp()
        if turn % 3 == 1:
            return self._unset()
        self._feel(tuple(self._felt)[turn // 3 % len(self._felt)])
        return ""

    def power_lost(self) -> str:
        """Say which servos have lost their torque or what the driver had set, empty if none has.

        A servo whose power was gone has torque off, or its Acceleration at zero if a goal has switched it on again.
        """
        return self._limp() or self._unset()

    def _limp(self) -> str:
        off = [name for name, on in self.registers("Torque_Enable").items() if on != 1]
        return f"torque off at {', '.join(off)}" if off else ""

    def _unset(self) -> str:
        other = [name for name, value in self.registers("Acceleration").items() if value != self._acceleration[name]]
        return f"settings lost at {', '.join(other)}" if other else ""

    def _feel(self, name: str) -> None:
        scale = {"Present_Load": 1e-3, "Present_Voltage": 0.1, "Present_Temperature": 1.0}[name]
        for joint, value in self.registers(name).items():
            if name == "Present_Load":  # its sign is bit 10, which LeRobot's table does not have
                value = -(value & 0x3FF) if value & 0x400 else value
            self._felt[name][joint] = round(value * scale, 3)

    @property
    def health(self) -> Health:
        """The newest of all."""
        load, volts, celsius = (dict(values) for values in self._felt.values())
        return Health(load, volts, celsius, dict(self.errors))

    # -- torque ------------------------------------------------------------------------------------------------------

    def hold_here(self) -> None:
        """Make each servo without torque stay where it is: its goal becomes its position, which switches it on.

        Raises:
            ConnectionError: a servo does not answer.
        """
        off = [name for name, on in self.registers("Torque_Enable").items() if on != 1]
        positions = self.registers("Present_Position")
        if off:
            self._bus.sync_write("Goal_Position", {name: positions[name] for name in off}, normalize=False)

    def torque_off(self) -> None:
        """Switch the torque of all servos off, whatever their error bits say.

        Raises:
            ConnectionError: a servo does not answer, or its torque is still on; says which.
        """
        for _ in range(3):
            self._bus.sync_write("Torque_Enable", 0)
            on = [name for name, torque in self.registers("Torque_Enable").items() if torque]
            if not on:
                return
        raise ConnectionError(f"the torque of {', '.join(on)} does not go off; cut the arm's power")

    def close(self) -> None:
        """Close the port and leave the torque as it is."""
        with contextlib.suppress(Exception):  # a port that was pulled out
            self._bus.port_handler.is_using = False
            self._bus.port_handler.closePort()
        self._bus.port_handler.is_open = False
