# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the reward server: it measures, checks every answer, and writes its figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from lrm_ros.training.bench import serve


def test_it_measures_and_writes_its_figures(tmp_path: Path) -> None:
    words = ["--clients", "5", "--seconds", "0.5", "--count", "5", "--json", str(tmp_path / "f.json")]
    assert serve.main(words) == 0
    found = json.loads((tmp_path / "f.json").read_text())
    for kind in ("camera", "ours"):
        assert 0 < found["hop"][kind]["p50_ms"] <= found["hop"][kind]["p95_ms"] and found["hop"][kind]["n"] == 5
    assert set(found["crowd"]["statuses"]) == {"200"} and found["crowd"]["answers_of_another_picture"] == 0
    assert found["memory_mb"]["after"] > 0


def test_its_picture_is_as_large_as_a_cameras() -> None:
    picture = serve.noisy(640, 480)
    assert picture.shape == (480, 640, 3) and picture.dtype == np.uint8
    assert 100_000 < len(serve.camera_jpeg(picture)) < len(serve.jpeg(picture)) < 500_000
