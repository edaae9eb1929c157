# SPDX-License-Identifier: Apache-2.0
"""The twin's arm behind the bus: its physics, its scenes, and an episode through LeRobot's driver."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from servo_buses import JOINTS, driver, needs_driver  # type: ignore[import-not-found]

from lrm_ros.config import RobotContract
from lrm_ros.config_files import from_dict
from lrm_ros.sim.servo_bus import protocol
from lrm_ros.sim.servo_bus.bus import Bus
from lrm_ros.sim.servo_bus.calibration import calibration, preset, write
from lrm_ros.sim.servo_bus.commands import execute
from lrm_ros.sim.servo_bus.joints import SO101, Drive
from lrm_ros.sim.servo_bus.protocol import Packet, encode
from lrm_ros.sim.servo_bus.server import Server
from lrm_ros.sim.servo_bus.twin import FULL_GAIN, TwinJoints, outcome, set_scene, so100
from lrm_ros.sim.servo_bus.units import STEP
from lrm_ros.sim.twin.expert import expert_targets
from lrm_ros.sim.twin.place_toy_in_bowl import REST
from lrm_ros.sim.twin.world import World

TOP = Path(__file__).parents[3]
CONFIG = TOP / "config" / "so100_bus.yaml"
SECTION = yaml.safe_load(CONFIG.read_text())


@pytest.fixture(scope="module")
def joints():
    made = TwinJoints()
    yield made
    made.world.close()


@pytest.fixture
def server(joints):
    """The calibrated arm on a port; nothing runs until the server is entered."""
    arm = so100(joints)
    preset(arm.servos, calibration(arm.servos, joints.joints))
    for servo in arm.servos:
        servo.memory["P_Coefficient"] = 16  # as LeRobot does
    made = Server({"twin": Bus(arm)})
    yield made
    for port in made.ports.values():
        port.unplug()


def units(angles) -> dict[str, float]:
    """Return LeRobot's numbers for angles (6,) [rad], as ``config/so100_bus.yaml`` says."""
    said = {}
    for joint, angle in zip(SECTION["arm"]["joints"], np.asarray(angles).tolist(), strict=True):
        if joint["units"] == "degrees":
            said[joint["name"]] = joint["sign"] * math.degrees(angle - joint["zero"])
        else:
            said[joint["name"]] = 100 * (angle - joint["lower"]) / (joint["upper"] - joint["lower"])
    return said


def go(server: Server, angles) -> None:
    """Write goals as a SYNC_WRITE does, and let a control step of the twin pass."""
    bus = server.buses["twin"]
    data = bytes([42, 2])
    for servo, angle in zip(bus.arm.servos, np.asarray(angles).tolist(), strict=True):
        steps = round(servo.mounting.present(angle, servo.memory["Homing_Offset"]))
        data += bytes([servo.id]) + steps.to_bytes(2, "little")
    bus.receive(encode(Packet(protocol.BROADCAST, protocol.SYNC_WRITE, data)), 1_000_000, 0.0)
    bus.arm.step(0.1)


def test_with_lerobots_gain_the_motors_are_those_of_the_twins_own_controller(joints):
    own = [(joint.stiffness, joint.damping, joint.force_limit) for joint in joints._motors]
    assert own == [(1000.0, 100.0, 100.0)] * 5 + [(10.0, 1.0, 1.0)]
    joints.step(0.01, [Drive(0.1, FULL_GAIN, 1.0)] * 6)
    assert [(joint.stiffness, joint.damping, joint.force_limit) for joint in joints._motors] == own
    joints.step(0.01, [Drive(0.1, 2 * FULL_GAIN, 0.2)] * 6)
    assert (joints._motors[0].stiffness, joints._motors[0].force_limit) == (2000.0, pytest.approx(20.0))
    joints.step(0.01, [Drive(0.1, 0.0, 0.0)] * 6)
    assert all(joint.stiffness == 0 and 0 < joint.damping <= 1 for joint in joints._motors)


def test_a_scene_is_that_of_the_worlds_seed_with_the_arm_at_rest(server, joints):
    arm = server.buses["twin"].arm
    say = execute(server, "scene 5")
    assert say == joints.instruction
    toy = joints.world.task_env.toy._objs[0].pose.p
    world = World()
    world.reset(5)
    assert say == world.instruction
    np.testing.assert_allclose(toy, world.task_env.toy._objs[0].pose.p, atol=1e-6)
    np.testing.assert_allclose([state.position for state in joints.states()], world.state, atol=1e-6)
    np.testing.assert_allclose(world.state, REST, atol=0.1)
    world.close()
    assert (joints.snapshot[0], joints.snapshot[1]) == (5, joints.states()[0].position)
    seen = [servo.memory["Present_Position"] - 2047 for servo in arm.servos]
    np.testing.assert_allclose(np.array(seen) * STEP, world_angles(joints), atol=2 * STEP)


def test_a_person_puts_toy_and_bowl_back_and_the_arm_stays_and_goes_on(server, joints):
    arm = server.buses["twin"].arm
    set_scene(server, 1)
    go(server, world_angles(joints) + 0.2)
    arm.step(2.0)
    before = world_angles(joints)
    say = execute(server, "toy 5")
    np.testing.assert_array_equal(world_angles(joints), before)
    assert say == joints.instruction and joints.snapshot[0] == 5
    toy = joints.world.task_env.toy._objs[0].pose.p.copy()
    arm.step(1.0)
    np.testing.assert_allclose(world_angles(joints), before, atol=0.02)
    set_scene(server, 5)
    np.testing.assert_allclose(joints.world.task_env.toy._objs[0].pose.p, toy, atol=1e-6)
    with pytest.raises(ValueError, match="'toy x' has no seed"):
        execute(server, "toy x")


def world_angles(joints: TwinJoints) -> np.ndarray:
    return np.array([state.position for state in joints.states()])


def test_with_torque_the_arm_holds_where_a_scene_has_put_it_and_limp_it_sinks(server, joints):
    arm = server.buses["twin"].arm
    set_scene(server, 1)
    go(server, world_angles(joints) + 0.2)
    go(server, world_angles(joints) + 0.2)
    set_scene(server, 2)
    start = world_angles(joints)
    arm.step(1.0)
    np.testing.assert_allclose(world_angles(joints), start, atol=0.01)
    assert all(servo.memory["Torque_Enable"] == 1 for servo in arm.servos)
    for servo in arm.servos:
        servo.answer(Packet(servo.id, protocol.WRITE, bytes([40, 0])))
    arm.step(4.0)
    assert world_angles(joints)[1] < start[1] - 0.2


def test_the_experts_episodes_succeed_through_the_servos(server, joints):
    done, gripper = [], server.buses["twin"].arm.servos[5].memory
    for seed in (0, 1, 2):
        set_scene(server, seed)
        assert execute(server, "outcome") == "failure"
        targets = expert_targets(joints.world)
        loads = []
        for target in [*targets, *targets[-1:].repeat(5, 0)]:
            go(server, target)
            loads.append(abs(gripper["Present_Load"]))
        assert max(loads) > 300 > 50 > loads[-1], "felt what it held"
        done.append(outcome(server))
    assert done == [True] * 3
    assert execute(server, "outcome") == "success"
    set_scene(server, 0)
    assert not outcome(server)


def test_a_grip_that_lasts_is_an_overload_to_the_servo_and_still_holds_the_toy(server, joints):
    gripper = server.buses["twin"].arm.servos[5].memory
    gripper["Overload_Torque"] = 25  # as LeRobot does
    set_scene(server, 1)
    targets = expert_targets(joints.world)
    closed = int(np.flatnonzero(targets[:, 5] < -0.9)[3])
    for target in targets[: closed + 1]:
        go(server, target)
    assert (gripper["Present_Load"], gripper["Status"]) == (-1000, 0)
    for _ in range(25):
        go(server, targets[closed])
    assert (gripper["Present_Load"], gripper["Status"]) == (-200, protocol.OVERLOAD)
    assert joints.world.task_env.grasped
    for target in [*targets[closed + 1 :], *targets[-1:].repeat(5, 0)]:
        go(server, target)
    assert outcome(server) and gripper["Status"] == 0, "released, the overload is over"


# xyz [m], rpy [rad] of each joint in its parent; all turn about z. TheRobotStudio/SO-ARM100:
# Simulation/SO101/so101_new_calib.urdf at commit 385e8d7.
SO101_ORIGINS = (
    ((0.0388353, 0.0, 0.0624), (math.pi, 0.0, -math.pi)),
    ((-0.0303992, -0.0182778, -0.0542), (-math.pi / 2, -math.pi / 2, 0.0)),
    ((-0.11257, -0.028, 0.0), (0.0, 0.0, math.pi / 2)),
    ((-0.1349, 0.0052, 0.0), (0.0, 0.0, -math.pi / 2)),
    ((0.0, -0.0611, 0.0181), (math.pi / 2, 0.0486795, math.pi)),
    ((0.0202, 0.0188, -0.0234), (math.pi / 2, 0.0, 0.0)),
)


def test_in_the_middle_of_its_ranges_the_published_so101_stands_as_the_twin_at_zero(joints):
    from transforms3d.euler import euler2mat

    middles = [(joint.low + joint.high) / 2 for joint in SO101[:5]] + [0.0]
    place, turn = np.zeros(3), np.eye(3)
    so101 = []
    for (xyz, rpy), angle in zip(SO101_ORIGINS, middles, strict=True):
        place, turn = place + turn @ xyz, turn @ euler2mat(*rpy)
        so101.append((place, turn[:, 2]))
        turn = turn @ euler2mat(0, 0, angle)
    robot = joints.world.task_env.agent.robot._objs[0]
    robot.set_qpos(np.zeros(6, np.float32))
    twin = []
    for joint in robot.active_joints:  # SAPIEN's joints turn about their x
        pose = joint.child_link.entity_pose * joint.pose_in_child
        matrix = pose.to_transformation_matrix()
        twin.append((matrix[:3, 3], matrix[:3, 0]))
    for (at, axis), (other_at, other_axis), name in zip(so101, twin, JOINTS, strict=True):
        np.testing.assert_allclose(axis, other_axis, atol=2e-3, err_msg=name)
        if name in ("elbow_flex", "wrist_flex", "wrist_roll"):  # seen from shoulder_lift, without its sideways offset
            there, here = (at - so101[1][0])[[0, 2]], (other_at - twin[1][0])[[0, 2]]
            np.testing.assert_allclose(there, here, atol=2e-3, err_msg=name)


def test_the_file_for_an_arm_node_is_the_so100s_contract():
    contract = from_dict(RobotContract, {key: value for key, value in SECTION.items() if key != "arm"}, str(CONFIG))
    plain = RobotContract()
    for name in ("name", "joints", "cameras", "control_hz", "max_step"):
        assert getattr(contract, name) == getattr(plain, name), name
    for narrow, low, high in zip(contract.lower, contract.upper, plain.upper, strict=True):
        assert -high <= narrow <= low <= high
    assert [joint["name"] for joint in SECTION["arm"]["joints"]] == list(JOINTS)


@needs_driver
@pytest.mark.slow
def test_an_episode_through_the_driver_in_the_units_of_the_file(server, joints, tmp_path):
    from lerobot.motors import MotorCalibration

    arm = server.buses["twin"].arm
    path = write(calibration(arm.servos, joints.joints), tmp_path, "twin")
    with server, driver(server.ports["twin"].path) as bus:
        bus.calibration = {name: MotorCalibration(**values) for name, values in json.loads(path.read_text()).items()}
        bus.connect()
        assert bus.is_calibrated
        bus.enable_torque()
        set_scene(server, 4)
        with server.lock:
            targets = expert_targets(joints.world)
            angles = world_angles(joints)
        seen, wanted = bus.sync_read("Present_Position"), units(angles)
        assert seen == pytest.approx(wanted, abs=0.3)
        begin = time.monotonic()
        for k, target in enumerate([*targets, *targets[-1:].repeat(8, 0)], 1):
            bus.sync_write("Goal_Position", units(target))
            while time.monotonic() < begin + k / 10:  # the driver's rate
                bus.sync_read("Present_Position", num_retry=3)
        assert outcome(server)


@pytest.mark.slow
def test_the_program_sets_scenes_and_says_what_came_of_them(tmp_path):
    program = subprocess.run(
        [sys.executable, "-m", "lrm_ros.sim.servo_bus", "twin", "--calibrated", "--calibration", str(tmp_path)],
        cwd=TOP,
        env={**os.environ, "PYTHONPATH": str(TOP)},
        input="scene 3\noutcome\n",
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = program.stdout.splitlines()
    assert program.returncode == 0 and len(said) == 3, program.stderr
    assert said[0].startswith("twin: /dev/pts/") and said[1].startswith("put the ") and said[2] == "failure"
    assert json.loads((tmp_path / "twin.json").read_text())["gripper"]["homing_offset"] == 3500 - 2047


def test_without_the_twin_there_is_no_scene_and_a_seed_is_needed(server):
    plain = Server({"follower": Bus()})
    try:
        for line in ("scene 1", "outcome"):
            with pytest.raises(ValueError, match="0 of these arms are the twin's; a scene needs one"):
                execute(plain, line)
    finally:
        plain.ports["follower"].unplug()
    for line in ("scene", "scene x", "scene -1", "scene 1 2"):
        with pytest.raises(ValueError, match="has no seed; a scene needs one, 0 or more"):
            execute(server, line)
    with pytest.raises(ValueError, match="seed is -1; it is 0 or more"):
        set_scene(server, -1)
