# SPDX-License-Identifier: Apache-2.0
"""The rules of the architecture, read from the source: who imports whom, where ROS is, who sees the truth."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]
# sim and training stand at the top level; lrm_ros/sim and lrm_ros/training are links to them, for their names.
ROOMS = ("lrm_ros", "sim", "training")
OURS = ("lrm_ros", "lrm_ros.sim", "lrm_ros.training")
SOURCES = sorted(path for room in ROOMS for path in (TOP / room).rglob("*.py") if TOP / room in path.resolve().parents)
EVERY = SOURCES + sorted(path for room in ("tests", "launch", "tools") for path in (TOP / room).glob("*.py"))

# Heavy libraries: only inside the function or constructor that needs them. cv2 takes 0.1 s and is left alone.
HEAVY = {
    "torch",
    "torchvision",
    "transformers",
    "peft",
    "lerobot",
    "mani_skill",
    "sapien",
    "accelerate",
    "datasets",
    "trl",
}
# Imported only by such a function, so these may import them at the top.
LAZY_FILES = {"lrm_ros/act_small.py", "sim/shaders.py"}
LAZY_ROOMS = ("sim/tasks/", "training/")
ROS_FILES = {
    "lrm_ros/messages.py",
    "sim/twin_node.py",
    "sim/worlds_client.py",
    "sim/worlds_node.py",
    "training/refinement/node.py",
}
ROS_ROOM = "lrm_ros/nodes/"
# What each room of lrm_ros may import of the others; all may import versions. Rooms not named here (nodes, programs)
# are downstream of all.
UPSTREAM: dict[str, set[str]] = {
    "types": set(),
    "versions": set(),
    "config": {"types"},
    "contract": {"types", "config"},
    "act_small": {"types", "config"},
    "reward": {"types", "config"},
    "record": {"types", "config", "contract"},
    "robot": {"types", "config", "contract"},
    "policy": {"types", "config", "contract", "act_small"},
    "messages": {"types", "config"},
    "graph": {"types", "config"},
}
# The simulator's truth may be read where worlds are made, measured and reported, and nowhere else.
TRUTH_FILES = ("lrm_ros/nodes/evaluator.py", "training/closed_loop", "training/report")
# Its words in code: the topic, the key of ManiSkill's info, the method that computes it.
TRUTH_TOPIC, TRUTH_KEY, TRUTH_METHOD = "truth", "success", "evaluate"


def name_of(path: Path) -> str:
    return path.relative_to(TOP).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), name_of(path))


def imports(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Every imported module below a node, with its line; ``from lrm_ros import config`` counts as lrm_ros.config."""
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: import by full name, not relatively"
            for alias in child.names:
                whole = (child.module or "") in OURS
                yield (f"{child.module}.{alias.name}" if whole else str(child.module)), child.lineno


def imports_at_top(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Imports that run when the module is imported: not those in functions or under TYPE_CHECKING."""
    for statement in tree.body:
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            continue
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from imports(statement)


def is_ros(module: str) -> bool:
    top = module.split(".")[0]
    return top in ("rclpy", "std_srvs", "ament_index_python", "builtin_interfaces", "rcl_interfaces") or top.endswith(
        "_msgs"
    )


def test_lrm_ros_never_imports_sim_or_training() -> None:
    found = [
        f"{name_of(path)}:{line} imports {module}"
        for path in SOURCES
        if name_of(path).startswith("lrm_ros/")
        for module, line in imports(tree_of(path))
        if module.startswith(OURS[1:])
    ]
    assert not found, found


def test_sim_and_training_are_known_by_their_installed_names_only() -> None:
    found = [
        f"{name_of(path)}:{line} imports {module}"
        for path in EVERY
        for module, line in imports(tree_of(path))
        if module.split(".")[0] in ("sim", "training")
    ]
    assert not found, f"a user's own folder 'sim' or 'training' would be taken for ours: {found}"


def test_imports_go_one_way_along_the_walk() -> None:
    found = []
    for path in SOURCES:
        room = Path(name_of(path)).parts[1].removesuffix(".py")
        if not name_of(path).startswith("lrm_ros/") or room not in UPSTREAM:
            continue
        for module, line in imports(tree_of(path)):
            parts = module.split(".")
            if (
                parts[0] == "lrm_ros"
                and len(parts) > 1
                and parts[1] not in UPSTREAM[room] | {room, "__version__", "versions"}
            ):
                found.append(f"{name_of(path)}:{line} imports {module}")
    assert not found, found


def test_ros_is_only_at_the_rim() -> None:
    found = [
        f"{name_of(path)}:{line} imports {module}"
        for path in SOURCES
        if name_of(path) not in ROS_FILES and not name_of(path).startswith(ROS_ROOM)
        for module, line in imports(tree_of(path))
        if is_ros(module)
    ]
    assert not found, found


def test_heavy_libraries_are_imported_only_where_they_are_needed() -> None:
    found = [
        f"{name_of(path)}:{line} imports {module} when it is imported"
        for path in SOURCES
        if name_of(path) not in LAZY_FILES and not name_of(path).startswith(LAZY_ROOMS)
        for module, line in imports_at_top(tree_of(path))
        if module.split(".")[0] in HEAVY
    ]
    assert not found, found


def test_only_evaluation_reads_the_simulators_truth() -> None:
    found = []
    for path in SOURCES:
        if name_of(path).startswith(("sim/", *TRUTH_FILES)):
            continue
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Constant) and node.value in (TRUTH_TOPIC, f"/{TRUTH_TOPIC}", f"~/{TRUTH_TOPIC}"):
                found.append(f"{name_of(path)}:{node.lineno} names the topic '{TRUTH_TOPIC}'")
            if isinstance(node, ast.Subscript) and ast.unparse(node).endswith(f"info['{TRUTH_KEY}']"):
                found.append(f"{name_of(path)}:{node.lineno} reads {ast.unparse(node)}")
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(f".{TRUTH_METHOD}"):
                found.append(f"{name_of(path)}:{node.lineno} calls {ast.unparse(node.func)}()")
    assert not found, found


@pytest.mark.parametrize("path", EVERY, ids=name_of)
def test_every_module_has_a_licence_line_and_says_its_job(path: Path) -> None:
    lines = path.read_text().splitlines()
    lines = lines[1:] if lines and lines[0].startswith("#!") else lines
    assert lines and lines[0] == "# SPDX-License-Identifier: Apache-2.0", "the first line must be the SPDX line"
    if path in SOURCES:
        assert ast.get_docstring(tree_of(path)), "a module begins with a docstring that says its job"


def test_the_import_scanner_sees_what_it_must() -> None:
    tree = ast.parse(
        "import torch\nfrom lrm_ros import config\nclass A:\n    def f(self):\n        import rclpy.node\n"
    )
    assert [module for module, _ in imports(tree)] == ["torch", "lrm_ros.config", "rclpy.node"]
    assert [module for module, _ in imports_at_top(tree)] == ["torch", "lrm_ros.config"]
    assert is_ros("sensor_msgs.msg") and not is_ros("lrm_ros.messages")
