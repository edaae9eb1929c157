# SPDX-License-Identifier: Apache-2.0
"""docs/faults.md and docs/safety.md: each row has a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/faults.md").read_text()
SAFETY = (ROOT / "docs/safety.md").read_text()


@pytest.mark.parametrize("page", [PAGE, SAFETY], ids=["faults", "safety"])
def test_every_test_that_the_page_names_exists(page):
    named = set(re.findall(r"`(test_\w+)`", page))
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }
    assert len(named) > 20 and named <= defined, named - defined
    files = set(re.findall(r"`(tests/[\w/]+\.py)`", page))
    assert all((ROOT / file).is_file() for file in files)


def test_every_row_ends_with_its_test():
    rows = [
        line
        for line in PAGE.splitlines()
        if line.startswith("| ") and not re.match(r"\| (---|fault|what is wrong)", line)
    ]
    assert len(rows) > 25
    bare = [row for row in rows if not re.search(r"`tests?[_/][\w/.]+`[^|]*\|$|\| same[^|]*\|$", row)]
    assert not bare, bare


def test_every_promise_of_an_arms_safety_ends_with_its_test():
    tables = [part.split("\n\n")[0] for part in SAFETY.split("| promise | test |\n| --- | --- |\n")[1:]]
    rows = [row for table in tables for row in table.split("\n")]
    assert len(rows) >= 15
    bare = [row for row in rows if not re.search(r"`tests?[_/][\w/.]+` \|$", row)]
    assert not bare, bare


def test_nothing_is_left_to_fill_in():
    assert not re.findall(r"\{[^}]*\}", PAGE)
