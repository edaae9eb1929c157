# SPDX-License-Identifier: Apache-2.0
"""A gamepad of SDL's own that a test plugs in, pulls out and moves; pygame sees it as a real one."""

from __future__ import annotations

import ctypes
from pathlib import Path

AXES, BUTTONS = 6, 12
_GAMEPAD = 1  # SDL_JOYSTICK_TYPE_GAMECONTROLLER


class VirtualPad:
    """Plugged in from its making on, which starts pygame; only one thread may use it."""

    def __init__(self) -> None:
        import pygame

        pygame.init()
        loaded = Path("/proc/self/maps").read_text().splitlines()
        (library,) = {line.split()[-1] for line in loaded if "libSDL2-" in line}
        self._sdl = ctypes.CDLL(library)
        self._sdl.SDL_JoystickOpen.restype = ctypes.c_void_p
        self.plug()

    def plug(self) -> None:
        """Plug it in."""
        self._index = self._sdl.SDL_JoystickAttachVirtual(_GAMEPAD, AXES, BUTTONS, 1)
        assert self._index >= 0
        self._joystick = ctypes.c_void_p(self._sdl.SDL_JoystickOpen(self._index))

    def unplug(self) -> None:
        """Pull it out."""
        assert self._sdl.SDL_JoystickDetachVirtual(self._index) == 0

    def axis(self, number: int, value: float) -> None:
        """Move a stick, from -1 to 1."""
        assert self._sdl.SDL_JoystickSetVirtualAxis(self._joystick, number, int(32767 * value)) == 0

    def button(self, number: int, *, down: bool) -> None:
        """Press a button or let it go."""
        assert self._sdl.SDL_JoystickSetVirtualButton(self._joystick, number, int(down)) == 0
