# SPDX-License-Identifier: Apache-2.0
"""A progress bar in a log: whole lines, no carriage returns, the end among them."""

from __future__ import annotations

import sys

from tqdm import tqdm

from lrm_ros.progress import progress_bar


def test_in_a_log_a_bar_is_lines(capsys):
    with progress_bar(20, "roll out", "ep", 3) as bar:
        for k in range(17):
            bar.set_postfix(kept=k)
            bar.update(1)
            if k == 5:
                tqdm.write("left out: 'a'", sys.stderr)
    text = capsys.readouterr().err
    assert "\r" not in text and "\x1b" not in text and "" not in text.splitlines()
    lines = text.splitlines()
    assert "left out: 'a'" in lines and all(line.startswith(("roll out: ", "left out")) for line in lines)
    assert " 3/20 " in lines[0] and "20/20" in lines[-1]
