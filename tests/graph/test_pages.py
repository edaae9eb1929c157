# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/so101.md and docs/own_robot.md, run as they stand there before emulated arms and cameras.

A command is in the table of what is run, with who does what meanwhile, or in the table of what is not, with the reason.
"""

from __future__ import annotations

import re
import resource
import time
from pathlib import Path
from typing import Any

import pytest
from desk import (  # type: ignore[import-not-found]
    Desk,
    config_folder,
    free_port,
    so100_desk,
    so101_desk,
    write_settings,
)
from page_scripts import RUN, Script, first_motion, recorded_motion  # type: ignore[import-not-found]
from pages import check_words, commands_of, is_assignment, words_of, yaml_of  # type: ignore[import-not-found]
from servo_buses import needs_driver  # type: ignore[import-not-found]

from lrm_ros.record.journal import read_info

# What is not run here, by its beginning, and why.
NOT_RUN = {
    "make setup": "it made the environment in which the tests run; tests/product/test_setup.py is its test",
    ". .venv/bin/activate": "the tests run in it",
    "lrm doctor": "22 s of a core, and tests/graph/test_doctor.py runs it whole; 'lrm doctor --only' is run here",
    "lerobot-find-port": "LeRobot's, asks a person: tests/sim/servo_bus/test_programs.py answers it",
    "lerobot-setup-motors": "the same",
    "lerobot-calibrate": "the same",
    "ros2 launch lrm_ros": "the ros2 command is on no package index; its words are checked by the graph's own parser",
    "ros2 launch your_robot": "the reader's own robot",
    "ros2 control": "ros2_control's, on no package index",
}
SMALL_LOOP = "iterations:=1 episodes:=1 tries:=1 rollout_s:=1.5 start_speed:=2.0"
SMALL_REWARD = (
    *("max_steps=2", "warmup_ratio=0.0", "batch_size=2", "gradient_accumulation=1", "workers=0", "eval_examples=0"),
)
SMALL_TRAINING = "sft_steps:=2 finetune_steps:=2 batch_size:=2"


def small(command: str, desk: Desk, port: int) -> str:
    """A command with the emulated desk's devices for the page's, and small numbers where the page's take long."""
    bus = {name: where.path for name, where in desk.server.ports.items()}
    journals = sorted(desk.folder.glob("runs/*/episodes/*.mcap"))
    table = {
        "/dev/serial/by-id/FOLLOWER": bus["follower"],
        "/dev/serial/by-id/LEADER": bus.get("leader"),
        "/dev/serial/by-id/ARM": bus["follower"],
        "/dev/v4l/by-id/FRONT": desk.pipes.get("front"),
        "/dev/v4l/by-id/WRIST": desk.pipes.get("wrist"),
        "top_camera.source:=0": f"top_camera.source:={desk.pipes.get('top')}",
        "http://gpu-host:5001": f"http://127.0.0.1:{port}",
        "--model USC-PSI-Lab/LRM-models --host 0.0.0.0": f"--model fake --port {port}",
        "Qwen/Qwen3-VL-8B-Instruct": "tiny",
        "--episodes 50": "--episodes 3",
        "--steps 20000": "--steps 2 --batch-size 2",
        "--starts 20": "--starts 1 --seconds 1.5",
        "iter_002": "iter_001",
        "NAME.mcap": journals[0].name if journals else "NAME.mcap",
    }
    for theirs, ours in table.items():
        command = command.replace(theirs, str(ours))
    more = {
        "lrm ports": " " + " ".join(bus.values()),
        "lrm up self_improve": f" {SMALL_LOOP} {SMALL_TRAINING}",
        "lrm reward train": "".join(f" --set {word}" for word in SMALL_REWARD),
        "lrm reward eval": " --rounds 5 --split all",
    }
    return command + next((words for start, words in more.items() if command.startswith(start)), "")


def longest(table: dict[str, Any], command: str) -> str:
    """The beginning of a command that is in a table; empty: none."""
    return max((start for start in table if command.startswith(start)), key=len, default="")


def run_page(page: str, desk: Desk, scripts: dict[str, Script]) -> None:
    """Run each command of a page in its order, the page's YAML typed into the file that was copied before it."""
    port, before, settings = free_port(), [], yaml_of(page)
    for command in commands_of(page):
        if len(longest(NOT_RUN, command)) > len(longest(scripts, command)):
            continue
        given = small(command, desk, port)
        if is_assignment(command):
            before.append(given)
            continue
        found = longest(scripts, command)
        assert found, f"docs/{page}: nothing is said here of {command!r}: say who does what, or why it is not run"
        print(f"== {given}", flush=True)
        began = time.monotonic(), cpu_s()
        scripts[found](desk, given, before)
        print(
            f"   {time.monotonic() - began[0]:.1f} s, of programs that ended {cpu_s() - began[1]:.1f} s of a core",
            flush=True,
        )
        if command.startswith("cp config/"):
            path = desk.folder / given.split()[-1]
            write_settings(path, typed(settings.pop(0), desk, port))
    assert not settings, f"docs/{page} has YAML that nothing was done with"
    for session in list(desk.running):  # the reward server
        session.interrupt()
        desk.end(session, (0, 130))


def cpu_s() -> float:
    """What the programs that were started here, and have ended, took of a core [s]."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def typed(settings: dict[str, Any], desk: Desk, port: int) -> dict[str, Any]:
    """Settings of a page as they are for the emulated desk: small pictures, a slower control rate."""
    if "port" in settings["arm"]:
        settings["arm"]["port"] = small(settings["arm"]["port"], desk, port)
    for camera in settings["cameras"]:
        camera |= {"width": 64, "height": 48}
    return {**settings, "control_hz": 10.0}


@needs_driver
@pytest.mark.slow
def test_from_an_unpacked_arm_to_a_policy_that_was_compared(spin, probe, tmp_path):
    with so101_desk(spin, probe, tmp_path) as desk:
        run_page("so101.md", desk, {**RUN, "lrm up teleop": first_motion})


@needs_driver
@pytest.mark.slow
def test_another_arm_step_by_step(spin, probe, tmp_path):
    with so100_desk(spin, probe, tmp_path) as desk:
        run_page("own_robot.md", desk, {**RUN, "lrm up teleop": recorded_motion})
        (path,) = tmp_path.glob("runs/recordings/episodes/*.mcap")
        assert [camera.name for camera in read_info(path).contract.cameras] == ["top"]


@pytest.mark.parametrize(
    ("page", "copied"), [("so101.md", "config/my_arm.yaml"), ("own_robot.md", "config/my_robot.yaml")]
)
def test_every_word_of_both_pages_is_taken_by_the_real_parsers(tmp_path, monkeypatch, page, copied):
    monkeypatch.chdir(tmp_path)
    config_folder(tmp_path)
    commands, (settings,) = commands_of(page), yaml_of(page)
    (copy,) = (words for command in commands if (words := command.split())[0] == "cp")
    assert copy[2] == copied
    Path(copied).write_text(Path(copy[1]).read_text())
    write_settings(Path(copied), settings)
    before: list[str] = []
    seen = 0
    for command in commands:
        if is_assignment(command):
            before.append(command)
            continue
        words = words_of(command, before)
        if words[0] == "lrm" or words[:3] == ["ros2", "launch", "lrm_ros"]:
            check_words(words, monkeypatch)
            seen += 1
    assert seen >= 7, "the pages' commands are found"


def test_what_is_not_run_is_on_a_page_and_says_why():
    commands = [command for page in ("so101.md", "own_robot.md") for command in commands_of(page)]
    for start, why in NOT_RUN.items():
        assert any(command.startswith(start) for command in commands), f"{start!r} is on no page any more"
        assert why
    words = {re.split(r"\s", command)[0] for command in commands if not is_assignment(command)}
    assert {"lrm", "lerobot-calibrate", "ros2"} <= words
