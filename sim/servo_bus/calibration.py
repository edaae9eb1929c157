# SPDX-License-Identifier: Apache-2.0
"""What LeRobot's calibration finds on an emulated arm: presets its servos, and writes the file that the driver reads.

LeRobot (lerobot/robots/so_follower/so_follower.py, ``calibrate``) has a person put every joint to the middle of its
range: Homing_Offset is chosen so that Present_Position is 2047 there. Then the joints are moved to both ends; the least
and the greatest position become the limits, but wrist_roll's are 0 and 4095. Degrees count from the middle of the two
limits (``MotorsBus._normalize``), the gripper's 0 to 100 from the lower to the upper one. Its kinematics feed those
degrees to the published URDF as they are (lerobot/model/kinematics.py): a degree is a degree of the URDF, with the same
sign, from the middle of the URDF's range. That is the URDF's zero but for wrist_roll: 0 degrees are 0.049 rad there, if
it was put to its middle exactly.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from lrm_ros.sim.servo_bus.arm import Arm
from lrm_ros.sim.servo_bus.joints import SO101, Joint
from lrm_ros.sim.servo_bus.servo import Servo
from lrm_ros.sim.servo_bus.units import Mounting

HOME = 2047  # steps, Present_Position in the middle: int((4096 - 1) / 2) in lerobot/motors/feetech/feetech.py
FULL_TURN = "wrist_roll"  # LeRobot does not ask for its range

# Signs: all servos count up where the URDF's angle grows, as the degrees above say (drive_mode is 0 for all), and the
# gripper from closed to open (TheRobotStudio/SO-ARM100: Simulation/SO101/README.md). Zeros follow from how each horn
# was put on, which differs from arm to arm and is published nowhere: assumed, and no two alike. The encoders of
# elbow_flex and gripper pass the end of their turn within the range, as they may on an arm that is not calibrated.
MOUNTINGS = (
    Mounting(2048),
    Mounting(1790),
    Mounting(3300),
    Mounting(2400),
    Mounting(1900),
    Mounting(3500),
)

Calibration = dict[str, dict[str, int]]  # of one arm, by joint, as in LeRobot's file


def so101() -> Arm:
    """Return an SO-101 whose encoders stand anywhere, as on an arm that was just built."""
    return Arm(mountings=MOUNTINGS)


def calibration(servos: Sequence[Servo], joints: Sequence[Joint] = SO101) -> Calibration:
    """Return what LeRobot's calibration finds if it is done to the step.

    Args:
        servos: in the order of the joints.
        joints: with their mechanical stops.
    """
    found = {}
    for servo, joint in zip(servos, joints, strict=True):
        mounting, middle = servo.mounting, (joint.low + joint.high) / 2
        offset = round(mounting.present(middle, 0)) % 4096 - HOME
        ends = sorted(round(mounting.present(angle, offset)) for angle in (joint.low, joint.high))
        low, high = (0, 4095) if joint.name == FULL_TURN else ends
        found[joint.name] = {
            "id": servo.id,
            "drive_mode": 0,
            "homing_offset": offset,
            "range_min": low,
            "range_max": high,
        }
    return found


def preset(servos: Sequence[Servo], values: Calibration) -> None:
    """Save offsets and limits in the servos' EEPROM, in the order of the values."""
    for servo, value in zip(servos, values.values(), strict=True):
        servo.memory.save("Homing_Offset", value["homing_offset"])
        servo.memory.save("Min_Position_Limit", value["range_min"])
        servo.memory.save("Max_Position_Limit", value["range_max"])


def write(values: Calibration, folder: Path, name: str) -> Path:
    """Write LeRobot's calibration file and return its path: give the folder as calibration_dir, the name as id."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(values, indent=4) + "\n")
    return path
