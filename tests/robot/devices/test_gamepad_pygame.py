# SPDX-License-Identifier: Apache-2.0
"""LeRobot's gamepad class on pygame, the default of it on Linux, with a virtual pad of SDL's: no real one was tried."""

from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np
import pytest
from virtual_pad import VirtualPad  # type: ignore[import-not-found]

from lrm_ros.config import RobotContract, TeleopConfig
from lrm_ros.robot.devices.gamepad import tame_pygame
from lrm_ros.robot.devices.hand import Hand
from lrm_ros.robot.devices.lerobot_input import AGAIN, FAILURE, SUCCESS, LeRobotInput, Motion
from lrm_ros.robot.so100.jog import Jog

ONCE_MORE, FAILED, SUCCEEDED, HELD = 0, 1, 3, 5  # buttons, by LeRobot's numbers


@pytest.fixture
def pad():
    pytest.importorskip("lerobot.teleoperators.gamepad")
    pygame = pytest.importorskip("pygame")
    tame_pygame()
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    yield VirtualPad()
    pygame.quit()
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.fixture
def gamepad(pad):
    device = LeRobotInput(TeleopConfig("gamepad", cartesian_speed=0.1), RobotContract())
    device.connect()
    assert not device.leads_joints
    yield device
    device.close()


def read(device: LeRobotInput) -> Motion:
    motion = device.read()
    assert motion is not None
    return motion


def test_sticks_move_the_gripper_and_buttons_end_the_episode(gamepad, pad):
    assert not read(gamepad).change.any()
    for axis, place in ((1, 0), (0, 1), (3, 2)):
        for value in (-1.0, 1.0):
            pad.axis(axis, value)
            change = read(gamepad).change
            assert np.flatnonzero(change).tolist() == [place] and np.sign(change[place]) == -np.sign(value)
            pad.axis(axis, 0.0)
            assert not read(gamepad).change.any()
    for _ in range(2):  # LeRobot's class keeps a failure for as long as no other button is let go
        for button, event in ((SUCCEEDED, SUCCESS), (FAILED, FAILURE), (FAILED, FAILURE), (ONCE_MORE, AGAIN)):
            pad.button(button, down=True)
            assert read(gamepad).events == (event,)
            assert read(gamepad).events == (), "held, it is one event"
            pad.button(button, down=False)
            assert read(gamepad).events == () == read(gamepad).events


def test_a_pad_that_is_pulled_out_is_gone_and_gives_the_arm_to_nobody(gamepad, pad):
    class Thread:
        """What an input thread makes of the device."""

        fault = ""

        def take(self, _: float) -> Motion | None:
            try:
                return gamepad.read()
            except OSError as error:
                self.fault = str(error)
                return None

    thread = Thread()
    hand = Hand(thread, Jog(RobotContract()), RobotContract())  # type: ignore[arg-type]
    pad.axis(1, -1.0)
    pad.button(HELD, down=True)
    hand.follow(np.zeros(6, np.float32), TeleopConfig())
    assert hand.held is True
    pad.unplug()
    hand.follow(np.zeros(6, np.float32), TeleopConfig())
    assert hand.held is True and "the gamepad is gone; plug it in again" in thread.fault
    gamepad.close()
    with pytest.raises(ValueError, match="has found no gamepad"):
        gamepad.connect()


def test_a_pad_that_is_plugged_in_again_is_read_again(gamepad, pad):
    pad.unplug()
    with pytest.raises(OSError, match="the gamepad is gone"):
        gamepad.read()
    gamepad.close()  # which ends pygame
    again = VirtualPad()
    gamepad.connect()
    again.axis(1, -1.0)
    assert read(gamepad).change[0] > 0


def test_a_second_pad_that_comes_and_goes_makes_it_look_anew(gamepad, pad):
    second = VirtualPad()
    assert not read(gamepad).events
    second.unplug()
    with pytest.raises(OSError, match="the gamepad is gone"):
        gamepad.read()
    gamepad.close()
    VirtualPad()
    gamepad.connect()
    assert not read(gamepad).events


_WITHOUT = """
import sys
sys.modules["pygame"] = None
from lrm_ros.config import RobotContract, TeleopConfig
from lrm_ros.robot.devices.lerobot_input import LeRobotInput
LeRobotInput(TeleopConfig("gamepad"), RobotContract()).connect()
"""


def test_without_pygame_the_cure_is_said():
    pytest.importorskip("lerobot.teleoperators.gamepad")
    said = subprocess.run([sys.executable, "-c", _WITHOUT], capture_output=True, text=True, check=False).stderr
    assert "'gamepad' needs a library that is not installed" in said and "pip install 'lerobot[gamepad]'" in said
