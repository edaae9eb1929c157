# SPDX-License-Identifier: Apache-2.0
"""Faults and moves of a running bus by a line of text, as the program takes them from its standard input."""

from __future__ import annotations

import shlex

from lrm_ros.sim.servo_bus.cameras import Cameras
from lrm_ros.sim.servo_bus.faults import Fault
from lrm_ros.sim.servo_bus.joints import SO101, SimpleJoints
from lrm_ros.sim.servo_bus.server import Server
from lrm_ros.sim.servo_bus.servo import Servo
from lrm_ros.sim.servo_bus.twin import outcome, set_scene, set_toy

SCENE_WORDS = ("scene", "toy", "outcome", "cameras", "help")  # no arm can have these names

HELP = """\
scene SEED                    the twin's toy and bowl where a seed says, its arm placed at rest; says what to do
toy SEED                      toy and bowl alone, as a person puts a scene back; the arm stays as it is
outcome                       the simulator's truth now: success or failure
cameras                       frames written, of them repeated, and skipped for a late reader
ARM silent [COUNT]            the next COUNT answers are gone; all of them without COUNT
ARM late SECONDS [COUNT]      they come so much later
ARM lost [COUNT]              each lacks a byte
ARM corrupt [COUNT]           each has a wrong bit
ARM clear                     none of these any more
ARM gone JOINT                this servo is off the bus (its cable)
ARM back JOINT                it is on the bus again; 'all' for all servos
ARM only JOINT                it alone is on the bus, as lerobot-setup-motors asks for
ARM overload JOINT            it reports an overload until its power is cut
ARM hot JOINT [CELSIUS]       it is held at a temperature; without one it cools again
ARM supply VOLTS              of the supply
ARM brownout [SECONDS]        no power for so long (0.3); then torque off, SRAM as after power-up
ARM unplug                    the adapter is pulled out of the computer
ARM plug [LINK]               and plugged in again, under another terminal and this link
ARM place JOINT RADIANS ...   move joints by hand
ARM carry                     a hand bears its weight: it stays where it is placed
ARM block JOINT LOW HIGH      something is in its way (rad); '-' for its own stop
help                          this list"""


def execute(server: Server, line: str, cameras: Cameras | None = None) -> str:
    """Carry out one line and return what to tell the person.

    Args:
        server: with the arms.
        line: as the help says.
        cameras: of the twin, if they are on.

    Raises:
        ValueError: what is wrong with the line, and what would be right.
    """
    words = shlex.split(line, comments=True)
    if not words:
        return ""
    if words == ["help"]:
        return HELP
    if words[0] in ("scene", "toy"):
        if len(words) != 2 or not words[1].isdecimal():
            raise ValueError(f"'{line.strip()}' has no seed; a scene needs one, 0 or more")
        return set_scene(server, int(words[1])) if words[0] == "scene" else set_toy(server, int(words[1]))
    if words[0] == "outcome":
        return "success" if outcome(server) else "failure"
    if words[0] == "cameras":
        if cameras is None:
            raise ValueError("there are no cameras; start with the arm 'twin' and --cameras DIR")
        return "\n".join(
            f"{name}: {written} frames, {repeated} repeated, {skipped} skipped"
            for name, (written, repeated, skipped) in cameras.counts().items()
        )
    if words[0] not in server.buses:
        raise ValueError(f"no arm '{words[0]}'; there are {', '.join(server.buses)} ('help' lists the commands)")
    if len(words) < 2:
        raise ValueError(f"'{line.strip()}' says nothing to do; 'help' lists the commands")
    with server.lock:
        try:
            return _execute(server, words[0], words[1], words[2:]) or "ok"
        except IndexError as error:
            raise ValueError(f"'{line.strip()}' lacks something; 'help' lists the commands") from error


def _execute(server: Server, name: str, verb: str, given: list[str]) -> str:
    bus = server.buses[name]
    arm = bus.arm
    if verb in ("silent", "lost", "corrupt"):
        bus.wire.set(Fault(verb, int(given[0]) if given else None))
    elif verb == "late":
        bus.wire.set(Fault(verb, int(given[1]) if given[1:] else None, seconds=float(given[0])))
    elif verb == "clear":
        bus.wire.clear()
    elif verb in ("gone", "back", "only"):
        chosen = arm.servos if given[0] == "all" else [_servo(server, name, given[0])]
        for servo in arm.servos:
            if servo in chosen:
                servo.connected = verb != "gone"
            elif verb == "only":
                servo.connected = False
    elif verb == "overload":
        _servo(server, name, given[0]).trip_overload()
    elif verb == "hot":
        _servo(server, name, given[0]).forced_temperature = float(given[1]) if given[1:] else None
    elif verb == "supply":
        arm.supply = float(given[0])
    elif verb == "brownout":
        arm.brown_out(float(given[0]) if given else 0.3)
    elif verb == "unplug":
        server.unplug(name)
    elif verb == "plug":
        return server.plug(name, given[0] if given else None)
    elif verb in ("place", "carry", "block"):
        if not isinstance(arm.joints, SimpleJoints):
            raise ValueError(f"'{verb}' moves the simple arm only; here is {type(arm.joints).__name__}")
        if verb == "place":
            for at in range(0, max(len(given), 1), 2):
                arm.joints.place(given[at], float(given[at + 1]))
        elif verb == "carry":
            arm.joints.carry()
        else:
            arm.joints.block(given[0], *(None if word == "-" else float(word) for word in given[1:3]))
    else:
        raise ValueError(f"no command '{verb}'; 'help' lists them")
    return ""


def _servo(server: Server, name: str, joint: str) -> Servo:
    names = [known.name for known in SO101]
    if joint not in names:
        raise ValueError(f"no joint '{joint}'; there are {', '.join(names)}")
    return server.buses[name].arm.servos[names.index(joint)]
