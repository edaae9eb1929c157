# SPDX-License-Identifier: Apache-2.0
"""One servo without a bus: what it answers, how it follows a goal in simulated time, how it protects itself."""

from __future__ import annotations

import pytest

from lrm_ros.sim.servo_bus import protocol
from lrm_ros.sim.servo_bus.arm import Arm
from lrm_ros.sim.servo_bus.joints import Joint, SimpleJoints
from lrm_ros.sim.servo_bus.protocol import Packet
from lrm_ros.sim.servo_bus.registers import REGISTERS
from lrm_ros.sim.servo_bus.units import Mounting


class Bench:
    """One servo on one joint, in simulated time."""

    def __init__(self, weight: float = 0.0, mounting: Mounting | None = None) -> None:
        self.joints = SimpleJoints([Joint("lift", -3.0, 3.0, -2.0, weight)])
        self.joints.place("lift", 0.0)
        self.arm = Arm(self.joints, [mounting or Mounting()])
        self.servo = self.arm.servos[0]

    def write(self, name: str, value: int) -> bytes:
        register = REGISTERS[name]
        if value < 0:
            assert register.sign_bit is not None
            value = -value | 1 << register.sign_bit
        return self.send(protocol.WRITE, bytes([register.address]) + value.to_bytes(register.size, "little"))

    def send(self, instruction: int, parameters: bytes = b"") -> bytes:
        return b"".join(self.arm.answer(Packet(self.servo.id, instruction, parameters), self.servo.rate))

    def __getitem__(self, name: str) -> int:
        return self.servo.memory[name]

    def run(self, seconds: float) -> None:
        self.arm.step(seconds)

    def fastest(self, seconds: float) -> int:
        """Highest Present_Velocity within the time, steps/s."""
        found = 0
        for _ in range(round(seconds / 0.005)):
            self.run(0.005)
            found = max(found, abs(self["Present_Velocity"]))
        return found


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_reg_write_waits_for_action():
    bench = Bench()
    assert bench.send(protocol.REG_WRITE, b"\x2a\x00\x09") == protocol.status(1, 0)
    assert (bench["Reg_Write_Flag"], bench["Goal_Position"], bench["Torque_Enable"]) == (1, 0, 0)
    assert bench.send(protocol.ACTION) == protocol.status(1, 0)
    assert (bench["Reg_Write_Flag"], bench["Goal_Position"], bench["Torque_Enable"]) == (0, 0x900, 1)
    bench.write("Goal_Position", 5)
    bench.send(protocol.ACTION)
    assert bench["Goal_Position"] == 5, "it waited for one action only"


def test_a_new_id_and_a_new_rate_count_after_the_answer():
    bench = Bench()
    assert bench.write("ID", 9) == protocol.status(1, 0)
    assert bench.arm.answer(Packet(1, protocol.PING), 1_000_000) == []
    assert bench.send(protocol.PING) == protocol.status(9, 0)
    assert bench.arm.answer(Packet(9, protocol.WRITE, b"\x06\x04"), 1_000_000) == [protocol.status(9, 0)]
    assert bench.arm.answer(Packet(9, protocol.PING), 1_000_000) == []
    assert bench.arm.answer(Packet(9, protocol.PING), 115_200) == [protocol.status(9, 0)]


def test_response_level_0_answers_reads_and_pings_only():
    bench = Bench()
    bench.write("Response_Status_Level", 0)
    assert bench.write("Acceleration", 3) == b""
    assert bench["Acceleration"] == 3
    assert bench.send(protocol.PING) == protocol.status(1, 0)
    assert bench.send(protocol.READ, b"\x29\x01") == protocol.status(1, 0, b"\x03")


@pytest.mark.parametrize(
    ("instruction", "parameters"), [(0x06, b""), (protocol.READ, b"\x38"), (protocol.WRITE, b"\x28")]
)
def test_what_is_no_instruction_has_no_answer(instruction, parameters):
    assert Bench().send(instruction, parameters) == b""


# ---- motion ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mounting", [Mounting(), Mounting(1000, -1)])
def test_a_goal_switches_the_torque_on_and_is_reached(mounting):
    bench = Bench(mounting=mounting)
    assert bench["Present_Position"] == mounting.zero
    bench.write("Goal_Position", mounting.zero + 500)
    assert bench["Torque_Enable"] == 1
    bench.run(0.02)
    assert bench["Moving"] == 1
    bench.run(1.0)
    assert (bench["Present_Position"], bench["Moving"]) == (mounting.zero + 500, 0)
    assert bench.joints.states()[0].position == pytest.approx(mounting.sign * 500 * 2 * 3.14159 / 4096, rel=1e-3)


def test_torque_on_holds_the_place_until_a_goal_comes():
    bench = Bench(weight=0.2)
    bench.write("Goal_Position", 3000)
    bench.run(1.0)
    bench.write("Torque_Enable", 0)
    bench.run(0.3)
    fallen = bench["Present_Position"]
    assert fallen < 2950
    bench.write("Torque_Enable", 1)
    bench.run(1.0)
    assert abs(bench["Present_Position"] - fallen) < 15, "no jump to the old goal"


def test_the_speed_and_the_acceleration_are_those_of_the_registers():
    bench = Bench()
    bench.write("Goal_Velocity", 400)
    bench.write("Acceleration", 10)  # 1000 steps/s^2
    bench.write("Goal_Position", 2048 + 800)
    bench.run(0.2)
    assert bench["Present_Velocity"] == pytest.approx(200, abs=25), "0.2 s at 1000 steps/s^2, less the motor's lag"
    assert bench.fastest(4.0) == pytest.approx(400, abs=3)
    assert bench["Present_Position"] == 2848
    bench.write("Goal_Velocity", 0)
    bench.write("Acceleration", 0)
    bench.write("Maximum_Velocity_Limit", 20)  # 1000 steps/s
    bench.write("Goal_Position", 2048 - 1500)
    assert bench.fastest(4.0) == pytest.approx(1000, abs=5), "0 is the highest speed"
    bench.write("Goal_Velocity", 30000)
    bench.write("Goal_Position", 2048)
    assert bench.fastest(4.0) == pytest.approx(1000, abs=5)


def test_a_goal_is_not_overshot():
    bench = Bench()
    for goal, speed, acceleration in [(2500, 0, 0), (1000, 0, 254), (3000, 3000, 20), (2048, 100, 1), (2049, 0, 0)]:
        bench.write("Goal_Velocity", speed)
        bench.write("Acceleration", acceleration)
        start = bench["Present_Position"]
        bench.write("Goal_Position", goal)
        for _ in range(4000):
            bench.run(0.005)
            assert min(start, goal) - 1 <= bench["Present_Position"] <= max(start, goal) + 1, (
                goal,
                speed,
                acceleration,
            )
        assert abs(bench["Present_Position"] - goal) <= 1


def test_a_goal_beyond_the_limits_ends_at_the_limit_and_stays_in_its_register():
    bench = Bench()
    bench.write("Min_Position_Limit", 1500)
    bench.write("Max_Position_Limit", 2500)
    bench.write("Goal_Position", 4000)
    bench.run(2.0)
    assert (bench["Present_Position"], bench["Goal_Position"], bench["Goal_Position_2"]) == (2500, 4000, 2500)
    bench.write("Goal_Position", -700)
    bench.run(2.0)
    assert (bench["Present_Position"], bench["Goal_Position"]) == (1500, -700)


def test_the_offset_moves_positions_not_the_joint_and_a_turn_ends_at_4095():
    bench = Bench()
    bench.write("Homing_Offset", 100)
    assert bench["Present_Position"] == 1948
    bench.write("Homing_Offset", -2047)
    assert bench["Present_Position"] == 4095
    bench.joints.place("lift", 0.01)
    bench.run(0.005)
    assert bench["Present_Position"] == 6, "a single turn"
    bench.write("Phase", 12 | 0x10)
    assert bench["Present_Position"] == 4102, "beyond a turn"
    bench.write("Torque_Enable", 128)
    assert (bench["Present_Position"], bench["Homing_Offset"], bench["Torque_Enable"]) == (2048, 7, 0)


def test_velocity_mode_turns_until_it_is_told_otherwise_and_other_modes_hold():
    bench = Bench()
    bench.write("Operating_Mode", 1)
    bench.write("Goal_Velocity", -300)
    bench.write("Torque_Enable", 1)
    bench.run(1.0)
    assert bench["Present_Velocity"] == pytest.approx(-300, abs=2)
    bench.write("Operating_Mode", 2)
    bench.run(0.5)
    assert bench["Present_Velocity"] == 0


def test_the_torque_limit_decides_what_is_lifted():
    bench = Bench(weight=0.4)
    bench.write("Torque_Limit", 300)
    bench.write("Goal_Position", 2048 + 500)
    bench.run(1.0)
    assert bench["Present_Position"] < 2048
    assert bench["Present_Load"] == 300
    bench.write("Torque_Limit", 1000)
    bench.run(3.0)
    assert 2500 < bench["Present_Position"] <= 2548
    assert bench["Present_Current"] == pytest.approx(bench["Present_Load"] / 1000 * 2.7 / 0.0065, abs=1)


# ---- protection ------------------------------------------------------------------------------------------------------


def stalled() -> Bench:
    bench = Bench()
    bench.joints.block("lift", high=0.3)
    bench.write("Overload_Torque", 25)
    bench.write("Protection_Time", 100)  # 1 s
    bench.write("Goal_Position", 3500)
    bench.run(1.0)
    assert (bench["Status"], bench["Present_Load"]) == (0, 1000)
    bench.run(0.5)
    return bench


def test_a_stall_leaves_the_protective_torque_and_every_answer_says_so():
    bench = stalled()
    assert (bench["Status"], bench["Present_Load"]) == (protocol.OVERLOAD, 200)
    assert bench.send(protocol.PING) == protocol.status(1, protocol.OVERLOAD)
    assert bench.write("Torque_Enable", 0) == protocol.status(1, protocol.OVERLOAD)
    bench.run(0.1)
    assert (bench["Status"], bench["Present_Load"]) == (protocol.OVERLOAD, 0), "torque off does not clear it"
    bench.arm.brown_out(0.1)
    bench.run(0.3)
    assert bench["Status"] == 0


def test_a_goal_the_other_way_ends_an_overload():
    bench = stalled()
    bench.write("Goal_Position", 3600)
    bench.run(0.1)
    assert bench["Status"] == protocol.OVERLOAD
    bench.write("Goal_Position", 2048)
    bench.run(1.0)
    assert (bench["Status"], bench["Present_Position"]) == (0, 2048)


def test_without_the_unloading_bit_an_overload_is_only_reported():
    bench = Bench()
    bench.write("Unloading_Condition", 0)
    bench.joints.block("lift", high=0.3)
    bench.write("Goal_Position", 3500)
    bench.run(4.0)
    assert (bench["Status"], bench["Present_Load"]) == (protocol.OVERLOAD, 1000)


def test_too_much_current_takes_the_torque():
    bench = Bench()
    bench.write("Protection_Current", 250)
    bench.write("Overload_Torque", 254)
    bench.joints.block("lift", high=0.3)
    bench.write("Goal_Position", 3500)
    bench.run(1.9)
    assert bench["Torque_Enable"] == 1
    bench.run(0.5)
    assert (bench["Status"], bench["Torque_Enable"]) == (protocol.CURRENT, 0)


def test_heat_takes_the_torque_until_it_has_cooled_and_a_goal_comes():
    bench = Bench()
    bench.write("Goal_Position", 2500)
    bench.servo.forced_temperature = 71.0
    bench.run(0.1)
    assert (bench["Status"], bench["Torque_Enable"], bench["Present_Temperature"]) == (protocol.TEMPERATURE, 0, 71)
    bench.write("Goal_Position", 2600)
    bench.run(0.1)
    assert bench["Torque_Enable"] == 0
    bench.servo.forced_temperature = None
    bench.run(60.0)
    assert bench["Status"] == 0
    bench.write("Goal_Position", 2600)
    bench.run(1.0)
    assert bench["Present_Position"] == 2600


def test_a_stalled_motor_warms():
    bench = Bench()
    bench.write("Overload_Torque", 254)
    bench.joints.block("lift", high=0.3)
    bench.write("Goal_Position", 3500)
    bench.run(60.0)
    assert 35 < bench["Present_Temperature"] < 70


@pytest.mark.parametrize("volts", [3.5, 8.4])
def test_a_voltage_beyond_the_limits_is_reported_and_the_torque_stays(volts):
    bench = Bench()
    bench.write("Goal_Position", 2500)
    bench.arm.supply = volts
    bench.run(1.0)
    assert (bench["Status"], bench["Present_Voltage"]) == (protocol.VOLTAGE, round(volts * 10))
    assert (bench["Torque_Enable"], bench["Present_Position"]) == (1, 2500)
    bench.arm.supply = 7.4
    bench.run(0.1)
    assert (bench["Status"], bench["Present_Voltage"]) == (0, 74)


def test_a_brown_out_is_silent_and_limp_and_starts_anew():
    bench = Bench(weight=0.3)
    bench.write("Homing_Offset", 40)
    bench.write("Goal_Position", 2500)
    bench.run(1.0)
    held = bench["Present_Position"]
    bench.arm.brown_out(0.2)
    assert bench.send(protocol.PING) == b""
    bench.run(0.1)
    assert bench.send(protocol.PING) == b""
    bench.run(0.2)
    assert bench.send(protocol.PING) == protocol.status(1, 0)
    assert (bench["Torque_Enable"], bench["Goal_Position"], bench["Homing_Offset"]) == (0, 0, 0)
    assert bench["Present_Position"] < held - 40
