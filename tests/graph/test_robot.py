# SPDX-License-Identifier: Apache-2.0
"""Graphs with a robot in place of the twin, and the arm node as a process before an emulated arm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from servo_buses import needs_driver, wait_until  # type: ignore[import-not-found]
from so101 import FILE, follower  # type: ignore[import-not-found]

from lrm_ros.graph.graphs import NodeSpec, nodes_of

ROOT = Path(__file__).resolve().parents[2]


def test_on_the_robot_an_arm_and_its_cameras_take_the_place_of_the_twin():
    contract = str(ROOT / "config" / "so101.yaml")
    given = {"sim": "false", "contract": contract, "arm.port": "/dev/ttyACM1", "wrist_camera.source": "/dev/video4"}
    nodes = {node.name: node for node in nodes_of("teleop", given)}
    assert [(node.name, node.kind) for node in nodes.values()] == [
        ("arm", "arm"),
        ("front_camera", "camera"),
        ("wrist_camera", "camera"),
        ("recorder", "recorder"),
        ("teleop", "teleop"),
    ]
    assert nodes["arm"].parameters == {"contract": contract, "port": "/dev/ttyACM1"}
    assert nodes["wrist_camera"].parameters["camera"] == "wrist"
    assert nodes["wrist_camera"].parameters["source"] == "/dev/video4"
    assert {node.parameters["contract"] for node in nodes.values()} == {contract}


def test_the_loop_on_the_robot_has_a_person_in_place_of_the_simulator():
    contract = str(ROOT / "config" / "so101.yaml")
    given = {"sim": "false", "contract": contract, "dataset": "demos", "run": "runs/arm", "rollout_s": "15.0"}
    nodes = {node.name: node for node in nodes_of("self_improve", given)}
    assert [(node.name, node.kind) for node in nodes.values()] == [
        ("arm", "arm"),
        ("front_camera", "camera"),
        ("wrist_camera", "camera"),
        *((name, name) for name in ("reward", "policy", "recorder")),
        ("improver", "robot_improver"),
        ("answer", "answer"),
    ]
    assert all("realtime" not in node.parameters for node in nodes.values()), "lock-step is the twin's"
    wanted = {"run": "runs/arm", "dataset": "demos", "rollout_s": 15.0, "contract": contract}
    assert nodes["improver"].parameters == wanted and nodes["improver"].ends_graph
    assert nodes["answer"].foreground and "explore_std" not in nodes["improver"].parameters


def test_policies_are_compared_on_the_robot_and_in_the_twin():
    contract = str(ROOT / "config" / "so101.yaml")
    nodes = [node.name for node in nodes_of("trial", {"sim": "false", "contract": contract})]
    assert nodes == ["arm", "front_camera", "wrist_camera", "reward", "policy", "recorder"]
    assert [node.name for node in nodes_of("trial")] == ["twin", "reward", "policy", "recorder"]


def test_a_rollout_has_policy_and_person_and_a_replay_needs_no_camera():
    given = {"sim": "false", "contract": str(ROOT / "config" / "so101.yaml")}
    rollout = {node.name: node for node in nodes_of("rollout", {**given, "policy.checkpoint": "runs/policy"})}
    assert set(rollout) == {"arm", "front_camera", "wrist_camera", "policy", "recorder", "teleop"}
    assert rollout["policy"].parameters["autostart"] is False, "the person lets it begin"
    assert rollout["teleop"].parameters["rollout"] is True
    assert [node.name for node in nodes_of("replay", given)] == ["arm", "replay"]


def test_the_contracts_section_says_which_node_is_in_front_of_the_arm():
    contract = str(ROOT / "config" / "ros2_control.yaml")
    given = {"sim": "false", "contract": contract, "arm.wait_s": "60.0"}
    arm, *others = nodes_of("teleop", given)
    assert (arm.name, arm.kind) == ("arm", "ros2_control")
    assert arm.parameters == {"contract": contract, "wait_s": 60.0}
    assert "lrm_ros.nodes.ros2_control" in arm.command()
    assert [node.name for node in others] == ["front_camera", "wrist_camera", "recorder", "teleop"]


def test_the_controllers_of_the_contract_are_looked_at_before_any_node_starts(tmp_path):
    path = tmp_path / "robot.yaml"
    path.write_text(
        (ROOT / "config" / "ros2_control.yaml").read_text().replace("grippers: [gripper]", "grippers: [jaw]")
    )
    with pytest.raises(ValueError, match="jaw is no joint"):
        nodes_of("teleop", {"sim": "false", "contract": str(path)})


@pytest.mark.parametrize(
    ("graph", "contract", "says"),
    [
        ("teleop", "", "needs contract:=FILE"),
        ("teleop", "config/none.yaml", "'config/none.yaml' does not exist"),
        ("teleop", str(ROOT / "config" / "so100.yaml"), "there is no section 'arm'"),
        ("sim_refine", "", "one of simulated worlds"),
        ("evaluate", "", "asks the simulator for success"),
    ],
)
def test_what_cannot_run_on_the_robot_is_refused(graph, contract, says):
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        nodes_of(graph, {"sim": "false"} | ({"contract": contract} if contract else {}))


@needs_driver
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGKILL, -9)])
def test_the_program_ends_and_the_arm_holds(tmp_path, number, code):
    with follower(tmp_path) as server:
        port = server.ports["follower"].path
        given = {"contract": str(FILE), "port": port, "calibration_dir": str(tmp_path)}
        process = subprocess.Popen(
            NodeSpec("arm", "arm", given).command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            assert any("holds the arm at" in line for line in lines)
            servos = server.buses["follower"].arm.servos
            wait_until(lambda: any(servo.memory["Goal_Position"] for servo in servos), "sent where it is")
            process.send_signal(number)
            rest = "".join(lines)
            assert process.wait() == code
        finally:
            process.kill()
            process.wait()
        assert [servo.memory["Torque_Enable"] for servo in servos] == [1] * 6
        assert ("left with its torque on" in rest) == (code == 0), rest


@needs_driver
def test_what_a_person_gave_wrongly_is_one_line_and_code_2(tmp_path):
    given = {"contract": str(FILE), "port": str(tmp_path / "none")}
    done = subprocess.run(
        NodeSpec("arm", "arm", given).command(), capture_output=True, text=True, check=False, env={**os.environ}
    )
    assert done.returncode == 2, done.stderr
    said = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line]
    assert len(said) == 1 and "none' does not exist; there" in said[0]


def test_the_arm_node_needs_no_lerobot_to_tell_its_parameters():
    done = subprocess.run(
        [sys.executable, "-m", "lrm_ros.nodes.arm", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "state_timeout_s" in done.stdout
