# SPDX-License-Identifier: Apache-2.0
"""Rules read from the source: who sees the simulator's truth, who makes topics, how services are named."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from source_files import SOURCES, name_of, tree_of  # type: ignore[import-not-found]

# The simulator's truth may be read where worlds are made, measured and reported, and nowhere else.
TRUTH_FILES = (
    "lrm_ros/nodes/evaluator.py",
    "lrm_ros/training/policy/evaluate.py",
    "lrm_ros/training/ppo/play.py",
    "lrm_ros/training/report/",
)
# Its words in code: the topic, its constant in the table, the key of ManiSkill's info, the method that computes it.
TRUTH_TOPIC, TRUTH_CONSTANT, TRUTH_KEY, TRUTH_METHOD = "truth", "TRUTH", "success", "evaluate"
# The one file that makes topics, and what asks about a topic by its name.
TOPICS_FILE = "lrm_ros/topics.py"
MAKES_TOPICS = {"create_publisher", "create_subscription", "create_lifecycle_publisher", "Topic", "QoSProfile"}
ASKS_BY_NAME = {
    "count_publishers",
    "count_subscribers",
    "get_publishers_info_by_topic",
    "get_subscriptions_info_by_topic",
}


def reads_of_the_truth(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every place that names the topic or its constant, takes the key or calls the method, with its line."""
    names = (TRUTH_TOPIC, f"/{TRUTH_TOPIC}", f"~/{TRUTH_TOPIC}", TRUTH_CONSTANT)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in names:
            yield f"names the topic '{node.value}'", node.lineno
        if isinstance(node, ast.Attribute) and node.attr == TRUTH_CONSTANT:
            yield f"uses {ast.unparse(node)}", node.lineno
        if isinstance(node, ast.Name) and node.id == TRUTH_CONSTANT:
            yield f"uses {node.id}", node.lineno
        if isinstance(node, ast.ImportFrom) and any(alias.name == TRUTH_CONSTANT for alias in node.names):
            yield f"imports {node.module}.{TRUTH_CONSTANT}", node.lineno
        if isinstance(node, ast.Subscript) and ast.unparse(node).endswith(f"info['{TRUTH_KEY}']"):
            yield f"reads {ast.unparse(node)}", node.lineno
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(f".{TRUTH_METHOD}"):
            yield f"calls {ast.unparse(node.func)}()", node.lineno


def test_only_evaluation_reads_the_simulators_truth() -> None:
    found = []
    for path in SOURCES:
        if name_of(path).startswith(("lrm_ros/sim/", *TRUTH_FILES)):
            continue
        tree = tree_of(path)
        if name_of(path) == TOPICS_FILE:  # its line in the table, and nothing else there
            tree.body = [line for line in tree.body if not ast.unparse(line).startswith(f"{TRUTH_CONSTANT} = Topic(")]
        found += [f"{name_of(path)}:{line} {what}" for what, line in reads_of_the_truth(tree)]
    assert not found, found


def test_the_truth_is_seen_however_it_is_read() -> None:
    for line in (
        "node.create_subscription(DiagnosticStatus, '/truth', take, 10)",
        "topics.TRUTH.subscribe(node, take)",
        "topics.TRUTH.under('world_00').subscribe(node, take)",
        "from lrm_ros.topics import REWARD, TRUTH as other",
        "getattr(topics, 'TRUTH').subscribe(node, take)",
        "done = info['success']",
        "env.unwrapped.evaluate()",
    ):
        assert list(reads_of_the_truth(ast.parse(line))), line
    assert not list(reads_of_the_truth(ast.parse("topics.REWARD.subscribe(node, take)")))


def topics_made(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every place that makes a topic, or asks about one, without the table, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).split(".")[-1]
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            if name in MAKES_TOPICS:
                yield f"calls {ast.unparse(node.func)}", node.lineno
            if name in ASKS_BY_NAME and not any(ast.unparse(value).endswith(".name") for value in given):
                yield f"asks {ast.unparse(node)}", node.lineno


def test_topics_are_made_by_their_table_only() -> None:
    found = [
        f"{name_of(path)}:{line} {what}"
        for path in SOURCES
        if name_of(path) != TOPICS_FILE
        for what, line in topics_made(tree_of(path))
    ]
    assert not found, f"take them from {TOPICS_FILE}: {found}"
    for line in (
        "self.create_publisher(String, 'task', 10)",
        "node.create_subscription(String, name, take, topics.LATCHED)",
        "topics.Topic('mine', String, topics.STREAM, '')",
        "QoSProfile(depth=3)",
        "node.count_publishers('front/image_raw')",
    ):
        assert list(topics_made(ast.parse(line))), line
    for line in ("topics.TASK.subscribe(node, take)", "node.count_publishers(topics.TASK.name)"):
        assert not list(topics_made(ast.parse(line))), line


def test_a_nodes_services_are_named_after_the_node() -> None:
    names = [
        (f"{name_of(path)}:{call.lineno}", call.args[1])
        for path in SOURCES
        for call in ast.walk(tree_of(path))
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(".create_service")
    ]
    assert len(names) >= 10
    found = [where for where, name in names if not (isinstance(name, ast.Constant) and name.value.startswith("~/"))]
    assert not found, f"the node's kind in place of its name: {found}"
