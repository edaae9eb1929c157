# SPDX-License-Identifier: Apache-2.0
"""The memory of an STS3215: its registers, what of them survives a power cut, and what may be written.

Facts: Feetech's memory table of the STS series (addresses, sizes, initial values, units); the names are those of
``lerobot.motors.feetech.tables``. Values of two bytes have the low byte first; negative values are a magnitude with a
sign bit.
"""

from __future__ import annotations

from dataclasses import dataclass

MODEL = 777  # what registers 3 and 4 of an STS3215 hold
SIZE = 87  # bytes

# Rate of the line by the value of Baud_Rate. LeRobot's table has 57600, 38400, 19200 for 5, 6, 7; Feetech's manual and
# SDK have these.
BAUD_RATES = (1_000_000, 500_000, 250_000, 128_000, 115_200, 76_800, 57_600, 38_400)


@dataclass(frozen=True)
class Register:
    """Where a value lies.

    Attributes:
        address: of its first byte.
        size: 1 or 2 bytes.
        initial: value when the servo leaves the factory (EEPROM) or after power-up (SRAM).
        writable: False for what a write leaves as it is.
        sign_bit: of signed values, else None.
    """

    address: int
    size: int
    initial: int = 0
    writable: bool = True
    sign_bit: int | None = None


REGISTERS = {
    "Firmware_Major_Version": Register(0, 1, 3, False),
    "Firmware_Minor_Version": Register(1, 1, 10, False),
    "Endianness": Register(2, 1, 0, False),  # 0: low byte first
    "Model_Number": Register(3, 2, MODEL, False),
    "ID": Register(5, 1, 1),
    "Baud_Rate": Register(6, 1, 0),  # index of BAUD_RATES
    "Return_Delay_Time": Register(7, 1, 0),  # 2 us
    "Response_Status_Level": Register(8, 1, 1),  # 0: answers PING and reads only
    "Min_Position_Limit": Register(9, 2, 0),  # steps
    "Max_Position_Limit": Register(11, 2, 4095),  # steps; 0 with a minimum of 0: no limits
    "Max_Temperature_Limit": Register(13, 1, 70),  # degrees Celsius
    "Max_Voltage_Limit": Register(14, 1, 80),  # 0.1 V
    "Min_Voltage_Limit": Register(15, 1, 40),  # 0.1 V
    "Max_Torque_Limit": Register(16, 2, 1000),  # 0.1 % of the stall torque; copied to Torque_Limit at power-up
    "Phase": Register(18, 1, 12),  # bits 2: speeds in steps/s, 3: speed 0 is the highest, 4: positions beyond a turn
    "Unloading_Condition": Register(19, 1, 44),  # error bits that take torque away
    "LED_Alarm_Condition": Register(20, 1, 47),
    "P_Coefficient": Register(21, 1, 32),
    "D_Coefficient": Register(22, 1, 32),
    "I_Coefficient": Register(23, 1, 0),
    "Minimum_Startup_Force": Register(24, 2, 16),
    "CW_Dead_Zone": Register(26, 1, 1),
    "CCW_Dead_Zone": Register(27, 1, 1),
    "Protection_Current": Register(28, 2, 500),  # 6.5 mA
    "Angular_Resolution": Register(30, 1, 1),
    "Homing_Offset": Register(31, 2, 0, True, 11),  # steps
    "Operating_Mode": Register(33, 1, 0),  # 0 position, 1 velocity, 2 PWM, 3 steps
    "Protective_Torque": Register(34, 1, 20),  # % of the stall torque that an overload leaves
    "Protection_Time": Register(35, 1, 200),  # 10 ms
    "Overload_Torque": Register(36, 1, 80),  # % of the stall torque
    "Velocity_closed_loop_P_proportional_coefficient": Register(37, 1, 10),
    "Over_Current_Protection_Time": Register(38, 1, 200),  # 10 ms
    "Velocity_closed_loop_I_integral_coefficient": Register(39, 1, 10),
    "Torque_Enable": Register(40, 1, 0),  # 0 off, 1 on, 128: the present position becomes 2048
    "Acceleration": Register(41, 1, 0),  # 100 steps/s^2; 0: the highest
    "Goal_Position": Register(42, 2, 0, True, 15),  # steps
    "Goal_Time": Register(44, 2, 0),
    "Goal_Velocity": Register(46, 2, 0, True, 15),  # steps/s
    "Torque_Limit": Register(48, 2, 1000),  # 0.1 % of the stall torque
    "Lock": Register(55, 1, 1),  # 1: writes to EEPROM are forgotten at power-off
    "Present_Position": Register(56, 2, 0, False, 15),
    "Present_Velocity": Register(58, 2, 0, False, 15),
    "Present_Load": Register(60, 2, 0, False, 10),  # 0.1 % of the stall torque
    "Present_Voltage": Register(62, 1, 0, False),  # 0.1 V
    "Present_Temperature": Register(63, 1, 0, False),  # degrees Celsius
    "Reg_Write_Flag": Register(64, 1, 0, False),  # 1: a REG_WRITE waits for ACTION
    "Status": Register(65, 1, 0, False),  # error bits
    "Moving": Register(66, 1, 0, False),
    "Present_Current": Register(69, 2, 0, False, 15),  # 6.5 mA
    "Goal_Position_2": Register(71, 2, 0, False, 15),  # where the servo goes: Goal_Position within the limits
    "Moving_Velocity_Threshold": Register(80, 1, 1),  # 50 steps/s
    "Maximum_Velocity_Limit": Register(84, 1, 65),  # 50 steps/s
    "Maximum_Acceleration": Register(85, 1, 254),  # 100 steps/s^2
}


def in_eeprom(address: int) -> bool:
    """Return whether a byte is kept at power-off: below 40, and the factory parameters from 80 on."""
    return address < 40 or address >= 80


class Memory:
    """A servo's bytes, beside what of them its EEPROM holds.

    While Lock is 1, a write to the EEPROM's registers counts at once but is forgotten at power-off.
    """

    def __init__(self) -> None:
        self._bytes = bytearray(SIZE)
        for register in REGISTERS.values():
            self._put(register, register.initial)
        self._saved = bytes(self._bytes)
        writable = [register for register in REGISTERS.values() if register.writable]
        self._writable = {at for each in writable for at in range(each.address, each.address + each.size)}
        self.power_on()

    def power_on(self) -> None:
        """Start again from the EEPROM: SRAM has its initial values, Torque_Limit that of Max_Torque_Limit."""
        self._bytes[:] = self._saved
        for register in REGISTERS.values():
            if not in_eeprom(register.address):
                self._put(register, register.initial)
        self["Torque_Limit"] = self["Max_Torque_Limit"]

    def save(self, name: str, value: int) -> None:
        """Set a register of the EEPROM for good, as at the factory."""
        self[name] = value
        at = REGISTERS[name]
        self._saved = (
            self._saved[: at.address]
            + self._bytes[at.address : at.address + at.size]
            + self._saved[at.address + at.size :]
        )

    def read(self, address: int, length: int) -> bytes:
        """Return bytes as a READ does; zeros where there is no register."""
        return bytes(self._bytes[address : address + length]).ljust(length, b"\0")

    def write(self, address: int, data: bytes) -> None:
        """Write bytes as a WRITE does; those of read-only registers and of none stay as they are."""
        saved, locked = bytearray(self._saved), self["Lock"]
        for at, value in enumerate(data[: max(0, SIZE - address)], address):
            if at not in self._writable:
                continue
            self._bytes[at] = value
            if in_eeprom(at) and not locked:
                saved[at] = value
        self._saved = bytes(saved)

    def __getitem__(self, name: str) -> int:
        """Return a register's value, with its sign."""
        register = REGISTERS[name]
        raw = int.from_bytes(self._bytes[register.address : register.address + register.size], "little")
        if register.sign_bit is None:
            return raw
        magnitude = raw & ((1 << register.sign_bit) - 1)
        return -magnitude if raw >> register.sign_bit & 1 else magnitude

    def __setitem__(self, name: str, value: int) -> None:
        """Set a register, a read-only one too, as the firmware does; what is too large is cut to the largest."""
        self._put(REGISTERS[name], value)

    def _put(self, register: Register, value: int) -> None:
        bits = 8 * register.size if register.sign_bit is None else register.sign_bit
        raw = min(abs(value), (1 << bits) - 1)
        if value < 0:
            if register.sign_bit is None:
                raise ValueError(f"the register at {register.address} has no sign; {value} does not fit")
            raw |= 1 << register.sign_bit
        self._bytes[register.address : register.address + register.size] = raw.to_bytes(register.size, "little")
