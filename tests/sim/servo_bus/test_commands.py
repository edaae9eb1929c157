# SPDX-License-Identifier: Apache-2.0
"""Faults by a line of text, and the program that takes them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from servo_buses import JOINTS, arms  # type: ignore[import-not-found]

from lrm_ros.sim.servo_bus.calibration import calibration, so101
from lrm_ros.sim.servo_bus.commands import HELP, execute

ROOT = Path(__file__).parents[3]


@pytest.fixture
def server():
    """Not running: commands need no loop."""
    made = arms("follower", "leader")
    yield made
    for port in made.ports.values():
        port.unplug()


def test_each_command_does_what_the_help_says(server, tmp_path):
    bus = server.buses["follower"]
    arm = bus.arm

    def do(line: str) -> None:
        assert execute(server, f"follower {line}") == "ok"

    for line in ("silent", "late 0.2 3", "lost 2", "corrupt"):
        do(line)
    seen = [(fault.kind, fault.count, fault.seconds) for fault in bus.wire.faults]
    assert seen == [("silent", None, 0.0), ("late", 3, 0.2), ("lost", 2, 0.0), ("corrupt", None, 0.0)]
    do("clear")
    assert bus.wire.faults == [] and server.buses["leader"].wire.faults == []
    do("gone elbow_flex")
    assert [servo.connected for servo in arm.servos] == [True, True, False, True, True, True]
    do("only gripper")
    assert [servo.connected for servo in arm.servos] == [False] * 5 + [True]
    do("back elbow_flex")
    assert [servo.connected for servo in arm.servos] == [False, False, True, False, False, True]
    do("back all")
    assert all(servo.connected for servo in arm.servos)
    do("overload gripper")
    assert arm.servos[5].memory["Status"] == 32
    do("hot gripper 80")
    assert arm.servos[5].forced_temperature == 80.0
    do("hot gripper")
    assert arm.servos[5].forced_temperature is None
    do("supply 12.1")
    assert arm.supply == 12.1
    do("brownout")
    assert not arm.powered and arm.servos[5].memory["Status"] == 0
    do("place elbow_flex 0.25")
    assert arm.joints.states()[2].position == 0.25
    do("carry")
    do("place shoulder_lift 0.3 elbow_flex -0.2")
    arm.step(1.0)
    assert [state.position for state in arm.joints.states()][1:3] == [0.3, -0.2], "a hand bears its weight"
    do("block gripper 0.5 -")
    do("place gripper 0.1")
    assert arm.joints.states()[5].position == 0.5
    do("unplug")
    assert not server.ports["follower"].plugged
    assert execute(server, f"follower plug {tmp_path}/new") == f"{tmp_path}/new"


def test_every_command_of_the_help_exists(server):
    verbs = {line.split()[1] for line in HELP.splitlines() if line.startswith("ARM ")}
    for verb in verbs:
        try:
            execute(server, f"follower {verb}")
        except (ValueError, RuntimeError) as error:
            assert "no command" not in str(error)
    assert execute(server, "help") == HELP
    assert execute(server, "  # a remark") == ""


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("other silent", "no arm 'other'; there are follower, leader"),
        ("follower", "says nothing to do"),
        ("follower dance", "no command 'dance'"),
        ("follower gone", "'follower gone' lacks something"),
        ("follower gone elbow", "no joint 'elbow'; there are shoulder_pan"),
        ("follower late soon", "could not convert"),
        ("follower late 0", "seconds is 0.0"),
    ],
)
def test_a_wrong_line_says_what_is_wrong(server, line, says):
    with pytest.raises(ValueError, match=says):
        execute(server, line)


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lrm_ros.sim.servo_bus", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_program_takes_lines_and_ends_at_their_end(tmp_path):
    process = start("left", "right", "--links", str(tmp_path / "ports"), "--factory")
    assert process.stdout is not None and process.stdin is not None
    assert [process.stdout.readline() for _ in range(2)] == [
        f"left: {tmp_path}/ports/left\n",
        f"right: {tmp_path}/ports/right\n",
    ]
    assert (tmp_path / "ports/right").is_char_device()
    for line, said in (
        (f"left gone {JOINTS[0]}", "ok"),
        ("left jump", "error: no command 'jump'; 'help' lists them"),
        (f"left plug {tmp_path}/x", f"error: '{tmp_path}/ports/left' is plugged in; unplug it first"),
    ):
        process.stdin.write(line + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == said + "\n"
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    assert list((tmp_path / "ports").iterdir()) == []


def test_the_program_ends_at_an_interrupt_with_one_line(tmp_path):
    import signal

    process = start("--links", str(tmp_path))
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_two_arms_of_one_name_are_refused():
    process = start("left", "left")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "each arm needs a name of its own; given were left left" in err


def test_the_program_starts_calibrated_arms_and_writes_their_calibration(tmp_path):
    with start("one", "two", "--calibrated", "--calibration", str(tmp_path / "calibration")) as program:
        out, errors = program.communicate("", timeout=60)
    assert program.returncode == 0, errors
    assert out.count("/dev/pts/") == 2
    wanted = calibration(so101().servos)
    for name in ("one", "two"):
        assert json.loads((tmp_path / "calibration" / f"{name}.json").read_text()) == wanted
    for given in (["--factory", "--calibrated"], ["--calibration", str(tmp_path)]):
        with start(*given) as program:
            assert "give" in program.communicate(timeout=60)[1] and program.returncode == 2
