# SPDX-License-Identifier: Apache-2.0
"""Nothing that a test runs may take the machine for itself."""

import os
import subprocess
import sys

import pytest

TAKE = "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99))"


def test_neither_this_process_nor_one_that_it_starts_can_become_real_time():
    with pytest.raises(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99))
    done = subprocess.run([sys.executable, "-c", TAKE], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "PermissionError" in done.stderr
    assert os.sched_getscheduler(0) in (os.SCHED_OTHER, os.SCHED_BATCH, os.SCHED_IDLE)
