# SPDX-License-Identifier: Apache-2.0
"""The rules of the architecture, read from the source: who imports whom, where ROS is, what every file has."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from source_files import EVERY, OURS, ROOMS, SOURCES, TOP, name_of, tree_of  # type: ignore[import-not-found]

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
LAZY_FILES = {
    "lrm_ros/sim/render/shaders.py",
    "lrm_ros/sim/tabletop/fixture_task.py",
    "lrm_ros/sim/tabletop/task.py",
    "lrm_ros/sim/twin/place_toy_in_bowl.py",
    "lrm_ros/sim/twin/sort_toys.py",
    "lrm_ros/sim/twin/things.py",
}
LAZY_ROOMS = ("lrm_ros/training/",)
ROS_FILES = {
    "lrm_ros/messages.py",
    "lrm_ros/topics.py",
    "lrm_ros/graph/launch.py",
    "lrm_ros/sim/twin/node.py",
    "lrm_ros/sim/vector/client.py",
    "lrm_ros/sim/vector/node.py",
    "lrm_ros/training/bench/arm_bed.py",
    "lrm_ros/training/bench/arm_desk.py",
    "lrm_ros/training/bench/arm_loop.py",
    "lrm_ros/training/bench/arm_person.py",
    "lrm_ros/training/bench/faults.py",
    "lrm_ros/training/bench/bus.py",
    "lrm_ros/training/bench/kills.py",
    "lrm_ros/training/bench/realtime.py",
    "lrm_ros/training/bench/record_session.py",
    "lrm_ros/training/bench/robot.py",
    "lrm_ros/training/bench/topics.py",
    "lrm_ros/training/bench/hop.py",
    "lrm_ros/training/bench/twin.py",
    "lrm_ros/training/ppo/node.py",
}
ROS_ROOMS = ("lrm_ros/ros/", "lrm_ros/nodes/")
# What each room of lrm_ros may import of the others, beside versions, progress, commit, config_files and errors.
CORE = {"types", "seeds", "files", "config", "contract", "checkpoint", "reward", "record", "robot", "policy"}
CORE |= {"messages", "topics", "parameters", "environment", "programs", "chunk_timing", "options", "config_arm"}
CORE |= {"config_person", "config_teleop", "scales"}
CORE |= {"images", "image_files", "environment_variables"}
UPSTREAM: dict[str, set[str]] = {
    "types": set(),
    "versions": {"errors"},
    "environment_variables": set(),
    "environment": {"environment_variables"},
    "programs": {"environment"},
    "private_domain": set(),
    "progress": set(),
    "commit": set(),
    "errors": set(),
    "seeds": set(),
    "files": set(),
    "images": set(),
    "image_files": {"images"},
    "config_files": set(),
    "config_ppo": set(),
    "config_camera": set(),
    "config_person": {"seeds", "config"},
    "config_teleop": {"seeds"},
    "config": {"types", "seeds", "config_ppo", "config_camera", "config_teleop"},
    "config_arm": {"config"},
    "config_serve": {"config"},
    "config_refine": {"config", "config_ppo"},
    "parameters": set(),
    "contract": {"types", "config"},
    "reward": {"types", "config", "config_serve", "image_files", "options", "programs"},
    "record": {"types", "config", "contract", "files", "image_files"},
    "robot": {"types", "config", "config_arm", "config_teleop", "contract"},
    "checkpoint": {"config", "contract"},
    "scales": set(),
    "policy": {"types", "config", "contract", "checkpoint", "scales"},
    "chunk_timing": set(),
    "messages": {"types", "config", "images", "image_files"},
    "topics": set(),
    "ros": CORE,
    "nodes": CORE | {"ros"},
    "graph": {"types", "config", "config_arm", "config_person", "config_teleop", "parameters", "environment", "reward"}
    | {"programs", "images", "environment_variables"},
    "completion": {"graph"},
    "options": set(),
    "cli": {"programs", "completion"},
}
LONGEST = 350  # lines of a file
PRODUCT = "product"  # below tests: what is of no room, for it tests the whole


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
        if name_of(path).startswith("lrm_ros/") and not name_of(path).startswith(ROOMS[1:])
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
        if name_of(path).startswith(ROOMS[1:]) or room == "__init__":
            continue
        allowed = UPSTREAM[room] | {room, "__version__", "versions", "progress", "commit", "config_files", "errors"}
        for module, line in imports(tree_of(path)):
            parts = module.split(".")
            if parts[0] == "lrm_ros" and len(parts) > 1 and parts[1] not in allowed:
                found.append(f"{name_of(path)}:{line} imports {module}")
    assert not found, found


def module_of(path: Path) -> str:
    return name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def room_of(module: str) -> str:
    """lrm_ros.sim.twin.world -> lrm_ros.sim.twin; lrm_ros.training.reward.data.rows -> lrm_ros.training.reward.data."""
    deep = 4 if module.startswith("lrm_ros.training.reward") else 3 if module.startswith(OURS[1:]) else 2
    return ".".join(module.split(".")[:deep])


def our_imports() -> dict[str, set[str]]:
    """Every module of ours with those that it imports anywhere, in a function and under TYPE_CHECKING too."""
    modules = {module_of(path): path for path in SOURCES}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        graph[module] = set()
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ImportFrom):
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                graph[module] |= {name if name in modules else str(node.module) for name in names} & modules.keys()
    return graph


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    """The first circle found, empty if there is none."""
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph.get(name, ())):
            if circle := visit(other, [*way, name]):
                return circle
        done.add(name)
        return []

    for name in graph:
        if circle := visit(name, []):
            return circle
    return []


def test_no_module_and_no_room_imports_in_a_circle() -> None:
    graph = our_imports()
    assert not (circle := circle_in(graph)), " -> ".join(circle)
    rooms: dict[str, set[str]] = {}
    for module, others in graph.items():
        rooms.setdefault(room_of(module), set()).update({room_of(other) for other in others} - {room_of(module)})
    assert not (circle := circle_in(rooms)), " -> ".join(circle)
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]


def test_no_file_is_longer_than_a_room() -> None:
    long = {name_of(path): lines for path in EVERY if (lines := path.read_text().count("\n")) > LONGEST}
    assert not long, f"more than {LONGEST} lines: {long}"


def place_of(test: str) -> str:
    """What a test file is about: a room, or a module at the top of lrm_ros, or the product; empty if of none."""
    folder, _, name = test.removeprefix("tests/").rpartition("/")
    if folder == PRODUCT:
        return folder
    if folder:
        return folder if (TOP / "lrm_ros" / folder / "__init__.py").is_file() else ""
    words = name.removesuffix(".py").split("_")[1:]
    modules = ("_".join(words[:count]) for count in range(len(words), 0, -1))
    return next((module for module in modules if (TOP / f"lrm_ros/{module}.py").is_file()), "")


def test_the_tests_lie_in_folders_like_the_rooms() -> None:
    tests = [name_of(path) for path in EVERY if name_of(path).startswith("tests/")]
    lost = [name for name in tests if Path(name).name.startswith("test_") and not place_of(name)]
    assert not lost, f"neither in a room's folder, nor in '{PRODUCT}', nor of a module at the top of lrm_ros: {lost}"
    deep = [name for name in tests if name.count("/") > 1 and not Path(name).name.startswith("test_")]
    assert not deep, f"what several tests import lies in tests itself: {deep}"
    assert place_of("tests/test_config_files.py") == "config_files"
    assert place_of("tests/training/ppo/test_node.py") == "training/ppo"
    for name in ("tests/test_refine.py", "tests/ppo/test_refine.py", "tests/data/test_data.py"):
        assert not place_of(name), name


def test_ros_is_only_at_the_rim() -> None:
    found = [
        f"{name_of(path)}:{line} imports {module}"
        for path in SOURCES
        if name_of(path) not in ROS_FILES and not name_of(path).startswith(ROS_ROOMS)
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
