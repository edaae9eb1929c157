# SPDX-License-Identifier: Apache-2.0
"""An emulated servo bus below the driver: STS3215 servos on a pseudo-terminal, with joints and faults behind it.

``protocol`` packets, ``registers`` a servo's memory, ``units`` steps and radians, ``joints`` what moves, ``servo`` the
firmware, ``arm`` the servos of one arm and their supply, ``faults`` what goes wrong on the wire, ``port`` the
pseudo-terminal, ``server`` the loop in real time, ``commands`` faults by a line of text, ``calibration`` what LeRobot's
calibration finds, ``twin`` the simulated world's arm and its scenes. docs/servo_bus.md has the tables.
"""
