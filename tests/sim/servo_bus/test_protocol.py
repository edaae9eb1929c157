# SPDX-License-Identifier: Apache-2.0
"""Packets against byte strings of the protocol's manual, and a parser that survives any stream."""

from __future__ import annotations

import random

import pytest

from lrm_ros.sim.servo_bus import protocol
from lrm_ros.sim.servo_bus.protocol import Packet, Parser, encode, status

MANUAL = {
    "FF FF 01 02 01 FB": Packet(1, protocol.PING),
    "FF FF 01 04 02 38 02 BE": Packet(1, protocol.READ, b"\x38\x02"),
    "FF FF FE 04 03 05 01 F4": Packet(254, protocol.WRITE, b"\x05\x01"),
    "FF FF 01 09 03 2A 00 08 00 00 E8 03 D5": Packet(1, protocol.WRITE, bytes.fromhex("2A 00 08 00 00 E8 03")),
    "FF FF 01 09 04 2A 00 08 00 00 E8 03 D4": Packet(1, protocol.REG_WRITE, bytes.fromhex("2A 00 08 00 00 E8 03")),
    "FF FF FE 02 05 FA": Packet(254, protocol.ACTION),
    "FF FF FE 06 82 38 08 01 02 36": Packet(254, protocol.SYNC_READ, bytes.fromhex("38 08 01 02")),
}


@pytest.mark.parametrize("text", MANUAL)
def test_the_manuals_packets_are_read_and_written(text):
    assert encode(MANUAL[text]) == bytes.fromhex(text)
    assert Parser().feed(bytes.fromhex(text)) == [MANUAL[text]]


def test_the_manuals_answers():
    assert status(1, 0) == bytes.fromhex("FF FF 01 02 00 FC")
    assert status(1, 0, b"\x18\x05") == bytes.fromhex("FF FF 01 04 00 18 05 DD")


def test_pieces_of_any_size_and_noise_between_packets():
    rng = random.Random(1)
    packets = [Packet(rng.randrange(255), rng.randrange(1, 6), rng.randbytes(rng.randrange(20))) for _ in range(200)]
    # Noise without a header's byte: what it must not hide is the packet after it.
    stream = b"".join(bytes(rng.randrange(0xFF) for _ in range(rng.randrange(5))) + encode(each) for each in packets)
    parser, found = Parser(), []
    while stream:
        size = rng.randrange(1, 12)
        found += parser.feed(stream[:size])
        stream = stream[size:]
    assert found == packets


def test_a_third_ff_before_the_id_is_no_id():
    assert Parser().feed(b"\xff" + encode(Packet(1, protocol.PING))) == [Packet(1, protocol.PING)]


@pytest.mark.parametrize("at", range(6))
def test_one_wrong_byte_is_no_packet_and_spoils_only_its_own(at):
    wrong = bytearray(encode(Packet(1, protocol.PING)))
    wrong[at] ^= 0x04
    parser = Parser()
    found = parser.feed(bytes(wrong) + encode(Packet(2, protocol.PING)) + encode(Packet(3, protocol.PING)))
    found += parser.feed(encode(Packet(4, protocol.PING)))
    assert Packet(1, protocol.PING) not in found
    assert found[-1] == Packet(4, protocol.PING)
    assert parser.skipped


def test_a_packet_that_has_begun_is_forgotten_by_clear():
    parser = Parser()
    parser.feed(encode(Packet(1, protocol.PING))[:4])
    parser.clear()
    assert parser.feed(encode(Packet(1, protocol.PING))[4:]) == []
    assert parser.feed(encode(Packet(2, protocol.PING))) == [Packet(2, protocol.PING)]


def test_too_many_parameters_are_refused():
    with pytest.raises(ValueError, match="249 bytes of parameters are too many for a packet; it takes 248"):
        encode(Packet(1, protocol.WRITE, bytes(249)))
