# SPDX-License-Identifier: Apache-2.0
"""One STS3215: what it answers, how it follows its goal, and how it protects itself.

Facts: Feetech's memory table and protocol manual; and of servos at work, LeRobot's issues: a written goal switches the
torque on and is kept within the limits inside while the register keeps what was written (huggingface/lerobot 3585), an
overload is reported by every status packet until the power is cut (2819). docs/servo_bus.md says what is assumed.
"""

from __future__ import annotations

import math

from lrm_ros.sim.servo_bus import protocol
from lrm_ros.sim.servo_bus.joints import Drive, JointState
from lrm_ros.sim.servo_bus.protocol import Packet
from lrm_ros.sim.servo_bus.registers import BAUD_RATES, REGISTERS, Memory
from lrm_ros.sim.servo_bus.units import STEP, Mounting

SPEED_UNIT = 50  # steps/s of the two limits' registers, and of Goal_Velocity without bit 2 of Phase
ACCELERATION_UNIT = 100  # steps/s^2
GAIN = 12.0  # duty for a rad of error at P_Coefficient 32, assumed: full duty at 5 degrees
STALL_CURRENT = 2.7  # A at 7.4 V, data sheet
CURRENT_UNIT = 6.5e-3  # A
AMBIENT = 25.0  # degrees Celsius
HEATING = 0.4  # degrees a second at stall, assumed
COOLING = 300.0  # s, time constant, assumed

_AT_WORK = (protocol.PING, protocol.READ, protocol.SYNC_READ)  # answered whatever Response_Status_Level is


class Servo:
    """A servo: its memory, and the firmware that runs between the bus and the motor.

    Attributes:
        memory: the registers.
        mounting: how it sits on its joint.
        connected: False for one that is unplugged from the bus: it has power but hears nothing.
        temperature: degrees Celsius.
        forced_temperature: what the temperature is held at, None for what follows from the load.
    """

    def __init__(self, mounting: Mounting | None = None) -> None:
        """Come from the factory with id 1, 1 Mbaud, torque off; :meth:`Memory.save` changes what is kept."""
        self.memory = Memory()
        self.mounting = mounting or Mounting()
        self.connected = True
        self.temperature = AMBIENT
        self.forced_temperature: float | None = None
        self.power_on()

    def power_on(self) -> None:
        """Start as after a power cut."""
        self.memory.power_on()
        self._target: float | None = None  # rad, where the profile is; None while the torque is off
        self._speed = 0.0  # rad/s of the profile
        self._goal_set = False  # whether a goal was written since the torque came on
        self._latched = 0  # error bits that stay until the power is cut
        self._overloaded_by = 0.0  # sign of the effort at the overload, seen in steps
        self._over_load_s = self._over_current_s = 0.0
        self._waiting: tuple[int, bytes] | None = None  # of REG_WRITE
        self._state = JointState(0.0)

    @property
    def id(self) -> int:
        """Its number on the bus, 0 to 253."""
        return self.memory["ID"]

    @property
    def rate(self) -> int:
        """Baud rate at which it listens, 0 for a value of the register that has none."""
        index = self.memory["Baud_Rate"]
        return BAUD_RATES[index] if index < len(BAUD_RATES) else 0

    # ---- the bus -----------------------------------------------------------------------------------------------------

    def answer(self, packet: Packet) -> bytes:
        """Carry out an instruction that is for this servo and return its status packet, empty if it says nothing.

        A SYNC_WRITE or SYNC_READ comes here as this servo's own part: address and data, or address and length.
        """
        own_id, data, given = self.id, b"", packet.parameters
        if packet.instruction in (protocol.READ, protocol.SYNC_READ):
            if len(given) != 2:
                return b""
            data = self.memory.read(given[0], given[1])
        elif packet.instruction in (protocol.WRITE, protocol.SYNC_WRITE, protocol.REG_WRITE):
            if len(given) < 2:
                return b""
            if packet.instruction == protocol.REG_WRITE:
                self._waiting = (given[0], given[1:])
                self.memory["Reg_Write_Flag"] = 1
            else:
                self._write(given[0], given[1:])
        elif packet.instruction == protocol.ACTION:
            if self._waiting is not None:
                self._write(*self._waiting)
            self._waiting = None
            self.memory["Reg_Write_Flag"] = 0
        elif packet.instruction != protocol.PING:
            return b""
        # A new id or rate counts from the next packet on: this answer still has the old one.
        if packet.instruction not in _AT_WORK and self.memory["Response_Status_Level"] == 0:
            return b""
        return protocol.status(own_id, self.memory["Status"], data)

    def _write(self, address: int, data: bytes) -> None:
        was_on = self.memory["Torque_Enable"] == 1
        self.memory.write(address, data)
        touched = range(address, address + len(data))
        torque = self.memory["Torque_Enable"]
        if REGISTERS["Torque_Enable"].address in touched:
            if torque == 128:
                self.memory["Homing_Offset"] = max(-2047, min(2047, round(self._encoder()) - 2048))
                self.memory["Torque_Enable"] = int(was_on)
            elif torque != 1:
                self._release()
            elif not was_on:
                self._goal_set = False  # holds where it is until a goal comes
        if REGISTERS["Goal_Position"].address in touched:
            self.memory["Torque_Enable"] = 1
            self._goal_set = True
            if (self._goal() - self._present()) * self._overloaded_by < 0:  # away from what it pressed against
                self._latched &= ~protocol.OVERLOAD
                self._overloaded_by = 0.0
                self._target = None  # from where it is, not from where it wanted to be
        self._show(0.0)

    # ---- the motor ---------------------------------------------------------------------------------------------------

    def drive(self, dt: float, state: JointState, volts: float) -> Drive:
        """Let the firmware run for ``dt`` seconds and return what the motor is told.

        Args:
            dt: time that passes, seconds.
            state: of its joint now.
            volts: of the supply.
        """
        self._state = state
        self._warm(dt)
        self._protect(dt, volts)
        self._show(volts)
        if self.memory["Torque_Enable"] != 1:
            self._release()
            return Drive(state.position, 0.0, 0.0)
        self._follow(dt)
        assert self._target is not None
        limit = self.memory["Torque_Limit"] / 1000
        if self._latched & protocol.OVERLOAD & self.memory["Unloading_Condition"]:
            limit = min(limit, self.memory["Protective_Torque"] / 100)
        return Drive(self._target, GAIN * self.memory["P_Coefficient"] / 32, min(limit, 1.0))

    def hold(self) -> None:
        """Forget the goal: with the torque on, it holds where the joint is next, until a goal comes."""
        self._release()

    def feel(self, state: JointState) -> None:
        """Show a joint's state in the registers before the firmware runs again."""
        self._state = state
        self._show(0.0)

    def _follow(self, dt: float) -> None:
        """Move the profile's target towards the goal, with the speed and acceleration of the registers."""
        memory = self.memory
        if self._target is None:
            self._target, self._speed = self._state.position, 0.0
        position_mode = memory["Operating_Mode"] == 0
        if position_mode and not self._goal_set:
            self._speed = 0.0
            return
        wanted = memory["Goal_Velocity"] * (1 if memory["Phase"] & 4 else SPEED_UNIT)
        top = memory["Maximum_Velocity_Limit"] * SPEED_UNIT
        acceleration = (
            min(memory["Acceleration"] or 255, memory["Maximum_Acceleration"] or 255) * ACCELERATION_UNIT * STEP
        )
        if position_mode:
            highest = (min(abs(wanted), top) if wanted or not memory["Phase"] & 8 else top) * STEP
            goal = self._state.position + self.mounting.sign * (self._goal() - self._present()) * STEP
            error = goal - self._target
            # The speed from which it can still stop at the goal, one step of time ahead.
            braking = math.sqrt(2 * acceleration * abs(error) + (acceleration * dt / 2) ** 2) - acceleration * dt / 2
            speed = math.copysign(min(highest, braking), error)
        elif memory["Operating_Mode"] == 1:
            goal, speed = math.inf, self.mounting.sign * max(-top, min(top, wanted)) * STEP
        else:  # PWM and steps are not emulated: it holds
            goal, speed = math.inf, 0.0
        change = max(-acceleration * dt, min(acceleration * dt, speed - self._speed))
        self._speed += change
        ahead = self._target + self._speed * dt
        if position_mode and (goal - ahead) * (goal - self._target) <= 0:  # reached within this step
            ahead, self._speed = goal, 0.0
        self._target = ahead

    def _release(self) -> None:
        self._target, self._speed, self._goal_set = None, 0.0, False

    def _goal(self) -> int:
        """The goal in steps, within the limits: where it goes, whatever the register holds."""
        goal, low, high = (self.memory[name] for name in ("Goal_Position", "Min_Position_Limit", "Max_Position_Limit"))
        return max(low, min(high, goal)) if (low, high) != (0, 0) else goal

    def _encoder(self) -> float:
        return self.mounting.present(self._state.position, 0)

    def _present(self) -> float:
        return self.mounting.present(
            self._state.position, self.memory["Homing_Offset"], bool(self.memory["Phase"] & 0x10)
        )

    # ---- protection --------------------------------------------------------------------------------------------------

    def _warm(self, dt: float) -> None:
        if self.forced_temperature is not None:
            self.temperature = self.forced_temperature
        else:
            self.temperature += dt * (HEATING * self._state.effort**2 - (self.temperature - AMBIENT) / COOLING)

    def _protect(self, dt: float, volts: float) -> None:
        memory, effort = self.memory, abs(self._state.effort)
        over_load = effort > memory["Overload_Torque"] / 100
        over_current = effort * STALL_CURRENT > memory["Protection_Current"] * CURRENT_UNIT
        self._over_load_s = self._over_load_s + dt if over_load else 0.0
        self._over_current_s = self._over_current_s + dt if over_current else 0.0
        if over_load and self._over_load_s >= memory["Protection_Time"] / 100 and not self._latched & protocol.OVERLOAD:
            self._latched |= protocol.OVERLOAD
            self._overloaded_by = math.copysign(1.0, self._state.effort * self.mounting.sign)
            self._over_current_s = 0.0  # the torque drops
        if over_current and self._over_current_s >= memory["Over_Current_Protection_Time"] / 100:
            self._latched |= protocol.CURRENT
        error = self._latched
        if self.temperature > memory["Max_Temperature_Limit"]:
            error |= protocol.TEMPERATURE
        if not memory["Min_Voltage_Limit"] <= round(volts * 10) <= memory["Max_Voltage_Limit"]:
            error |= protocol.VOLTAGE
        memory["Status"] = error
        if error & ~protocol.OVERLOAD & memory["Unloading_Condition"]:
            memory["Torque_Enable"] = 0

    def trip_overload(self) -> None:
        """Be in overload as after a stall: what a person who wants this fault now calls."""
        self._latched |= protocol.OVERLOAD
        self._overloaded_by = 0.0  # no goal is away from it: until the power is cut
        self._show(0.0)

    def _show(self, volts: float) -> None:
        """Write what the servo feels into its registers; 0 V: the voltage shown stays."""
        memory, state = self.memory, self._state
        memory["Status"] = memory["Status"] & (protocol.TEMPERATURE | protocol.VOLTAGE) | self._latched
        present = round(self._present())
        memory["Present_Position"] = present if memory["Phase"] & 0x10 else present % 4096
        speed = self.mounting.sign * state.velocity / STEP
        memory["Present_Velocity"] = round(speed if memory["Phase"] & 4 else speed / SPEED_UNIT)
        memory["Present_Load"] = round(self.mounting.sign * state.effort * 1000)
        memory["Present_Current"] = round(self.mounting.sign * state.effort * STALL_CURRENT / CURRENT_UNIT)
        memory["Present_Temperature"] = round(self.temperature)
        memory["Goal_Position_2"] = self._goal() if self._goal_set else present
        moving = abs(speed) >= memory["Moving_Velocity_Threshold"] * SPEED_UNIT or bool(self._speed)
        memory["Moving"] = int(moving)
        if volts:
            memory["Present_Voltage"] = round(volts * 10)
