# SPDX-License-Identifier: Apache-2.0
"""Graphs of real node processes: they start together, a death is named, nothing survives the stop."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lrm_ros.graph import runner as graph_run
from lrm_ros.graph.graphs import CONFIGS, GRAPHS, NodeSpec, nodes_of, parse_arguments, ros_value
from lrm_ros.graph.runner import Graph

ROOT = Path(__file__).parents[1]
SMALL = {"source": "synthetic", "width": 48, "height": 32, "rate_hz": 10.0}
CAMERA = NodeSpec("camera_a", "lrm_ros.nodes.camera", SMALL)


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
        known = {field.name for field in dataclasses.fields(CONFIGS[node.name])} | extras.get(node.name, set())
        assert set(node.parameters) <= known | {"autostart"}


def test_an_argument_goes_to_every_node_that_has_the_parameter():
    nodes = {node.name: node for node in nodes_of("self_improve", {"seed": "3", "policy.checkpoint": "a/b"})}
    assert [name for name in nodes if nodes[name].parameters.get("seed") == "3"] == ["twin", "policy", "improver"]
    assert nodes["policy"].parameters["checkpoint"] == "a/b"
    assert "-p" in nodes["twin"].command() and "realtime:=false" in nodes["twin"].command()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"sede": "3"}, "did you mean 'seed'"),
        ({"arm.seed": "3"}, "no node 'arm'"),
        ({"sim": "false"}, "no node for a real arm yet"),
    ],
)
def test_a_wrong_argument_names_the_cure(arguments, says):
    with pytest.raises(ValueError, match=says):
        nodes_of("self_improve", arguments)


def test_words_that_are_not_arguments_are_refused():
    assert parse_arguments(["a:=b:c", "x.y:=1"]) == {"a": "b:c", "x.y": "1"}
    with pytest.raises(ValueError, match="key:=value"):
        parse_arguments(["seed=3"])


def test_values_are_written_as_ros_parses_them():
    assert [ros_value(v) for v in (True, 2, 0.5, (1.0, 2.0), "")] == ["true", "2", "0.5", "[1.0, 2.0]", "''"]


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
    bad = NodeSpec("camera_b", "lrm_ros.nodes.camera", {"source": str(tmp_path), "rate_hs": 5.0})
    with Graph([CAMERA, bad], log=tmp_path / "log", show=()) as running:
        assert running.wait(timeout=20.0) == 2
        assert running.failed == "camera_b"
    assert "did you mean 'rate_hz'?" in (tmp_path / "log").read_text()


def _module(tmp_path: Path, name: str, body: str) -> NodeSpec:
    (tmp_path / f"{name}.py").write_text(body)
    return NodeSpec(name, name)


def test_a_clean_exit_ends_the_graph_well_only_if_it_is_meant_to(tmp_path):
    done = _module(tmp_path, "done", "")
    env = {"PYTHONPATH": str(tmp_path)}
    with Graph([done], env=env) as running:
        assert running.wait(timeout=20.0) == 1 and running.failed == "done"
    with Graph([dataclasses.replace(done, ends_graph=True)], env=env) as running:
        assert running.wait(timeout=20.0) == 0 and not running.failed


def test_a_process_that_ignores_signals_is_killed_with_its_children(tmp_path, monkeypatch):
    assert Graph._ESCALATION[-1] == (8.0, signal.SIGKILL)
    monkeypatch.setattr(Graph, "_ESCALATION", ((0.0, signal.SIGINT), (0.3, signal.SIGTERM), (0.6, signal.SIGKILL)))
    body = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print('up', flush=True); time.sleep(60)\n"
    )
    log = tmp_path / "log"
    running = Graph([_module(tmp_path, "stubborn", body)], env={"PYTHONPATH": str(tmp_path)}, log=log, show=())
    running.start()
    _until(lambda: "up" in log.read_text())
    leader = running._processes["stubborn"].pid
    processes = [leader, *_children(leader)]
    assert len(processes) == 2
    running.stop()
    _until(lambda: _gone(processes), 3.0)


def test_what_a_dead_node_had_started_is_stopped_too(tmp_path):
    body = (
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); sys.exit(3)"
    )
    running = Graph([_module(tmp_path, "mortal", body)], env={"PYTHONPATH": str(tmp_path)}, show=())
    running.start()
    group = running._processes["mortal"].pid
    assert running.wait(timeout=20.0) == 3
    os.killpg(group, 0)  # its child lives on
    running.stop()
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


_RUN = (
    "from lrm_ros.graph.graphs import NodeSpec\nfrom lrm_ros.graph.runner import run_graph\n"
    f"raise SystemExit(run_graph([NodeSpec('camera_a', 'lrm_ros.nodes.camera', {SMALL!r})]))\n"
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
