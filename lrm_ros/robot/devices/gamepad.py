# SPDX-License-Identifier: Apache-2.0
"""What LeRobot's two gamepad classes keep to themselves: that the pad is gone, and that a button was let go.

One reads reports by ``hid``, the other by ``pygame`` (lerobot: src/lerobot/teleoperators/gamepad/gamepad_utils.py).
"""

from __future__ import annotations

import os
from typing import Any, Protocol

from lrm_ros.errors import one_line

_GONE = "plug it in again"
_EVENT_BUTTONS = (0, 1, 3)  # LeRobot's for pygame: once more, failure, success


class Pad(Protocol):
    """A gamepad that is connected."""

    def before_read(self) -> None:
        """Call it before LeRobot's class reads."""
        ...

    def check(self) -> None:
        """Call it after that; raises OSError if the pad is gone: what was read then is none of the person's."""
        ...


def find_pad(gamepad: Any) -> Pad | None:
    """Return what watches one of LeRobot's gamepads that is connected, ``None`` for another device."""
    if getattr(gamepad, "device", None) is not None:
        return ReportPad(gamepad)
    if getattr(gamepad, "joystick", None) is not None:
        return JoystickPad(gamepad)
    return None


def tame_pygame() -> None:
    """Have pygame, which LeRobot starts as a whole, print no greeting and take neither the sound device nor signals."""
    for name, value in (
        ("PYGAME_HIDE_SUPPORT_PROMPT", "1"),
        ("SDL_AUDIODRIVER", "dummy"),
        ("SDL_NO_SIGNAL_HANDLERS", "1"),
    ):
        os.environ.setdefault(name, value)


class ReportPad:
    """Stands before the ``hid`` device: LeRobot's class only logs that a read failed; its sticks stay as they were."""

    def __init__(self, gamepad: Any) -> None:
        """Watch an open device of LeRobot's ``GamepadControllerHID``."""
        self._device, gamepad.device = gamepad.device, self
        self._error: Exception | None = None

    def read(self, length: int) -> Any:
        """Return a report, as the device does."""
        try:
            return self._device.read(length)
        except (OSError, ValueError) as error:
            self._error = error
            raise

    def close(self) -> None:
        """Close the device."""
        self._device.close()

    def before_read(self) -> None:
        """Nothing is to be done: a report has every button."""

    def check(self) -> None:
        """Raise OSError if a read has failed."""
        if self._error is not None:
            raise OSError(f"the gamepad is gone ({one_line(self._error)}); {_GONE}")


class JoystickPad:
    """Counts the pads that pygame sees: of one that is gone sticks and buttons are told to be let go, and no more."""

    def __init__(self, gamepad: Any) -> None:
        """Watch the pad of LeRobot's ``GamepadController``; from its thread."""
        self._gamepad, self._there = gamepad, _pads()

    def before_read(self) -> None:
        """Forget the event of a button that is not held any more: LeRobot's class keeps that of a failure."""
        joystick = self._gamepad.joystick
        if not any(joystick.get_button(button) for button in _EVENT_BUTTONS):
            self._gamepad.episode_end_status = None

    def check(self) -> None:
        """Raise OSError if there are fewer pads than at the last look: it may be this one."""
        before, self._there = self._there, _pads()
        if self._there < before:
            raise OSError(f"the gamepad is gone; {_GONE}")


def _pads() -> int:
    import pygame

    return int(pygame.joystick.get_count())
