# SPDX-License-Identifier: Apache-2.0
"""Graphs of real node processes: they start together, a death is named, nothing survives the stop."""

from __future__ import annotations

import ast
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lrm_ros.config import CameraConfig
from lrm_ros.graph import graphs
from lrm_ros.graph import runner as graph_run
from lrm_ros.graph.graphs import GRAPHS, KINDS, Kind, NodeSpec, nodes_of, parse_arguments
from lrm_ros.graph.runner import Graph
from lrm_ros.parameters import parsed_value, ros_value

ROOT = Path(__file__).parents[2]
SMALL = {"source": "synthetic", "width": 48, "height": 32, "rate_hz": 10.0}
CAMERA = NodeSpec("camera_a", "camera", SMALL)


def _until(predicate, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not predicate():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        os.sched_yield()
        time.sleep(0.02)


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def _gone(pids: list[int]) -> bool:
    """Whether none of the processes lives (a zombie does not)."""
    alive = [Path(f"/proc/{pid}/stat") for pid in pids]
    return not any(stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z" for stat in alive)


@pytest.mark.parametrize("name", GRAPHS)
def test_every_parameter_in_the_list_exists_in_its_node(name):
    extras = {"recorder": {"source", "episode_id", "task_text"}}
    for node in nodes_of(name):
        known = {field.name for field in dataclasses.fields(KINDS[node.kind].config)} | extras.get(node.kind, set())
        assert set(node.parameters) <= known | {"autostart"}


def test_an_argument_goes_to_every_node_that_has_the_parameter():
    nodes = {node.name: node for node in nodes_of("self_improve", {"seed": "3", "policy.checkpoint": "a/b"})}
    assert [name for name in nodes if nodes[name].parameters.get("seed") == 3] == ["twin", "policy", "improver"]
    assert nodes["policy"].parameters["checkpoint"] == "a/b"
    assert "-p" in nodes["twin"].command() and "realtime:=false" in nodes["twin"].command()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"sede": "3"}, "did you mean 'seed'"),
        ({"arm.seed": "3"}, "no node 'arm'"),
        ({"sim": "false"}, "sim:=false needs contract:=FILE"),
        ({"sim": "no"}, "sim:=no: give true or false"),
        ({"policy.checkpont": "a"}, "node 'policy' has no parameter 'checkpont'; did you mean 'checkpoint'"),
        ({"seed": "three"}, "node 'twin': parameter 'seed' must be int, got 'three'; set it like the default: seed:=0"),
        ({"use_sim_time": "perhaps"}, "parameter 'use_sim_time' must be bool, got 'perhaps'"),
        ({"reward.weights": "[1.0, 2]"}, "of several types"),
        ({"episodes": "a: b"}, "parameter 'episodes': ROS cannot read value 'a: b'"),
        ({"ns": "left arm"}, "ns:=left arm: a namespace has letters"),
        ({"namespace": "/1st"}, "namespace:=/1st: a namespace has letters"),
    ],
)
def test_a_wrong_argument_names_the_cure(arguments, says):
    with pytest.raises(ValueError, match=says):
        nodes_of("self_improve", arguments)


def test_words_that_are_not_arguments_are_refused():
    assert parse_arguments(["a:=b:c", "x.y:=1"]) == {"a": "b:c", "x.y": "1"}
    with pytest.raises(ValueError, match="key:=value"):
        parse_arguments(["seed=3"])


def test_parameters_of_every_type_pass():
    values = {"recorder.source": "expert", "recorder.task_text": "'7'", "twin.autostart": False, "contract": ""}
    values |= {"disturbance_std": 1, "learning_rate": "1e-4", "use_sim_time": "true", "reward.weights": "[1, 0, 0]"}
    nodes = {node.name: node.parameters for node in nodes_of("self_improve", values)}
    assert nodes["recorder"]["source"] == "expert" and nodes["improver"]["learning_rate"] == 1e-4
    assert nodes["recorder"]["task_text"] == "'7'" and nodes["reward"]["weights"] == [1, 0, 0]
    assert all(parameters["use_sim_time"] is True for parameters in nodes.values())


def test_a_node_has_a_name_and_a_kind(monkeypatch):
    pair = (NodeSpec("left_camera", "camera", {"camera": "left"}), NodeSpec("right_camera", "camera"))
    monkeypatch.setitem(GRAPHS, "pair", pair)
    left, right = nodes_of("pair", {"right_camera.camera": "right", "left_camera.width": "48", "height": "32"})
    assert left.parameters == {"camera": "left", "width": 48, "height": 32}
    assert right.parameters == {"camera": "right", "height": 32}
    assert "__node:=left_camera" in left.command() and "lrm_ros.nodes.camera" in left.command()
    with pytest.raises(ValueError, match="no node 'camera'; its nodes: left_camera, right_camera"):
        nodes_of("pair", {"camera.width": "48"})
    with pytest.raises(ValueError, match="node 'left_camera' has no parameter 'with'; did you mean 'width'"):
        nodes_of("pair", {"left_camera.with": "48"})


def test_every_kind_is_an_installed_program():
    tree = ast.parse((ROOT / "setup.py").read_text())
    values = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "NODES"]
    assert ast.literal_eval(values[0]) == {name: kind.module for name, kind in KINDS.items()}


def test_no_two_nodes_of_a_graph_have_the_same_name():
    for nodes in GRAPHS.values():
        assert len({node.name for node in nodes}) == len(nodes)
    with pytest.raises(ValueError, match="several nodes of the graph are called camera_a"):
        Graph([CAMERA, CAMERA])


@pytest.mark.parametrize("key", ["ns", "namespace"])
def test_a_namespace_is_for_every_node_and_has_its_own_clock(key):
    for node in nodes_of("self_improve", {key: "arm1"}):
        assert node.namespace == "/arm1"
        words = node.command()
        assert [words[i + 1] for i, word in enumerate(words) if word == "-r"] == [
            f"__node:={node.name}",
            "__ns:=/arm1",
            "/clock:=/arm1/clock",
        ]
    assert nodes_of("teleop", {key: "/lab/arm1/"})[0].namespace == "/lab/arm1"
    for nothing in ("", "/"):
        assert not any("__ns" in word or "clock" in word for word in nodes_of("teleop", {key: nothing})[0].command())


_WORDS = [
    "1",
    "-3",
    "0x10",
    "010",
    "1.",
    "1e5",
    "1e-5",
    ".5",
    ".inf",
    "-.inf",
    "nan",
    "true",
    "'true'",
    "yes",
    "N",
    "~",
]
_WORDS += ["[1, 2]", "[1.5, 2.]", "[a, 'b']", "[true, no]", "''", "runs/x", "a b", "1_000", "1e", "0", "+2", "null"]
_NO_VALUES = ["a: b", "{x", "[1, 2.5]"]


@pytest.mark.parametrize("word", _WORDS + _NO_VALUES)
def test_words_are_read_as_ros_reads_them(word):
    import rclpy

    context = rclpy.Context()
    if word in _NO_VALUES:
        with pytest.raises(ValueError, match="ROS"):
            parsed_value(word)
        with pytest.raises(RuntimeError, match="parse parameter override"):
            context.init(["--ros-args", "-p", f"x:={word}"])
        return
    context.init(["--ros-args", "-p", f"x:={word}"])
    node = rclpy.create_node("reader", context=context, automatically_declare_parameters_from_overrides=True)
    try:
        ours, theirs = parsed_value(word), node.get_parameter("x").value
        theirs = list(theirs) if isinstance(ours, list) else theirs
        assert repr(ours) == repr(theirs)
    finally:
        node.destroy_node()
        context.shutdown()


def test_values_are_written_as_ros_parses_them():
    assert [ros_value(v) for v in (True, 2, 0.5, (1.0, 2.0), "")] == ["true", "2", "0.5", "[1.0, 2.0]", "''"]


_TEXTS = """2024|1e5|007|on|null|run: 2|my run #2|räum 1|it's|[a]|~|2024-05-01|*x|- a|Put: the cube|a, b|'x'|"x"|b\\c
true|&a|!b|%c|@d|`e`|{f}|g: | h|i |.inf|0x1||run|runs/x.y-z|?|<<|喂|a: b: c|#|--ros-args|-p|=|>|a\tb""".replace(
    "\n", "|"
).split("|")


@pytest.mark.parametrize("text", _TEXTS)
def test_text_reaches_a_node_as_it_is(text):
    import rclpy

    (recorder,) = (node for node in nodes_of("teleop", {"recorder.folder": text}) if node.name == "recorder")
    context = rclpy.Context()
    context.init(recorder.command()[3:])
    node = rclpy.create_node("recorder", context=context, automatically_declare_parameters_from_overrides=True)
    try:
        assert node.get_parameter("folder").value == text
    finally:
        node.destroy_node()
        context.shutdown()


def test_a_running_graph_stops_and_leaves_no_process(tmp_path):
    log = tmp_path / "nodes.log"
    running = Graph([CAMERA, dataclasses.replace(CAMERA, name="camera_b")], log=log, show=())
    running.start()
    processes = [process.pid for process in running._processes.values()]
    try:
        assert running.wait(timeout=0.5) is None
    finally:
        begin = time.monotonic()
        running.stop()
    assert time.monotonic() - begin < 10.0 and _gone(processes)


def test_a_node_that_dies_ends_the_graph_with_its_name_and_code(tmp_path):
    bad = NodeSpec("camera_b", "camera", {"source": str(tmp_path), "rate_hs": 5.0})
    with Graph([CAMERA, bad], log=tmp_path / "log", show=()) as running:
        assert running.wait(timeout=20.0) == 2
        assert running.failed == "camera_b"
        with pytest.raises(RuntimeError, match="node 'camera_b' died with code "):
            running.check()
    assert "did you mean 'rate_hz'?" in (tmp_path / "log").read_text()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Make a program with a given body a kind of node."""

    def build(name: str, body: str) -> NodeSpec:
        (tmp_path / f"{name}.py").write_text(body)
        monkeypatch.setitem(graphs.KINDS, name, Kind(name, CameraConfig))
        return NodeSpec(name, name)

    return build


def test_a_clean_exit_ends_the_graph_well_only_if_it_is_meant_to(tmp_path, module):
    done = module("done", "")
    env = {"PYTHONPATH": str(tmp_path)}
    with Graph([done], env=env) as running:
        assert running.wait(timeout=20.0) == 1 and running.failed == "done"
        with pytest.raises(RuntimeError, match=r"node 'done' died with code 1; its output is"):
            running.check()
    with Graph([dataclasses.replace(done, ends_graph=True)], env=env) as running:
        assert running.wait(timeout=20.0) == 0 and not running.failed


def test_a_process_that_ignores_signals_is_killed_with_its_children(tmp_path, monkeypatch, module):
    assert Graph._ESCALATION[-1] == (8.0, signal.SIGKILL)
    monkeypatch.setattr(Graph, "_ESCALATION", ((0.0, signal.SIGINT), (0.3, signal.SIGTERM), (0.6, signal.SIGKILL)))
    body = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print('up', flush=True); time.sleep(60)\n"
    )
    log = tmp_path / "log"
    running = Graph([module("stubborn", body)], env={"PYTHONPATH": str(tmp_path)}, log=log, show=())
    running.start()
    _until(lambda: "up" in log.read_text())
    leader = running._processes["stubborn"].pid
    processes = [leader, *_children(leader)]
    assert len(processes) == 2
    running.stop()
    _until(lambda: _gone(processes), 3.0)


def test_a_log_on_a_full_disk_is_named_once_and_the_nodes_go_on(tmp_path, module, capsys):
    body = "print('spoken\\n' * 20_000, flush=True)\nopen('said', 'w').close()\n"  # more than a pipe holds
    spec = dataclasses.replace(module("speaker", f"import os; os.chdir({str(tmp_path)!r})\n{body}"), ends_graph=True)
    with Graph([spec], env={"PYTHONPATH": str(tmp_path)}, log=Path("/dev/full")) as running:
        assert running.wait(timeout=20.0) == 0 and (tmp_path / "said").exists()
    shown = capsys.readouterr().out
    assert shown.count("'/dev/full' cannot be written: No space left on device; nothing more is logged there") == 1
    assert shown.count("spoken") == 20_000


def test_what_a_dead_node_had_started_is_stopped_too(tmp_path, module):
    body = (
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); sys.exit(3)"
    )
    running = Graph([module("mortal", body)], env={"PYTHONPATH": str(tmp_path)}, show=())
    running.start()
    group = running._processes["mortal"].pid
    assert running.wait(timeout=20.0) == 3
    os.killpg(group, 0)  # its child lives on
    running.stop()
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


_RUN = (
    "from lrm_ros.graph.graphs import NodeSpec\nfrom lrm_ros.graph.runner import run_graph\n"
    f"raise SystemExit(run_graph([NodeSpec('camera_a', 'camera', {SMALL!r})]))\n"
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_program_stops_every_node_and_is_no_failure(number):
    program = subprocess.Popen([sys.executable, "-c", _RUN], cwd=ROOT)
    _until(lambda: _children(program.pid))
    children = _children(program.pid)
    _until(lambda: all(_threads(child) > 3 for child in children))  # DDS is up
    program.send_signal(number)
    assert program.wait(timeout=10.0) == 0
    assert _gone(children)


def test_a_killed_program_leaves_no_orphans():
    program = subprocess.Popen([sys.executable, "-c", _RUN], cwd=ROOT)
    _until(lambda: _children(program.pid))
    children = _children(program.pid)
    _until(lambda: all(_threads(child) > 3 for child in children))
    program.kill()
    program.wait()
    _until(lambda: _gone(children), 10.0)


def test_up_prints_the_commands_and_explains_a_wrong_argument(capsys):
    assert graph_run.main(["self_improve", "seed:=4", "--print"]) == 0
    assert "lrm_ros.sim.twin.node" in capsys.readouterr().out
    assert graph_run.main(["self_improve", "sede:=4"]) == 2
    assert "did you mean 'seed'" in capsys.readouterr().err
