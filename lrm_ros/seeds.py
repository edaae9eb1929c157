# SPDX-License-Identifier: Apache-2.0
"""Every range of start-pose seeds and what it is for; no two overlap, so nothing is measured on what was trained on.

A range that is shared by runs is cut into blocks, one a run seed. Run seeds 0 to 99 have blocks for every purpose;
where the first range has no room for all of them, the later runs are in a second one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

LIMIT = 2**32  # ManiSkill and NumPy take seeds below this
ITERATIONS = 10  # of a self-improvement run: numbers 0 to 9
ROLLOUT_BLOCK = 10_000  # start poses of an iteration


@dataclass(frozen=True)
class SeedRange:
    """Seeds [first, end) with one purpose.

    Attributes:
        first: first seed.
        end: one more than the last seed.
        purpose: what the seeds are for.
        block: seeds a run; 0: the range is not cut into blocks.
        first_run: the run seed that has the first block.
    """

    first: int
    end: int
    purpose: str
    block: int = 0
    first_run: int = 0

    def __str__(self) -> str:
        return f"{self.first} to {self.end - 1} ({self.purpose})"

    def __contains__(self, seed: object) -> bool:
        return isinstance(seed, int) and self.first <= seed < self.end

    @property
    def runs(self) -> range:
        """Run seeds that have a block here."""
        return range(self.first_run, self.first_run + (self.end - self.first) // self.block) if self.block else range(0)

    def overlaps(self, first: int, count: int) -> bool:
        """Return whether one of ``count`` seeds from ``first`` on is in this range."""
        return count > 0 and first < self.end and first + count > self.first

    def take(self, offset: int, count: int) -> range:
        """Return ``count`` seeds of this range, the first one ``offset`` after its beginning.

        Raises:
            ValueError: they are not all in the range.
        """
        size = self.end - self.first
        if offset < 0 or count < 0 or offset + count > size:
            raise ValueError(
                f"{count} start poses from number {offset} on leave the seeds {self}; the number of the first must be "
                f"at least 0 and the sum of both at most {size}: ask for fewer"
            )
        return range(self.first + offset, self.first + offset + count)


TRIALS = SeedRange(0, 10_000, "free for trials; defaults of commands")
TUNING = SeedRange(20_000, 30_000, "choosing settings")
QUICK_DEMO = SeedRange(900_000, 1_000_000, "evaluation of the quick demo")
HELD_OUT = SeedRange(1_000_000, 2_000_000, "held out for final evaluations")
GENERATED = SeedRange(5_000_000, 6_000_000, "generated training data of reward models")
EVAL_SETS = SeedRange(6_000_000, 7_000_000, "eval sets of reward models")
TABLETOP = SeedRange(7_000_000, 8_000_000, "generated tabletop training data of reward models")
RANDOM_MOTION = SeedRange(8_000_000, 9_000_000, "generated random motion for reward models")
_DEMONSTRATIONS = (
    SeedRange(10_000, 20_000, "demonstrations of run 0", 10_000),
    SeedRange(10_010_000, 11_000_000, "demonstrations of runs 1 to 99", 10_000, 1),
)
_ROLLOUTS = (
    SeedRange(2_000_000, 3_000_000, "rollouts of runs 0 to 9", ITERATIONS * ROLLOUT_BLOCK),
    SeedRange(21_000_000, 30_000_000, "rollouts of runs 10 to 99", ITERATIONS * ROLLOUT_BLOCK, 10),
)
_REFINEMENT = (
    SeedRange(3_000_000, 5_000_000, "refinements of runs 0 to 19", 100_000),
    SeedRange(32_000_000, 40_000_000, "refinements of runs 20 to 99", 100_000, 20),
)
TABLE = (
    *(TRIALS, TUNING, QUICK_DEMO, HELD_OUT, GENERATED, EVAL_SETS, TABLETOP, RANDOM_MOTION),
    *(*_DEMONSTRATIONS, *_ROLLOUTS, *_REFINEMENT),
)


def check_table(table: Sequence[SeedRange]) -> None:
    """Check that ranges are valid seeds, whole blocks and disjoint.

    Raises:
        ValueError: one is not; names it.
    """
    for one in table:
        if not 0 <= one.first < one.end <= LIMIT or (one.block and (one.end - one.first) % one.block):
            raise ValueError(f"seeds {one}: not 0 <= first < end <= {LIMIT}, or no whole number of blocks")
    for one, after in pairwise(sorted(table, key=lambda each: each.first)):
        if one.end > after.first:
            raise ValueError(f"seeds {one} and {after} overlap")


check_table(TABLE)


def demonstrations(run_seed: int, count: int = 1) -> range:
    """Return the seeds of a run's demonstrations; ``count`` is how many may be needed.

    Raises:
        ValueError: there is no block for this run seed, or it is too small.
    """
    return _fits(_block(_DEMONSTRATIONS, run_seed, "demonstrations"), count, "demonstrations", "demonstrations")


def rollouts(run_seed: int, iteration: int, count: int = 1) -> range:
    """Return the seeds of the rollouts of an iteration; ``count`` is how many start poses may be needed.

    Raises:
        ValueError: there is no block for this run seed and iteration, or it is too small.
    """
    block = _block(_ROLLOUTS, run_seed, "rollouts")
    if not 0 <= iteration < ITERATIONS:
        raise ValueError(
            f"iteration {iteration} has no start poses; those of a run are for iterations 0 to {ITERATIONS - 1}: set "
            "fewer iterations"
        )
    first = block.start + ROLLOUT_BLOCK * iteration
    return _fits(range(first, first + ROLLOUT_BLOCK), count, "start poses of an iteration", "episodes")


def refinement(run_seed: int) -> range:
    """Return the seeds that a refinement draws its start poses from.

    Raises:
        ValueError: there is no block for this run seed.
    """
    return _block(_REFINEMENT, run_seed, "refinement")


def held_out_warning(first: int, count: int) -> str:
    """Return a line for a program that collects or trains on held-out seeds; empty if none of them is."""
    if not HELD_OUT.overlaps(first, count):
        return ""
    return (
        f"seeds {first} to {first + count - 1} meet {HELD_OUT}: a policy or reward model that learns from these "
        "episodes must not be evaluated there"
    )


def _block(ranges: Sequence[SeedRange], run_seed: int, what: str) -> range:
    for one in ranges:
        if run_seed in one.runs:
            first = one.first + one.block * (run_seed - one.first_run)
            return range(first, first + one.block)
    last = ranges[-1].runs[-1]
    raise ValueError(f"run seed {run_seed} has no seeds for {what}; set a seed from {ranges[0].first_run} to {last}")


def _fits(block: range, count: int, what: str, setting: str) -> range:
    if not 0 <= count <= len(block):
        raise ValueError(
            f"{count} {what} do not fit into seeds {block[0]} to {block[-1]}: at least 0 and at most {len(block)}; "
            f"set fewer {setting}"
        )
    return block
