# SPDX-License-Identifier: Apache-2.0
"""LeRobot's real classes of a gamepad and a phone before stand-ins of their libraries; neither was run on a device.

The gamepad's stand-in gives recorded reports of a Logitech RumblePad 2 (``hid``); the phone's gives the feedback of
HEBI's Mobile I/O (``hebi``).
"""

from __future__ import annotations

import importlib
import sys
import time
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from lrm_ros.config import RobotContract, TeleopConfig
from lrm_ros.robot.devices import lerobot_input
from lrm_ros.robot.devices.lerobot_input import AGAIN, FAILURE, SUCCESS, LeRobotInput
from lrm_ros.robot.lerobot_types import TELEOPERATORS, config_class

CONTRACT = RobotContract()


def stand_in(monkeypatch, module: str, **libraries: ModuleType) -> ModuleType:
    """Import a module of LeRobot's with libraries that are not here, whether it looks for them or not."""
    for name, library in libraries.items():
        library.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, library)
    found = importlib.import_module(module)
    for name, library in libraries.items():
        monkeypatch.setattr(found, name, library, raising=False)
    monkeypatch.setattr(found, "require_package", lambda *_, **__: None, raising=False)
    return found


def with_hid() -> str:
    """The option that makes LeRobot read reports; empty: it has none."""
    known = config_class(TELEOPERATORS, "gamepad", "input").__dataclass_fields__
    return "hidapi_fallback=true" if "hidapi_fallback" in known else ""


class Reports:
    """A gamepad of which ``hid`` reads reports; the newest again and again."""

    # Bytes of a RumblePad 2: 1, left x and y, right x and y, hat and buttons, triggers and shoulders, mode.
    STILL = bytes([0x01, 0x80, 0x80, 0x80, 0x80, 0x08, 0x00, 0x00])

    def __init__(self) -> None:
        self.report = self.STILL
        self.gone = False

    def open_path(self, path: bytes) -> None: ...

    def set_nonblocking(self, on: int) -> None: ...

    def get_manufacturer_string(self) -> str:
        return "Logitech"

    def get_product_string(self) -> str:
        return "Logitech RumblePad 2 USB"

    def read(self, length: int) -> list[int]:
        if self.gone:
            raise OSError("read error")
        return list(self.report)

    def close(self) -> None: ...


@pytest.fixture
def pad(monkeypatch):
    pad = Reports()
    hid = ModuleType("hid")
    hid.enumerate = lambda: [{"product_string": "Logitech RumblePad 2 USB", "path": b"1-2"}]
    hid.device = lambda: pad
    stand_in(monkeypatch, "lerobot.teleoperators.gamepad.gamepad_utils", hid=hid)
    teleop = importlib.import_module("lerobot.teleoperators.gamepad.teleop_gamepad")
    if not with_hid():  # LeRobot 0.4 reads reports on macOS only
        monkeypatch.setattr(teleop, "sys", SimpleNamespace(platform="darwin"))
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(lerobot_input, "time", SimpleNamespace(monotonic=lambda: clock.now))
    pad.clock, pad.hid = clock, hid
    return pad


@pytest.fixture
def gamepad(pad):
    config = TeleopConfig("gamepad", input_options=with_hid(), cartesian_speed=0.1, gripper_speed=2.0)
    device = LeRobotInput(config, CONTRACT)
    device.connect()
    assert not device.leads_joints
    return device


def report(**changes: int) -> bytes:
    data = bytearray(Reports.STILL)
    for name, value in changes.items():
        data[int(name[1:])] = value
    return bytes(data)


def test_a_gamepads_sticks_are_a_speed_of_the_grippers_place(gamepad, pad):
    gamepad.read()
    pad.clock.now += 0.05
    still = gamepad.read()
    assert not still.change.any() and still.gripper == 0 and still.events == () and still.held is False
    for byte, axis in ((2, 0), (1, 1), (4, 2)):
        for value, way in ((0x00, 1), (0xFF, -1)):  # a stick pushed away gives 0
            pad.report, pad.clock.now = report(**{f"b{byte}": value}), pad.clock.now + 0.05
            assert gamepad.read().change == pytest.approx(way * 0.1 * 0.05 * np.eye(3)[axis], rel=0.01, abs=1e-9)
    pad.clock.now += 60.0  # a stick that was not read for long has not moved the arm meanwhile
    assert np.abs(gamepad.read().change).max() <= 0.1 * lerobot_input.LONGEST_S


def test_a_gamepads_buttons_are_the_episodes_events(gamepad, pad):
    for bit, event in ((7, SUCCESS), (5, FAILURE), (4, AGAIN)):
        pad.report = report(b5=0x08 | 1 << bit)
        assert gamepad.read().events == (event,)
        assert gamepad.read().events == (), "held, it is one event"
        pad.report = Reports.STILL
        assert gamepad.read().events == ()
    pad.report = report(b6=2)
    assert gamepad.read().held is True
    for value, way in ((8, 1), (4, -1), (12, 0)):
        pad.report, pad.clock.now = report(b6=value), pad.clock.now + 0.05
        assert gamepad.read().gripper == pytest.approx(way * 2.0 * 0.05)


def test_a_gamepad_that_is_pulled_out_with_its_stick_pushed_moves_nothing_more(gamepad, pad):
    pad.report, pad.clock.now = report(b2=0x00), pad.clock.now + 0.05
    assert gamepad.read().change.any()
    pad.gone, pad.clock.now = True, pad.clock.now + 0.05
    for _ in range(2):
        with pytest.raises(OSError, match=r"the gamepad is gone .*plug it in again"):
            gamepad.read()
    gamepad.close()
    pad.gone, pad.report = False, Reports.STILL
    gamepad.connect()
    assert not gamepad.read().change.any()


def test_without_a_gamepad_it_says_so(pad):
    pad.hid.enumerate = list
    config = TeleopConfig("gamepad", input_options=with_hid())
    with pytest.raises(ValueError, match="has found no gamepad"):
        LeRobotInput(config, CONTRACT).connect()


class Bank:
    """A bank of HEBI's inputs."""

    def __init__(self, values: dict[int, float]) -> None:
        self.values = values

    def has_float(self, channel: int) -> bool:
        return channel in self.values

    has_int = has_float

    def get_float(self, channel: int) -> float:
        return self.values[channel]

    def get_int(self, channel: int) -> int:
        return int(self.values.get(channel, 0))


class Phone:
    """What HEBI's Mobile I/O sends: the test moves it."""

    def __init__(self) -> None:
        self.place = np.zeros(3)
        self.b1, self.a3 = 1, 0.0
        self.size = 1

    def get_next_feedback(self):
        io = SimpleNamespace(a=Bank({3: self.a3}), b=Bank({1: self.b1}))
        upright = np.array([1.0, 0.0, 0.0, 0.0])  # w, x, y, z
        return [SimpleNamespace(ar_position=self.place.copy(), ar_orientation=upright, io=io)]


def test_an_enabled_phone_moves_the_gripper_as_it_is_moved(monkeypatch):
    phone = Phone()
    hebi = ModuleType("hebi")
    hebi.Lookup = lambda: SimpleNamespace(get_group_from_names=lambda *_: phone)
    teleop = ModuleType("teleop")
    teleop.Teleop = object
    module = stand_in(monkeypatch, "lerobot.teleoperators.phone.teleop_phone", hebi=hebi, teleop=teleop)
    monkeypatch.setattr(module, "time", SimpleNamespace(**(vars(time) | {"sleep": lambda _: None})))
    device = LeRobotInput(TeleopConfig("phone", gripper_speed=1.0), CONTRACT)
    device.connect()  # its pose is captured while B1 is held
    device.read()
    forward, left, up = [], [], []
    for axis, moved in ((0, left), (1, forward), (2, up)):
        phone.place = phone.place + 0.02 * np.eye(3)[axis]
        moved.append(device.read().change)
    assert left[0] == pytest.approx([0, 0.02, 0]) and forward[0] == pytest.approx([-0.02, 0, 0])
    assert up[0] == pytest.approx([0, 0, 0.02])
    phone.b1 = 0
    device.read()
    phone.place = phone.place + 1.0
    assert not device.read().change.any(), "not enabled"
    phone.b1 = 1
    assert not device.read().change.any(), "enabled again, it begins where it is"
    phone.a3 = 0.5
    assert device.read().gripper > 0


class AndroidPage:
    """The server of package ``teleop`` that an Android phone's page talks to: the test is the page."""

    def subscribe(self, callback) -> None:
        self.said = callback
        AndroidPage.newest = self

    def run(self) -> None:
        self.say()  # the first touch, of which LeRobot's class takes the pose

    def say(self, x: float = 0.0, **buttons: bool) -> None:
        pose = np.eye(4)
        pose[0, 3] = x
        self.said(pose, {"move": True, **buttons})


def test_an_android_phone_whose_page_is_closed_says_nothing_whatever_it_held(monkeypatch):
    hebi, teleop = ModuleType("hebi"), ModuleType("teleop")
    teleop.Teleop = AndroidPage
    module = stand_in(monkeypatch, "lerobot.teleoperators.phone.teleop_phone", hebi=hebi, teleop=teleop)
    monkeypatch.setattr(module, "Teleop", AndroidPage, raising=False)
    device = LeRobotInput(TeleopConfig("phone", input_options="phone_os=android", gripper_speed=1.0), CONTRACT)
    device.connect()
    page = AndroidPage.newest
    page.say(reservedButtonA=True)
    time.sleep(0.01)
    assert device.read().gripper > 0
    page.say(0.02, reservedButtonA=True)
    time.sleep(0.01)
    motion = device.read()
    assert motion.gripper > 0 and np.abs(motion.change).max() == pytest.approx(0.02)
    for _ in range(3):
        assert device.read() is None, "the last message again is nothing new"
    page.say(0.02)
    assert not device.read().gripper
