# SPDX-License-Identifier: Apache-2.0
"""A bus of six servos in simulated time: sync instructions, broadcast, collisions, rates, and scservo_sdk's handler."""

from __future__ import annotations

import pytest
from servo_buses import needs_driver  # type: ignore[import-not-found]

from lrm_ros.sim.servo_bus import protocol
from lrm_ros.sim.servo_bus.arm import Arm
from lrm_ros.sim.servo_bus.bus import Bus
from lrm_ros.sim.servo_bus.joints import Drive, JointState
from lrm_ros.sim.servo_bus.protocol import Packet, encode, status
from lrm_ros.sim.servo_bus.units import STEP

MEGABAUD = 1_000_000


def ask(bus: Bus, packet: Packet, rate: int = MEGABAUD) -> bytes:
    bus.receive(encode(packet), rate, 0.0)
    return bus.due(0.0)


def test_sync_read_answers_in_the_order_asked_for():
    bus = Bus()
    got = ask(bus, Packet(254, protocol.SYNC_READ, bytes([5, 1, 3, 9, 1])))
    assert got == status(3, 0, b"\x03") + status(1, 0, b"\x01"), "there is no 9"


def test_sync_write_has_no_answer_and_each_servo_its_own_value():
    bus = Bus()
    given = bytes([42, 2, 1, 0x10, 0x08, 6, 0x20, 0x08, 9, 0, 0])
    assert ask(bus, Packet(254, protocol.SYNC_WRITE, given)) == b""
    goals = [servo.memory["Goal_Position"] for servo in bus.arm.servos]
    assert goals == [0x810, 0, 0, 0, 0, 0x820]


def test_a_sync_write_that_is_cut_off_writes_whole_values_only():
    bus = Bus()
    ask(bus, Packet(254, protocol.SYNC_WRITE, bytes([42, 2, 1, 0x10, 0x08, 2, 0x20])))
    assert [servo.memory["Goal_Position"] for servo in bus.arm.servos[:2]] == [0x810, 0]
    for odd in (b"", b"\x2a", b"\x2a\x00\x01\x02"):
        assert ask(bus, Packet(254, protocol.SYNC_WRITE, odd)) == b""


def test_broadcast_is_for_all_and_only_a_ping_is_answered():
    bus = Bus()
    assert ask(bus, Packet(254, protocol.PING)) == b"".join(status(i, 0) for i in range(1, 7))
    assert ask(bus, Packet(254, protocol.WRITE, b"\x29\x05")) == b""
    assert {servo.memory["Acceleration"] for servo in bus.arm.servos} == {5}
    assert ask(bus, Packet(254, protocol.READ, b"\x29\x01")) == b""
    assert ask(bus, Packet(2, protocol.REG_WRITE, b"\x29\x07")) == status(2, 0)
    assert ask(bus, Packet(254, protocol.ACTION)) == b""
    assert bus.arm.servos[1].memory["Acceleration"] == 7


def test_two_servos_with_one_id_speak_at_once():
    bus = Bus()
    bus.arm.factory()
    assert ask(bus, Packet(254, protocol.PING)) == status(1, 0), "alike answers are one"
    bus.arm.servos[0].memory["Goal_Position"] = 0x0F0F
    got = ask(bus, Packet(1, protocol.READ, b"\x2a\x02"))
    assert got != status(1, 0, b"\x0f\x0f") and got != status(1, 0, b"\0\0") and len(got) == 8
    for servo in bus.arm.servos[1:]:
        servo.connected = False
    assert ask(bus, Packet(1, protocol.READ, b"\x2a\x02")) == status(1, 0, b"\x0f\x0f")


def test_another_rate_is_not_understood_nor_half_a_packet_at_it():
    bus = Bus()
    assert ask(bus, Packet(1, protocol.PING), 500_000) == b""
    ping = encode(Packet(1, protocol.PING))
    bus.receive(ping[:3], 500_000, 0.0)
    bus.receive(ping[3:], MEGABAUD, 0.0)
    assert bus.due(0.0) == b""
    assert ask(bus, Packet(1, protocol.PING)) == status(1, 0)


def test_any_physics_can_stand_behind_the_servos():
    class Told:
        """Joints that do at once what they are told."""

        def __init__(self) -> None:
            self.at = [0.0] * 6
            self.seconds = 0.0

        def step(self, dt: float, drives: list[Drive]) -> None:
            self.seconds += dt
            self.at = [drive.target if drive.limit else 0.0 for drive in drives]

        def states(self) -> list[JointState]:
            return [JointState(position) for position in self.at]

    told = Told()
    bus = Bus(Arm(told))
    ask(bus, Packet(1, protocol.WRITE, b"\x2a" + (2148).to_bytes(2, "little")))
    bus.arm.step(1.0)
    assert told.at == pytest.approx([100 * STEP, 0, 0, 0, 0, 0])
    assert told.seconds == pytest.approx(1.0)
    assert ask(bus, Packet(1, protocol.READ, b"\x38\x02")) == status(1, 0, (2148).to_bytes(2, "little"))


def test_what_a_bus_has_seen_does_not_grow_for_ever():
    bus = Bus()
    for i in range(10_500):
        bus.receive(encode(Packet(200, protocol.WRITE, i.to_bytes(2, "little"))), MEGABAUD, 0.0)
    assert len(bus.seen) < 10_000
    assert bus.seen[-1].parameters == (10_499).to_bytes(2, "little")


class Line:
    """What scservo_sdk's packet handler takes for a port; its time-outs are over at once."""

    def __init__(self) -> None:
        self.bus, self.is_using, self.waiting = Bus(), False, b""

    def clearPort(self) -> None:
        pass

    def writePort(self, packet: list[int]) -> int:
        self.bus.receive(bytes(packet), MEGABAUD, 0.0)
        self.waiting += self.bus.due(0.0)
        return len(packet)

    def readPort(self, length: int) -> bytes:
        out, self.waiting = self.waiting[:length], self.waiting[length:]
        return out

    def setPacketTimeout(self, length: int) -> None:
        pass

    def isPacketTimeout(self) -> bool:
        return not self.waiting


@needs_driver
def test_scservo_sdks_packet_handler_speaks_with_it():
    import scservo_sdk as scs

    line, handler = Line(), scs.PacketHandler(0)
    assert handler.ping(line, 4) == (777, scs.COMM_SUCCESS, 0)
    assert handler.ping(line, 9) == (0, scs.COMM_RX_TIMEOUT, 0)
    assert handler.write2ByteTxRx(line, 4, 42, 2100) == (scs.COMM_SUCCESS, 0)
    assert handler.read2ByteTxRx(line, 4, 42) == (2100, scs.COMM_SUCCESS, 0)
    assert handler.regWriteTxRx(line, 4, 41, 1, [9]) == (scs.COMM_SUCCESS, 0)
    assert handler.action(line, 4) == scs.COMM_SUCCESS
    assert handler.read1ByteTxRx(line, 4, 41) == (9, scs.COMM_SUCCESS, 0)
    writer = scs.GroupSyncWrite(line, handler, 42, 2)
    reader = scs.GroupSyncRead(line, handler, 42, 2)
    for i in range(1, 7):
        assert writer.addParam(i, [i, 8]) and reader.addParam(i)
    assert writer.txPacket() == scs.COMM_SUCCESS
    assert reader.txRxPacket() == scs.COMM_SUCCESS
    assert [reader.getData(i, 42, 2) for i in range(1, 7)] == [0x800 + i for i in range(1, 7)]
