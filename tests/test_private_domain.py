# SPDX-License-Identifier: Apache-2.0
"""A domain is one program's at a time, and free again when the program is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import pytest

from lrm_ros import private_domain
from lrm_ros.private_domain import claim_domain, use_private_domain


@pytest.fixture
def two_domains(tmp_path, monkeypatch):
    """A host on which only domains 1 and 2 are there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(private_domain, "DOMAINS", range(1, 3))
    held: list[int] = []
    monkeypatch.setattr(private_domain, "_held", held)
    yield held
    for file in held:
        os.close(file)


def test_every_claim_gets_another_domain_until_none_is_left(two_domains):
    assert {claim_domain(), claim_domain()} == {1, 2}
    with pytest.raises(RuntimeError, match=r"all ROS domains from 1 to 2 are taken .* give one: ROS_DOMAIN_ID=7"):
        claim_domain()


def test_the_domain_of_a_killed_program_is_free_again(two_domains, tmp_path, monkeypatch):
    script = "from lrm_ros.private_domain import claim_domain; print(claim_domain(), flush=True); input()"
    env = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", script], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        theirs = int(child.stdout.readline())
        monkeypatch.setattr(private_domain, "DOMAINS", range(theirs, theirs + 1))
        with pytest.raises(RuntimeError, match="taken"):
            claim_domain()
        child.kill()
    assert claim_domain() == theirs


def test_what_somebody_chose_stays(two_domains, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", "77")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    use_private_domain()
    assert (os.environ["ROS_DOMAIN_ID"], os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"]) == ("77", "SUBNET")
    use_private_domain(replace=True)
    assert os.environ["ROS_DOMAIN_ID"] in ("1", "2") and os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"


def test_a_program_of_ours_chooses_where_nobody_has(two_domains, monkeypatch):
    monkeypatch.delenv("ROS_DOMAIN_ID")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "")
    use_private_domain()
    assert os.environ["ROS_DOMAIN_ID"] in ("1", "2") and os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
