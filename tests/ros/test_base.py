# SPDX-License-Identifier: Apache-2.0
"""What every node gets from its base: checked parameters, transitions that report their errors, a clean stop."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import rclpy
import yaml
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String

from lrm_ros.config import CameraConfig, RewardConfig, RobotContract
from lrm_ros.config_files import load_yaml, to_dict
from lrm_ros.messages import status_values
from lrm_ros.ros.base import LrmNode, set_transport, share_file
from lrm_ros.versions import fast_dds_profiles_variable, rclpy_version

ROOT = Path(__file__).parents[2]
NODE_FILES = [path for path in (ROOT / "lrm_ros/nodes").glob("*.py") if re.search(r"class \w+\(L", path.read_text())]
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class Example(LrmNode[CameraConfig]):
    """A node that fails where it is told to."""

    def __init__(self, fail: str = "", **overrides: Any) -> None:
        super().__init__(
            "example", CameraConfig, overrides, {"gain": (1.5, "an extra parameter"), "note": ("", "text")}
        )
        self.fail = fail
        self.done: list[str] = []

    def _do(self, what: str) -> None:
        self.done.append(what)
        if self.fail == what:
            raise RuntimeError(f"{what} broke; mend it")

    def configure(self) -> None:
        self.create_publisher(String, "chatter", 1)
        self.create_subscription(String, "chatter", lambda _: None, 1)
        self.create_timer(10.0, lambda: None)
        self._do("configure")

    def activate(self) -> None:
        self._do("activate")

    def deactivate(self) -> None:
        self._do("deactivate")

    def cleanup(self) -> None:
        self._do("cleanup")


def test_parameters_are_the_dataclass_with_its_help(spin):
    node = spin.add(Example(rate_hz=5, source=0, gain=2, note=7))
    assert node.config == CameraConfig(rate_hz=5.0, source="0")
    assert node.get_parameter("gain").value == 2
    description = node.describe_parameter("stall_s").description
    assert description == CameraConfig.__dataclass_fields__["stall_s"].metadata["help"]


def test_lists_of_integers_are_lists_of_floats(spin):
    node = spin.add(LrmNode("plain", RewardConfig, {"weights": [1, 0, 0]}))
    assert node.config.weights == (1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"rate_hs": 5.0}, "no parameter 'rate_hs'; did you mean 'rate_hz'"),
        ({"rate_hz": "fast"}, "'rate_hz' must be float, got 'fast'; set it like the default: rate_hz:=30.0"),
        ({"width": 2.5}, "'width' must be int, got 2.5"),
        ({"gain": "high"}, "'gain' must be float, got 'high'"),
        (
            {"rate_hz": 0.0},
            r"'rate_hz' must be float from 0.1 to 1000.0, got 0.0; set it like the default: rate_hz:=30",
        ),
        ({"rate_hz": float("nan")}, "'rate_hz' must be float from 0.1 to 1000.0, got nan"),
        ({"width": -1}, "'width' must be int from 1 to 8192, got -1"),
    ],
)
def test_a_wrong_parameter_names_node_value_and_cure(spin, overrides, says):
    with pytest.raises(ValueError, match=says):
        Example(**overrides)


def test_a_parameter_set_at_run_time_is_checked_and_taken_over(spin):
    node = spin.add(Example())
    refused, taken = node.set_parameters([Parameter("rate_hz", value="x"), Parameter("width", value=320)])
    assert not refused.successful and "rate_hz" in refused.reason and taken.successful
    assert node.config.width == 320 and node.config.rate_hz == 30.0


@pytest.mark.parametrize("value", [0.0, -3.0, float("nan"), float("inf"), 0, 2000])
def test_a_number_out_of_its_range_is_refused_at_run_time_with_value_and_range(spin, value):
    node = spin.add(Example())
    (refused,) = node.set_parameters([Parameter("rate_hz", value=value)])
    assert not refused.successful and node.config.rate_hz == 30.0
    for part in ("rate_hz", "0.1", "1000.0", str(value)):
        assert part in refused.reason
    assert node.set_parameters([Parameter("rate_hz", value=1000)])[0].successful and node.config.rate_hz == 1000.0


def test_tools_are_told_the_ranges_of_numbers(spin):
    node = spin.add(Example())
    (width,) = node.describe_parameter("width").integer_range
    (rate,) = node.describe_parameter("rate_hz").floating_point_range
    assert (width.from_value, width.to_value, width.step) == (1, 8192, 1)
    assert (rate.from_value, rate.to_value) == (0.1, 1000.0)
    source = node.describe_parameter("source")
    assert not source.integer_range and not source.floating_point_range


@pytest.mark.parametrize(
    ("name", "old", "new"), [("rate_hz", 30.0, 5.0), ("source", "0", "synthetic"), ("contract", "", "a.yaml")]
)
def test_a_parameter_without_effect_at_run_time_is_refused_until_the_node_is_cleaned_up(spin, name, old, new):
    node = spin.add(Example())
    assert node.set_parameters([Parameter(name, value=old)])[0].successful
    for transition in ("configure", "activate", "deactivate"):
        assert getattr(node, f"trigger_{transition}")() == SUCCESS
        (refused,) = node.set_parameters([Parameter(name, value=new)])
        says = f"parameter '{name}' takes effect at configure: deactivate, cleanup, set {name}:={new}, configure"
        assert not refused.successful and says in refused.reason
        assert node.get_parameter(name).value == old
        assert node.set_parameters([Parameter(name, value=old)])[0].successful, "what it is already has its effect"
        assert node.set_parameters([Parameter("stall_s", value=2.0), Parameter("gain", value=3.0)])[1].successful
        together = [Parameter("stall_s", value=9.0), Parameter(name, value=new)]
        assert not node.set_parameters_atomically(together).successful and node.config.stall_s == 2.0
    assert node.trigger_cleanup() == SUCCESS
    assert node.set_parameters([Parameter(name, value=new)])[0].successful and node.get_parameter(name).value == new


def test_autostart_is_refused_as_the_program_has_started(spin):
    node = spin.add(Example())
    (refused,) = node.set_parameters([Parameter("autostart", value=False)])
    assert not refused.successful and "start it again with autostart:=false" in refused.reason


def test_the_contract_comes_from_its_file(spin, tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(to_dict(contract := RobotContract(name="other", control_hz=20.0))))
    node = spin.add(Example(contract=str(tmp_path / "c.yaml")))
    assert node.trigger_configure() == SUCCESS and node.contract == contract
    missing = spin.add(Example(contract="nowhere.yaml"))
    assert missing.trigger_configure() == FAILURE and "' does not exist" in missing.diagnostics.faults["configure"]
    bare, degrees = RobotContract(lower=(), upper=(), max_step=()), RobotContract(upper=(110.0,) * 6)
    for wrong, says in ((bare, "so no arm moves by it"), (degrees, "are they degrees")):
        (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(to_dict(wrong)))
        node = spin.add(Example(contract=str(tmp_path / "wrong.yaml")))
        assert node.trigger_configure() == FAILURE and says in node.diagnostics.faults["configure"]


def test_the_shipped_contract_file_is_the_default():
    assert load_yaml(share_file("config/so100.yaml"), RobotContract) == RobotContract()


@pytest.mark.parametrize("what", ["configure", "activate"])
def test_a_failing_transition_is_a_failure_that_says_why(spin, what):
    node = spin.add(Example(fail=what))
    results = [node.trigger_configure()]
    if what == "activate":
        results.append(node.trigger_activate())
    assert results[-1] == FAILURE
    assert node.diagnostics.faults[what] == f"{what} failed: {what} broke; mend it"
    node.fail = ""
    node.trigger_configure() if what == "configure" else None
    assert node.trigger_activate() == SUCCESS and node.active and not node.diagnostics.faults


def test_a_transition_that_is_not_possible_is_refused_and_the_node_goes_on(spin, probe):
    node = spin.add(Example())

    def ask(number: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=number))
        return spin.call(probe, ChangeState, "example/change_state", request).success

    assert not ask(Transition.TRANSITION_ACTIVATE) and node.state_label == "unconfigured"
    assert ask(Transition.TRANSITION_CONFIGURE) and node.state_label == "inactive"
    assert not ask(Transition.TRANSITION_DEACTIVATE) and not node.active
    assert ask(Transition.TRANSITION_ACTIVATE) and node.active
    assert not node.diagnostics.faults


class Hidden(Example):
    """A node of an rclpy that does not show the parameters that were given."""

    def _check_overrides(self, declared: Any) -> None:
        given = self.__dict__.pop("_parameter_overrides")
        super()._check_overrides(declared)
        self._parameter_overrides = given


def test_a_node_says_so_if_it_cannot_see_which_parameters_were_given(spin, capfd):
    node = spin.add(Hidden(width=320))
    assert f"rclpy {rclpy_version()} does not tell what was given" in capfd.readouterr().err
    assert node.config.width == 320


def test_cleanup_frees_what_configure_made(spin):
    node = spin.add(Example())
    before = set(node._entities())
    assert node.trigger_configure() == SUCCESS and len(node._entities()) == len(before) + 3
    assert node.trigger_cleanup() == SUCCESS and set(node._entities()) == before
    assert node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS
    assert node.trigger_shutdown() == SUCCESS
    assert node.done == ["configure", "cleanup", "configure", "activate", "deactivate", "cleanup"]
    assert set(node._entities()) == before


def test_diagnostics_show_rates_latency_and_a_fault_until_it_is_gone(spin, probe):
    node = spin.add(Example())
    received = spin.collect(probe, DiagnosticArray, "/diagnostics")
    node.diagnostics.count("frames", 30)
    node.diagnostics.latency("answer", 0.025)
    assert node.diagnostics.fault("stall", "no frame") and not node.diagnostics.fault("stall", "still none")
    spin.until(lambda: received)
    status = received[-1].status[0]
    values = status_values(status)
    assert (status.level, status.name, status.message) == (DiagnosticStatus.ERROR, "/example", "still none")
    assert values["frames"] == "30" and float(values["frames_per_s"]) > 0 and values["answer_ms_p95"] == "25.00"
    node.diagnostics.recovered("stall", "frames again")
    received.clear()
    spin.until(lambda: received and received[-1].status[0].level == DiagnosticStatus.OK)


def test_a_node_without_the_clock_it_needs_says_so_until_there_is_one(spin, probe):
    node = spin.add(Example(use_sim_time=True))
    assert not node.time_known
    spin.until(lambda: "use_sim_time" in node.diagnostics.faults)
    assert "use_sim_time is true but nothing publishes /clock" in node.diagnostics.faults["use_sim_time"]
    clock = probe.create_publisher(Clock, "/clock", 10)
    probe.create_timer(0.05, lambda: clock.publish(Clock(clock=Time(sec=7))))
    spin.until(lambda: not node.diagnostics.faults and node.time_known)


def test_two_nodes_of_one_name_say_so_until_there_is_one(spin):
    node, other = spin.add(Example()), rclpy.create_node("example")
    spin.until(lambda: node.diagnostics.faults)
    assert node.diagnostics.faults["name"].startswith("2 nodes are called '/example': each answers the calls")
    other.destroy_node()
    spin.until(lambda: not node.diagnostics.faults)


def test_nodes_of_one_name_in_two_namespaces_are_two_nodes(spin, probe):
    node = spin.add(Example())
    other = spin.add(rclpy.create_node("example", namespace="/arm2"))
    spin.until(lambda: (other.get_name(), other.get_namespace()) in node.get_node_names_and_namespaces())
    looked = spin.collect(probe, DiagnosticArray, "/diagnostics")
    spin.until(lambda: len(looked) > 4)
    assert not node.diagnostics.faults


def test_the_transport_is_set_unless_the_user_has_chosen_one(monkeypatch):
    names = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_BUILTIN_TRANSPORTS")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    set_transport()
    chosen = [os.environ[name] for name in names if name in os.environ]
    assert chosen == [str(share_file("config/fastdds.xml"))]
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
    set_transport()
    assert not any(name in os.environ for name in names[:2])


def test_the_transport_is_told_by_the_name_that_this_fast_dds_reads(spin, probe):
    lines = Path("/proc/self/maps").read_text().splitlines()
    libraries = {line.split()[-1] for line in lines if re.search(r"/libfast(dds|rtps)\.so", line)}
    assert len(libraries) == 1, libraries
    assert fast_dds_profiles_variable().encode() in Path(libraries.pop()).read_bytes()


def test_a_missing_shared_file_says_where_it_was_looked_for():
    with pytest.raises(FileNotFoundError, match=r"'config/none\.xml' of lrm_ros"):
        share_file("config/none.xml")


_PROGRAM = """
import sys
sys.path[:0] = ["tests/ros", "."]
from test_base import Example
from lrm_ros.ros.program import run
class Program(Example):
    def configure(self):
        super().configure()
        {body}
raise SystemExit(run(Program, sys.argv))
"""


@pytest.mark.parametrize(
    ("body", "arguments", "code", "says"),
    [
        ("self.create_timer(0.01, lambda: self.exit(5))", [], 5, ""),
        ("raise ValueError('no device; plug it in')", [], 2, "configure failed: no device; plug it in\n"),
        ("raise RuntimeError('no device; plug it in')", [], 1, "configure failed: no device; plug it in\nTraceback"),
        ("raise FileNotFoundError('no model; give one')", [], 2, "configure failed: no model; give one\n"),
        (
            "raise RuntimeError('help configures nothing')",
            ["--", "--help"],
            0,
            "gain                 an extra parameter (1.5)",
        ),
        ("pass", ["-p", "rate_hs:=3.0"], 2, "did you mean 'rate_hz'"),
        ("pass", ["-p", "rate_hz:=0.0"], 2, "node 'example': parameter 'rate_hz' must be float from 0.1 to 1000.0"),
        ("pass", ["-r", "foo"], 2, "error: ROS does not start: failed to initialize rcl: Couldn't parse remap rule"),
        ("self.create_timer(0.01, lambda: 1 / 0)", [], 1, "ZeroDivisionError"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", [], 0, ""),
    ],
)
def test_the_exit_code_of_a_program_tells_how_it_ended(body, arguments, code, says):
    words = [sys.executable, "-c", _PROGRAM.format(body=body), "--ros-args", *arguments]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == code and says in said and ("Traceback" in said) == (code == 1), said


def _assigned(path: Path) -> set[str]:
    """Return the names a file defines on ``self``: attributes and methods."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        stored = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if stored and getattr(node.value, "id", "") == "self":
            names.add(node.attr)
        elif isinstance(node, ast.ClassDef):
            names |= {child.name for child in node.body if isinstance(child, ast.FunctionDef)}
    return names


@pytest.mark.parametrize("file", [*sorted(NODE_FILES), ROOT / "sim/twin/node.py"], ids=lambda path: path.stem)
def test_no_node_hides_an_attribute_of_rclpy(spin, probe, file):
    theirs = {*dir(LifecycleNode), *vars(probe)} - {*dir(object), "__init__"}
    if file.stem == "base":  # it overrides the transitions on purpose
        theirs -= {name for name in theirs if name.startswith("on_")}
    assert not _assigned(file) & theirs
