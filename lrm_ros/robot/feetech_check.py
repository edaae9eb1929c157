# SPDX-License-Identifier: Apache-2.0
"""What must be true of an arm's servos before LeRobot's driver takes them; each fault is one line with its cure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any

from lrm_ros.robot.feetech import Servos, error_names

_REGISTERS = ("Homing_Offset", "Min_Position_Limit", "Max_Position_Limit")
_FILE_KEYS = ("homing_offset", "range_min", "range_max")  # the same in LeRobot's file
PORTS = ("/dev/serial/by-id/*", "/dev/ttyACM*", "/dev/ttyUSB*")


class NoAnswer(ValueError):
    """Servos do not answer: no power, a cable, another port, or a host that is too busy just now."""


def ports() -> list[str]:
    """Return the serial ports of this machine that an arm may have."""
    return [path for pattern in PORTS for path in sorted(glob(pattern))]


def check_port(port: str, cure: str = "set arm.port in the contract's file or port:=PATH") -> None:
    """Check that there is such a port and that it may be used.

    Args:
        port: its path.
        cure: how it is given.

    Raises:
        ValueError: it is not there, or not ours to use.
    """
    found = ports()
    there = f"there are {', '.join(found)}" if found else "there is none: plug in the arm's USB cable"
    if not port:
        raise ValueError(f"no serial port is given; {there}: {cure}")
    if not Path(port).exists():
        raise ValueError(f"serial port '{port}' does not exist; {there}")


def check_calibration_file(path: Path, calibration: Mapping[str, Any], words: str) -> None:
    """Check that LeRobot has found a calibration.

    Args:
        path: of its file.
        calibration: by motor.
        words: options that name the arm to LeRobot's programs.

    Raises:
        ValueError: there is none.
    """
    if not calibration:
        raise ValueError(
            f"calibration file '{path}' does not exist; calibrate the arm ('lerobot-calibrate {words}') or set id and "
            "calibration_dir to those of its calibration"
        )


def calibration_files(folder: Path | None = None) -> list[Path]:
    """Return the calibrations of arms that LeRobot has made on this machine: in its own folder, and in another one."""
    from lerobot.utils.constants import HF_LEROBOT_CALIBRATION

    beside = [] if folder is None else folder.glob("*.json")
    return sorted({*beside, *Path(HF_LEROBOT_CALIBRATION).glob("*/*/*.json")})


def calibrated_as(have: Mapping[str, tuple[int, int, int]], files: Sequence[Path]) -> list[Path]:
    """Return the calibration files that say what servos hold.

    Args:
        have: joint -> (Homing_Offset, Min_Position_Limit, Max_Position_Limit).
        files: to look at; one that is no calibration is passed over.
    """
    found = []
    for file in files:
        try:
            rows = json.loads(file.read_text(encoding="utf-8"))
            wanted = {joint: tuple(row[key] for key in _FILE_KEYS) for joint, row in rows.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        if wanted == dict(have):
            found.append(file)
    return found


def held_calibration(servos: Servos) -> dict[str, tuple[int, int, int]]:
    """Return what servos hold of their calibration: joint -> (offset, lowest, highest position).

    Raises:
        ConnectionError: a servo does not answer.
    """
    offset, low, high = (servos.registers(name) for name in _REGISTERS)
    return {joint: (offset[joint], low[joint], high[joint]) for joint in offset}


def check_servos(
    servos: Servos, bus: Any, port: str, calibration: Mapping[str, Any], words: str, others: Sequence[Path] = ()
) -> None:
    """Check the servos of an open port.

    Args:
        servos: of ``bus``.
        bus: ``FeetechMotorsBus``, connected without its handshake.
        port: its name, for messages.
        calibration: by motor, of the file.
        words: options that name the arm to LeRobot's programs.
        others: calibration files of other arms, of which this may be one.

    Raises:
        NoAnswer: servos are missing.
        ValueError: servos are of another model or firmware, report an error, have too much or too little
            voltage, or are calibrated otherwise than the file says.
    """
    _check_presence(bus, port)
    models = servos.registers("Model_Number")
    for name, motor in bus.motors.items():
        wanted = bus.model_number_table[motor.model]
        if models[name] != wanted:
            raise ValueError(
                f"servo {motor.id} ({name}) at '{port}' is model {models[name]}, not {motor.model} ({wanted}); is this "
                "the port of another robot?"
            )
    major, minor = servos.registers("Firmware_Major_Version"), servos.registers("Firmware_Minor_Version")
    firmware = {name: f"{major[name]}.{minor[name]}" for name in bus.motors}
    if len(set(firmware.values())) > 1:
        raise ValueError(
            f"the servos have different firmware: {', '.join(f'{name} {have}' for name, have in firmware.items())}; "
            "bring all to one version with Feetech's software (feetechrc.com/software)"
        )
    status, celsius = servos.registers("Status"), servos.registers("Present_Temperature")
    volts = servos.registers("Present_Voltage")
    lowest, highest = servos.registers("Min_Voltage_Limit"), servos.registers("Max_Voltage_Limit")
    for name in bus.motors:
        if not lowest[name] <= volts[name] <= highest[name]:
            raise ValueError(
                f"{name} has {volts[name] / 10:.1f} V, allowed are {lowest[name] / 10:.1f} to {highest[name] / 10:.1f} "
                "V; use the power supply that the servos are made for, and look at its plug"
            )
    if bad := [f"{name} {error_names(bits)}" for name, bits in status.items() if bits]:
        hot = ", ".join(f"{name} {celsius[name]} degrees" for name, bits in status.items() if bits & 4)
        raise ValueError(
            f"servos report an error: {'; '.join(bad)}{f' ({hot})' if hot else ''}; free the arm, let it cool, then "
            "switch its power off and on"
        )
    _check_calibration(servos, port, calibration, words, others)


def _check_presence(bus: Any, port: str) -> None:
    missing = []
    for name in bus.motors:
        try:
            bus.sync_read("Model_Number", name, normalize=False, num_retry=2)  # a busy host may take an answer too late
        except ConnectionError:
            bus.port_handler.ser.reset_input_buffer()
            missing.append(name)
    if len(missing) == len(bus.motors):
        raise NoAnswer(f"no servo answers at '{port}'; switch the arm's power on, or give the port of this arm")
    if missing:
        names = ", ".join(f"{name} (id {bus.motors[name].id})" for name in missing)
        raise NoAnswer(
            f"at '{port}' no answer of {names}; check the cable to the first of them, and its id "
            "('lerobot-setup-motors')"
        )


def _check_calibration(
    servos: Servos, port: str, calibration: Mapping[str, Any], words: str, others: Sequence[Path]
) -> None:
    have = held_calibration(servos)
    for name, wanted in calibration.items():
        file = (wanted.homing_offset, wanted.range_min, wanted.range_max)
        if file != have.get(name):
            if found := calibrated_as(have, others):
                names = ", ".join(f"'{path}'" for path in found)
                raise ValueError(
                    f"the arm at '{port}' is calibrated as {names} says, so it is another than this ({words}); are the "
                    "ports of leader and follower swapped? 'lrm ports' lists them"
                )
            raise ValueError(
                f"{name} is calibrated otherwise than its file says: offset, lowest and highest position are "
                f"{have.get(name)} in the servo, {file} in the file; run 'lerobot-calibrate {words}' (ENTER writes the "
                "file to the servos), or give the id of this arm"
            )
