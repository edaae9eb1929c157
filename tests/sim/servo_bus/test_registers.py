# SPDX-License-Identifier: Apache-2.0
"""A servo's memory: addresses as LeRobot has them, signs, read-only bytes, EEPROM and lock; steps and radians."""

from __future__ import annotations

import math

import pytest
from servo_buses import needs_driver  # type: ignore[import-not-found]

from lrm_ros.sim.servo_bus.registers import BAUD_RATES, REGISTERS, Memory
from lrm_ros.sim.servo_bus.units import STEP, Mounting


@needs_driver
def test_names_addresses_sizes_and_signs_are_those_of_lerobots_tables():
    from lerobot.motors.feetech.tables import (
        MODEL_NUMBER_TABLE,
        STS_SMS_SERIES_BAUDRATE_TABLE,
        STS_SMS_SERIES_CONTROL_TABLE,
        STS_SMS_SERIES_ENCODINGS_TABLE,
    )

    ours_alone = {"Endianness", "Reg_Write_Flag"}
    for name, register in REGISTERS.items():
        if name not in ours_alone:
            assert (register.address, register.size) == STS_SMS_SERIES_CONTROL_TABLE[name], name
    for name in STS_SMS_SERIES_ENCODINGS_TABLE.keys() & REGISTERS.keys():
        assert REGISTERS[name].sign_bit == STS_SMS_SERIES_ENCODINGS_TABLE[name], name
    assert Memory()["Model_Number"] == MODEL_NUMBER_TABLE["sts3215"]
    same = [rate for rate, value in STS_SMS_SERIES_BAUDRATE_TABLE.items() if BAUD_RATES[value] == rate]
    assert same == [1_000_000, 500_000, 250_000, 128_000, 115_200], "beyond these LeRobot's table is another"


def test_no_two_registers_share_a_byte():
    taken = [at for each in REGISTERS.values() for at in range(each.address, each.address + each.size)]
    assert len(taken) == len(set(taken))


@pytest.mark.parametrize(
    ("name", "value", "raw"),
    [
        ("Homing_Offset", -5, b"\x05\x08"),
        ("Homing_Offset", 2047, b"\xff\x07"),
        ("Homing_Offset", -5000, b"\xff\x0f"),  # as far as it goes
        ("Goal_Position", -5, b"\x05\x80"),
        ("Present_Load", -1000, b"\xe8\x07"),
        ("ID", 7, b"\x07"),
    ],
)
def test_values_lie_low_byte_first_with_a_sign_bit(name, value, raw):
    memory = Memory()
    memory[name] = value
    assert memory.read(REGISTERS[name].address, REGISTERS[name].size) == raw
    if abs(value) < 4096:
        assert memory[name] == value


def test_a_negative_value_where_there_is_no_sign_is_refused():
    with pytest.raises(ValueError, match="register at 5 has no sign; -1 does not fit"):
        Memory()["ID"] = -1


def test_read_only_bytes_stay_and_writing_beyond_the_memory_does_nothing():
    memory = Memory()
    before = memory.read(0, 87)
    memory.write(0, b"\x09" * 5)
    memory.write(56, b"\x09" * 11)
    memory.write(87, b"\x09")
    memory.write(250, b"\x09" * 3)
    assert memory.read(0, 87) == before
    assert memory.read(85, 4) == b"\xfe\0\0\0", "zeros where there is no register"


def test_the_lock_decides_what_the_eeprom_keeps():
    memory = Memory()
    assert memory["Lock"] == 1
    memory.write(9, b"\x64\x00")
    assert memory["Min_Position_Limit"] == 100, "it counts at once"
    memory.power_on()
    assert memory["Min_Position_Limit"] == 0, "and is forgotten"
    memory.write(55, b"\x00")
    memory.write(9, b"\x64\x00")
    memory.write(85, b"\x07")
    memory.write(41, b"\x08")
    memory.power_on()
    assert (memory["Min_Position_Limit"], memory["Maximum_Acceleration"]) == (100, 7)
    assert (memory["Acceleration"], memory["Lock"]) == (0, 1), "SRAM starts anew"


def test_the_torque_limit_follows_the_highest_torque_at_power_up_only():
    memory = Memory()
    memory.write(55, b"\x00")
    memory.write(16, (500).to_bytes(2, "little"))
    assert memory["Torque_Limit"] == 1000
    memory.power_on()
    assert memory["Torque_Limit"] == 500


@pytest.mark.parametrize("mounting", [Mounting(), Mounting(100, -1), Mounting(4095, 1)])
@pytest.mark.parametrize("offset", [0, -2047, 500])
def test_radians_and_steps_are_each_others_inverse(mounting, offset):
    for angle in (-3.0, -0.5, 0.0, 1.0, 3.0):
        assert mounting.angle(mounting.present(angle, offset), offset) == pytest.approx(angle)
        whole = mounting.present(angle, offset, beyond_a_turn=True)
        assert whole == pytest.approx(mounting.zero + mounting.sign * angle / STEP - offset)
        assert whole % 4096 == pytest.approx(mounting.present(angle, offset))
    assert Mounting(2048).present(math.pi / 2, 24) == pytest.approx(2048 + 1024 - 24), "present = actual - offset"


@pytest.mark.parametrize(("given", "says"), [((4096, 1), "zero is 4096"), ((0, 2), "sign is 2; it is 1 or -1")])
def test_no_such_mounting(given, says):
    with pytest.raises(ValueError, match=says):
        Mounting(*given)
