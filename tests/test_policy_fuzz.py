# SPDX-License-Identifier: Apache-2.0
"""Policy checkpoints of which hypothesis has damaged a file: a policy that acts, or one line that names the folder."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("hypothesis")

from fuzzing import bounded, check_refusal, fuzz, other_file  # type: ignore[import-not-found]
from hypothesis import given
from hypothesis import strategies as st
from observations import observation  # type: ignore[import-not-found]

from lrm_ros.config import RobotContract
from lrm_ros.policy import PolicyRunner


def test_fuzz_of_policy_checkpoints(small_policy):
    names = sorted(path.name for path in small_policy.iterdir() if path.is_file())

    @fuzz
    @given(data=st.data(), name=st.sampled_from(names), missing=st.integers(0, 19))
    def check(data: st.DataObject, name: str, missing: int) -> None:
        with tempfile.TemporaryDirectory() as scratch, bounded():
            folder = Path(shutil.copytree(small_policy, Path(scratch) / "policy"))
            if missing == 0:
                (folder / name).unlink()
            else:
                (folder / name).write_bytes(data.draw(other_file(small_policy / name)))
            try:
                policy = PolicyRunner(folder, RobotContract())
            except (ValueError, FileNotFoundError) as error:
                check_refusal(error, folder)
            else:
                chunk = policy.act(observation())
                assert chunk.actions.shape[1] == 6 and np.isfinite(chunk.actions).all()

    check()
