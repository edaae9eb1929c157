# SPDX-License-Identifier: Apache-2.0
"""What arithmetic gives back stays with the process: the next batch takes no new pages from the system."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from lrm_ros.reward.qwen.allocator import keep_freed_memory

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(8 * 2**20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

kept = keep_freed_memory()
pages()
print(kept, pages() // 20)
"""


def _run(**given: str) -> tuple[str, int]:
    """Return whether a new process keeps what it frees, and how many pages it takes for an array of 8 MiB."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_", "LD_P"))}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], env=environment | given, capture_output=True, text=True, check=True
    )
    kept, pages = done.stdout.split()
    return kept, int(pages)


@pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}), reason="no glibc")
def test_arrays_are_made_of_the_pages_of_earlier_ones_unless_the_environment_chooses():
    assert _run() == ("True", 0)
    kept, pages = _run(MALLOC_MMAP_THRESHOLD_="1000000")
    assert kept == "False" and pages > 1  # 2 MiB pages, if the kernel makes them
