# SPDX-License-Identifier: Apache-2.0
"""A ROS domain for this process and what it starts, which no other program of ours on this host has at the time."""

from __future__ import annotations

import fcntl
import os
import random
import tempfile
from pathlib import Path

DOMAINS = range(1, 101)  # 0 is everybody's; Linux may give the ports of 102 and above to other programs
_held: list[int] = []  # open files: a lock lasts as long as the process


def use_private_domain(*, replace: bool = False) -> None:
    """Choose a free domain at random and set the environment to it, for this host only, where nobody has chosen.

    Whoever has a domain holds a lock on a file in the folder for temporary files, so two demos, benches or test runs at
    a time cannot hear each other. It falls when the process ends, however it ends.

    Args:
        replace: set both, whatever ROS_DOMAIN_ID and ROS_AUTOMATIC_DISCOVERY_RANGE are.

    Raises:
        RuntimeError: all domains are taken.
    """
    if replace or not os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE"):
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"  # OFF would cut even one host apart
    if replace or not os.environ.get("ROS_DOMAIN_ID"):
        os.environ["ROS_DOMAIN_ID"] = str(claim_domain())


def claim_domain() -> int:
    """Return a domain that is this process's until it ends.

    Raises:
        RuntimeError: all are taken.
    """
    folder = Path(tempfile.gettempdir()) / f"lrm_ros_domains.{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for domain in random.SystemRandom().sample(DOMAINS, len(DOMAINS)):
        file = os.open(folder / str(domain), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            continue
        _held.append(file)
        return domain
    raise RuntimeError(
        f"all ROS domains from {DOMAINS[0]} to {DOMAINS[-1]} are taken by programs that run now ('{folder}'); "
        "end some of them, or give one: ROS_DOMAIN_ID=7"
    )
