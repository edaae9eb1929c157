# SPDX-License-Identifier: Apache-2.0
"""Ranges of seeds: disjoint for all runs, the published numbers, the errors."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lrm_ros import seeds
from lrm_ros.config import EvaluatorConfig, ImproverConfig
from lrm_ros.seeds import SeedRange, check_table
from lrm_ros.training.demo import QUICK

SINGLE = ("TRIALS", "TUNING", "QUICK_DEMO", "HELD_OUT", "GENERATED", "EVAL_SETS", "TABLETOP", "RANDOM_MOTION")


def test_no_block_of_any_run_meets_another_one_or_a_single_range():
    blocks = [range(one.first, one.end) for one in (getattr(seeds, name) for name in SINGLE)]
    for run_seed in range(100):
        blocks.append(seeds.demonstrations(run_seed))
        blocks.append(seeds.refinement(run_seed))
        blocks += [seeds.rollouts(run_seed, iteration) for iteration in range(10)]
    assert len(blocks) == len(SINGLE) + 100 * 12
    for one, after in pairwise(sorted(blocks, key=lambda block: block.start)):
        assert one.stop <= after.start, (one, after)
    assert blocks[0].start == 0 and max(block.stop for block in blocks) <= 2**32
    assert all(len(block) > 0 and np.random.default_rng(block[-1]) for block in blocks)


def test_every_block_is_within_a_range_of_the_table():
    for run_seed in range(100):
        for block in (seeds.demonstrations(run_seed), seeds.refinement(run_seed), seeds.rollouts(run_seed, 9)):
            assert sum(block[0] in one and block[-1] in one for one in seeds.TABLE) == 1


def test_published_runs_keep_their_numbers():
    """docs/benchmarks.md."""
    assert seeds.demonstrations(0, 50) == range(10_000, 20_000)
    assert [seeds.rollouts(0, iteration, 80).start for iteration in range(3)] == [2_000_000, 2_010_000, 2_020_000]
    assert [seeds.rollouts(run_seed, 1).start for run_seed in (1, 9)] == [2_110_000, 2_910_000]
    assert [seeds.refinement(run_seed) for run_seed in range(3)] == [
        range(first, first + 100_000) for first in (3_000_000, 3_100_000, 3_200_000)
    ]
    assert 20_000 in seeds.TUNING and 20_199 in seeds.TUNING
    assert (seeds.HELD_OUT.first, seeds.HELD_OUT.end) == (1_000_000, 2_000_000)
    assert [seeds.GENERATED.first, seeds.EVAL_SETS.first, seeds.TABLETOP.first, seeds.RANDOM_MOTION.first] == [
        5_000_000,
        6_000_000,
        7_000_000,
        8_000_000,
    ]
    assert (ImproverConfig().eval_seed, EvaluatorConfig().first_seed, QUICK["eval_seed"]) == (
        1_001_000,
        1_000_000,
        900_000,
    )


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: seeds.demonstrations(100), "run seed 100 has no seeds for demonstrations; set a seed from 0 to 99"),
        (lambda: seeds.demonstrations(-1), "run seed -1 has no seeds for demonstrations; set a seed from 0 to 99"),
        (lambda: seeds.rollouts(100, 0), "run seed 100 has no seeds for rollouts; set a seed from 0 to 99"),
        (lambda: seeds.refinement(100), "run seed 100 has no seeds for refinement; set a seed from 0 to 99"),
        (lambda: seeds.rollouts(3, 10), "iteration 10 has no start poses; .* iterations 0 to 9: set fewer iterations"),
        (lambda: seeds.rollouts(3, -1), "iteration -1 has no start poses"),
        (
            lambda: seeds.rollouts(3, 1, 10_001),
            "10001 start poses of an iteration do not fit into seeds 2310000 to 2319999: .* at most 10000; set fewer",
        ),
        (lambda: seeds.demonstrations(0, 10_001), "10001 demonstrations do not fit into seeds 10000 to 19999"),
        (lambda: seeds.GENERATED.take(999_999, 2), "2 start poses from number 999999 on leave the seeds 5000000 to"),
        (lambda: seeds.GENERATED.take(-1, 2), "2 start poses from number -1 on leave the seeds"),
    ],
)
def test_what_leaves_its_block_is_refused(ask, message):
    with pytest.raises(ValueError, match=message):
        ask()


def test_the_last_ones_of_a_block_are_allowed():
    assert len(seeds.rollouts(99, 9, 10_000)) == len(seeds.demonstrations(99, 10_000)) == 10_000
    assert seeds.GENERATED.take(999_998, 2) == range(5_999_998, 6_000_000)


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ((SeedRange(0, 11, "a"), SeedRange(10, 20, "b")), r"seeds 0 to 10 \(a\) and 10 to 19 \(b\) overlap"),
        ((SeedRange(0, 2**32 + 1, "a"),), "not 0 <= first < end"),
        ((SeedRange(-1, 10, "a"),), "not 0 <= first < end"),
        ((SeedRange(0, 25, "a", block=10),), "no whole number of blocks"),
    ],
)
def test_a_table_that_is_wrong_is_refused(ranges, message):
    with pytest.raises(ValueError, match=message):
        check_table(ranges)


@pytest.mark.parametrize(
    ("first", "count", "warned"),
    [(999_000, 1000, False), (999_001, 1000, True), (1_999_999, 1, True), (2_000_000, 9, False), (1_000_000, 0, False)],
)
def test_held_out_seeds_are_warned_of(first, count, warned):
    assert bool(seeds.held_out_warning(first, count)) == warned
    if warned:
        assert "1000000 to 1999999" in seeds.held_out_warning(first, count)


def test_the_commands_that_make_training_data_warn_and_go_on(tmp_path, capsys, monkeypatch):
    from lrm_ros.sim.twin import generate as twin
    from lrm_ros.training.policy import collect
    from lrm_ros.training.reward.data import generate

    done = []
    monkeypatch.setattr(twin, "generate", lambda *words: done.append(words[2]))
    monkeypatch.setattr(generate, "generate", lambda *words: done.append(words[3]) or {})
    figures = {"recorded": 0, "there_before": 0, "out_of_reach": 0, "seconds": 0.0}
    monkeypatch.setattr(collect, "collect", lambda *words: done.append(words[2]) or figures)
    out = ["--out", str(tmp_path)]
    for command, words in ((twin.main, out), (generate.main, [*out, "--source", "twin"]), (collect.main, out)):
        assert command([*words, "--seed", "1000000"]) == 0
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "warning: seeds 1000000 to" in said and "1000000 to 1999999" in said
        assert command(words) == 0
        assert not capsys.readouterr().err
    assert done == [1_000_000, 5_000_000, 1_000_000, 5_000_000, 1_000_000, 0]


def test_the_loop_refuses_settings_that_leave_its_seeds_before_it_begins():
    from lrm_ros.ros.collector import Collector

    for settings, message in (
        ({"seed": 100}, "run seed 100"),
        ({"iterations": 10}, "iteration 10 has no start poses"),
        ({"episodes": 10_001}, "10001 start poses of an iteration"),
        ({"demonstrations": 5000}, "10010 demonstrations do not fit"),
    ):
        with pytest.raises(ValueError, match=message):
            Collector(None, None, None, None, ("front",), ImproverConfig(**settings))


def test_the_commands_of_the_shipped_model_have_seeds_of_their_purpose():
    """lrm_ros/training/reward/train/tiny/train.py says how the shipped model was made and examined."""
    text = (Path(seeds.__file__).parent / "training/reward/train/tiny/train.py").read_text()
    commands = re.sub(r"\\\n\s+", " ", text).splitlines()
    used: list[range] = []
    for line in commands:
        if (seed := re.search(r"--seed (\d+)", line)) and "reward train" not in line:
            training = seeds.GENERATED if "shuffled" in line or "twin_more" in line else seeds.EVAL_SETS
            table = "tabletop" in line or "fixtures" in line
            purpose = seeds.TABLETOP if table else seeds.RANDOM_MOTION if "random" in line else training
            count = re.search(r"--episodes (\d+)", line)
            assert count is not None, line
            seen = range(int(seed[1]), int(seed[1]) + int(count[1]))
            assert purpose.first <= seen.start and seen.stop <= purpose.end, line
            if "shuffled" in line:
                assert not any(seen.start < other.stop and other.start < seen.stop for other in used), line
            used.append(seen)
    assert {seen.start for seen in used} >= {purpose.first for purpose in (seeds.EVAL_SETS, seeds.TABLETOP)}
