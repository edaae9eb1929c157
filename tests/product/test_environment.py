# SPDX-License-Identifier: Apache-2.0
"""An environment in which ROS cannot work is one line with the variable and the cure, and exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lrm_ros import environment, environment_variables

ROOT = Path(__file__).parents[2]
NAMES = (
    *("ROS_DOMAIN_ID", "ROS_LOCALHOST_ONLY", "ROS_AUTOMATIC_DISCOVERY_RANGE", "RMW_IMPLEMENTATION", "ROS_STATIC_PEERS"),
    *(
        "ROS_SECURITY_ENABLE",
        "ROS_SECURITY_KEYSTORE",
        "FASTDDS_DEFAULT_PROFILES_FILE",
        "FASTRTPS_DEFAULT_PROFILES_FILE",
    ),
    "FASTDDS_BUILTIN_TRANSPORTS",
)
LOGS = ("HOME", "ROS_HOME", "ROS_LOG_DIR")


@pytest.fixture
def clean(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def _foreign(folder: Path, *packages: str) -> Path:
    """Write a sourced ROS of another Python."""
    site = folder / "opt/ros/humble/lib/python3.10/site-packages"
    for name in packages:
        (site / name).mkdir(parents=True)
        module = "_rclpy_pybind11" if name == "rclpy" else f"{name}_s__rosidl_typesupport_c"
        (site / name / f"{module}.cpython-310-x86_64-linux-gnu.so").touch()
        text = "raise ModuleNotFoundError('No module named _rclpy_pybind11')" if name == "rclpy" else ""
        (site / name / "__init__.py").write_text(text)
    return site


def _run(words: list[str], **env: str) -> tuple[int, str]:
    before = env.pop("PYTHONPATH", "")
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [before, str(ROOT)]))
    done = subprocess.run(
        [sys.executable, "-m", *words],
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout


PROGRAMS = [
    ["lrm_ros.nodes.recorder"],
    ["lrm_ros.sim.twin.node"],
    ["lrm_ros.cli", "up", "teleop"],
    ["lrm_ros.training.demo"],
]


@pytest.mark.parametrize("words", PROGRAMS, ids=" ".join)
@pytest.mark.parametrize("packages", [("rclpy", "sensor_msgs"), ("std_srvs",)])
def test_a_sourced_ros_of_another_python_is_one_line(words, packages, tmp_path):
    site = _foreign(tmp_path, *packages)
    code, output = _run(words, PYTHONPATH=str(site))
    assert code == 2 and output.count("\n") == 1, output
    assert f"PYTHONPATH={site}: its {packages[0]} is not for Python 3." in output and "unset PYTHONPATH" in output


@pytest.mark.parametrize("words", PROGRAMS, ids=" ".join)
@pytest.mark.parametrize(
    ("name", "value"), [("ROS_DOMAIN_ID", "abc"), ("RMW_IMPLEMENTATION", "rmw_none_cpp"), ("ROS_LOCALHOST_ONLY", "yes")]
)
def test_a_wrong_variable_is_one_line(words, name, value):
    code, output = _run(words, **{name: value})
    assert code == 2 and output.count("\n") == 1 and f"{name}={value} is " in output, output


@pytest.mark.parametrize("words", PROGRAMS[:3], ids=" ".join)
def test_a_service_without_a_home_is_told_of_it_in_one_line(words):
    code, output = _run(words, **dict.fromkeys(LOGS, ""))
    assert code == 2 and output.count("\n") == 1 and "HOME is not set" in output, output


def test_an_rclpy_that_breaks_in_its_import_is_one_line(tmp_path):
    site = _foreign(tmp_path, "rclpy")
    (site / "rclpy/_rclpy_pybind11.so").touch()
    for words in PROGRAMS:
        code, output = _run(words, PYTHONPATH=str(site))
        assert code == 2 and output.count("\n") == 1 and f"rclpy of {site} does not import" in output, output


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"PYTHONPATH": "foreign"}, "its rclpy is not for Python 3."),
        ({"RMW_IMPLEMENTATION": "rmw_fastrtp_cpp"}, "-> set it to rmw_fastrtps_cpp"),
        ({"ROS_DOMAIN_ID": "300"}, "-> set it to a number from 0 to 101"),
    ],
)
def test_the_doctor_tells_it_once_with_the_cure(env, says, tmp_path):
    env = {name: str(_foreign(tmp_path, "rclpy")) if value == "foreign" else value for name, value in env.items()}
    code, output = _run(["lrm_ros.cli", "doctor", "--only", "ros", "dds"], **env)
    assert code == 1 and output.count("FAIL ") == 1 and says in output, output


@pytest.mark.parametrize("value", ["233", "-1", "1.5", "12abc", "09"])
def test_domains_that_are_none(clean, value):
    clean.setenv("ROS_DOMAIN_ID", value)
    found = environment.fault()
    assert found is not None and f"ROS_DOMAIN_ID={value} is not a number from 0 to 232" in str(found)


@pytest.mark.parametrize("value", ["", "0", "42", "101", "102", "232", "0x10", "010"])
def test_domains_that_ros_takes(clean, value):
    clean.setenv("ROS_DOMAIN_ID", value)
    assert environment.fault() is None
    assert bool(environment.warning()) == (value == "102")


def test_other_variables(clean):
    for name, good, bad in (
        ("ROS_LOCALHOST_ONLY", "1", "true"),
        ("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET", "subnet"),
        ("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp", "rmw_implementation"),
        ("ROS_SECURITY_ENABLE", "false", "yes"),
        ("ROS_SECURITY_STRATEGY", "Enforce", "enforce"),
        ("RCUTILS_COLORIZED_OUTPUT", "1", "always"),
        ("RCUTILS_LOGGING_USE_STDOUT", "0", "yes"),
        ("RCUTILS_LOGGING_BUFFERED_STREAM", "1", "True"),
        ("FASTDDS_BUILTIN_TRANSPORTS", "LARGE_DATA?max_msg_size=1MB", "UDPV4"),
        ("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4", "NONE"),
    ):
        clean.setenv(name, good)
        assert environment.fault() is None
        clean.setenv(name, bad)
        assert str(environment.fault()).startswith(f"{name}={bad} is ")
        clean.delenv(name)


@pytest.mark.parametrize("name", ["FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"])
def test_a_file_of_profiles_that_fast_dds_would_pass_over(clean, tmp_path, name):
    path = tmp_path / "profiles.xml"
    for content, says in (
        (None, "cannot be read (No such file or directory)"),
        ("<profiles", "is no XML"),
        ("", "is no XML"),
        ('<?xml version="1.0" encoding="none"?><dds/>', "is no XML"),
        ("<launch/>", "holds no profiles: its root is 'launch'"),
        ('<dds xmlns="http://www.eprosima.com"><profiles/></dds>', None),
        ("<profiles/>", None),
    ):
        if content is not None:
            path.write_text(content)
        clean.setenv(name, str(path))
        found = str(environment.fault())
        assert found == "None" if says is None else found.startswith(f"{name}={path} {says}"), found
        assert "\n" not in found
    clean.setenv(name, str(tmp_path / "none.xml"))
    clean.setattr(environment_variables, "_is_middleware", lambda name: True)
    clean.setenv("RMW_IMPLEMENTATION", "rmw_cyclonedds_cpp")
    assert environment.fault() is None  # it is not read


def test_keys_and_hosts_that_are_none(clean, tmp_path):
    for peers in ("10.0.0.2", "robot.local;::1", "a;;b", ""):
        clean.setenv("ROS_STATIC_PEERS", peers)
        assert environment.fault() is None
    clean.setenv("ROS_STATIC_PEERS", "10.0.0.2, robot")
    assert "ROS_STATIC_PEERS: '10.0.0.2, robot' is no host" in str(environment.fault())
    clean.delenv("ROS_STATIC_PEERS")
    clean.setenv("ROS_SECURITY_ENABLE", "true")
    assert "ROS_SECURITY_KEYSTORE= is no keystore" in str(environment.fault())
    clean.setenv("ROS_SECURITY_KEYSTORE", str(tmp_path))
    assert f"ROS_SECURITY_KEYSTORE={tmp_path} is no keystore" in str(environment.fault())
    (tmp_path / "enclaves").mkdir()
    assert environment.fault() is None


def test_a_host_that_is_not_found_is_one_line():
    code, output = _run(["lrm_ros.nodes.recorder"], ROS_STATIC_PEERS="nobody.invalid")
    last = output.splitlines()[-1]
    assert code == 2 and "Traceback" not in output, output
    assert "ROS makes no node: " in last and "nobody.invalid" in last and last.endswith("correct ROS_STATIC_PEERS"), (
        last
    )


def test_where_ros_writes_its_log(clean, tmp_path):
    file = tmp_path / "file"
    file.touch()
    for given, says in (
        ({}, "HOME is not set"),
        ({"ROS_LOG_DIR": "~/log"}, "HOME is not set"),
        ({"ROS_LOG_DIR": f"{tmp_path}/new/log"}, None),
        ({"ROS_LOG_DIR": f"{file}/log", "HOME": str(tmp_path)}, f"ROS_LOG_DIR={file}/log: "),
        ({"ROS_HOME": str(file), "HOME": str(tmp_path)}, f"ROS_HOME={file}: "),
        ({"ROS_HOME": str(tmp_path)}, None),
        ({"HOME": str(file)}, f"HOME={file}: "),
        ({"HOME": str(tmp_path)}, None),
    ):
        for name in LOGS:
            clean.setenv(name, given.get(name, ""))
        found = environment.fault()
        assert found is None if says is None else says in str(found), (given, found)
    clean.setenv("HOME", str(file))
    clean.setattr(environment.sys, "argv", ["node", "--ros-args", "--disable-external-lib-logs"])
    assert environment.fault() is None  # no log is written


def test_a_package_that_is_missing_is_named_with_the_cure(clean):
    find = environment.importlib.util.find_spec
    clean.setattr(environment.importlib.util, "find_spec", lambda name: None if name == "rclpy" else find(name))
    found = str(environment.fault())
    assert found.startswith("ROS package 'rclpy' is not installed for Python 3.") and "make setup" in found
