# SPDX-License-Identifier: Apache-2.0
"""Run folders of which hypothesis has damaged a file: a report, or one line with the file, the cure and exit code 2."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest

pytest.importorskip("hypothesis")

from fuzzing import bounded, check_refusal, fuzz, other_file  # type: ignore[import-not-found]
from hypothesis import given
from hypothesis import strategies as st
from run_folders import write_run  # type: ignore[import-not-found]

from lrm_ros.ros.collector import read_verdicts
from lrm_ros.training.report.command import main, report_of, write_report
from lrm_ros.training.report.run_folder import read_run


def test_fuzz_of_run_folders(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "iter_001/episodes/2008_0.mcap.part").write_bytes((run / "iter_001/episodes/2001_0.mcap").read_bytes()[:900])
    whole = write_report(run)
    results = ("report.json", "report.html")
    files = [file for file in sorted(run.rglob("*")) if file.is_file() and file.name not in results]
    plain = [file for file in files if not file.name.endswith((".mcap", ".part"))]
    contents = {file: file.read_bytes() for file in files}

    @fuzz
    @given(data=st.data(), file=st.sampled_from(plain + files), missing=st.integers(0, 19), page=st.integers(0, 15))
    def check(data: st.DataObject, file: Path, missing: int, page: int) -> None:
        found = data.draw(other_file(file))
        try:
            if missing == 0:
                file.unlink()
            else:
                file.write_bytes(found)
            with bounded():
                check_run(run, file, whole.keys(), page == 0)
        finally:
            file.write_bytes(contents[file])

    check()
    assert write_report(run) == whole


def check_run(run: Path, file: Path, keys, page: bool) -> None:
    """Report on a run of which one file is damaged, as the command does with its ``page``; go on with its verdicts."""
    if page:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(run)])
        if code:
            lines = err.getvalue().splitlines()
            assert code == 2 and len(lines) == 1 and lines[0].startswith("error: ") and str(file) in lines[0], lines
        else:
            assert json.loads((run / "report.json").read_text()).keys() == keys
    else:
        try:
            report = report_of(read_run(run))
        except (ValueError, FileNotFoundError) as error:
            check_refusal(error, file)
        else:
            assert report.keys() == keys
            json.dumps(report, allow_nan=False)
    if file.name == "verdicts.jsonl":
        try:
            read_verdicts(file.parent)
        except ValueError as error:
            check_refusal(error, file)
