# SPDX-License-Identifier: Apache-2.0
"""The servos of one arm on one bus, their joints and their supply; time passes as it is told."""

from __future__ import annotations

from collections.abc import Sequence

from lrm_ros.sim.servo_bus import protocol
from lrm_ros.sim.servo_bus.joints import Drive, Joints, SimpleJoints
from lrm_ros.sim.servo_bus.protocol import Packet
from lrm_ros.sim.servo_bus.servo import Servo
from lrm_ros.sim.servo_bus.units import Mounting

LONGEST_STEP = 0.005  # s, of the firmware and the joints
DROP = 0.15  # V that a motor at stall takes off the supply, assumed


class Arm:
    """Servos in a chain, one for each joint.

    Attributes:
        servos: in the order of the joints.
        joints: what moves behind them.
        supply: volts without load.
        time: seconds that have passed.
    """

    def __init__(self, joints: Joints | None = None, mountings: Sequence[Mounting] = (Mounting(),) * 6) -> None:
        """Build an arm whose servos have the ids 1, 2, 3, ...

        Args:
            joints: what moves; the simple SO-101 if None.
            mountings: of the servos, one for each joint.
        """
        self.joints: Joints = SimpleJoints() if joints is None else joints
        self.supply = 7.4
        self.time = 0.0
        self.servos = [Servo(mounting) for mounting in mountings]
        self._no_power_s = 0.0
        for number, servo in enumerate(self.servos, 1):
            servo.memory.save("ID", number)
        self._feel()

    def factory(self) -> None:
        """Give every servo what it has when it is new: id 1, so that only one may be connected at a time."""
        for servo in self.servos:
            servo.memory.save("ID", 1)

    def brown_out(self, seconds: float) -> None:
        """Cut the power for so long; then all servos start with torque off and what their EEPROM holds."""
        self._no_power_s = seconds
        for servo in self.servos:
            servo.power_on()

    @property
    def powered(self) -> bool:
        """Whether the servos have power."""
        return self._no_power_s <= 0

    def step(self, dt: float) -> None:
        """Let ``dt`` seconds pass, 0 or more."""
        while dt > 1e-9:
            piece = min(dt, LONGEST_STEP)
            dt -= piece
            self.time += piece
            states = self.joints.states()
            if self.powered:
                volts = self.supply - DROP * sum(abs(state.effort) for state in states)
                drives = [servo.drive(piece, state, volts) for servo, state in zip(self.servos, states, strict=True)]
            else:
                self._no_power_s -= piece
                drives = [Drive(state.position, 0.0, 0.0) for state in states]
            self.joints.step(piece, drives)
        self._feel()

    def _feel(self) -> None:
        for servo, state in zip(self.servos, self.joints.states(), strict=True):
            servo.feel(state)

    def answer(self, packet: Packet, rate: int) -> list[bytes]:
        """Return the status packets that an instruction brings, in the order in which they come.

        Servos with one id speak at once: the line is low where either pulls it low, so that unlike answers are garbled.

        Args:
            packet: what was sent.
            rate: baud rate at which it was sent; servos with another rate do not understand it.
        """
        if not self.powered:
            return []
        hearing = [servo for servo in self.servos if servo.connected and servo.rate == rate]
        given, kind = packet.parameters, packet.instruction
        if kind == protocol.SYNC_READ and packet.id == protocol.BROADCAST and len(given) > 2:
            order = list(given[2:])
            parts = dict.fromkeys(order, given[:2])
        elif kind == protocol.SYNC_WRITE and packet.id == protocol.BROADCAST and len(given) > 2 and given[1] > 0:
            size = given[1] + 1
            pieces = [given[at : at + size] for at in range(2, len(given), size)]
            parts = {piece[0]: given[:1] + piece[1:] for piece in pieces if len(piece) == size}
            order = list(parts)
        elif packet.id == protocol.BROADCAST:
            order = sorted({servo.id for servo in hearing})
            parts = dict.fromkeys(order, given)
        else:
            order, parts = [packet.id], {packet.id: given}
        silent = packet.id == protocol.BROADCAST and kind not in (protocol.PING, protocol.SYNC_READ)
        at_work = {id: [servo for servo in hearing if servo.id == id] for id in order}
        answers = [
            _together([servo.answer(Packet(id, kind, parts[id])) for servo in at_work[id]])
            for id in dict.fromkeys(order)
        ]
        return [] if silent else [answer for answer in answers if answer]


def _together(answers: list[bytes]) -> bytes:
    """What is on the line when several servos speak at once; a line at rest is high."""
    length = max(map(len, answers), default=0)
    mixed = bytearray(b"\xff" * length)
    for answer in answers:
        for i, byte in enumerate(answer):
            mixed[i] &= byte
    return bytes(mixed)
