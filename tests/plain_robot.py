# SPDX-License-Identifier: Apache-2.0
"""A robot as a plugin of LeRobot's has one: no servos of Feetech's, no port; it is where it was sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lerobot.robots import Robot, RobotConfig


@RobotConfig.register_subclass("plain_arm")
@dataclass
class PlainArmConfig(RobotConfig):
    """What LeRobot makes ``PlainArm`` from."""

    speed: float = 1.0
    calibrated: bool = True
    disable_torque_on_disconnect: bool = True


class PlainArm(Robot):
    """Is where it was sent."""

    config_class = PlainArmConfig
    name = "plain_arm"

    def __init__(self, config: PlainArmConfig) -> None:
        super().__init__(config)
        self.config = config
        self.is_there = False
        self.at = {"a.pos": 90.0, "b.pos": 50.0}

    @property
    def action_features(self) -> dict[str, type]:
        return dict.fromkeys(self.at, float)

    observation_features = action_features

    @property
    def is_connected(self) -> bool:
        return self.is_there

    @property
    def is_calibrated(self) -> bool:
        return self.config.calibrated

    def connect(self, calibrate: bool = True) -> None:
        assert not calibrate
        self.is_there = True

    def get_observation(self) -> dict[str, Any]:
        return dict(self.at)

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        self.at = dict(action)
        return action

    def disconnect(self) -> None:
        self.is_there = False

    def calibrate(self) -> None:
        raise AssertionError

    def configure(self) -> None:
        raise AssertionError
