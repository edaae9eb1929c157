# SPDX-License-Identifier: Apache-2.0
from lrm_ros.training.bench import keyframes as bench_keyframes


def test_the_benchmark_measures_every_keyframe():
    row = bench_keyframes.measure(episodes=2, frames=12, size=64, gop=2, one_file=True, rounds=1)
    assert row["keyframes"] == 22 and row["keyframes_per_cpu_s"] > 0 and row["jpeg_bytes"] > 500
