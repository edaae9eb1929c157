# SPDX-License-Identifier: Apache-2.0
"""Packets of the STS servos' half-duplex protocol: building them, and finding them in a stream of bytes.

Facts: Feetech's protocol manual (SCS/STS series), as the package ``scservo_sdk`` speaks it. A packet is
``FF FF id length code parameters... checksum``; ``length`` counts code, parameters and checksum; the checksum is the
complement of the sum of all bytes between header and checksum, modulo 256. ``code`` is an instruction on the way to the
servos and the error bits on the way back.
"""

from __future__ import annotations

from dataclasses import dataclass

HEADER = b"\xff\xff"
BROADCAST = 254  # every servo hears it; none answers but to PING

PING = 0x01
READ = 0x02
WRITE = 0x03
REG_WRITE = 0x04  # write later, at the next ACTION
ACTION = 0x05
SYNC_READ = 0x82
SYNC_WRITE = 0x83

# Bits of the error byte of each status packet and of the register Status.
VOLTAGE = 1
ENCODER = 2
TEMPERATURE = 4
CURRENT = 8
OVERLOAD = 32

_LONGEST = 250  # of the length byte, as in scservo_sdk


@dataclass(frozen=True)
class Packet:
    """An instruction packet: whom it is for (0 to 254), what to do, and with what."""

    id: int
    instruction: int
    parameters: bytes = b""


def checksum(body: bytes) -> int:
    """Return the checksum, 0 to 255, of the bytes from the id to the last parameter."""
    return ~sum(body) & 0xFF


def encode(packet: Packet) -> bytes:
    """Return an instruction packet's bytes."""
    return _encode(packet.id, packet.instruction, packet.parameters)


def status(id: int, error: int, data: bytes = b"") -> bytes:
    """Return the bytes of a servo's answer: its id, its error bits, and what was asked for."""
    return _encode(id, error, data)


def _encode(id: int, code: int, parameters: bytes) -> bytes:
    if len(parameters) + 2 > _LONGEST:
        raise ValueError(f"{len(parameters)} bytes of parameters are too many for a packet; it takes {_LONGEST - 2}")
    body = bytes([id, len(parameters) + 2, code]) + parameters
    return HEADER + body + bytes([checksum(body)])


class Parser:
    """Finds instruction packets in the bytes of a line, whatever the pieces in which they come.

    What is no packet is skipped, and so is a packet whose checksum is wrong: servos do not answer it.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.skipped = 0  # bytes that belonged to no packet

    def feed(self, data: bytes) -> list[Packet]:
        """Add bytes and return the packets that are complete now, in their order."""
        self._buffer += data
        found: list[Packet] = []
        while True:
            start = self._buffer.find(HEADER)
            if start < 0:
                self._skip(len(self._buffer) - self._buffer.endswith(b"\xff"))
                return found
            self._skip(start)
            if len(self._buffer) < 4:
                return found
            length = self._buffer[3]
            if self._buffer[2] > BROADCAST or not 2 <= length <= _LONGEST:  # FF FF FF: the header begins one later
                self._skip(1)
                continue
            if len(self._buffer) < length + 4:
                return found
            body, check = bytes(self._buffer[2 : length + 3]), self._buffer[length + 3]
            if checksum(body) != check:
                self._skip(2)
                continue
            del self._buffer[: length + 4]
            found.append(Packet(body[0], body[2], body[3:]))

    def clear(self) -> None:
        """Forget a packet that has begun: the line's rate has changed, or a pause has ended it."""
        self._skip(len(self._buffer))

    def _skip(self, count: int) -> None:
        self.skipped += count
        del self._buffer[:count]
