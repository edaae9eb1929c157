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
# A read that took so long ran into the driver's time-out (50 ms): its answers may still come [s].
TIMED_OUT_S = 0.03
# So long they are waited for [s]; after a damaged answer, which is no late one, so long for those behind it.
LATE_S, DAMAGED_S = 0.1, 0.005
ASLEEP_S = 0.005  # one of the driver's attempts at reading sleeps so long at most [s]
_CORRUPT = -7  # scservo_sdk.COMM_RX_CORRUPT
_LENGTH = 3  # where a packet has the number of its bytes that follow
_FENCES = 5  # attempts at finding the input in step again


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


class Servos:
    """The servos of one arm, by the names of LeRobot's motors.

    Attributes:
        late: how often answers were found that belonged to an earlier read; none of them became a value.
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
        self._turn = 0
        handler, packet = bus.packet_handler, []  # type: Any, list[int]
        take, read = handler.rxPacket, handler.readRx

        def taken(port: Any) -> tuple[list[int], int]:
            packet[:], result = take(port)
            return list(packet), result

        def watched(port: Any, id_: int, length: int) -> tuple[list[int], int, int]:
            data, result, error = read(port, id_, length)
            if result == bus._comm_success:
                if packet[_LENGTH] - 2 != length:  # the answer to another question; the driver takes its checksum, too
                    return [], _CORRUPT, error
                if id_ in self._by_id:
                    self.errors[self._by_id[id_]] = error
            return data, result, error

        handler.rxPacket, handler.readRx = taken, watched

    # -- reading in step ---------------------------------------------------------------------------------------------

    def in_step(self, read: Callable[[], Any]) -> Any:
        """Return what ``read`` reads, once more if it fails; never an answer to an earlier question.

        Raises:
            ConnectionError: the servos do not answer.
        """
        if self._waiting():
            self.late += 1
            self._settle(0.0)
        for last in (False, True):
            began = time.perf_counter()
            try:
                found = read()
                if not self._waiting():
                    return found
                self.late += 1
                error: ConnectionError = ConnectionError("answers to an earlier read came during this one")
            except ConnectionError as failed:
                error = failed
                self.failed += not last
            self._settle(LATE_S if time.perf_counter() - began > TIMED_OUT_S else DAMAGED_S)
            if last:
                raise error
        raise AssertionError

    def _waiting(self) -> bool:
        """Return whether there is input that nobody has asked for."""
        return bool(self._bus.port_handler.getBytesAvailable() > 0)

    def _settle(self, seconds: float) -> None:
        """Throw away what comes within so long, then find the input in step.

        Answers come in the order of their questions, so an expected answer of the last servo to two questions of known
        answers means that none is left from before.

        Raises:
            ConnectionError: the servos do not answer.
        """
        bus, last = self._bus, self._names[-1]
        motor = bus.motors[last]
        known = {"Model_Number": bus.model_number_table[motor.model], "ID": motor.id}
        for _ in range(_FENCES):
            end = time.perf_counter() + seconds
            while True:
                bus.port_handler.ser.reset_input_buffer()
                if (left := end - time.perf_counter()) <= 0:
                    break
                time.sleep(min(0.005, left))
            right = all(bus.sync_read(name, last, normalize=False)[last] == value for name, value in known.items())
            if right and not self._waiting():
                return
            seconds = LATE_S
        raise ConnectionError("the servos' answers do not fit the questions; check cables and power")

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
